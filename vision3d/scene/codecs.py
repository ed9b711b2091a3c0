"""File formats: the module that reads and writes a file, by its suffix. The only place where `scene` refers to `io`.

Modules are imported on first use. Thumbnails of scenes for notebooks are found in the same way, in `report`.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from vision3d.core import plugins
from vision3d.core.errors import InputError, MissingFileError

T = TypeVar("T")


@dataclass(frozen=True)
class Codec:
    """Files of one format. Packages register codecs as entry points of the group `vision3d.codecs`, named by the suffix.

    Example:
        >>> Codec("vision3d.io.bvh", reads=("Motion",), writes=("Motion",))
        Codec(module='vision3d.io.bvh', reads=('Motion',), writes=('Motion',), hint='')
    """

    module: str
    """Dotted name of a module with `load(path)` if it reads and `save(path, value)` if it writes."""
    reads: tuple[str, ...] = ()
    """Names of the types that its files can contain."""
    writes: tuple[str, ...] = ()
    """Names of the types that it can write."""
    hint: str = ""
    """Advice for formats that are read-only or write-only."""


def _both(module: str, *types: str) -> Codec:
    return Codec(f"vision3d.io.{module}", types, types)


_IN_JSON = ("Cameras", "Boxes", "Selection", "GaussianScene")
_IN_GLTF = ("Mesh", "SkinnedMesh", "GaussianScene")
_CODECS = {
    ".ply": _both("ply", "GaussianScene", "Mesh", "PointCloud"),
    ".splat": _both("splat", "GaussianScene"),
    ".spz": _both("spz", "GaussianScene"),
    ".ksplat": Codec("vision3d.io.ksplat", ("GaussianScene",), hint="want .ply, .spz, .sog, .splat or .glb"),
    ".sog": _both("sog", "GaussianScene"),
    ".json": Codec("vision3d.io.json_file", (*_IN_JSON, "PosedImages"), _IN_JSON),
    **dict.fromkeys(
        (".glb", ".gltf"), Codec("vision3d.io.gltf", _IN_GLTF, (*_IN_GLTF, "Scene")),
    ),
    ".bin": _both("point_files", "PointCloud"),
    ".txt": Codec(
        "vision3d.io.kitti", ("Boxes",),
        hint="KITTI labels need a calibration: use vision3d.io.kitti.write_labels, or save as .json",
    ),
    ".bvh": _both("bvh", "Motion"),
    ".safetensors": _both("safetensors_file", "MeshGaussians", "Triplane"),
    ".zarr": _both("zarr_store", "FrameSequence"),
    ".npz": _both("npz_file", "FrameSequence"),
    **dict.fromkeys(
        (".usd", ".usda", ".usdc"),
        Codec("vision3d.io.usd_file", writes=("FrameSequence",), hint="want .glb, .npz or a .zarr folder"),
    ),
    **dict.fromkeys((".obj", ".stl"), _both("mesh_files", "Mesh")),
    **dict.fromkeys(
        (".off", ".3mf", ".dae", ".zae", ".3dxml", ".xaml", ".zip"),
        Codec("vision3d.io.trimesh_files", ("Mesh",), hint="want .glb, .obj, .ply or .stl"),
    ),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"), _both("images", "Tensor")),
    ".gif": Codec("vision3d.io.images", ("Tensor",), hint="want .png, .webp, .tif or .jpg"),
}  # fmt: skip
_DEPTHS = "vision3d.io.depth_maps"
_FOLDERS = "vision3d.io.dataset"
_FRAMES = "vision3d.io.mesh_frames"
_SCENES = "vision3d.scene.scene"
_PREVIEWS = "vision3d.report.preview"
_SUFFIXES = {"GaussianScene": ".ply", "Cameras": ".json", "Mesh": ".glb", "PointCloud": ".ply"}
_SUFFIXES |= {
    "FrameSequence": ".zarr",
    "MeshGaussians": ".safetensors",
    "Triplane": ".safetensors",
    "Boxes": ".boxes.json",
    "Selection": ".selection.json",
    "Motion": ".bvh",
    "SkinnedMesh": ".glb",
}
_WORDS = {
    "Tensor": "an image",
    "PosedImages": "posed photos",
    "PointCloud": "a point cloud",
    "GaussianScene": "a Gaussian scene",
    "Mesh": "a mesh",
    "MeshGaussians": "Gaussians on a mesh",
    "Triplane": "a triplane",
    "FrameSequence": "a sequence",
    "Boxes": "boxes",
    "Selection": "a selection",
    "Motion": "motion",
    "SkinnedMesh": "a skin",
    "Cameras": "cameras",
    "Scene": "a scene",
}


def register(suffix: str, codec: Codec, type_name: str | None = None) -> None:
    """Register `codec` for files that end in `suffix`.

    Args:
        suffix: With the dot, for example `.spz`.
        codec: The codec that reads and writes them.
        type_name: Name of the type for which this suffix is the default output format.
    """
    _CODECS[suffix.lower()] = codec
    if type_name is not None:
        _SUFFIXES[type_name] = suffix.lower()


def module_for(path: Path | str, reads: str | None = None) -> ModuleType:
    """The module that reads and writes files with this name.

    Args:
        path: A name with a suffix.
        reads: Name of the type that the file should contain.

    Raises:
        InputError: No codec for the suffix, or its files never contain that type.
    """
    codec = _codec(Path(path))
    if reads is not None and reads not in codec.reads:
        raise InputError(f"{path}: {_holds(Path(path), codec.reads)}, want {_wanted(reads)}")
    return importlib.import_module(codec.module)


def depth_module() -> ModuleType:
    """The module that reads depth maps, whose suffixes are those of images and arrays."""
    return importlib.import_module(_DEPTHS)


def suffixes(reads: str | None = None, writes: str | None = None) -> list[str]:
    """All suffixes that have a codec, sorted; optionally only those that read or write a type."""
    found = {**plugins.load_all("vision3d.codecs", Codec), **_CODECS}
    wanted = [suffix for suffix, codec in found.items() if reads in (None, *codec.reads) and writes in (None, *codec.writes)]
    return sorted(wanted)


def load_as(cls: type[T], path: Path | str) -> T:
    """Load a file or folder that contains a `cls`.

    Raises:
        MissingFileError: `path` does not exist.
        InputError: It contains something else, or cannot be read.
    """
    path = Path(path)
    if path.is_file():
        module_for(path, cls.__name__)
    value = load(path)
    if not isinstance(value, cls):
        raise InputError(f"{path}: holds {kind_of(value)}, want {_wanted(cls.__name__)}")
    return value


def load(path: Path | str) -> object:
    """Load whatever a file or folder contains.

    Args:
        path: A .ply (GaussianScene; Mesh if it has faces; PointCloud if it has neither faces nor colors as harmonics), a .glb,
            .obj or .stl (Mesh), a KITTI .bin (PointCloud), a KITTI .txt (Boxes), a .bvh (Motion), a .json of ours (Boxes,
            Selection), a .safetensors (MeshGaussians or Triplane), a transforms.json or a folder of posed photos (PosedImages),
            a cameras.json whose images are not next to it (Cameras), a folder with scene.json (Scene) or with the meta.json of
            SOG (GaussianScene), a .zarr folder, or a .npz or folder of the frames of a mesh (FrameSequence), or an image (a
            tensor).

    Raises:
        MissingFileError: `path` does not exist.
        InputError: It cannot be read.

    Example:
        >>> scene = load("scene.ply")
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(path)
    if path.is_dir():
        if (path / "scene.json").is_file():
            return importlib.import_module(_SCENES).Scene.load(path)
        if (path / "frames.json").is_file():
            return importlib.import_module(_FRAMES).read_frames(path)
        if (path / ".zgroup").is_file() or path.suffix.lower() == ".zarr":
            return importlib.import_module(_CODECS[".zarr"].module).load(path)
        if (path / "meta.json").is_file() and not (path / "transforms.json").is_file():
            return importlib.import_module(_CODECS[".sog"].module).load(path)
        return importlib.import_module(_FOLDERS).load(path)
    codec = _codec(path)
    if not codec.reads:
        raise InputError(f"{path}: {path.suffix} can be written but not read; {codec.hint}")
    return importlib.import_module(codec.module).load(path)


