"""Meshes as .obj, .ply and .stl; written through trimesh (extra `mesh`).

Texture coordinates of these files have v pointing up from the lower edge of the image; they are flipped here. STL has only
triangles: corners at equal positions become one vertex. Reading an .obj keeps its vertices, with uvs by corner if there are
seams; writing duplicates vertices there. Several textures become one image. Materials with a color (Kd) and no texture become
vertex colors, or a texture with one block per material if materials share vertices.
"""

import logging
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError, MissingDependencyError, MissingFileError
from vision3d.core.inside import inside
from vision3d.geometry.mesh import weld_vertices
from vision3d.io.images import read_image, write_image
from vision3d.io.mesh_repair import with_finite_values
from vision3d.io.obj_file import parse_obj
from vision3d.io.ply_mesh import read_arrays
from vision3d.io.stl_file import read_triangles
from vision3d.scene.mesh import Mesh
from vision3d.scene.texture_atlas import merge_textured

logger = logging.getLogger("vision3d")

Color = tuple[float, float, float]

SUFFIXES = (".obj", ".ply", ".stl")
_LOST = {".stl": ("normals", "uvs", "texture", "vertex_colors"), ".ply": ("texture",), ".obj": ()}
_PLAIN, _BLOCK = (0.7, 0.7, 0.7), 4  # color of materials without one; side length of a block in texels
_DIGITS = 9  # decimals in OBJ, enough for float32 values below 1


def read_mesh(path: Path | str, *, skip_texture: bool = False) -> Mesh:
    """Read a mesh; polygons become triangles.

    Args:
        path: A .obj, .ply or .stl file.
        skip_texture: Ignore materials and texture, which may then be missing.

    Raises:
        MissingFileError: The file does not exist. (Missing materials and textures are a warning.)
        FileFormatError: It is damaged or has no faces. (Textures of an .obj that cannot be read are a warning.)
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a mesh (.obj, .ply, .stl)")
    suffix = path.suffix.lower()
    if not path.stat().st_size:
        raise FileFormatError(path, "is empty (0 bytes)")
    images, paints = ({}, {}) if suffix != ".obj" or skip_texture else _obj_materials(path)
    with np.errstate(all="ignore"), warnings.catch_warnings():  # non-finite values are detected below
        warnings.simplefilter("ignore", RuntimeWarning)
        if suffix == ".obj":
            mesh = _obj_mesh(path, images, paints)
        else:
            mesh = _stl_mesh(path) if suffix == ".stl" else _ply_mesh(path, skip_texture=skip_texture)
    try:
        return with_finite_values(path, mesh).validate()
    except InputError as error:
        raise FileFormatError(path, str(error)) from error


def write_mesh(path: Path | str, mesh: Mesh, *, materials: str | None = None) -> None:
    """Write a mesh in the format of the suffix atomically; one warning lists what the format cannot store.

    An .obj with a texture gets a .mtl and a .png of the same name next to it, written first. Values are float32 in .ply and
    .stl, decimals with 9 places in .obj; colors are bytes in .ply.

    Args:
        path: A .obj, .ply or .stl file.
        mesh: The mesh.
        materials: Name of an existing .mtl, for an .obj whose mesh has no texture of its own.

    Raises:
        InputError: The mesh is empty or has invalid values, or the suffix is not supported.
        MissingDependencyError: trimesh is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: no mesh format {suffix!r}; want {', '.join(SUFFIXES)}")
    trimesh = _trimesh()
    mesh = mesh.validate().split_seams().to("cpu")
    lost = [name for name in _LOST[suffix] if getattr(mesh, name) is not None]
    if lost:
        logger.warning("%s: a %s file cannot hold %s; dropped", path, suffix, ", ".join(sorted(set(lost))))
    model = trimesh.Trimesh(_array(mesh.vertices), mesh.faces.numpy(), process=False, validate=False)
    if mesh.normals is not None and suffix != ".stl":
        model.vertex_normals = _array(mesh.normals)
    uvs = mesh.uvs if mesh.vertex_colors is not None else None  # of the two, trimesh writes one
    if suffix == ".stl":
        data = trimesh.exchange.stl.export_stl(model)
    elif suffix == ".ply":
        _dress(trimesh, model, mesh, prefer_colors=True)
        if uvs is not None:
            model.vertex_attributes |= dict(zip("st", _flipped(uvs).astype(np.float32).T))
        data = trimesh.exchange.ply.export_ply(model, vertex_normal=mesh.normals is not None)
    else:
        _dress(trimesh, model, mesh, prefer_colors=False)
        text = trimesh.exchange.obj.export_obj(
            model, include_normals=mesh.normals is not None, write_texture=False, digits=_DIGITS, header="written by vision3d"
        )
        lines = [line for line in text.splitlines() if not line.startswith(("mtllib", "usemtl"))]
        if uvs is not None:
            lines = _with_colors(lines, _color_bytes(mesh)[:, :3] / 255)
        if mesh.texture is not None or materials is not None:
            lines[1:1] = [f"mtllib {materials or f'{path.stem}.mtl'}", "usemtl texture"]
        if mesh.texture is not None:
            write_image(path.with_suffix(".png"), mesh.texture)
            with atomic_write(path.with_suffix(".mtl")) as temporary:
                temporary.write_text(f"newmtl texture\nKd 1 1 1\nmap_Kd {path.stem}.png\n", encoding="utf-8")
        data = ("\n".join(lines) + "\n").encode()
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def load(path: Path) -> Mesh:
    """Codec: read a mesh."""
    return read_mesh(path)


