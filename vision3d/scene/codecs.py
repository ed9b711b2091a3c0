"""Which module reads and writes a file, chosen by its suffix: the one place where `scene` reaches up to `io`.

A codec is a module with `load(path)` and `save(path, value)`; it is imported at first use. Pictures of scenes for
notebooks are found in the same way, in `report`.
"""

import importlib
from pathlib import Path
from types import ModuleType

from vision3d.errors import InputError, MissingFileError

_CODECS = {
    ".ply": "vision3d.io.ply",
    ".splat": "vision3d.io.splat",
    ".spz": "vision3d.io.spz",
    ".ksplat": "vision3d.io.ksplat",
    ".sog": "vision3d.io.sog",
    ".json": "vision3d.io.transforms_json",
    **dict.fromkeys((".glb", ".gltf"), "vision3d.io.gltf"),
    ".bin": "vision3d.io.point_files",
    ".txt": "vision3d.io.kitti",
    ".bvh": "vision3d.io.bvh",
    ".safetensors": "vision3d.io.safetensors_file",
    ".zarr": "vision3d.io.zarr_store",
    ".npz": "vision3d.io.npz_file",
    **dict.fromkeys((".usd", ".usda", ".usdc"), "vision3d.io.usd_file"),
    **dict.fromkeys((".obj", ".stl"), "vision3d.io.mesh_files"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"), "vision3d.io.images"),
}
_FOLDERS = "vision3d.io.dataset"
_FRAMES = "vision3d.io.mesh_frames"
_PREVIEWS = "vision3d.report.preview"
_SUFFIXES = {"GaussianScene": ".ply", "Cameras": ".json", "Mesh": ".glb", "PointCloud": ".ply"}
_SUFFIXES |= {
    "Sequence": ".zarr",
    "MeshGaussians": ".safetensors",
    "Boxes": ".boxes.json",
    "Selection": ".selection.json",
    "Motion": ".bvh",
    "Skin": ".glb",
}


def register(suffix: str, module: str, type_name: str | None = None) -> None:
    """Make `module` the codec of files that end in `suffix`.

    Args:
        suffix: With the dot, as in `.spz`.
        module: Dotted name of a module that has `load(path)` and `save(path, value)`.
        type_name: Name of the type that is written with this suffix when nobody chose one.
    """
    _CODECS[suffix.lower()] = module
    if type_name is not None:
        _SUFFIXES[type_name] = suffix.lower()


def module_for(path: Path | str) -> ModuleType:
    """The codec module of a file name.

    Raises:
        InputError: No codec is known for the suffix.
    """
    path = Path(path)
    name = _CODECS.get(path.suffix.lower())
    if name is None:
        what = repr(path.suffix) if path.suffix else "a name without suffix"
        raise InputError(f"{path}: no codec for {what}; want {', '.join(suffixes())}")
    return importlib.import_module(name)


def suffixes() -> list[str]:
    """The suffixes that have a codec, sorted."""
    return sorted(_CODECS)


def load(path: Path | str) -> object:
    """Read whatever a file or folder holds.

    Args:
        path: A .ply (GaussianScene; Mesh where it has faces; PointCloud where it has neither faces nor colours as
            harmonics), a .glb, .obj or .stl (Mesh), a .bin of KITTI (PointCloud), a .txt of KITTI (Boxes), a .bvh (Motion),
            a .json of ours (Boxes, Selection), a .safetensors (MeshGaussians), a transforms.json or a folder of posed
            photographs (PosedImages), a cameras.json without the pictures that it names beside it (Cameras), a folder with
            scene.json (Scene) or with the meta.json of SOG (GaussianScene), a .zarr folder, or a .npz or a folder of a mesh's
            frames (Sequence), or a picture (a tensor).

    Raises:
        MissingFileError: There is nothing at `path`.
        InputError: It cannot be read.

    Example:
        >>> scene = load("scene.ply")
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(path)
    if path.is_dir():
        if (path / "scene.json").is_file():
            from vision3d.scene.scene import Scene

            return Scene.load(path)
        if (path / "frames.json").is_file():
            return importlib.import_module(_FRAMES).read_frames(path)
        if (path / ".zgroup").is_file() or path.suffix.lower() == ".zarr":
            return importlib.import_module(_CODECS[".zarr"]).load(path)
        if (path / "meta.json").is_file() and not (path / "transforms.json").is_file():
            return importlib.import_module(_CODECS[".sog"]).load(path)
        return importlib.import_module(_FOLDERS).load(path)
    return module_for(path).load(path)


def save(path: Path | str, value: object) -> None:
    """Write `value` in the format of the suffix of `path`, whole or not at all."""
    module_for(path).save(Path(path), value)


def check_folder_name(path: Path | str, what: str) -> None:
    """Refuse the name of a file for what is written as a folder.

    Raises:
        InputError: The suffix is that of a file format.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _CODECS and not Path(path).is_dir():
        raise InputError(f"{path}: {what} is written as a folder, and {suffix} is a file format; want a name without it")


def save_folder(path: Path | str, value: object) -> None:
    """Write a value that is a folder of files.

    Raises:
        InputError: The name is that of a file.
    """
    check_folder_name(path, kind_of(value))
    importlib.import_module(_FOLDERS).save(Path(path), value)


def kind_of(value: object) -> str:
    """What a value that was read is called in messages."""
    name = type(value).__name__
    names = {"Tensor": "a picture", "PosedImages": "posed photographs", "PointCloud": "a point cloud"}
    return names.get(name, name)


def suffix_of(value: object) -> str:
    """The suffix under which a value of `vision3d.scene` is written when nobody chose one.

    Raises:
        InputError: There is none for its type.
    """
    suffix = _SUFFIXES.get(type(value).__name__)
    if suffix is None:
        raise InputError(f"no file format for {type(value).__name__}; want {', '.join(_SUFFIXES)}")
    return suffix


def preview(value: object) -> str:
    """A small picture of a Gaussian scene as an HTML element, for notebooks; empty where none can be made."""
    return importlib.import_module(_PREVIEWS).preview(value)
