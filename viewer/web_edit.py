"""A text field of the page that edits what is selected, with undo."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vision3d.core.errors import Vision3DError
from vision3d.scene import Selection
from vision3d.viewer.editing import TextEdits
from vision3d.viewer.web_draw import Drawer


class EditTool:
    """An instruction with buttons, in a folder of the page's panel.

    Args:
        server: A `viser.ViserServer`.
        drawer: Draws the layers.
        selection: Returns the current selection.
        moment: Returns the time that is shown [s].
        folder: Folder for edited objects.
    """

    def __init__(
        self, server: Any, drawer: Drawer, selection: Callable[[], Selection], moment: Callable[[], float], folder: Path
    ) -> None:
        self.drawer, self.folder = drawer, folder
        self.edits = TextEdits(drawer.layers, lock=drawer.lock)
        self._selection, self._moment = selection, moment
        gui = server.gui
        with gui.add_folder("Edit by text", order=5, expand_by_default=False):
            self._text = gui.add_text("Instruction", "", hint="make it red; of several layers, that in the selection changes")
            self._apply = gui.add_button("Apply")
            self._undo = gui.add_button("Undo", disabled=True)
            self._save = gui.add_button("Write edited objects", disabled=True)
            self._note = gui.add_markdown("")
        self._apply.on_click(lambda event: self._act(event.client, self.apply))
        self._undo.on_click(lambda event: self._act(event.client, self.undo))
        self._save.on_click(lambda event: self._act(event.client, self.write))

    def apply(self) -> str:
        """Edits what is selected by the text; returns what was done.

        Raises:
            Vision3DError: As for `TextEdits.apply`.
        """
        self._apply.disabled = True
        self._note.content = "editing ..."
        try:
            done = self.edits.apply(self._text.value, self._selection(), moment=self._moment())
        finally:
            self._apply.disabled = False
            self._note.content = ""
        self._redraw()
        return done

    def undo(self) -> str:
        """Undoes the last edit; returns what was undone.

        Raises:
            InputError: There is nothing to undo, or an edit is running.
        """
        done = self.edits.undo()
        self._redraw()
        return done

    def write(self) -> str:
        """Writes the edited objects; returns their paths.

        Raises:
            InputError: Nothing was edited.
        """
        return ", ".join(map(str, self.edits.write(self.folder)))

    def _redraw(self) -> None:
        with self.drawer.lock:
            self.drawer.draw(self._moment())
        self._undo.disabled = self._save.disabled = self.edits.undoable is None

    def _act(self, client: Any, action: Callable[[], str]) -> None:
        try:
            title, body, color = "Edit by text", action(), "green"
        except Vision3DError as error:
            title, body, color = "Not done", str(error), "red"
        if client is not None:
            client.add_notification(title, body, auto_close_seconds=12.0, color=color)