def save(path: Path, value: Mesh) -> None:
    """Codec: write a mesh."""
    write_mesh(path, value)


def _trimesh() -> ModuleType:
    try:
        import trimesh
        import trimesh.exchange.obj
        import trimesh.exchange.ply
        import trimesh.exchange.stl
        import trimesh.visual
    except ImportError as error:
        raise MissingDependencyError("trimesh", "mesh", "meshes as .obj, .ply and .stl") from error
    return trimesh


def _bad_line(data: bytes) -> str | None:
    """The first invalid line of an .obj, or None."""
    counts = {b"v": 0, b"vt": 0, b"vn": 0}
    for number, line in enumerate(data.splitlines(), 1):
        words = line.split()
        try:
            if words and words[0] in counts:
                counts[words[0]] += 1
                if len([float(word) for word in words[1:]]) < (2 if words[0] == b"vt" else 3):
                    return f"line {number}"
            elif words and words[0] == b"f":
                if any(word.count(b"/") > 2 for word in words):
                    return f"line {number}"
                for place, text in ((place, text) for word in words[1:] for place, text in enumerate(word.split(b"/"))):
                    if text and not 1 <= abs(int(text)) <= list(counts.values())[place]:
                        return f"line {number}"
        except (ValueError, IndexError):
            return f"line {number}"
    return None


