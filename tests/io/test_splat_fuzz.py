"""Changed files of every reader: an error with a place, soon, and without more memory than is allowed.

VISION3D_FUZZ is the number of files for each reader (300 when it is not set; 20000 takes some minutes each).
"""

import gzip
import io
import json
import os
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from tests.support.ksplat import ksplat_bytes
from tests.support.splats import small_scene
from vision3d.errors import FileFormatError, MissingFileError
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.io import compressed_ply, gltf_gaussians, ksplat, ply, sog, splat, spz

COUNT = int(os.environ.get("VISION3D_FUZZ", "300"))
WORDS = (0, 1, 255, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS = (0, -1, 1, 2**31, 2**63, 1e308, -1e-300, None, "x", [], {}, True, 1.5, 10**30)


def mutated(data, random):
    """One to four changes of bytes: bits, words, pieces cut out, doubled or moved, or the end cut off."""
    data = bytearray(data)
    for _ in range(random.integers(1, 5)):
        if not data:
            break
        kind, place = random.integers(0, 7), int(random.integers(0, len(data)))
        if random.random() < 0.5:
            place = int(random.integers(0, min(len(data), 128)))  # headers are where the trouble is
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
    """One value of a JSON document replaced or taken out."""
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
    """Members changed inside of a zip that is whole."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if random.random() < 0.6:
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
    """The JSON of a .glb changed, and its lengths right."""
    size = struct.unpack_from("<I", data, 12)[0]
    text = json.dumps(mutated_json(json.loads(data[20 : 20 + size]), random)).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    return struct.pack("<4s4I", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest


def gzipped(data, random):
    return gzip.compress(mutated(gzip.decompress(data), random), 1)


def written(write, suffix, degree=1, **options):
    def make(path):
        write(path, small_scene(degree, 20), **options)
        return path.read_bytes()

    return suffix, make


READERS = {  # reader, the file that is changed, other changes than those of its bytes
    "ply": (ply, written(ply.write_gaussians, ".ply"), None),
    "splat": (splat, written(splat.write_gaussians, ".splat"), None),
    "compressed_ply": (compressed_ply, written(compressed_ply.write_gaussians, ".ply"), None),
    "spz2": (spz, written(spz.write_gaussians, ".spz", version=2), gzipped),
    "spz4": (spz, written(spz.write_gaussians, ".spz"), None),
    "ksplat0": (ksplat, (".ksplat", lambda _: ksplat_bytes(small_scene(1, 20), 0)), None),
    "ksplat2": (ksplat, (".ksplat", lambda _: ksplat_bytes(small_scene(2, 300), 2)), None),
    "sog": (sog, written(sog.write_gaussians, ".sog"), mutated_zip),
    "glb": (gltf_gaussians, written(gltf_gaussians.write_gaussians, ".glb"), mutated_glb),
    "gltf": (gltf_gaussians, written(gltf_gaussians.write_gaussians, ".gltf"), None),
}


@pytest.mark.parametrize("name", READERS)
def test_changed_files(tmp_path, name):
    if name == "spz4":
        pytest.importorskip("zstandard")
    module, (suffix, make), other = READERS[name]
    data = make(tmp_path / f"whole{suffix}")
    path = tmp_path / f"changed{suffix}"
    random = np.random.default_rng(len(name))
    num_refused = 0
    quat_to_rotmat(small_scene(2, 2).transform(torch.eye(4)).validate().quats)  # imports once a process
    tracemalloc.start()
    try:
        for index in range(COUNT):
            changed = other(data, random) if other is not None and index % 2 else mutated(data, random)
            path.write_bytes(changed)
            tracemalloc.reset_peak()
            before, start = tracemalloc.get_traced_memory()[0], time.process_time()
            text = str(path)
            try:
                module.read_gaussians(path)
            except (FileFormatError, MissingFileError) as error:
                num_refused += 1
                text = str(error)
            except Exception as error:
                raise AssertionError(f"file {index}: {changed[:400]!r}") from error
            assert str(path.parent) in text and "\n" not in text
            assert time.process_time() - start < 1, f"file {index}"
            assert tracemalloc.get_traced_memory()[1] - before < (64 << 20) + 20 * len(changed), f"file {index}"
    finally:
        tracemalloc.stop()
    assert num_refused > 0
