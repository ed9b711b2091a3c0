"""Which module reads and writes a file, chosen by its suffix: the one place where `scene` reaches up to `io`.

Modules are imported at first use. Images of scenes for notebooks are found in the same way, in `report`.
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
    """Files of one format. Packages register theirs as entry points of the group `vision3d.codecs`, named by the suffix.

    Example:
        >>> Codec("vision3d.io.bvh", reads=("Motion",), writes=("Motion",))
        Codec(module='vision3d.io.bvh', reads=('Motion',), writes=('Motion',), hint='')
    """

    module: str
    """Dotted name of a module with `load(path)` where it reads and `save(path, value)` where it writes."""
    reads: tuple[str, ...] = ()
    """Names of the types that its files can hold."""
    writes: tuple[str, ...] = ()
    """Names of the types that it can write."""
    hint: str = ""
    """What to do instead, where it only reads or only writes."""


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
    ".safetensors": _both("safetensors_file", "MeshGaussians"),
    ".zarr": _both("zarr_store", "FrameSequence"),
    ".npz": _both("npz_file", "FrameSequence"),
    **dict.fromkeys(
        (".usd", ".usda", ".usdc"),
        Codec("vision3d.io.usd_file", writes=("FrameSequence",), hint="want .glb, .npz or a .zarr folder"),
    ),
    **dict.fromkeys((".obj", ".stl"), _both("mesh_files", "Mesh")),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"), _both("images", "Tensor")),
}  # fmt: skip
_FOLDERS = "vision3d.io.dataset"
_FRAMES = "vision3d.io.mesh_frames"
_SCENES = "vision3d.scene.scene"
_PREVIEWS = "vision3d.report.preview"
_SUFFIXES = {"GaussianScene": ".ply", "Cameras": ".json", "Mesh": ".glb", "PointCloud": ".ply"}
_SUFFIXES |= {
    "FrameSequence": ".zarr",
    "MeshGaussians": ".safetensors",
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
    "FrameSequence": "a sequence",
    "Boxes": "boxes",
    "Selection": "a selection",
    "Motion": "motion",
    "SkinnedMesh": "a skin",
    "Cameras": "cameras",
    "Scene": "a scene",
}


def register(suffix: str, codec: Codec, type_name: str | None = None) -> None:
    """Make `codec` that of files that end in `suffix`.

    Args:
        suffix: With the dot, as in `.spz`.
        codec: What reads and writes them.
        type_name: Name of the type that is written with this suffix when nobody chose one.
    """
    _CODECS[suffix.lower()] = codec
    if type_name is not None:
        _SUFFIXES[type_name] = suffix.lower()


def module_for(path: Path | str, reads: str | None = None) -> ModuleType:
    """The module that reads and writes files of this name.

    Args:
        path: A name with a suffix.
        reads: Name of a type that the file is to hold.

    Raises:
        InputError: No codec is known for the suffix, or its files never hold such a type.
    """
    codec = _codec(Path(path))
    if reads is not None and reads not in codec.reads:
        raise InputError(f"{path}: {_holds(Path(path), codec.reads)}, want {_wanted(reads)}")
    return importlib.import_module(codec.module)


def suffixes(reads: str | None = None, writes: str | None = None) -> list[str]:
    """The suffixes that have a codec, sorted; those that read or write a type of this name."""
    found = {**plugins.load_all("vision3d.codecs", Codec), **_CODECS}
    wanted = [suffix for suffix, codec in found.items() if reads in (None, *codec.reads) and writes in (None, *codec.writes)]
    return sorted(wanted)


def load_as(cls: type[T], path: Path | str) -> T:
    """Read a file or folder that holds a `cls`.

    Raises:
        MissingFileError: There is nothing at `path`.
        InputError: It holds something else, or cannot be read.
    """
    path = Path(path)
    if path.is_file():
        module_for(path, cls.__name__)
    value = load(path)
    if not isinstance(value, cls):
        raise InputError(f"{path}: holds {kind_of(value)}, want {_wanted(cls.__name__)}")
    return value


def load(path: Path | str) -> object:
    """Read whatever a file or folder holds.

    Args:
        path: A .ply (GaussianScene; Mesh where it has faces; PointCloud where it has neither faces nor colours as
            harmonics), a .glb, .obj or .stl (Mesh), a .bin of KITTI (PointCloud), a .txt of KITTI (Boxes), a .bvh (Motion),
            a .json of ours (Boxes, Selection), a .safetensors (MeshGaussians), a transforms.json or a folder of posed
            photographs (PosedImages), a cameras.json without the pictures that it names beside it (Cameras), a folder with
            scene.json (Scene) or with the meta.json of SOG (GaussianScene), a .zarr folder, or a .npz or a folder of a mesh's
            frames (FrameSequence), or a picture (a tensor).

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
    """Write `value` in the format of the suffix of `path`, whole or not at all.

    Raises:
        InputError: No codec is known for the suffix, or its files cannot hold such a value.
    """
    path = Path(path)
    codec = _codec(path)
    if not codec.writes:
        raise InputError(f"{path}: {path.suffix} can be read but not written; {codec.hint}")
    if not {cls.__name__ for cls in type(value).__mro__} & set(codec.writes):
        raise InputError(f"{path}: {_holds(path, codec.writes)}, got {type(value).__name__}")
    importlib.import_module(codec.module).save(path, value)


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
    return _WORDS.get(name, name)


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
