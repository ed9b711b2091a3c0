"""`vision3d convert`: convert Gaussian scenes, meshes and point clouds between file formats."""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import tyro

from vision3d.cli import convert_motion as moving
from vision3d.cli.options import Flag, VerbOptions, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError, OutputExistsError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.plain import from_json

if TYPE_CHECKING:
    from torch import Tensor

    from vision3d.scene import FrameSequence, GaussianScene, Mesh, PointCloud, Scene, SkinnedMesh

    Value = GaussianScene | Mesh | PointCloud | FrameSequence | SkinnedMesh | Scene

_SOG = "meta.json"
_READ = (
    ".ply", ".splat", ".spz", ".sog", ".ksplat", ".glb", ".gltf", ".obj", ".stl", ".off", ".3mf", ".dae", ".bin", ".npz", _SOG,
)  # fmt: skip
_WRITTEN = {
    "GaussianScene": (".ply", ".compressed.ply", ".splat", ".spz", ".sog", ".glb", ".gltf", _SOG),
    "Mesh": (".glb", ".gltf", ".obj", ".ply", ".stl"),
    "PointCloud": (".ply", ".bin"),
    "FrameSequence": moving.WRITTEN,
    "SkinnedMesh": moving.WRITTEN,
    "Scene": (".glb", ".gltf"),
}
_WORDS = {
    "GaussianScene": "Gaussians",
    "Mesh": "a mesh",
    "PointCloud": "points",
    "FrameSequence": "frames",
    "SkinnedMesh": "an animated mesh",
    "Scene": "a scene",
}
_SUFFIXES = tuple(dict.fromkeys(suffix for suffixes in _WRITTEN.values() for suffix in suffixes))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions(VerbOptions):
    """Write files in other formats: Gaussians as .ply, .compressed.ply, .spz, .sog, .splat, .glb, .gltf (.ksplat is read),
    meshes as .glb, .gltf, .obj, .ply, .stl, point clouds as .ply, .bin. Animated meshes (.zarr, .npz, animated .glb,
    folders of frames) as .glb, .gltf, .npz, .zarr, .usd, .usda, .usdc, or one file per frame. A folder with scene.json as one
    .glb with all of its objects, cameras and clips. A warning lists what a format cannot store."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("to", "transform", "crop", "max_sh", "motion"),
        "moving meshes": ("clip", "frames", "rate", "joints", "morphs", "tolerance"),
        "formats": ("spz_version", "gltf_compression", "texture_size", "filter_nan"),
    }

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """IN... OUT: a file and its new name, or files and folders of files and a folder with --to. An OUT named meta.json
    becomes a SOG in a folder."""
    to: str | None = None
    """Suffix, such as .spz, of the files written into the folder OUT."""
    max_sh: int | None = None
    """Maximum degree of the view-dependent colors of Gaussians to keep."""
    crop: tuple[float, float, float, float, float, float] | None = None
    """Lower corner x y z and upper corner x y z [m] of the box to keep, applied before --transform."""
    transform: str | None = None
    """Similarity transform of the scene: .json, .npy or .txt file of a 4x4 matrix, or its 16 numbers row by row in quotes."""
    filter_nan: Flag = False
    """Drop Gaussians and points that are not finite, instead of an error."""
    spz_version: Literal[2, 4] = 4
    """Version of .spz: 4 needs the package zstandard, 2 has coarser rotations and is read by older programs."""
    gltf_compression: Literal["none", "spz"] = "none"
    """Of Gaussians in a .glb or .gltf: spz has about a tenth of the size (KHR_gaussian_splatting_compression_spz_2)."""
    motion: Literal["keep", "morph", "pca", "skin"] | None = None
    """How a clip is written to a .glb: as in the file, as one morph target per frame (exact), as principal components of them,
    or as joints found in the motion with corrective morph targets [default: keep, and morph for frames]."""
    clip: str | None = None
    """Clip of an animated .glb to convert [default: its first]."""
    rate: float | None = None
    """Frames per second at which a clip is sampled, or of a folder of meshes without times [default: those of the file, or
    30]."""
    joints: int = 32
    """Maximum number of joints of --motion skin."""
    morphs: int | None = None
    """Maximum number of morph targets of --motion pca and skin [default: as many as --tolerance needs]."""
    tolerance: float = 1e-4
    """Maximum error of --motion pca and skin in any frame, as a fraction of the mesh's diagonal."""
    frames: Literal["obj", "ply", "sog"] | None = None
    """Write a folder OUT with one file per frame; ply and sog also take Gaussians, alone or on a mesh, for SuperSplat."""
    texture_size: int = 0
    """Side length of the texture [texels] for the colors of Gaussians on a mesh that is written without them; 0 writes vertex
    colors. A mesh without UVs is unwrapped (extra `mesh`)."""
    overwrite: Flag = False
    """Replace existing files."""


