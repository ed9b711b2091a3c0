"""Files that declare more than they contain are rejected by their headers, before decoding or allocating that much."""

import base64
import json
import struct
import subprocess
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from vision3d.cli.inputs import parse_size
from vision3d.core.config import load_yaml
from vision3d.core.errors import ConfigError, FileFormatError
from vision3d.io import images
from vision3d.io.glb import read_mesh, read_parts
from vision3d.io.gltf_skin import read_skin
from vision3d.io.guards import MAX_PIXELS, MAX_SMALL_PIXELS, check_pixels, pixel_limit
from vision3d.io.mesh_files import read_mesh as read_obj
from vision3d.io.sog_files import webp_bytes
from vision3d.io.video import read_video
from vision3d.scene import Cameras, PosedImages, load
from vision3d.stages.fit.config import FitConfig
from vision3d.stages.rotation.clouds import read_clouds
from vision3d.training.evaluation import background_of


def bomb(width=10_000, height=10_000):
    """A valid black PNG of 1 bit per pixel: 12 kB for 10^8 pixels."""
    rows = zlib.compressobj(9)
    data = b"".join([rows.compress(bytes(1 + width // 8)) for _ in range(height)] + [rows.flush()])
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b""))
    body = [struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part)) for kind, part in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.fixture
def undecoded(monkeypatch):
    """Fails if any image is decoded."""

    def decode(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)


def gltf_with_texture(path, data):
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
    uri = "data:;base64," + base64.b64encode(points).decode()
    content = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": 36, "uri": uri}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC2"},
        ],
        "images": [{"uri": "data:image/png;base64," + base64.b64encode(data).decode()}],
        "textures": [{"source": 0}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0}]}],
    }
    path.write_text(json.dumps(content))
    return path


