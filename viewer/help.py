"""Mouse and keys of the window, as a dialog."""

from collections.abc import Callable
from typing import Any

from vision3d.viewer.widgets import Widgets

HELP = {
    "Mouse": {
        "left drag": "orbit",
        "right, middle, Shift drag": "pan",
        "Ctrl drag": "look around",
        "wheel": "zoom",
        "click": "pick a Gaussian, vertex, point or camera",
        "double click": "set the orbit center",
    },
    "Keys": {
        "W A S D, Q E": "fly; down, up",
        "arrows": "orbit",
        "Home": "reset the view",
        "C": "show or hide cameras",
        "N P": "next, previous camera",
        "Space": "play or pause",
        ", .": "previous, next frame",
        "K": "add the view to the camera path",
        "L": "play the camera path, stop",
        "X": "screenshot",
        "V": "record a video, stop",
        "Esc": "close a dialog, stop playing",
        "Ctrl Q": "close the window",
    },
}
"""Mouse and keys: what each does, by section."""
_WIDE_EM = 60  # width of a window in which both tables fit side by side


def help_dialog(make: Widgets, width: float, close: Callable[[], None]) -> Any:
    """Creates a dialog with a table for each section of `HELP`.

    Args:
        make: Creates its widgets.
        width: Width of the window [px].
        close: Called by its button.
    """
    gui, em = make.gui, make.em
    # A dialog higher than the window gets a scroll bar, which covers its right margin.
    box = gui.Vert(0, gui.Margins(round(em), round(0.5 * em), round(2 * em), round(0.5 * em)))
    sections = gui.Horiz(round(2 * em)) if width > _WIDE_EM * em else gui.Vert()
    for title, rows in HELP.items():
        section = gui.Vert(round(0.2 * em))
        section.add_child(gui.Label(title))
        table = gui.VGrid(2, round(0.1 * em), gui.Margins(round(em), 0, 0, 0))
        for words in rows.items():
            for text in words:
                table.add_child(gui.Label(text))
        section.add_child(table)
        sections.add_child(section)
    box.add_child(sections)
    row = gui.Horiz()
    row.add_stretch()
    row.add_child(make.button("Close", close))
    box.add_child(row)
    dialog = gui.Dialog("Mouse and keys")
    dialog.add_child(box)
    return dialog
