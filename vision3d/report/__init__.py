"""Pictures of results: renders as files, contact sheets, curves."""

import importlib
from typing import TYPE_CHECKING

_PUBLIC = {
    "write_renders": "vision3d.report.renders",
}

__all__ = ["write_renders"]

if TYPE_CHECKING:
    from vision3d.report.renders import write_renders


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'vision3d.report' has no attribute {name!r}")