def _obj_mesh(path: Path, images: dict[str, Path], paints: dict[str, Color]) -> Mesh:
    data = path.read_bytes()
    try:
        parsed = parse_obj(data.decode("utf-8", "replace"))
    except (ValueError, OverflowError) as error:
        raise FileFormatError(path, f"is damaged or not an .obj file ({str(error)[:200]!a})", _bad_line(data)) from error
    if not len(parsed.faces):
        raise FileFormatError(path, "has no faces", _bad_line(data))
    if parsed.dropped:
        logger.warning("%s: %d faces with fewer than three corners; dropped", path, parsed.dropped)
    textures = {} if parsed.uvs is None else _textures(path, images)
    images = {name: file for name, file in images.items() if file in textures}
    files, all_have_uvs = sorted(textures), bool(parsed.has_uvs.all())
    uvs = None if parsed.uvs is None or not (files or all_have_uvs) else parsed.uvs
    texture = textures[files[0]] if len(files) == 1 else None
    mesh = Mesh(
        _tensor(parsed.vertices),
        torch.from_numpy(np.ascontiguousarray(parsed.faces)),
        uvs=None if uvs is None else _tensor(np.stack([uvs[..., 0], 1 - uvs[..., 1]], -1)),
        normals=None if parsed.normals is None else _tensor(parsed.normals),
        vertex_colors=None if parsed.colors is None else _colors(parsed.colors),
        texture=texture,
    )
    of_materials = np.array([files.index(images[name]) if name in images else -1 for name in parsed.names])
    of_faces = np.where(parsed.has_uvs, of_materials[parsed.materials], -1)
    plain = np.unique(parsed.materials[of_faces < 0]).tolist()  # materials of faces without an image
    is_painted = parsed.colors is None and any(parsed.names[material] in paints for material in plain)
    if not files and is_painted:
        return _painted(mesh, parsed.materials, np.array([paints.get(name, _PLAIN) for name in parsed.names]))
    if len(files) < 2 and not (files and (is_painted or not all_have_uvs)):
        return mesh
    parts = []
    for number in sorted(set(of_faces[of_faces >= 0].tolist())):
        part = mesh.crop(torch.from_numpy(of_faces == number))
        parts.append(replace(part, texture=textures[files[number]]))
    for material in plain:
        part = mesh.crop(torch.from_numpy((of_faces < 0) & (parsed.materials == material)))
        paint = paints.get(parsed.names[material], _PLAIN) if is_painted else None
        block = None if paint is None else _tensor(np.broadcast_to(np.array(paint), (_BLOCK, _BLOCK, 3)))
        uvs = part.uvs if block is None else torch.full((part.num_vertices, 2), 0.5)
        parts.append(replace(part, texture=block, uvs=uvs))
    return merge_textured(parts)


def _textures(path: Path, images: dict[str, Path]) -> dict[Path, Tensor]:
    """The images that can be read; others are logged as a warning."""
    found = {}
    for file in sorted(set(images.values())):
        try:
            found[file] = read_image(file)
        except FileFormatError as error:
            logger.warning("%s: read without a texture: %s", path, error)
    return found


def _painted(mesh: Mesh, materials: np.ndarray, colors: np.ndarray) -> Mesh:
    """The mesh in the colors of its materials: vertex colors, or a texture of blocks if vertices have several."""
    of_vertices = np.zeros(mesh.num_vertices, np.int64)
    faces = mesh.faces.numpy()
    of_vertices[faces] = materials[:, None]
    shown = colors[of_vertices]
    if (shown[faces] == colors[materials][:, None]).all():
        return replace(mesh, vertex_colors=_tensor(shown))
    texture = np.broadcast_to(colors.repeat(_BLOCK, 0), (_BLOCK, len(colors) * _BLOCK, 3))
    uvs = np.stack([(materials + 0.5) / len(colors), np.full(len(materials), 0.5)], -1)
    return replace(mesh, texture=_tensor(texture), uvs=_tensor(uvs)[:, None].repeat(1, 3, 1))


def _stl_mesh(path: Path) -> Mesh:
    corners = torch.from_numpy(read_triangles(path, path.read_bytes()))
    if not len(corners):
        raise FileFormatError(path, "has no faces")
    vertices, faces, _ = weld_vertices(corners.view(-1, 3), torch.arange(3 * len(corners)).view(-1, 3), 0.0)
    return Mesh(vertices, faces)


def _ply_mesh(path: Path, *, skip_texture: bool) -> Mesh:
    found = read_arrays(path)
    if not len(found["faces"]):
        raise FileFormatError(path, "has no faces")
    texture, uvs = None, found.get("uvs")
    if "texture" in found and uvs is not None and not skip_texture:
        image = _beside(path, found["texture"])
        if image is None:
            logger.warning("%s: its texture %s is missing; read without it", path, found["texture"])
        else:
            texture = _textures(path, {"": image}).get(image)
    return Mesh(
        torch.from_numpy(found["vertices"]),
        torch.from_numpy(np.ascontiguousarray(found["faces"])),
        uvs=None if uvs is None else _tensor(np.stack([uvs[..., 0], 1 - uvs[..., 1].astype(np.float64)], -1)),
        normals=None if "normals" not in found else torch.from_numpy(found["normals"]),
        vertex_colors=None if "colors" not in found else _colors(found["colors"]),
        texture=texture,
    )


