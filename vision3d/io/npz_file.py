"""Animated meshes as .npz: a motion that other programs can load in one line.

    vertices (T, V, 3) float32   faces (F, 3) int64   times (T,) float64 [s]
    rest (V, 3), uvs, normals, vertex_colors, texture: if the mesh has them; the texture as bytes

`rest` is optional when reading: by default it is the first frame.
"""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.io.guards import NUMPY_ERRORS, check_size
from vision3d.scene.mesh import Mesh
from vision3d.scene.mesh_gaussians import MeshGaussians
from vision3d.scene.sequence import FrameSequence

_EXTRAS = ("uvs", "normals", "vertex_colors")
_NAMES = ("vertices", "faces", "times", "rest", *_EXTRAS, "texture")


def write_sequence(path: Path | str, sequence: FrameSequence) -> None:
    """Write the frames of a mesh, or of the mesh under Gaussians, atomically.

    Raises:
        InputError: No frames, or the base is not a mesh.
    """
    base = sequence.base.mesh if isinstance(sequence.base, MeshGaussians) else sequence.base
    vertices = sequence.vertices().to("cpu", torch.float32)
    assert isinstance(base, Mesh)
    arrays = {"vertices": vertices, "faces": base.faces, "times": sequence.times.double(), "rest": base.vertices.float()}
    arrays |= {name: value.float() for name in _EXTRAS if (value := getattr(base, name)) is not None}
    if base.texture is not None:
        arrays["texture"] = (base.texture.clamp(0, 1) * 255).round().to(torch.uint8)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        plain: dict[str, Any] = {name: value.detach().cpu().numpy() for name, value in arrays.items()}
        np.savez(file, **plain)


def read_sequence(path: Path | str) -> FrameSequence:
    """Read the frames of a mesh.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, contains Python objects, or lacks consistent vertices, faces and times.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "frames of a mesh (.npz)")
    found = _arrays(path)
    missing = [name for name in ("vertices", "faces", "times") if name not in found]
    if missing:
        raise FileFormatError(
            path, f"has no {' and '.join(missing)}; want vertices (T, V, 3), faces (F, 3), times (T,)", "arrays"
        )
    for name, values in found.items():
        if values.dtype.kind not in "fiu":
            raise FileFormatError(path, f"is of {values.dtype}, want numbers", name)
    vertices, faces, times = (found[name] for name in ("vertices", "faces", "times"))
    if vertices.ndim != 3 or vertices.shape[2] != 3 or not len(vertices):
        raise FileFormatError(path, f"has shape {vertices.shape}, want (T, V, 3)", "vertices")
    try:
        with np.errstate(all="ignore"):  # non-finite values are detected below
            frames = torch.from_numpy(vertices.astype(np.float32))
            parts = {name: torch.from_numpy(found[name].astype(np.float32)) for name in _EXTRAS if name in found}
            if "texture" in found:
                share = 255 if found["texture"].dtype.kind in "iu" else 1
                parts["texture"] = torch.from_numpy((found["texture"] / share).astype(np.float32))
            rest = torch.from_numpy(found["rest"].astype(np.float32)) if "rest" in found else frames[0]
            mesh = Mesh(rest, torch.from_numpy(faces.astype(np.int64)), **parts)
            return FrameSequence(mesh, torch.from_numpy(times.astype(np.float64)), {"vertices": frames}).validate()
    except InputError as error:
        raise FileFormatError(path, str(error), "arrays") from error


def load(path: Path) -> FrameSequence:
    """Codec: read the frames of a mesh."""
    return read_sequence(path)


def save(path: Path, value: FrameSequence) -> None:
    """Codec: write the frames of a mesh."""
    write_sequence(path, value)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays with known names, after a check of their sizes."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_size(path, sum(entry.file_size for entry in archive.infolist()), path.stat().st_size, "its zip")
            names = {name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")}
            found = {}
            for name in (name for name in _NAMES if name in names):
                with archive.open(f"{name}.npy") as file:
                    _check_header(path, name, file, archive.getinfo(f"{name}.npy").file_size)
                with archive.open(f"{name}.npy") as file:
                    found[name] = np.lib.format.read_array(file, allow_pickle=False)
            return found
    except FileFormatError:
        raise
    except NUMPY_ERRORS as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise FileFormatError(path, f"is not an .npz of numbers ({text[:120]!a})", "its zip") from error


def _check_header(path: Path, name: str, file: Any, size: int) -> None:
    """Raise an error, before allocating, if the header of an array declares more data than the file has."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise FileFormatError(path, f"is version {version} of .npy, want 1 or 2", name)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if math.prod(shape) * dtype.itemsize > size:
        raise FileFormatError(path, f"declares shape {shape} of {dtype}, in {size} bytes", name)