def save(path: Path | str, value: object) -> None:
    """Write `value` in the format of the suffix of `path`, atomically.

    Raises:
        InputError: No codec for the suffix, or its files cannot contain this type.
    """
    path = Path(path)
    codec = _codec(path)
    if not codec.writes:
        raise InputError(f"{path}: {path.suffix} can be read but not written; {codec.hint}")
    if not {cls.__name__ for cls in type(value).__mro__} & set(codec.writes):
        raise InputError(f"{path}: {_holds(path, codec.writes)}, got {type(value).__name__}")
    importlib.import_module(codec.module).save(path, value)


def check_folder_name(path: Path | str, what: str) -> None:
    """Raise an error if the path of something that is written as a folder looks like a file name.

    Raises:
        InputError: The suffix is that of a file format.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _CODECS and not Path(path).is_dir():
        raise InputError(f"{path}: {what} is written as a folder, and {suffix} is a file format; want a name without it")


def save_folder(path: Path | str, value: object) -> None:
    """Write a value as a folder of files.

    Raises:
        InputError: The path looks like a file name.
    """
    check_folder_name(path, kind_of(value))
    importlib.import_module(_FOLDERS).save(Path(path), value)


def kind_of(value: object) -> str:
    """The name used in messages for a loaded value."""
    name = type(value).__name__
    return _WORDS.get(name, name)


def suffix_of(value: object) -> str:
    """The default suffix for a value of `vision3d.scene`.

    Raises:
        InputError: No codec for its type.
    """
    suffix = _SUFFIXES.get(type(value).__name__)
    if suffix is None:
        raise InputError(f"no file format for {type(value).__name__}; want {', '.join(_SUFFIXES)}")
    return suffix


def preview(value: object) -> str:
    """A thumbnail of a scene type as an HTML element, for notebooks; empty if it cannot be rendered."""
    return importlib.import_module(_PREVIEWS).preview(value)


def _codec(path: Path) -> Codec:
    suffix = path.suffix.lower()
    codec = _CODECS.get(suffix) or plugins.load("vision3d.codecs", suffix, Codec)
    if codec is None:
        what = repr(path.suffix) if path.suffix else "a name without suffix"
        raise InputError(f"{path}: no codec for {what}; want {', '.join(suffixes())}")
    return codec


def _holds(path: Path, types: tuple[str, ...]) -> str:
    words = [_WORDS.get(name, name) for name in types]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    return f"a {path.suffix} file holds {listed}" if words else f"a {path.suffix} file is not read"


def _wanted(name: str) -> str:
    return f"{_WORDS.get(name, name)} ({', '.join(suffixes(name)) or 'a folder'})"
