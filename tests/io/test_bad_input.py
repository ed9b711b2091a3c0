"""Every reader with files that are empty, of another kind or version, or have invalid values."""

import functools
import gzip
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.scenes import ring_cameras
from tests.support.splats import small_scene
from vision3d.core.errors import FileFormatError, InputError
from vision3d.io import spz
from vision3d.io.images import read_image
from vision3d.scene import Boxes, GaussianScene, Mesh, MeshGaussians, PointCloud, Region, Selection, codecs, load

SCENES = ["a.ply", "a.compressed.ply", "a.splat", "a.spz", "a.sog", "a.ksplat", "a.glb", "a.gltf", "meta.json"]
OTHERS = ["a.obj", "a.stl", "a.bin", "a.json", "a.safetensors", "a.png", "a.jpg"]


def fin():
    """Three faces on one edge, one degenerate face, UVs outside the image."""
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [2, 0, 0]])
    faces = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4], [0, 1, 5]])
    return Mesh(
        points, faces, torch.tensor([[-3.0, 2], [4, 0], [0, 7], [0.5, 0.5], [1, 1], [-1, -1]]), texture=torch.ones(2, 2, 3)
    )


@pytest.mark.parametrize("name", SCENES + OTHERS)
def test_empty_files(tmp_path, name):
    if name in ("a.obj", "a.stl"):
        pytest.importorskip("trimesh")
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"empty|0 bytes|is no |damaged|cut off|cannot|does not exist") as caught:
        load(tmp_path / name)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SCENES + OTHERS)
@pytest.mark.parametrize("content", [b"GIF89a" + bytes(range(256)), b"\x80\x04\x95" + b"x" * 5001, b"hello\n" * 7])
def test_files_of_another_kind(tmp_path, name, content):
    if name in ("a.obj", "a.stl"):
        pytest.importorskip("trimesh")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(tmp_path / name)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, place, value, message",
    [
        ("v2.spz", 4, 9, "has version 9; 2, 3 and 4 are read"),
        ("v4.spz", 4, 9, "has version 9; 2, 3 and 4 are read"),
        ("a.glb", 4, 1, "has .glb version 1; 2 is read"),
    ],
)
def test_unknown_versions_name_the_supported_ones(tmp_path, name, place, value, message):
    if name == "v4.spz":
        pytest.importorskip("zstandard")
    if name == "v2.spz":
        spz.write_gaussians(tmp_path / name, small_scene(0, 5), version=2)
        data = bytearray(gzip.decompress((tmp_path / name).read_bytes()))
    else:
        small_scene(0, 5).save(tmp_path / name)
        data = bytearray((tmp_path / name).read_bytes())
    struct.pack_into("<I", data, place, value)
    (tmp_path / name).write_bytes(gzip.compress(data) if name == "v2.spz" else data)
    with pytest.raises(FileFormatError, match=message):
        load(tmp_path / name)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("field", ["means", "quats", "log_scales", "sh"])
def test_a_scene_that_is_not_finite_is_not_written(tmp_path, field, bad):
    scene = small_scene(1, 5)
    getattr(scene, field)[2] = bad
    for name in ("a.ply", "a.compressed.ply", "a.splat", "v2.spz", "a.sog", "a.glb"):
        write = functools.partial(spz.write_gaussians, version=2) if name == "v2.spz" else codecs.save
        with pytest.raises(InputError, match=rf"{field} is not finite in 1 of 5 rows"):
            write(tmp_path / name, scene)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".glb", ".gltf", ".obj", ".ply", ".stl"])
def test_unusual_meshes_are_read_unchanged(tmp_path, suffix):
    if suffix in (".obj", ".ply", ".stl"):
        pytest.importorskip("trimesh")
    mesh = fin()
    mesh.save(tmp_path / f"a{suffix}")
    read = Mesh.load(tmp_path / f"a{suffix}")
    torch.testing.assert_close(read.vertices[read.faces], mesh.vertices[mesh.faces], rtol=0, atol=1e-6)
    assert read.num_degenerate == 1
    if suffix != ".stl":
        torch.testing.assert_close(read.corner_uvs, mesh.corner_uvs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", [".glb", ".gltf", ".obj", ".ply", ".stl"])
def test_empty_meshes_are_not_written(tmp_path, suffix):
    pytest.importorskip("trimesh")
    with pytest.raises(InputError, match="0 faces, want at least one face"):
        replace(fin(), faces=torch.zeros(0, 3, dtype=torch.int64)).save(tmp_path / f"a{suffix}")
    flat = replace(fin(), vertices=torch.zeros(6, 3))
    with pytest.raises(InputError, match="all 4 faces have zero area"):
        flat.save(tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


def png_of(width, height):
    """The header of an image without data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width, height", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (1_000_000, 1000)])
def test_images_of_absurd_size(tmp_path, width, height):
    (tmp_path / "a.png").write_bytes(png_of(width, height))
    with pytest.raises(FileFormatError, match=r"a\.png") as caught:
        read_image(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


def test_counts_of_2_31(tmp_path):
    small_scene(0, 5).save(tmp_path / "a.ply")
    text = (tmp_path / "a.ply").read_bytes().replace(b"element vertex 5", b"element vertex 2147483648")
    (tmp_path / "a.ply").write_bytes(text)
    with pytest.raises(FileFormatError, match="is truncated: it holds 5 whole rows of 2147483648"):
        GaussianScene.load(tmp_path / "a.ply")


@pytest.mark.parametrize("value", [
    PointCloud(torch.rand(4, 3)), Boxes(torch.ones(1, 7)), Selection((Region.sphere(torch.zeros(3), 1.0),)), ring_cameras(2),
    MeshGaussians.from_mesh(Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])), 1),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_other_types_truncated_anywhere(tmp_path, value):
    path = tmp_path / f"a{codecs.suffix_of(value)}"
    value.save(path)
    data = path.read_bytes()
    for length in np.linspace(0, len(data) - 2, 40).astype(int):
        path.write_bytes(data[:length])
        with pytest.raises(InputError) as caught:
            load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