def run(arguments: Sequence[str]) -> None:
    """Convert files."""
    options = parse(ConvertOptions, arguments, "convert")
    set_up_output(options)
    pairs = _pairs(options)
    matrix = None if options.transform is None else parse_matrix(options.transform)
    done: list[dict[str, Any]] = []
    for source, target in pairs:
        is_still = options.crop is not None or matrix is not None or options.max_sh is not None
        value = _read_scene(source, target) or moving.read_moving(source, target, options, is_still=is_still)
        value = value or _read(source, drop_nan=options.filter_nan)
        _check(value, source, target, options)
        before, metrics = _counts(value), {}
        if _kind(value) in ("FrameSequence", "SkinnedMesh"):
            metrics = moving.write_moving(target, cast("FrameSequence | SkinnedMesh", value), options)
        elif _kind(value) == "Scene":
            _write(target, value, options)
        else:
            value = _changed(cast("GaussianScene | Mesh | PointCloud", value), options, matrix, source)
            _write(target, value, options)
        size, counts = _size(target), {**_counts(value), **metrics}
        values = {"in": str(source), "out": str(target), **{f"{name}_in": count for name, count in before.items()}, **counts}
        degree = {"sh_degree": cast("GaussianScene", value).sh_degree} if _kind(value) == "GaussianScene" else {}
        done.append({**values, **degree, "bytes": size})
        words = [_words(name, count) for name, count in counts.items()]
        words += [f"SH degree {count}" for count in degree.values()]
        print_summary(dataclasses.replace(options, json=False), f"{source} -> {target}: {', '.join(words)}, {size:,} bytes", {})
    print_summary(dataclasses.replace(options, quiet=True), "", {"files": done})


def parse_matrix(text: str) -> "Tensor":
    """A 4x4 matrix from 16 numbers, or from a .json, .npy or text file.

    Raises:
        ConfigError: They are not 16 numbers.
        MissingFileError: The file does not exist.
        FileFormatError: The file contains something else.
    """
    import numpy as np
    import torch

    from vision3d.io.guards import NUMPY_ERRORS

    words = [word for word in re.split(r"[\s,;\[\]]+", text) if word]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = None
    if numbers is not None:
        if len(numbers) != 16 or not all(map(math.isfinite, numbers)):
            raise ConfigError("--transform", f"got {len(numbers)} numbers, want 16 finite ones row by row, or a file")
        return torch.tensor(numbers, dtype=torch.float64).reshape(4, 4)
    path = Path(text)
    if not path.is_file():
        raise MissingFileError(path, "a file of a 4x4 matrix, or 16 numbers in quotes")
    try:
        if path.suffix.lower() == ".json":
            values = np.array(from_json(path.read_bytes()), np.float64)
        elif path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False).astype(np.float64)
        else:
            values = np.loadtxt(path, ndmin=2)
    except NUMPY_ERRORS as error:
        raise FileFormatError(path, "holds no 4x4 matrix of numbers") from error
    if values.size != 16 or not np.isfinite(values).all():
        raise FileFormatError(path, f"holds {values.size} numbers, want the 16 finite ones of a 4x4 matrix")
    return torch.from_numpy(values.reshape(4, 4))


