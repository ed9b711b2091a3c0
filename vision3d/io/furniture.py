"""Models of the Debian package sweethome3d-furniture: catalogues and meshes in .sh3f archives.

Unpack the package with `dpkg-deb -x sweethome3d-furniture_*.deb FOLDER`. The models are under the licenses of `LICENSES`; name
their creators wherever something made from them is published.
"""

import contextlib
import logging
import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.io.mesh_files import read_mesh
from vision3d.io.obj_file import parse_obj
from vision3d.scene.mesh import Mesh

LICENSES = {
    "BlendSwap-CC-0": "CC0",
    "BlendSwap-CC-BY": "CC BY 3.0",
    "KatorLegaz": "CC BY 3.0 US",
    "Reallusion": "CC BY 3.0 US",
    "Scopia": "CC BY 3.0",
}
"""Name of the archive, without .sh3f -> license of its models."""
_CATALOGUE = "PluginFurnitureCatalog.properties"
_MAX_BYTES = 64 << 20
_SUFFIXES = (".obj", ".mtl", ".jpg", ".jpeg", ".png", ".bmp", ".gif")


@dataclass(frozen=True)
class FurnitureItem:
    """A model in the catalogue of an archive."""

    archive: str
    """Name of the archive, without .sh3f."""
    number: int
    """In the catalogue, from 1."""
    name: str
    category: str
    creator: str
    size: tuple[float, float, float]
    """Width, depth, height [m]."""
    path: str
    """Of the .obj in the archive."""
    rotation: tuple[float, ...]
    """(9,) rows of a rotation of the file, before it is scaled to `size`."""

    @property
    def license(self) -> str:
        return LICENSES.get(self.archive, "see the archive")


