"""Boxes and selections as .json: {"vision3d": {"type": ..., "version": 1}, ...}."""

import json
from pathlib import Path
from typing import Any

import torch

from vision3d.atomic import atomic_write
from vision3d.errors import FileFormatError, InputError, MissingFileError
from vision3d.scene.boxes import Boxes
from vision3d.scene.selection import Region, Selection

_VERSION = 1


def type_of(path: Path | str) -> str | None:
    """The type that a .json of ours says it holds, "sog" for a meta.json of SOG; None where it says nothing, or is no JSON.

    Raises:
        MissingFileError: There is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a .json file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "files" in content.get("means", ()):
            return "sog"
        return str(content["vision3d"]["type"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def write(path: Path | str, value: Boxes | Selection) -> None:
    """Write boxes or a selection, whole or not at all; floats come back with the same bits.

    Raises:
        InputError: A value is wrong.
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
        MissingFileError: There is no such file.
        FileFormatError: It is neither, is of a newer version, or holds values that make no sense.
    """
    path = Path(path)
    kind = type_of(path)
    if kind not in ("boxes", "selection"):
        raise FileFormatError(path, f"holds {kind or 'nothing of vision3d'}, want boxes or a selection")
    content = json.loads(path.read_text(encoding="utf-8"))
    version = content["vision3d"].get("version")
    if version != _VERSION:
        raise FileFormatError(path, f"is version {version!r} of {kind}; version {_VERSION} is read")
    try:
        return (_boxes(content) if kind == "boxes" else _selection(content)).validate()
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise FileFormatError(path, f"is no valid {kind} ({type(error).__name__}: {str(error).splitlines()[0]})") from error


def _boxes(content: dict[str, Any]) -> Boxes:
    return Boxes(
        torch.tensor(content["boxes"], dtype=torch.float32).reshape(-1, 7)
        if not content["boxes"]
        else _floats(content["boxes"]),
        _optional_whole(content.get("labels")),
        None if content.get("scores") is None else _floats(content["scores"]),
        tuple(str(name) for name in content.get("classes", ())),
    )


def _selection(content: dict[str, Any]) -> Selection:
    regions = [Region(r["kind"], _floats(r["center"]), _floats(r["size"]), _floats(r["quat"])) for r in content["regions"]]
    return Selection(
        tuple(regions), content["combine"], _optional_whole(content.get("indices")), str(content.get("points_hash", ""))
    )


def _floats(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _optional_whole(values: Any) -> torch.Tensor | None:
    if values is None:
        return None
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise InputError("want a list of whole numbers")
    return torch.tensor(values, dtype=torch.int64)
