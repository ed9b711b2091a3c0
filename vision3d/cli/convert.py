"""`vision3d convert`: scenes of Gaussians from one file format to another."""

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from vision3d.cli.options import Flag, VerbOptions, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.errors import ConfigError, FileFormatError, InputError, MissingFileError, OutputExistsError

if TYPE_CHECKING:
    from torch import Tensor

    from vision3d.scene import GaussianScene

_READ = (".ply", ".splat", ".spz", ".sog", ".ksplat", ".glb", ".gltf")
_WRITTEN = (".ply", ".compressed.ply", ".splat", ".spz", ".sog", ".glb", ".gltf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions(VerbOptions):
    """Write scenes of Gaussians in other formats: .ply, .compressed.ply, .spz, .sog, .splat, .glb, .gltf (.ksplat is read).
    What a format does not hold is listed in a warning."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """IN... OUT: a file and its new name, or several files and a folder with --to."""
    to: str | None = None
    """Suffix, such as .spz, of the files that are written into the folder OUT."""
    max_sh: int | None = None
    """Highest degree of the view-dependent colours that is kept."""
    crop: tuple[float, float, float, float, float, float] | None = None
    """Lower corner x y z and upper corner x y z [m] of the box that is kept, before --transform."""
    transform: str | None = None
    """Similarity that moves the scene: .json, .npy or .txt file of a 4x4 matrix, or its 16 numbers row by row in quotes."""
    filter_nan: Flag = False
    """Leave out Gaussians that are not finite, instead of refusing the file."""
    spz_version: Literal[2, 4] = 4
    """Version of .spz: 4 needs the package zstandard, 2 has coarser rotations and is read by older programs."""
    overwrite: Flag = False
    """Replace files that are there."""


def run(arguments: Sequence[str]) -> None:
    """Convert files."""
    options = parse(ConvertOptions, arguments, "convert")
    set_up_output(options)
    pairs = _pairs(options)
    matrix = None if options.transform is None else parse_matrix(options.transform)
    done: list[dict[str, Any]] = []
    for source, target in pairs:
        scene = _read(source, drop_nan=options.filter_nan)
        count = len(scene)
        scene = _changed(scene, options, matrix, source)
        _write(target, scene, options.spz_version)
        values = {"in": str(source), "out": str(target), "gaussians_in": count, "gaussians": len(scene)}
        done.append({**values, "sh_degree": scene.sh_degree, "bytes": target.stat().st_size})
        text = f"{source} -> {target}: {len(scene):,} Gaussians, SH degree {scene.sh_degree}, {done[-1]['bytes']:,} bytes"
        print_summary(dataclasses.replace(options, json=False), text, {})
    print_summary(dataclasses.replace(options, quiet=True), "", {"files": done})


def parse_matrix(text: str) -> "Tensor":
    """A 4x4 matrix out of 16 numbers, or of a .json, .npy or text file.

    Raises:
        ConfigError: They are not 16 numbers.
        MissingFileError: There is no such file.
        FileFormatError: The file holds something else.
    """
    import numpy as np
    import torch

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
            values = np.array(json.loads(path.read_text("utf-8")), np.float64)
        elif path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False).astype(np.float64)
        else:
            values = np.loadtxt(path, ndmin=2)
    except (ValueError, TypeError, OSError, EOFError, RecursionError) as error:
        raise FileFormatError(path, "holds no 4x4 matrix of numbers") from error
    if values.size != 16 or not np.isfinite(values).all():
        raise FileFormatError(path, f"holds {values.size} numbers, want the 16 finite ones of a 4x4 matrix")
    return torch.from_numpy(values.reshape(4, 4))


def _pairs(options: ConvertOptions) -> list[tuple[Path, Path]]:
    """Every input and its output, after all has been checked that can be without reading."""
    if len(options.paths) < 2:
        raise ConfigError("paths", f"got {len(options.paths)}, want IN OUT, or IN... FOLDER --to .spz")
    *sources, out = options.paths
    if options.max_sh is not None and not 0 <= options.max_sh <= 4:
        raise ConfigError("--max-sh", f"got {options.max_sh}, want 0 to 4")
    if options.crop is not None and not all(a <= b for a, b in zip(options.crop[:3], options.crop[3:])):
        raise ConfigError("--crop", f"got {options.crop}, want the lower corner x y z and then the upper one")
    if options.to is not None:
        suffix = "." + options.to.lower().lstrip(".")
        if suffix not in _WRITTEN:
            raise ConfigError("--to", f"got {options.to!r}, want {', '.join(_WRITTEN)}")
        pairs = [(source, out / (re.sub(r"\.compressed$", "", source.stem) + suffix)) for source in sources]
    elif len(sources) > 1:
        raise ConfigError("--to", f"is needed for {len(sources)} files: the suffix, such as .spz, of those in the folder {out}")
    else:
        pairs = [(sources[0], out)]
        if out.suffix.lower() not in _WRITTEN:
            raise ConfigError("paths", f"{out} has no suffix that is written; want {', '.join(_WRITTEN)}, or a folder and --to")
    names = [target for _, target in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError("paths", f"several files would become {twice}")
    for source, target in pairs:
        if not source.exists():
            raise MissingFileError(source, "a scene of Gaussians")
        if source.is_file() and source.suffix.lower() not in _READ:
            raise InputError(f"{source}: is no scene of Gaussians; want {', '.join(_READ)}")
        if target.is_dir():
            raise ConfigError("paths", f"{target} is a folder; want a file, or --to with a suffix")
        if target.exists() and not options.overwrite:
            raise OutputExistsError(target, "give --overwrite or another name")
    return pairs


def _read(path: Path, *, drop_nan: bool) -> "GaussianScene":
    if path.is_dir():
        from vision3d.cli.inputs import load_gaussians

        return load_gaussians(path)
    from vision3d.io import gltf_gaussians
    from vision3d.scene import codecs

    module = gltf_gaussians if path.suffix.lower() in (".glb", ".gltf") else codecs.module_for(path)
    return module.read_gaussians(path, drop_nan=drop_nan)


def _changed(scene: "GaussianScene", options: ConvertOptions, matrix: "Tensor | None", source: Path) -> "GaussianScene":
    import torch

    if options.max_sh is not None and scene.sh_degree > options.max_sh:
        scene = dataclasses.replace(scene, sh=scene.sh[:, : (options.max_sh + 1) ** 2].contiguous())
    if options.crop is not None:
        count = len(scene)
        scene = scene.crop(torch.tensor(options.crop, dtype=torch.float64).reshape(2, 3))
        if not len(scene):
            raise InputError(f"{source}: none of {count} Gaussians is inside --crop {' '.join(map(str, options.crop))}")
    return scene if matrix is None else scene.transform(matrix)


def _write(path: Path, scene: "GaussianScene", spz_version: Literal[2, 4]) -> None:
    if path.suffix.lower() == ".spz":
        from vision3d.io.spz import write_gaussians

        write_gaussians(path, scene, version=spz_version)
    else:
        from vision3d.scene import codecs

        codecs.module_for(path).save(path, scene)