def _colors(colors: np.ndarray) -> Tensor:
    values = colors.astype(np.float32) / (255 if colors.dtype.kind in "iu" else 1)
    if values.shape[1] == 4 and (values[:, 3] == 1).all():
        values = values[:, :3]
    return torch.from_numpy(np.ascontiguousarray(values)).clamp(0, 1)


def _obj_materials(path: Path) -> tuple[dict[str, Path], dict[str, Color]]:
    """Images and colors of the materials of an .obj, by material; missing images are logged as a warning."""
    found: dict[str, Path] = {}
    paints: dict[str, Color] = {}
    for line in _lines(path):
        if not line.startswith("mtllib"):
            continue
        name = line[len("mtllib") :].strip()
        library = _beside(path, name)
        if library is None:
            logger.warning("%s: its materials %s are missing; read without them", path, name)
            continue
        material = ""
        for entry in _lines(library):
            key, _, rest = entry.partition(" ")
            if key.lower() == "newmtl":
                material = " ".join(rest.split())
            elif key.lower() == "kd" and (color := _color(rest)) is not None:
                paints[material] = color
            elif key.lower() == "map_kd" and rest.split():
                image = _beside(library, rest.strip())
                if image is None and rest.strip().startswith("-"):  # options come before the name
                    image = _beside(library, rest.split()[-1])
                if image is not None:
                    found[material] = image
                else:
                    logger.warning("%s: its texture %s %s; read without it", path, rest.strip(), _absence(library, rest))
    return found, paints


def _absence(index: Path, name: str) -> str:
    """Why a texture is not read: files elsewhere are not, even where they exist, since others may have written the name."""
    try:
        exists = (index.parent / name.split()[-1]).is_file()
    except (OSError, ValueError):
        exists = False
    return f"is outside its folder (copy it beside {index.name} to use it)" if exists else "is missing"


def _beside(index: Path, name: str) -> Path | None:
    """A file that `index` names, in its folder; of a path elsewhere, as on the author's machine, the file of that name."""
    for wanted in (name, re.split(r"[\\/]", name)[-1]):
        try:
            path = inside(index, wanted)
        except FileFormatError:
            continue
        if wanted and path.is_file():
            return path
    return None


def _color(text: str) -> Color | None:
    """sRGB of three numbers, clamped to [0, 1]; None for spectral and CIE XYZ colors and for invalid text."""
    try:
        red, green, blue = (min(max(float(word), 0.0), 1.0) for word in text.split())
    except ValueError:
        return None
    return None if math.isnan(red + green + blue) else (red, green, blue)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text("utf-8", "replace").splitlines()]


def _dress(trimesh: ModuleType, model: Any, mesh: Mesh, *, prefer_colors: bool) -> None:
    if mesh.vertex_colors is not None and (prefer_colors or mesh.uvs is None):
        model.visual = trimesh.visual.ColorVisuals(model, vertex_colors=_color_bytes(mesh))
    elif mesh.uvs is not None:
        model.visual = trimesh.visual.TextureVisuals(uv=_flipped(mesh.uvs))


def _with_colors(lines: list[str], colors: np.ndarray) -> list[str]:
    """Lines of an .obj with a color after the position of each vertex."""
    values = iter(colors.tolist())
    return [f"{line} {' '.join(f'{v:.{_DIGITS}f}' for v in next(values))}" if line[:2] == "v " else line for line in lines]


def _color_bytes(mesh: Mesh) -> np.ndarray:
    assert mesh.vertex_colors is not None
    return (mesh.vertex_colors.detach().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _flipped(uvs: Tensor) -> np.ndarray:
    """Texture coordinates of files, whose v points up."""
    u, v = uvs.detach().double().numpy().T
    return np.stack([u, 1 - v], -1)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def _array(values: Tensor) -> np.ndarray:
    return values.detach().to(torch.float32).numpy()
