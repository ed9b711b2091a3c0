"""Boxes and selections as .json: {"vision3d": {"type": ..., "version": 1}, ...}."""

import json
from pathlib import Path
from typing import Any

import torch

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.core.plain import from_json
from vision3d.scene.boxes import Boxes
from vision3d.scene.selection import Region, Selection

_VERSION = 1


def type_of(path: Path | str) -> str | None:
    """The type recorded in one of our .json files, "sog" for a meta.json of SOG; None if missing or not JSON.

    Raises:
        MissingFileError: The file does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a .json file")
    try:
        content = from_json(path.read_bytes())
        if "files" in content.get("means", ()):
            return "sog"
        return str(content["vision3d"]["type"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def write(path: Path | str, value: Boxes | Selection) -> None:
    """Write boxes or a selection atomically; floats are preserved bit by bit.

    Raises:
        InputError: A value is invalid.
    """
    value.validate()
    content: dict[str, Any] = {"vision3d": {"type": type(value).__name__.lower(), "version": _VERSION}}
    if isinstance(value, Boxes):
        content["boxes"] = value.boxes.tolist()
        content["labels"] = None if value.labels is None else value.labels.tolist()
        content["scores"] = None if value.scores is None else value.scores.tolist()
        content["classes"] = list(value.classes)
    else:
        content["regions"] = [
            {"kind": r.kind, "center": r.center.tolist(), "size": r.size.tolist(), "quat": r.quat.tolist()}
            for r in value.regions
        ]
        content["combine"] = value.combine
        content["indices"] = None if value.indices is None else value.indices.tolist()
        content["points_hash"] = value.points_hash
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")


def read(path: Path | str) -> Boxes | Selection:
    """Read boxes or a selection.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is neither, has a newer version, or contains invalid values.
    """
    path = Path(path)
    kind = type_of(path)
    if kind not in ("boxes", "selection"):
        text = f"holds {(kind or 'not a file of vision3d')[:40]}, want boxes or a selection"
        raise FileFormatError(path, text, _damage(path) or "vision3d.type")
    content = from_json(path.read_bytes())
    version = content["vision3d"].get("version")
    if version != _VERSION:
        text = f"is version {str(version)[:40]} of {kind}; version {_VERSION} is read"
        raise FileFormatError(path, text, "vision3d.version")
    parts, make = _BOXES if kind == "boxes" else _SELECTION
    values, key = [], ""
    try:
        for key, part in parts.items():
            values.append(part(content.get(key)))
        key = kind
        return make(*values).validate()
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        text = f"is not a valid {kind} ({type(error).__name__}: {str(error).splitlines()[0][:200]})"
        raise FileFormatError(path, text, key) from error


def _damage(path: Path) -> str | None:
    """Position where a file stops being JSON."""
    try:
        from_json(path.read_bytes())
    except json.JSONDecodeError as error:
        return f"line {error.lineno} column {error.colno}"
    except UnicodeDecodeError as error:
        return f"byte {error.start}"
    except ValueError as error:
        return str(error)
    return None


def _region(values: Any) -> Region:
    return Region(values["kind"], _floats(values["center"]), _floats(values["size"]), _floats(values["quat"]))


def _floats(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _optional_whole(values: Any) -> torch.Tensor | None:
    if values is None:
        return None
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise InputError("want a list of whole numbers")
    return torch.tensor(values, dtype=torch.int64)


_BOXES = (
    {
        "boxes": lambda rows: _floats(rows) if rows else torch.tensor(rows, dtype=torch.float32).reshape(-1, 7),
        "labels": _optional_whole,
        "scores": lambda values: None if values is None else _floats(values),
        "classes": lambda names: tuple(str(name) for name in names or ()),
    },
    Boxes,
)
_SELECTION = (
    {
        "regions": lambda found: tuple(_region(values) for values in found),
        "combine": lambda text: text,
        "indices": _optional_whole,
        "points_hash": lambda text: str(text or ""),
    },
    Selection,
)
