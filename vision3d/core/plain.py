"""Values as JSON can hold them (RFC 8259)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """Tensors and tuples as lists, paths as texts, and None for numbers that are not finite, which JSON has not."""
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
    """JSON of what `plain` makes of a value."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)
