"""Conversion of values to JSON (RFC 8259)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """Tensors and tuples become lists, paths become strings, and non-finite numbers, which JSON lacks, become None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def to_json(value: Any, *, indent: int | None = None, ascii_only: bool = True) -> str:
    """JSON of the result of `plain`."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)
