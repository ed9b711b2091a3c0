"""Corrupted files: mutations, the readers that get them, and the results that count as a problem.

A reader must reject a corrupted file with a FileFormatError (or a MissingFileError if the file names others), or read it,
within one second of CPU time and with at most 64 MiB and 20 times the file's size of memory.
"""

import gzip
import io
import json
import re
import signal
import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.support.ksplat import ksplat_bytes
from tests.support.memory import forget_peak, peak
from tests.support.scenes import ring_cameras
from tests.support.splats import small_scene
from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.geometry.quaternion import random_quats
from vision3d.io import (
    bvh,
    compressed_ply,
    glb,
    gltf_gaussians,
    gltf_skin,
    gltf_skin_writer,
    json_types,
    kitti,
    ksplat,
    mesh_files,
    mesh_frames,
    npz_file,
    ply,
    point_files,
    safetensors_file,
    sog,
    splat,
    spz,
    transforms_json,
    zarr_store,
)
from vision3d.scene import (
    Boxes,
    Channel,
    Clip,
    FrameSequence,
    Mesh,
    MeshGaussians,
    Motion,
    PointCloud,
    Region,
    Selection,
    Skeleton,
    SkinnedMesh,
)

MAX_SECONDS = 1.0
_PLACE = re.compile(r"\b(line|row|box|frame|camera|byte|position|index|column) \d+")
WORDS = (0, 1, 255, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS = (0, -1, 1, 2**31, 2**63, 1e308, -1e-300, None, "x", [], {}, True, 1.5, 10**30)


def memory_limit(num_bytes: int) -> int:
    """Bytes by which the process may grow for a file of this size."""
    return (64 << 20) + 20 * num_bytes


def mutated(data, random):
    """One to four random changes: bits, words, segments removed, duplicated or moved, or the end truncated."""
    data = bytearray(data)
    for _ in range(random.integers(1, 5)):
        if not data:
            break
        kind, place = random.integers(0, 7), int(random.integers(0, len(data)))
        if random.random() < 0.5:
            place = int(random.integers(0, min(len(data), 128)))  # most problems are in headers
        length = int(random.integers(1, 64))
        if kind == 0:
            data[place] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            data[place] = int(random.integers(0, 256))
        elif kind == 2 and place + 4 <= len(data):
            struct.pack_into("<I", data, place, WORDS[random.integers(0, len(WORDS))])
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = data[place : place + length]
        elif kind == 5:
            data[place : place + length] = random.bytes(length)
        elif random.random() < 0.5:
            del data[place:]
    return bytes(data)


def mutated_json(content, random):
    """Replaces or removes one value of a JSON document."""
    content = json.loads(json.dumps(content))
    node = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return content
        key = keys[random.integers(0, len(keys))]
        if isinstance(node[key], dict | list) and node[key] and random.random() < 0.85:
            node = node[key]
            continue
        if random.random() < 0.15:
            del node[key]
        else:
            node[key] = NUMBERS[random.integers(0, len(NUMBERS))]
        return content


def mutated_zip(data, random):
    """Changes members inside a valid zip."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if "meta.json" in members and random.random() < 0.6:
        members["meta.json"] = json.dumps(mutated_json(json.loads(members["meta.json"]), random)).encode()
    else:
        name = list(members)[random.integers(0, len(members))]
        members[name] = mutated(members[name], random)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def mutated_glb(data, random):
    """Changes the JSON of a .glb, with correct lengths."""
    size = struct.unpack_from("<I", data, 12)[0]
    text = json.dumps(mutated_json(json.loads(data[20 : 20 + size]), random)).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    return struct.pack("<4s4I", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest


def gzipped(data, random):
    return gzip.compress(mutated(gzip.decompress(data), random), 1)


def mutated_text(data, random):
    """Replaces a word of a text, or changes its bytes."""
    if random.random() < 0.3:
        return mutated(data, random)
    words = data.split(b" ")
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(0, len(words)))
        words[place] = str(NUMBERS[random.integers(0, len(NUMBERS))]).encode() + (b"\n" if b"\n" in words[place] else b"")
    return b" ".join(words)


def mutated_document(data, random):
    return json.dumps(mutated_json(json.loads(data), random)).encode()


@dataclass(frozen=True)
class Reader:
    """A reader, its file to corrupt, and the mutation."""

    read: Callable[[Path], Any]
    name: str
    """Suffix of the file."""
    make: Callable[[Path], None]
    """Writes the intact file, and others it refers to."""
    change: Callable[[bytes, np.random.Generator], bytes] | None = None
    """Mutation of every second file; the others get `mutated`."""
    among: tuple[str, ...] = ()
    """Files of a folder, one of which is changed."""
    package: str | None = None
    """Package required by the reader."""


def _mesh(**extras):
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1]])
    return Mesh(points, torch.tensor([[0, 1, 2], [0, 2, 3]]), **extras)


def _textured():
    return _mesh(uvs=torch.rand(4, 2), texture=torch.rand(4, 4, 3), normals=torch.rand(4, 3))


def _scene(write, degree=1, **options):
    return lambda path: write(path, small_scene(degree, 20), **options)


def _cloud(**extras):
    return PointCloud(torch.rand(20, 3), intensity=torch.rand(20), **extras)


def _boxes():
    return Boxes(torch.rand(3, 7) + 1, torch.tensor([0, 1, 0]), torch.rand(3), ("Car", "Cyclist"))


def _selection():
    return Selection((Region.sphere(torch.zeros(3), 1.0),), indices=torch.arange(4))


def _motion():
    skeleton = Skeleton(("hip", "knee", "knee end"), (-1, 0, 1), torch.rand(3, 3), (2,))
    return Motion(skeleton, torch.arange(3, dtype=torch.float64), random_quats(3, 3), torch.rand(3, 3))


def _skin(path):
    times, joints = torch.tensor([0.0, 0.5], dtype=torch.float64), {"indices": torch.tensor([[0, 1]] * 4)}
    channels = (
        Channel("rotation", 1, times, random_quats(2)),
        Channel("translation", 0, times, torch.rand(2, 3, 3), "CUBICSPLINE"),
        Channel("weights", -1, times, torch.rand(2, 2), "STEP"),
    )
    joints |= {"weights": torch.full((4, 2), 0.5), "inverse_binds": torch.eye(4).repeat(2, 1, 1)}
    locals_ = {"translations": torch.rand(2, 3), "quats": random_quats(2), "scales": torch.ones(2, 3)}
    morphs, clips = torch.rand(2, 4, 3), (Clip("walk", channels),)
    skin = SkinnedMesh(_textured(), ("hip", "knee"), (-1, 0), **locals_, **joints, morphs=morphs, clips=clips)
    gltf_skin_writer.write_skin(path, skin)


def _read_skin(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about normalized weights
        gltf_skin.read_skin(path)


def _frames(path):
    sequence = zarr_store.read_sequence(path)
    for index in range(min(len(sequence), 4)):
        sequence.frame(index)


def _sequence(path):
    FrameSequence(PointCloud(torch.rand(5, 3)), torch.tensor([0.0, 0.5]), {"points": torch.rand(2, 5, 3)}).save(path)


def _moving():
    return FrameSequence(_textured(), torch.tensor([0.0, 0.5]), {"vertices": torch.rand(2, 4, 3)})


READERS = {
    "ply": Reader(ply.read_gaussians, "a.ply", _scene(ply.write_gaussians)),
    "splat": Reader(splat.read_gaussians, "a.splat", _scene(splat.write_gaussians)),
    "compressed_ply": Reader(compressed_ply.read_gaussians, "a.ply", _scene(compressed_ply.write_gaussians)),
    "spz2": Reader(spz.read_gaussians, "a.spz", _scene(spz.write_gaussians, version=2), gzipped),
    "spz4": Reader(spz.read_gaussians, "a.spz", _scene(spz.write_gaussians), package="zstandard"),
    "ksplat0": Reader(ksplat.read_gaussians, "a.ksplat", lambda path: path.write_bytes(ksplat_bytes(small_scene(1, 20), 0))),
    "ksplat2": Reader(ksplat.read_gaussians, "a.ksplat", lambda path: path.write_bytes(ksplat_bytes(small_scene(2, 300), 2))),
    "sog": Reader(sog.read_gaussians, "a.sog", _scene(sog.write_gaussians), mutated_zip),
    "sog_folder": Reader(sog.read_gaussians, "meta.json", _scene(sog.write_gaussians), mutated_document),
    "glb_gaussians": Reader(gltf_gaussians.read_gaussians, "a.glb", _scene(gltf_gaussians.write_gaussians), mutated_glb),
    "gltf_gaussians": Reader(gltf_gaussians.read_gaussians, "a.gltf", _scene(gltf_gaussians.write_gaussians), mutated_document),
    "glb": Reader(glb.read_mesh, "a.glb", lambda path: glb.write_mesh(path, _textured()), mutated_glb),
    "glb_skin": Reader(_read_skin, "a.glb", _skin, mutated_glb),
    "gltf": Reader(glb.read_mesh, "a.gltf", lambda path: glb.write_mesh(path, _textured()), mutated_document),
    "obj": Reader(
        mesh_files.read_mesh, "a.obj", lambda path: mesh_files.write_mesh(path, _textured()), mutated_text, package="trimesh"
    ),
    "stl": Reader(mesh_files.read_mesh, "a.stl", lambda path: mesh_files.write_mesh(path, _mesh()), package="trimesh"),
    "ply_mesh": Reader(
        mesh_files.read_mesh,
        "a.ply",
        lambda path: mesh_files.write_mesh(path, _mesh(vertex_colors=torch.rand(4, 3))),
        package="trimesh",
    ),
    "ply_points": Reader(
        point_files.read_ply,
        "a.ply",
        lambda path: point_files.write_ply(path, _cloud(colors=torch.rand(20, 3), attributes={"row": torch.arange(20)})),
    ),
    "bin_points": Reader(point_files.read_bin, "a.bin", lambda path: point_files.write_bin(path, _cloud())),
    "boxes": Reader(json_types.read, "a.json", lambda path: json_types.write(path, _boxes()), mutated_document),
    "selection": Reader(json_types.read, "a.json", lambda path: json_types.write(path, _selection()), mutated_document),
    "kitti_labels": Reader(
        lambda path: kitti.read_labels(path, torch.eye(4)),
        "a.txt",
        lambda path: kitti.write_labels(path, _boxes(), torch.eye(4)),
        mutated_text,
    ),
    "cameras": Reader(
        transforms_json.read_cameras,
        "cameras.json",
        lambda path: transforms_json.write_cameras(path, ring_cameras()),
        mutated_document,
    ),
    "transforms": Reader(
        transforms_json.read_frames,
        "transforms.json",
        lambda path: transforms_json.write_cameras(path, ring_cameras()),
        mutated_document,
    ),
    "mesh_gaussians": Reader(
        safetensors_file.read_mesh_gaussians, "a.safetensors", lambda path: MeshGaussians.from_mesh(_mesh(), 1).save(path)
    ),
    "bvh": Reader(bvh.read_motion, "a.bvh", lambda path: bvh.write_motion(path, _motion()), mutated_text),
    "npz": Reader(npz_file.read_sequence, "a.npz", lambda path: npz_file.write_sequence(path, _moving()), mutated_zip),
    "frames": Reader(
        mesh_frames.read_frames,
        "a",
        lambda path: mesh_frames.write_frames(path, _moving()),
        mutated_document,
        ("frames.json", "frame_00000.obj", "frame_00001.obj"),
        "trimesh",
    ),
    "sequence": Reader(
        _frames,
        "a.zarr",
        _sequence,
        mutated_document,
        (".zattrs", "times/.zarray", "points/.zarray", "points/1.0.0", "times/1"),
    ),
}


@dataclass
class Found:
    """Results of a reader on many corrupted files."""

    files: int = 0
    refused: int = 0
    without_place: int = 0
    """Rejected without a location in the file."""
    worst_cpu_s: float = 0.0
    worst_growth: int = 0
    """Maximum memory growth of the process in bytes."""
    problems: list[str] = field(default_factory=list)


def run(name: str, count: int, folder: Path, *, seed: int = 0) -> Found:
    """Gives `count` corrupted files to the reader `name`; crashes, hangs, excessive memory and unclear messages count."""
    reader, found = READERS[name], Found()
    random = np.random.default_rng([seed, *name.encode()])
    torch.manual_seed(0)
    whole = folder / reader.name
    reader.make(whole)
    reader.read(whole)  # imports happen once per process
    targets = [whole / part for part in reader.among] or [whole]
    contents = [target.read_bytes() for target in targets]
    before = signal.signal(signal.SIGPROF, _interrupt)
    try:
        for index in range(count):
            which = int(random.integers(0, len(targets)))
            target, data = targets[which], contents[which]
            is_text = not reader.among or target.name.startswith(".z") or target.suffix == ".json"
            change = reader.change if reader.change is not None and is_text and index % 2 else mutated
            changed = change(data, random)
            target.write_bytes(changed)
            _one(reader, whole, changed, found, f"file {index} of seed {seed}")
            target.write_bytes(data)
    finally:
        signal.signal(signal.SIGPROF, before)
    return found


def _one(reader: Reader, path: Path, changed: bytes, found: Found, what: str) -> None:
    found.files += 1
    resident = forget_peak()
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, 10 * MAX_SECONDS)
    try:
        reader.read(path)
    except (FileFormatError, MissingFileError) as error:
        found.refused += 1
        text = str(error)
        is_placed = getattr(error, "where", True) is not None or error.path != path or _PLACE.search(text) is not None
        found.without_place += not is_placed
        if str(path.parent) not in text or "\n" in text or len(text) > 1000:
            found.problems.append(f"{what}: message {text[:300]!r}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        found.problems.append(f"{what}: {type(error).__name__}: {str(error)[:200]}; {changed[:400]!r}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds, growth = time.process_time() - start, max(0, peak() - resident)
    found.worst_cpu_s, found.worst_growth = max(found.worst_cpu_s, seconds), max(found.worst_growth, growth)
    if seconds > MAX_SECONDS or growth > memory_limit(len(changed)):
        found.problems.append(f"{what}: {seconds:.2f} s, {growth >> 20} MiB; {changed[:400]!r}")


class _Hang(Exception):
    pass


def _interrupt(*_: object) -> None:
    raise _Hang("took too long")