def obj_with_texture(folder):
    (folder / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n")
    (folder / "a.mtl").write_text("newmtl m\nmap_Kd a.png\n")
    return folder / "a.obj"


READERS = {
    "image_size": lambda folder: images.image_size(folder / "a.png"),
    "check_whole": lambda folder: images.check_whole(folder / "a.png"),
    "read_image": lambda folder: images.read_image(folder / "a.png"),
    "read_mask": lambda folder: images.read_mask(folder / "a.png"),
    "has_alpha": lambda folder: images.has_alpha(folder / "a.png"),
    "load": lambda folder: load(folder / "a.png"),
    "posed images": lambda folder: background_of(posed(folder / "a.png")),
}


def posed(path):
    cameras = Cameras.load(camera_file(path.parent))
    is_test = torch.zeros(len(cameras), dtype=torch.bool)
    return PosedImages(cameras, (path,) * len(cameras), is_test, source=path.parent)


def camera_file(folder):
    from tests.support.scenes import ring_cameras

    ring_cameras().save(folder / "cameras.json")
    return folder / "cameras.json"


@pytest.mark.parametrize("reader", READERS)
def test_image_bombs_are_rejected_before_they_are_decoded(tmp_path, undecoded, reader):
    data = bomb()
    assert len(data) < 20_000
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(FileFormatError, match=rf"10000x10000 = 100000000 pixels in {len(data)} bytes; want at most 672"):
        READERS[reader](tmp_path)


def test_a_gltf_is_read_without_a_texture_that_is_a_bomb(tmp_path, undecoded, caplog):
    mesh = read_mesh(gltf_with_texture(tmp_path / "a.gltf", bomb()))
    assert mesh.num_faces == 1 and mesh.texture is None
    assert "10000x10000 = 100000000 pixels" in caplog.text


def test_an_obj_is_read_without_a_texture_that_is_a_bomb(tmp_path, undecoded, caplog):
    (tmp_path / "a.png").write_bytes(bomb())
    mesh = read_obj(obj_with_texture(tmp_path))
    assert mesh.num_faces == 1 and mesh.texture is None
    assert "a.obj: read without a texture" in caplog.text and "10000x10000 = 100000000 pixels" in caplog.text


@pytest.mark.parametrize("suffix", [".webp", ".tif", ".bmp", ".jpg"])
def test_bombs_of_other_formats(tmp_path, undecoded, suffix, monkeypatch):
    """With a lower limit, so that no large file is needed."""
    monkeypatch.setattr("vision3d.io.guards.MAX_SMALL_PIXELS", 1000)
    Image.new("RGB", (400, 300)).save(tmp_path / f"a{suffix}", **({"compression": "tiff_deflate"} if suffix == ".tif" else {}))
    monkeypatch.setattr("vision3d.io.guards._PIXELS_PER_BYTE", 0)
    with pytest.raises(FileFormatError, match=r"400x300 = 120000 pixels in .* bytes; want at most 1000$"):
        images.read_image(tmp_path / f"a{suffix}")


def test_the_images_of_a_sog_have_the_same_limit(tmp_path, monkeypatch, undecoded):
    from tests.support.scenes import ring_scene

    ring_scene().save(tmp_path / "a.sog")
    monkeypatch.setattr("vision3d.io.guards.MAX_PIXELS", 4)
    with pytest.raises(FileFormatError, match=r"a\.sog at member '.*': image has \d+x\d+ = \d+ pixels.*; want at most 4$"):
        load(tmp_path / "a.sog")
    assert len(webp_bytes(np.zeros((2, 2, 4), np.uint8)))


def test_realistic_files_are_accepted():
    """JPEG photos of 100 million pixels, textures of 8192 x 8192, masks of phone photos with 48 million pixels."""
    check_pixels("photo.jpg", 11656, 8742, 20_000_000)
    check_pixels("texture.png", 8192, 8192, 70_000)
    check_pixels("mask.png", 8064, 6048, 30_000)
    assert pixel_limit(0) == MAX_SMALL_PIXELS and pixel_limit(10**9) == pixel_limit() == MAX_PIXELS
    with pytest.raises(FileFormatError, match="want at most 134217728"):
        check_pixels("photo.jpg", 16384, 16384, 10**9)


def test_a_plain_image_at_the_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("vision3d.io.guards.MAX_SMALL_PIXELS", 64 * 64)
    (tmp_path / "a.png").write_bytes(bomb(64, 64))
    assert images.read_image(tmp_path / "a.png").shape == (64, 64, 3)


def test_frames_of_a_video(tmp_path, monkeypatch):
    from imageio_ffmpeg import get_ffmpeg_exe

    path = tmp_path / "a.mp4"
    source = ["-f", "lavfi", "-i", "color=black:s=320x240:d=0.2"]
    subprocess.run([get_ffmpeg_exe(), "-v", "error", *source, str(path)], check=True)
    assert read_video(path).width == 320
    monkeypatch.setattr("vision3d.io.guards.MAX_PIXELS", 76_799)
    with pytest.raises(FileFormatError, match=r"a\.mp4: image has 320x240 = 76800 pixels in .* want at most 76799$"):
        read_video(path)


def test_the_size_of_a_rendered_image():
    assert parse_size("--size", "8192x8192") == (8192, 8192)
    with pytest.raises(ConfigError, match="--size: got 99999x99999, which has 9999800001 pixels; want at most 134217728"):
        parse_size("--size", "99999x99999")


def instances(path, count, kind):
    """A .gltf with many nodes that show one mesh."""
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
    buffer = points + bytes(12) + bytes([255, 0, 0, 0]) * 3
    nodes = [{"mesh": 0, "translation": [i % 7, 1, 2]} for i in range(count)]
    content = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": len(buffer), "uri": "data:;base64," + base64.b64encode(buffer).decode()}],
        "bufferViews": [{"buffer": 0, "byteOffset": at, "byteLength": n} for at, n in ((0, 36), (36, 12), (48, 12))],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5121, "count": 3, "type": "VEC4"},
            {"bufferView": 2, "componentType": 5121, "count": 3, "type": "VEC4", "normalized": True},
        ],
        "meshes": [{"name": "m", "primitives": [{"attributes": {"POSITION": 0, "JOINTS_0": 1, "WEIGHTS_0": 2}}]}],
        "nodes": nodes,
    }
    if kind == "skins":
        content["skins"] = [{"joints": [i]} for i in range(count)]
        content["nodes"] = [{**node, "skin": i} for i, node in enumerate(nodes)]
    if kind == "animations":
        content["animations"] = [{"name": "a", "channels": [], "samplers": []} for _ in range(count)]
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("read, kind", [(read_parts, "meshes"), (read_skin, "skins"), (read_skin, "animations")])
def test_thousands_of_instances_take_linear_time(tmp_path, read, kind):
    def seconds(count):
        path = instances(tmp_path / "a.gltf", count, kind)
        start = time.process_time()
        read(path)
        return time.process_time() - start

    seconds(10)
    assert seconds(6000) < 16 * seconds(1000)  # 6 times the work; quadratic time would be 36 times


def test_names_of_instances(tmp_path):
    assert list(read_parts(instances(tmp_path / "a.gltf", 4, "meshes"))) == ["m", "m_2", "m_3", "m_4"]


def test_clips_with_numbered_names(tmp_path):
    """`a` next to `a 3`: choosing a number for a third clip must not loop forever."""
    path = instances(tmp_path / "a.gltf", 1, "animations")
    content = json.loads(path.read_text())
    content["animations"] = [{"name": name, "channels": [], "samplers": []} for name in ("a", "a 2", "a 3", "a", "a")]
    path.write_text(json.dumps(content))
    assert [clip.name for clip in read_skin(path).clips] == ["a", "a 2", "a 3", "a 4", "a 5"]


def test_an_array_header_that_declares_a_terabyte(tmp_path):
    import io
    import zipfile

    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 100, 3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("train.npy", head.getvalue() + bytes(1000))
        archive.writestr("test.npy", head.getvalue() + bytes(1000))
    with pytest.raises(FileFormatError, match=r"a\.npz: cannot be read: "):
        read_clouds(tmp_path / "a.npz")


def test_yaml_alias_bombs(tmp_path):
    lists = "x"
    for level in range(9):
        lists = f"[&a{level} {lists}{f', *a{level}' * 9}]" if level else f"[{', '.join('x' * 10)}]"
    (tmp_path / "a.yaml").write_text(f"steps: {lists}\n")
    start = time.process_time()
    with pytest.raises(ConfigError, match=r"^steps: got ") as found:
        load_yaml(FitConfig, tmp_path / "a.yaml")
    assert len(str(found.value)) < 200 and time.process_time() - start < 2
