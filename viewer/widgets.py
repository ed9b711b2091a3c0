"""Open3D widgets in a common style, whose callbacks never raise into Open3D's loop."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from vision3d.core.errors import Vision3DError

logger = logging.getLogger("vision3d.view")


def guarded(callback: Callable[..., Any], otherwise: Any, say: Callable[[str], None]) -> Callable[..., Any]:
    """Wraps a callback for Open3D: if it raises, it returns `otherwise` and reports the error.

    An exception in Open3D's loop would crash the process.
    """

    def call(*arguments: Any) -> Any:
        try:
            return callback(*arguments)
        except Vision3DError as error:
            say(str(error))
        except Exception as error:
            logger.debug("in the window", exc_info=True)
            say(f"internal error: {type(error).__name__}: {error}")
        return otherwise

    return call


def shortened(text: str, width: int) -> str:
    """A text of at most `width` characters (at least 8), with dots in place of its middle."""
    width = max(width, 8)
    if len(text) <= width:
        return text
    tail = (width - 3) // 3
    return f"{text[: width - 3 - tail]}...{text[len(text) - tail :]}"


class Widgets:
    """Creates widgets.

    Args:
        gui: The module `open3d.visualization.gui`.
        em: Size of the text [px].
        say: Receives errors of callbacks.
    """

    def __init__(self, gui: Any, em: float, say: Callable[[str], None]) -> None:
        self.gui, self.em, self._say = gui, em, say

    def on(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """The callback, guarded."""
        return guarded(callback, None, self._say)

    def section(self, parent: Any, title: str, is_open: bool) -> Any:
        """A collapsible box in `parent`."""
        em = self.em
        box = self.gui.CollapsableVert(
            title, round(0.35 * em), self.gui.Margins(round(0.6 * em), round(0.3 * em), round(0.7 * em), 0)
        )
        box.set_is_open(is_open)
        parent.add_child(box)
        return box

    def row(self, box: Any, *widgets: Any) -> None:
        """Places widgets side by side in a box."""
        row = self.gui.Horiz(round(0.4 * self.em))
        for widget in widgets:
            row.add_child(self.lowered(widget) if isinstance(widget, self.gui.Label) else widget)
        row.add_stretch()
        box.add_child(row)

    def lowered(self, label: Any) -> Any:
        """A label aligned with the text of a button next to it."""
        box = self.gui.Vert(0, self.gui.Margins(0, round(0.22 * self.em), 0, 0))
        box.add_child(label)
        return box

    def button(self, text: str, action: Callable[[], Any]) -> Any:
        """A button with an action."""
        button = self.gui.Button(text)
        button.horizontal_padding_em, button.vertical_padding_em = 0.5, 0.1
        button.set_on_clicked(self.on(action))
        return button

    def slider(self, low: float, high: float, value: float, changed: Callable[[float], None]) -> Any:
        """A slider between two numbers."""
        slider = self.gui.Slider(self.gui.Slider.DOUBLE)
        slider.set_limits(low, high)
        slider.double_value = value
        slider.set_on_value_changed(self.on(changed))
        return slider

    def choice(self, texts: Sequence[str], index: int, chosen: Callable[[str], None]) -> Any:
        """A drop-down list of texts, initially at `index`."""
        box = self.gui.Combobox()
        for text in texts:
            box.add_item(text)
        box.selected_index = index
        box.set_on_selection_changed(self.on(lambda text, index: chosen(text)))
        return box
