"""Edits by text of a window: in the background, so that it stays responsive."""

import threading

from vision3d.core.errors import InputError, Vision3DError
from vision3d.scene import Selection
from vision3d.viewer.editing import TextEdits
from vision3d.viewer.session import Session


class SessionEdits:
    """Edits of what is selected in a session.

    Args:
        session: Its status line shows results, also errors.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.edits = session, TextEdits(session.layers)
        self._thread: threading.Thread | None = None

    def apply(self, text: str) -> None:
        """Starts to change what is in the regions, or else the layer that was clicked, or the only visible one.

        Raises:
            InputError: Another edit is running.
        """
        if self._thread is not None and self._thread.is_alive():
            raise InputError("another edit is running; wait until it is done")
        session = self.session
        picked = None if session.picked is None else session.picked.layer
        session.say("editing ...")
        self._thread = threading.Thread(
            target=self._apply, args=(text, Selection(session.regions), picked, session.time), name="edit", daemon=True
        )
        self._thread.start()

    def undo(self) -> str:
        """Undoes the last edit; returns what was undone.

        Raises:
            InputError: There is nothing to undo, or an edit is running.
        """
        done = self.edits.undo()
        self.session.request(is_moving=False)
        return done

    def save(self) -> str:
        """Writes the edited layers into the folder of the session; returns their paths.

        Raises:
            InputError: Nothing was edited.
        """
        return ", ".join(map(str, self.edits.write(self.session.out)))

    def wait(self) -> None:
        """Waits until no edit is running."""
        if self._thread is not None:
            self._thread.join()

    def _apply(self, text: str, selection: Selection, picked: str | None, moment: float) -> None:
        try:
            self.session.say(self.edits.apply(text, selection, picked=picked, moment=moment))
        except Vision3DError as error:
            self.session.say(str(error))
        except Exception as error:  # nobody else would report it
            self.session.say(f"internal error: {type(error).__name__}: {error}")
        self.session.request(is_moving=False)
