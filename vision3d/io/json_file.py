"""Codec of .json: photos with cameras, cameras alone, boxes, selections, and the meta.json of SOG."""

from pathlib import Path
from typing import Any

from vision3d.core.errors import InputError
from vision3d.io import json_types, sog, transforms_json
from vision3d.io.dataset import load_dataset
from vision3d.scene.boxes import Boxes
from vision3d.scene.cameras import Cameras
from vision3d.scene.selection import Selection

read_cameras = transforms_json.read_cameras


def load(path: Path) -> object:
    """Codec: read the photos that a file lists, or its cameras if vision3d wrote them without photos.

    Our files with boxes or a selection, and a meta.json of SOG, are recognized.
    """
    kind = json_types.type_of(path)
    if kind == "sog":
        return sog.load(path)
    if kind in ("boxes", "selection"):
        return json_types.read(path)
    if not transforms_json.has_photographs(path):
        return read_cameras(path)
    return load_dataset(path)


def save(path: Path, value: Any) -> None:
    """Codec: write cameras, boxes or a selection, or Gaussians as a meta.json of SOG."""
    if isinstance(value, Boxes | Selection):
        return json_types.write(path, value)
    if isinstance(value, Cameras):
        return transforms_json.write_cameras(path, value)
    if path.name.lower() != "meta.json":
        raise InputError(f"{path}: Gaussians as .json are a SOG folder, whose file is called meta.json; or want .ply")
    sog.save(path, value)
