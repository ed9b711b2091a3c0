"""Models of the Debian package sweethome3d-furniture as further objects; they are read from its .sh3f files, never bundled.

Unpack the package with `dpkg-deb -x sweethome3d-furniture_*.deb FOLDER`. The models are under CC0, CC BY 3.0 and CC BY 3.0 US:
`credits` lists the creators to name.
"""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
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
_MAX_BYTES = 64 << 20
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
    archives = {path.stem: path for path in sorted(folder.rglob("*.sh3f"))} if folder.is_dir() else {}
    if not set(archives) & set(CHOSEN):
        raise MissingFileError(folder, f"a folder with the unpacked .sh3f files {', '.join(CHOSEN)} of sweethome3d-furniture")
    shapes: dict[str, list[Shape]] = {}
    credit: list[Credit] = []
    for name, kinds in CHOSEN.items():
        if name not in archives or (name == VALIDATION_MAKER) != (split == "val"):
            continue
        try:
            with zipfile.ZipFile(archives[name]) as archive:
                catalogue = _catalogue(archive)
                for kind, numbers in kinds.items():
                    for number in numbers:
                        item = catalogue[number]
                        shapes.setdefault(kind, []).append(_model(archive, item, kind))
                        credit.append(Credit(name, item["name"], item.get("creator", name)))
        except (zipfile.BadZipFile, KeyError, ValueError, IndexError, InputError) as error:
            raise FileFormatError(archives[name], f"is not an archive of sweethome3d-furniture 1.8 ({error})") from error
    return shapes, credit


def _catalogue(archive: zipfile.ZipFile) -> dict[int, dict[str, str]]:
    items: dict[int, dict[str, str]] = {}
    text = _read(archive, "PluginFurnitureCatalog.properties").decode("latin-1")
    for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", text, re.MULTILINE):
        items.setdefault(int(number), {})[key] = value.strip()
    return items


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MAX_BYTES:
        raise ValueError(f"{name} has more than {_MAX_BYTES >> 20} MiB")
    return archive.read(name)


def _model(archive: zipfile.ZipFile, item: dict[str, str], kind: str) -> Shape:
    """A model in metres, z up, front +x, standing on z = 0 around the origin, of the size in the catalogue."""
    path = item["model"].lstrip("/")
    vertices, faces, used = _obj(_read(archive, path).decode("latin-1"))
    rotation = np.array(item.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), float).reshape(3, 3)
    vertices = vertices[np.unique(faces, return_inverse=True)[0]] @ rotation.T
    faces = np.unique(faces, return_inverse=True)[1].reshape(-1, 3)
    low, high = vertices.min(0), vertices.max(0)
    size = np.array([float(item[key]) for key in ("width", "height", "depth")]) / 100
    fitted = (vertices - (low + high) / 2) / np.maximum(high - low, 1e-9) * size
    # OBJ: y up, front +z; the left of someone who looks along +z is +x
    points = np.stack([fitted[:, 2], fitted[:, 0], fitted[:, 1] + size[1] / 2], 1)
    is_body = points[:, 2] < 0.55 * size[1] if kind in ("Car", "Van", "Truck") else np.ones(len(points), bool)
    width = float(np.ptp(points[is_body, 1]))  # without mirrors
    box = (float(size[2]), width, float(size[1]))
    info = {"family": f"{kind} model", "size": box, "center": (0.0, 0.0, box[2] / 2), "radius": max(box[:2]) / 2}
    return Shape.of(points, faces, _materials(used, kind), **info)


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


def _obj(text: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Vertices, triangles, and the name of the material of each triangle."""
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    used: list[str] = []
    material = ""
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "v":
            vertices.append([float(value) for value in rest.split()[:3]])
        elif word == "usemtl":
            material = rest.strip()
        elif word == "f":
            corners = [int(corner.partition("/")[0]) for corner in rest.split()]
            corners = [corner - 1 if corner > 0 else len(vertices) + corner for corner in corners]
            for i in range(1, len(corners) - 1):
                faces.append((corners[0], corners[i], corners[i + 1]))
                used.append(material)
    if not faces:
        raise ValueError("a model has no faces")
    return np.array(vertices), np.array(faces), used
