"""Values to JSON and back (RFC 8259)."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_MAX_DEPTH, _MAX_DIGITS = 100, 308


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


def from_json(text: str | bytes) -> Any:
    """The value of JSON from a file of unknown origin.

    Raises:
        ValueError: It is not JSON or not UTF-8, an integer is larger than any float, or lists and objects are nested so deep
            that functions that walk them would run out of stack.
    """
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels") from None
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [item for part in level for item in _parts(part) if isinstance(item, dict | list)]
        if not level:
            return value
    raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"an integer has {len(digits.lstrip('-'))} digits, want at most {_MAX_DIGITS}")
    return int(digits)
