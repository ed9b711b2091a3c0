"""Models of the Debian package sweethome3d-furniture as further objects; they are read from its .sh3f files, never bundled."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision3d.core.errors import MissingFileError
from vision3d.io.furniture import FurnitureArchive, FurnitureItem, find_furniture
from vision3d.render.lidar.casting import Shape
from vision3d.render.lidar.materials import INDEX

CHOSEN: dict[str, dict[str, tuple[int, ...]]] = {
    "Scopia": {
        "Car": (59, 168, 249, 250, 252),
        "Van": (251,),
        "Truck": (212,),
        "Pedestrian": (348, 349),
        "motorcycle": (173, 248),
        "tree": (366, 388),
        "pole": (8, 272),
    },
    "KatorLegaz": {"Car": (59, 75, 69), "Pedestrian": (62, 64), "clutter": (16, 18, 22, 79), "motorcycle": (66,)},
    "Reallusion": {"Pedestrian": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 22, 25)},
    "BlendSwap-CC-0": {"clutter": (25, 162, 163)},
    "BlendSwap-CC-BY": {"clutter": (66,)},
}
"""Name of the .sh3f -> kind of the library -> numbers in its catalogue."""
VALIDATION_MAKER = "KatorLegaz"
"""The models of this maker are in val only, those of all others in train only."""
_GLASS = re.compile(r"glass|window|vitre|windshield", re.IGNORECASE)


@dataclass(frozen=True)
class Credit:
    """The creator of a model."""

    archive: str
    name: str
    creator: str


def load_models(folder: Path, split: str) -> tuple[dict[str, list[Shape]], list[Credit]]:
    """Shapes of a split by kind of the library, and their creators.

    Args:
        folder: Contains .sh3f files, at any depth.
        split: `train` or `val`.

    Raises:
        MissingFileError: The folder does not exist, or has no .sh3f file with chosen models.
        FileFormatError: An archive is damaged or lacks a model.
    """
    archives = find_furniture(folder)
    if not set(archives) & set(CHOSEN):
        raise MissingFileError(folder, f"a folder with the unpacked .sh3f files {', '.join(CHOSEN)} of sweethome3d-furniture")
    shapes: dict[str, list[Shape]] = {}
    credit: list[Credit] = []
    for name, kinds in CHOSEN.items():
        if name not in archives or (name == VALIDATION_MAKER) != (split == "val"):
            continue
        for kind, numbers in kinds.items():
            for number in numbers:
                item = archives[name][number]
                shapes.setdefault(kind, []).append(_model(archives[name], item, kind))
                credit.append(Credit(name, item.name, item.creator))
    return shapes, credit


def _model(archive: FurnitureArchive, item: FurnitureItem, kind: str) -> Shape:
    """A model in metres, z up, front +x, standing on z = 0 around the origin, of the size in the catalogue."""
    points, faces, used = archive.triangles(item)
    _, length, height = item.size
    is_body = points[:, 2] < 0.55 * height if kind in ("Car", "Van", "Truck") else np.ones(len(points), bool)
    width = float(np.ptp(points[is_body, 1]))  # without mirrors
    info = {"family": f"{kind} model", "size": (length, width, height), "center": (0.0, 0.0, height / 2)}
    return Shape.of(points, faces, _materials(used, kind), **info, radius=max(length, width) / 2)


_MAIN = {
    "Car": "paint",
    "Van": "paint",
    "Truck": "paint",
    "motorcycle": "paint",
    "Pedestrian": "cloth",
    "tree": "leaf",
    "hedge": "leaf",
}


def _materials(used: list[str], kind: str) -> np.ndarray:
    """Materials of faces by the names in the file; only vehicles have glass."""
    main = INDEX[_MAIN.get(kind, "metal")]
    is_vehicle = kind in ("Car", "Van", "Truck")
    named = {name: INDEX["glass"] if is_vehicle and _GLASS.search(name) else main for name in set(used)}
    for name in named:
        if is_vehicle and re.search(r"ti?yre|tire|wheel|rubber", name, re.IGNORECASE):
            named[name] = INDEX["tyre"]
    return np.array([named[name] for name in used], np.uint8)