def _pairs(options: ConvertOptions) -> list[tuple[Path, Path]]:
    """Every input and its output, after all checks that are possible without reading."""
    if len(options.paths) < 2:
        raise ConfigError("paths", f"got {len(options.paths)}, want IN OUT, or IN... FOLDER --to .spz")
    *sources, out = options.paths
    if options.max_sh is not None and not 0 <= options.max_sh <= 4:
        raise ConfigError("--max-sh", f"got {options.max_sh}, want 0 to 4")
    if options.crop is not None and not all(a <= b for a, b in zip(options.crop[:3], options.crop[3:])):
        raise ConfigError("--crop", f"got {options.crop}, want the lower corner x y z and then the upper one")
    moving.check_options(options)
    if options.frames is not None and options.to is not None:
        raise ConfigError("--frames", "writes a folder of frames of one input; use it without --to")
    if options.to is not None:
        suffix = _SOG if options.to.lower() == _SOG else "." + options.to.lower().lstrip(".")
        if suffix not in _SUFFIXES:
            raise ConfigError("--to", f"got {options.to!r}, want {', '.join(_SUFFIXES)}")
        pairs = [(file, _target(out / name, suffix)) for source in sources for file, name in _files(source)]
    elif len(sources) > 1:
        raise ConfigError("--to", f"is needed for {len(sources)} files: the suffix, such as .spz, of those in the folder {out}")
    else:
        pairs = [(sources[0], out)]
        if options.frames is None and out.suffix.lower() not in _SUFFIXES and out.name.lower() != _SOG:
            raise ConfigError("paths", f"{out} has no supported suffix; want {', '.join(_SUFFIXES)}, or a folder and --to")
    names = [target for _, target in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError("paths", f"several files would become {twice}")
    for source, target in pairs:
        if not source.exists():
            raise MissingFileError(source, "Gaussians, a mesh or a point cloud")
        if source.is_file() and not _is_read(source):
            raise InputError(f"{source}: holds neither Gaussians nor a mesh nor points; want {', '.join(_READ)}")
        is_folder = options.frames is not None or target.suffix.lower() == ".zarr"
        if target.is_dir() and not is_folder:
            raise ConfigError("paths", f"{target} is a folder; want a file, or --to with a suffix")
        if target.is_file() and is_folder:
            raise ConfigError("paths", f"{target} is a file; want a folder")
        if target.exists() and not options.overwrite:
            raise OutputExistsError(target, "give --overwrite or another name")
    return pairs


def _files(source: Path) -> list[tuple[Path, Path]]:
    """A source, or all files of a folder that is not itself a scene, each with its relative name without suffix."""

    def plain(path: Path) -> Path:
        stem = path.parent.name if path.name.lower() == _SOG else path.name if path.is_dir() else path.stem
        return Path(re.sub(r"\.compressed$", "", stem))

    if (
        not source.is_dir()
        or moving.is_sequence(source)
        or any((source / name).is_file() for name in ("scene.json", "scene.ply", _SOG))
    ):
        return [(source, plain(source))]
    found = sorted(path for path in source.rglob("*") if path.is_file() and _is_read(path))
    if not found:
        raise InputError(f"{source}: is a folder without scene.ply, scene.json or files to convert; want {', '.join(_READ)}")
    below = [path.parent.parent if path.name.lower() == _SOG else path.parent for path in found]
    return [(path, folder.relative_to(source) / plain(path)) for path, folder in zip(found, below)]


def _is_read(path: Path) -> bool:
    return path.suffix.lower() in _READ or path.name.lower() == _SOG


def _target(stem: Path, suffix: str) -> Path:
    return stem / _SOG if suffix == _SOG else stem.with_name(stem.name + suffix)


def _read(path: Path, *, drop_nan: bool) -> "GaussianScene | Mesh | PointCloud":
    from vision3d.io import gltf_gaussians, ply, point_files, sog, trimesh_files
    from vision3d.scene import codecs

    suffix = path.suffix.lower()
    kind = ply.kind_of(path) if suffix == ".ply" and path.is_file() else ""
    if path.is_dir() and not (path / _SOG).is_file():
        from vision3d.cli.inputs import load_gaussians

        return load_gaussians(path)
    if suffix == ".bin" or kind == "points":
        return (point_files.read_bin if suffix == ".bin" else point_files.read_ply)(path, drop_nan=drop_nan)
    if suffix in (".obj", ".stl", *trimesh_files.SUFFIXES) or kind == "mesh":
        return cast("Mesh", codecs.module_for(path).load(path))
    if suffix in (".glb", ".gltf") and not gltf_gaussians.is_gaussian_gltf(path):
        return cast("Mesh", codecs.module_for(path).load(path))
    if suffix in (".glb", ".gltf"):
        return gltf_gaussians.read_gaussians(path, drop_nan=drop_nan)
    module = sog if path.is_dir() or suffix == ".json" else codecs.module_for(path)
    return module.read_gaussians(path, drop_nan=drop_nan)


def _read_scene(path: Path, target: Path) -> "Scene | None":
    """All objects of a folder with scene.json, for a single output file; Gaussians alone are handled like other Gaussians."""
    from vision3d.scene import GaussianScene, Scene

    if target.suffix.lower() not in _WRITTEN["Scene"] or not (path / "scene.json").is_file():
        return None
    scene = Scene.load(path)
    return None if all(isinstance(value, GaussianScene) for value in scene.objects.values()) else scene


def _kind(value: object) -> str:
    return type(value).__name__


def _counts(value: "Value") -> dict[str, int]:
    names = {"GaussianScene": ["gaussians"], "Mesh": ["vertices", "faces"], "PointCloud": ["points"]}
    if _kind(value) == "FrameSequence":
        return {"frames": len(cast("FrameSequence", value))}
    if _kind(value) == "SkinnedMesh":
        return _counts(cast("SkinnedMesh", value).mesh)
    if _kind(value) == "Scene":
        return {"objects": len(cast("Scene", value))}
    return {name: getattr(value, f"num_{name}") for name in names[_kind(value)]}


def _words(name: str, value: float) -> str:
    if name.endswith("_error"):
        return f"{name.replace('_', ' ')} {value:.2g} of the diagonal"
    return f"{value:,} {'Gaussians' if name == 'gaussians' else name}"


def _size(path: Path) -> int:
    """Bytes of a file, of all files in a folder, or of a SOG in one."""
    folder = path.parent if path.name.lower() == _SOG else path
    files = [path] if folder.is_file() else folder.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _check(value: object, source: Path, target: Path, options: ConvertOptions) -> None:
    """Raise an error for formats and options that do not match the type of the value."""
    kind = _kind(value)
    what = _WORDS[kind]
    if kind in ("FrameSequence", "SkinnedMesh", "Scene"):
        if options.crop is not None or options.transform is not None or options.max_sh is not None:
            raise ConfigError("--crop", f"(or --transform, --max-sh) is for static objects, but {source} holds {what}")
        if options.frames is not None and kind != "Scene":
            return
    suffix = _SOG if target.name.lower() == _SOG else target.suffix.lower()
    if suffix not in _WRITTEN[kind] or (target.name.lower().endswith(".compressed.ply") and kind != "GaussianScene"):
        raise InputError(f"{source}: holds {what}, which {target.name} cannot hold; want {', '.join(_WRITTEN[kind])}")
    if options.max_sh is not None and kind != "GaussianScene":
        raise ConfigError("--max-sh", f"is for Gaussians, but {source} holds {what}")


def _changed(
    value: "GaussianScene | Mesh | PointCloud", options: ConvertOptions, matrix: "Tensor | None", source: Path
) -> "GaussianScene | Mesh | PointCloud":
    from vision3d.scene import GaussianScene

    if isinstance(value, GaussianScene) and options.max_sh is not None and value.sh_degree > options.max_sh:
        value = dataclasses.replace(value, sh=value.sh[:, : (options.max_sh + 1) ** 2].contiguous())
    if options.crop is not None:
        value = _cropped(value, options.crop, source)
    return value if matrix is None else value.transform(matrix)


def _cropped(value: "GaussianScene | Mesh | PointCloud", crop: Sequence[float], source: Path) -> Any:
    import torch

    from vision3d.scene import GaussianScene, Mesh

    points = value.means if isinstance(value, GaussianScene) else value.vertices if isinstance(value, Mesh) else value.points
    low, high = torch.tensor(crop, dtype=torch.float64).reshape(2, 3).to(points)
    is_inside = ((points >= low) & (points <= high)).all(-1)
    if isinstance(value, Mesh):
        is_inside = is_inside[value.faces].all(-1)
    if not is_inside.any():
        what = {"GaussianScene": "Gaussians", "Mesh": "faces", "PointCloud": "points"}[_kind(value)]
        raise InputError(f"{source}: none of {len(is_inside)} {what} is inside --crop {' '.join(map(str, crop))}")
    return value.crop(is_inside) if isinstance(value, Mesh) else value[is_inside]


def _write(path: Path, value: object, options: ConvertOptions) -> None:
    from vision3d.scene import codecs

    if path.suffix.lower() == ".spz":
        from vision3d.io.spz import write_gaussians

        write_gaussians(path, cast("GaussianScene", value), version=options.spz_version)
    elif _kind(value) == "GaussianScene" and path.suffix.lower() in (".glb", ".gltf"):
        from vision3d.io import gltf_gaussians

        gltf_gaussians.write_gaussians(path, cast("GaussianScene", value), compression=options.gltf_compression)
    else:
        codecs.save(path, value)