@dataclass(frozen=True)
class FurnitureArchive:
    """An archive and its catalogue."""

    path: Path

    @cached_property
    def items(self) -> dict[int, FurnitureItem]:
        """By number.

        Raises:
            FileFormatError: The archive is damaged, or its catalogue has missing or invalid values.
        """
        values: dict[int, dict[str, str]] = {}
        try:
            text = self._read([_CATALOGUE])[_CATALOGUE].decode("latin-1")
            for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", text, re.MULTILINE):
                values.setdefault(int(number), {})[key] = value.strip()
            return {number: self._item(number, found) for number, found in sorted(values.items())}
        except (KeyError, ValueError) as error:
            raise FileFormatError(self.path, f"has no valid catalogue ({str(error)[:200]})") from error

    def __getitem__(self, number: int) -> FurnitureItem:
        if number not in self.items:
            raise FileFormatError(self.path, f"has no model {number}, want sweethome3d-furniture 1.8")
        return self.items[number]

    def triangles(self, item: FurnitureItem) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Vertices (V, 3) [m], triangles (F, 3), and the name of the material of each triangle.

        z is up, the front looks along +x, and the model stands on z = 0, its middle above the origin.

        Raises:
            FileFormatError: The archive is damaged or lacks the model.
        """
        data = self._read([item.path])[item.path]
        try:
            parsed = parse_obj(data.decode("latin-1"))
        except (ValueError, OverflowError) as error:
            raise FileFormatError(self.path, f"{item.path} is damaged ({str(error)[:200]!a})") from error
        if not len(parsed.faces):
            raise FileFormatError(self.path, f"{item.path} has no faces")
        used, faces = np.unique(parsed.faces, return_inverse=True)
        names = [parsed.names[index] for index in parsed.materials]
        return _placed(parsed.vertices[used], item), faces.reshape(-1, 3), names

    def mesh(self, item: FurnitureItem) -> Mesh:
        """The model with its colors or textures, placed as by `triangles`.

        The flaws of the package's files, such as missing textures, are no news and give no warnings.

        Raises:
            FileFormatError: The archive is damaged or lacks the model, or its mesh cannot be read.
        """
        folder = str(PurePosixPath(item.path).parent)
        with zipfile.ZipFile(self.path) as archive:
            names = [name for name in archive.namelist() if str(PurePosixPath(name).parent) == folder]
        wanted = [name for name in names if PurePosixPath(name).suffix.lower() in _SUFFIXES]
        with tempfile.TemporaryDirectory() as temporary:
            for name, data in self._read(wanted).items():
                Path(temporary, PurePosixPath(name).name).write_bytes(data)
            with _without_warnings():
                mesh = read_mesh(Path(temporary, PurePosixPath(item.path).name))
        used = torch.zeros(mesh.num_vertices, dtype=torch.bool)
        used[mesh.faces.flatten()] = True
        points = mesh.vertices.double().numpy()
        low, high = points[used.numpy()].min(0), points[used.numpy()].max(0)
        vertices = torch.from_numpy(_placed(np.clip(points, low, high), item)).float()
        return replace(mesh, vertices=vertices, normals=None)

    def file_sizes(self) -> dict[str, int]:
        """Size of each file in the archive [bytes].

        Raises:
            FileFormatError: The archive is damaged.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                return {info.filename: info.file_size for info in archive.infolist()}
        except zipfile.BadZipFile as error:
            raise FileFormatError(self.path, f"is not an archive of sweethome3d-furniture ({error})") from error

    def _item(self, number: int, values: dict[str, str]) -> FurnitureItem:
        width, depth, height = (float(values[key]) / 100 for key in ("width", "depth", "height"))
        rotation = tuple(float(value) for value in values.get("modelRotation", "1 0 0 0 1 0 0 0 1").split())
        if len(rotation) != 9 or not np.isfinite([width, depth, height, *rotation]).all() or min(width, depth, height) < 0:
            raise ValueError(f"model {number}: size or rotation")
        return FurnitureItem(
            self.path.stem, number, values["name"], values.get("category", ""), values.get("creator", self.path.stem),
            (width, depth, height), values["model"].lstrip("/"), rotation,
        )  # fmt: skip

    def _read(self, names: list[str]) -> dict[str, bytes]:
        """Contents of files.

        Raises:
            FileFormatError: The archive is damaged, or a file is missing or too large.
        """
        try:
            with zipfile.ZipFile(self.path) as archive:
                for name in names:
                    if archive.getinfo(name).file_size > _MAX_BYTES:
                        raise FileFormatError(self.path, f"{name} has more than {_MAX_BYTES >> 20} MiB")
                return {name: archive.read(name) for name in names}
        except (zipfile.BadZipFile, KeyError, RuntimeError, EOFError) as error:
            raise FileFormatError(self.path, f"is not an archive of sweethome3d-furniture ({error})") from error


def find_furniture(folder: Path | str) -> dict[str, FurnitureArchive]:
    """The archives in a folder, at any depth, by name.

    Raises:
        MissingFileError: The folder does not exist or has no .sh3f file.
    """
    folder = Path(folder)
    found = {path.stem: FurnitureArchive(path) for path in sorted(folder.rglob("*.sh3f"))} if folder.is_dir() else {}
    if not found:
        raise MissingFileError(folder, f"a folder with the unpacked .sh3f files {', '.join(LICENSES)} of sweethome3d-furniture")
    return found


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("vision3d")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _placed(points: np.ndarray, item: FurnitureItem) -> np.ndarray:
    """Rotated as in the catalogue, and scaled along each axis to its size. In the file y is up and the front looks along +z."""
    turned = points @ np.array(item.rotation).reshape(3, 3).T
    low, high = turned.min(0), turned.max(0)
    if not np.isfinite(low).all() or not np.isfinite(high).all():
        raise FileFormatError(Path(f"{item.archive}.sh3f"), f"model {item.number}: a vertex is not finite")
    width, depth, height = item.size
    fitted = (turned - (low + high) / 2) / np.maximum(high - low, 1e-9) * np.array([width, height, depth])
    return np.stack([fitted[:, 2], fitted[:, 0], fitted[:, 1] + height / 2], 1)
