"""Sequences as a folder with one file per frame, for any program: meshes as .obj or .ply, Gaussians as .ply or .sog.

name/
  frame_00000.obj  frame_00001.obj ...   only the first has a texture next to it
  frames.json                            the time of each frame, written last
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import torch

from vision3d.core.atomic import atomic_folder, atomic_write, make_folder
from vision3d.core.errors import FileFormatError, InputError, MissingFileError, OutputExistsError
from vision3d.core.plain import from_json
from vision3d.io import mesh_files
from vision3d.scene.codecs import check_folder_name
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.mesh_gaussians import MeshGaussians
from vision3d.scene.sequence import FrameSequence

INDEX = "frames.json"
SUFFIXES = (".obj", ".ply", ".stl")
SPLATS = (".ply", ".sog")
_VERSION = 1


def write_frames(path: Path | str, sequence: FrameSequence, suffix: str = ".obj") -> None:
    """Write a folder of files; an existing folder of frames is replaced when the new one is complete.

    Args:
        path: The folder.
        sequence: Frames of a mesh, of Gaussians, of Gaussians on a mesh or of points. For Gaussians on a mesh, .ply and .sog
            store the Gaussians, and .obj the mesh.
        suffix: .obj, .ply or .stl for meshes; .ply or .sog for Gaussians, which SuperSplat can play; .ply for points.

    Raises:
        InputError: No frames, files with this suffix cannot store them, or `path` looks like a file name.
        OutputExistsError: `path` exists and does not contain frames.
        MissingDependencyError: trimesh is required for meshes and not installed.
    """
    path = Path(path)
    check_folder_name(path, "a sequence of frames")
    wanted = SPLATS if isinstance(sequence.base, GaussianScene) else SUFFIXES
    wanted = tuple(dict.fromkeys((*SUFFIXES, *SPLATS))) if isinstance(sequence.base, MeshGaussians) else wanted
    if suffix not in wanted or not len(sequence):
        raise InputError(f"{path}: got {len(sequence)} frames as {suffix!r}; want at least one, as {', '.join(wanted)}")
    if path.exists() and not (path / INDEX).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise OutputExistsError(path, f"it is not a folder of frames with {INDEX}; use another name")
    if isinstance(sequence.base, MeshGaussians) and suffix not in SPLATS:
        sequence = replace(sequence, base=sequence.base.mesh)
    with atomic_folder(path) as folder:
        make_folder(folder)
        for i in range(len(sequence)):
            file = folder / f"frame_{i:05d}{suffix}"
            if not isinstance(sequence.base, Mesh):
                sequence.frame(i).save(file)
                continue
            mesh = sequence.mesh_at(i)
            is_shared = i > 0 and mesh.texture is not None and suffix == ".obj"
            mesh = replace(mesh, texture=None) if is_shared else mesh
            mesh_files.write_mesh(file, mesh, materials="frame_00000.mtl" if is_shared else None)
        content = {"vision3d": {"type": "frames", "version": _VERSION}, "suffix": suffix, "times": sequence.times.tolist()}
        with atomic_write(folder / INDEX) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_frames(path: Path | str, rate: float | None = None) -> FrameSequence:
    """Read the meshes of a folder, ordered by the numbers in their names, as frames of the first one.

    Args:
        path: A folder of .obj, .ply or .stl files of one mesh: the same faces in all.
        rate: Frames per second; required without a frames.json with the times.

    Raises:
        MissingFileError: The folder does not exist, or has fewer files than frames.json lists.
        FileFormatError: A file is damaged, has different faces than the first, or contains no mesh.
        InputError: Neither a frames.json nor a rate, or the folder has no meshes.
    """
    path = Path(path)
    if not path.is_dir():
        raise MissingFileError(path, f"a folder of meshes ({', '.join(SUFFIXES)})")
    suffix, times = _times(path) if (path / INDEX).is_file() else (None, None)
    files = sorted((file for file in path.iterdir() if file.suffix.lower() in SUFFIXES), key=_number)
    files = [file for file in files if suffix in (None, file.suffix.lower())]
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) != 1:
        raise InputError(f"{path}: holds {' and '.join(kinds) or 'no'} meshes; want those of one of {', '.join(SUFFIXES)}")
    if times is None:
        if rate is None or not 0 < rate < float("inf"):
            raise InputError(f"{path}: has no {INDEX} with the times; want a rate in frames per second, got {rate}")
        times = [i / rate for i in range(len(files))]
    if len(times) > len(files):
        raise MissingFileError(path / f"frame_{len(files):05d}{suffix}", f"one of the {len(times)} frames of {path / INDEX}")
    base = mesh_files.read_mesh(files[0])
    vertices = [base.vertices]
    for file in files[1 : len(times)]:
        mesh = mesh_files.read_mesh(file, skip_texture=True)
        if not torch.equal(mesh.faces, base.faces) or mesh.num_vertices != base.num_vertices:
            counts = f"{mesh.num_vertices} vertices, {mesh.num_faces} faces"
            raise FileFormatError(file, f"has different faces than {files[0].name} ({counts}); want one mesh in all frames")
        vertices.append(mesh.vertices)
    try:
        channels = {"vertices": torch.stack(vertices)}
        return FrameSequence(base, torch.tensor(times, dtype=torch.float64), channels).validate()
    except InputError as error:
        raise FileFormatError(path / INDEX, str(error)) from error


def _times(path: Path) -> tuple[str, list[float]]:
    """The suffix and the times in frames.json."""
    index = path / INDEX
    try:
        content = from_json(index.read_bytes())
        own, suffix, times = content["vision3d"], content["suffix"], content["times"]
        is_right = own["type"] == "frames" and own["version"] == _VERSION and suffix in SUFFIXES and isinstance(times, list)
        if not is_right or not times or not all(type(time) in (int, float) for time in times):
            raise ValueError("want version 1 of frames, a suffix, and times")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise FileFormatError(index, f"is not a list of frames ({str(error)[:80]})") from error
    return suffix, times


def _number(file: Path) -> tuple[list[int], str]:
    """Sorts frame_2 before frame_10."""
    return [int(digits) for digits in re.findall(r"\d{1,18}", file.stem)], file.name
