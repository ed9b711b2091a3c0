"""Output of a verb: log lines on standard error, the final summary on standard output."""

import logging
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from vision3d.cli.options import VerbOptions
from vision3d.core.plain import to_json


def set_up_output(options: VerbOptions) -> None:
    """Show the library's log lines and warnings according to --quiet and --verbose."""
    logger = logging.getLogger("vision3d")
    logger.handlers = [_Handler()]
    logger.propagate = False
    logger.setLevel(logging.WARNING if options.quiet else logging.DEBUG if options.verbose else logging.INFO)

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        place = f"{filename}:{lineno}: {category.__name__}: " if options.verbose else ""
        logger.warning("%s%s", place, " ".join(str(message).split()))

    warnings.showwarning = show


def print_summary(options: VerbOptions, text: str, values: Mapping[str, Any]) -> None:
    """Print the summary of a verb: `text` unless --quiet, and `values` as a line of JSON with --json."""
    if not options.quiet:
        print(text)
    if options.json:
        print(to_json({"ok": True, **values}))


def now_open(out: Path, names: Mapping[str, str]) -> list[str]:
    """The end of a summary: those files of `names` that exist in a run folder."""
    found = {str(out / name): text for name, text in names.items() if (out / name).exists()}
    width = max(map(len, found), default=0)
    return ["", "now open", *(f"  {path:{width}}  {text}" for path, text in found.items())]


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`, since a progress bar replaces it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(_Formatter())

    @property
    def stream(self) -> TextIO:
        return sys.stderr


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text
