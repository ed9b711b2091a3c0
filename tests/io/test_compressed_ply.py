import logging
import struct

import numpy as np
import pytest
import torch

from tests.support.splats import assert_close, paired, small_scene
from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.io import compressed_ply, ply
from vision3d.scene import GaussianScene
from vision3d.scene.gaussians import FLAT_LOG_SCALE

SH0 = 0.28209479177387814


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("count", [1, 256, 1000])
def test_round_trip(tmp_path, degree, count):
    scene = small_scene(degree, count)
    scene.save(tmp_path / "a.compressed.ply")
    (tmp_path / "a.compressed.ply").rename(tmp_path / "a.ply")  # recognized by its content
    read = paired(GaussianScene.load(tmp_path / "a.ply"), scene)
    # The widest chunk spans the scene: 8 m, 6.9, and 1.8 times the constant.
    assert_close(read, scene, means=4 / 1023 + 1e-6, log_scales=3.45 / 1023 + 1e-5, opacities=0.5 / 255 + 1e-6)
    assert_close(read, scene, angle=0.006, sh0=0.9 / 255 + 1e-5, rest=1 / 64 + 1e-6)


def test_bytes_have_the_documented_layout(tmp_path):
    scene = small_scene(1, 2)
    scene.means[:] = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 4.0]])
    scene.quats[:] = torch.tensor([[0.0, 0.0, 0.0, -2.0], [1.0, 0.0, 0.0, 0.0]])
    scene.opacity_logits[:] = 0
    compressed_ply.write_gaussians(tmp_path / "a.ply", scene)
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    assert b"element chunk 1\n" in header and b"element vertex 2\n" in header and b"element sh 2\n" in header
    assert len(body) == 72 + 2 * 16 + 2 * 9
    assert struct.unpack_from("<6f", body) == (0, 0, 0, 1, 2, 4)
    words = np.frombuffer(body, "<u4", 8, 72).reshape(2, 4)
    assert words[:, 0].tolist() == [0, 0xFFFFFFFF]
    assert (words[:, 1] >> 30).tolist() == [3, 0]
    assert (words[:, 3] & 255).tolist() == [128, 128]
    levels = np.frombuffer(body, np.uint8, 18, 104).reshape(2, 3, 3)  # planar: red, green, blue
    np.testing.assert_array_equal(levels, np.trunc((scene.sh[:, 1:].numpy().transpose(0, 2, 1) / 8 + 0.5) * 256))


@pytest.mark.parametrize(
    "changes", [{"antialiased": True}, {"mode": "2dgs"}, {"mode": "flat"}, {"mode": "flat", "antialiased": True}]
)
def test_modes_round_trip(tmp_path, changes):
    scene = small_scene(0, **changes)
    scene.log_scales[:, 2] = FLAT_LOG_SCALE
    compressed_ply.save(tmp_path / "a.ply", scene)
    assert_close(paired(ply.read_gaussians(tmp_path / "a.ply"), scene), scene, log_scales=0.01)


def test_losses_are_one_line(tmp_path, caplog):
    scene = small_scene(4, labels=torch.arange(300))
    scene.sh[0, 1] = 5
    scene.log_scales[1, 1] = -30
    with caplog.at_level(logging.WARNING):
        scene.save(tmp_path / "a.compressed.ply")
    (record,) = caplog.records
    for part in ("harmonics above degree 3", "labels", "3 values of harmonics beyond -4 to 4", "1 values of log scale beyond"):
        assert part in record.getMessage()


def test_files_without_bounds_of_colors(tmp_path):
    scene = small_scene(0)
    compressed_ply.write_gaussians(tmp_path / "a.ply", scene)
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)
    for name in ("min_r", "min_g", "min_b", "max_r", "max_g", "max_b"):
        header = header.replace(f"property float {name}\n".encode(), b"")
    bounds = b"".join(body[72 * i : 72 * i + 48] for i in range(2))
    (tmp_path / "a.ply").write_bytes(header + b"end_header\n" + bounds + body[144:])
    colors = compressed_ply.read_gaussians(tmp_path / "a.ply").sh[:, 0] * SH0 + 0.5
    stored = np.frombuffer(body, ">u4", 1200, 144).reshape(-1, 4)[:, 3:].copy().byteswap().astype("<u4").view(np.uint8)
    np.testing.assert_allclose(colors.numpy(), np.flip(stored.reshape(-1, 4)[:, 1:], 1) / 255, atol=1e-6)


@pytest.mark.parametrize(
    "old, new, message",
    [
        (b"element chunk 2", b"element chunk 1", "has 1 chunks for 300 Gaussians, want 2"),
        (b"element vertex 300", b"element vertex 2147483648", "is truncated: it holds 4"),
        (b"element sh 300", b"element sh 301", "is truncated: it holds 300 whole rows of 301"),
        (b"element sh 300", b"element sh 299", "has 299 rows of harmonics for 300 Gaussians"),
        (b"f_rest_8", b"f_rest_9", "element sh has 9 properties"),
        (b"min_scale_y", b"min_scale_q", "lacks min_scale_y, which a compressed .ply has"),
        (b"packed_color", b"packed_colour", "lacks packed_color"),
        (b"element chunk", b"element piece", "is not a compressed .ply: it has no element chunk; elements: piece, vertex, sh"),
    ],
)
def test_wrong_headers(tmp_path, old, new, message):
    compressed_ply.write_gaussians(tmp_path / "a.ply", small_scene(1))
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data.replace(old, new))
    with pytest.raises(FileFormatError, match=message):
        compressed_ply.read_gaussians(tmp_path / "a.ply")


def test_truncated_anywhere(tmp_path):
    compressed_ply.write_gaussians(tmp_path / "a.ply", small_scene(1, 3))
    data = (tmp_path / "a.ply").read_bytes()
    for length in range(0, len(data), 3):
        (tmp_path / "a.ply").write_bytes(data[:length])
        with pytest.raises(FileFormatError):
            compressed_ply.read_gaussians(tmp_path / "a.ply")


def test_bounds_that_are_not_finite(tmp_path):
    compressed_ply.write_gaussians(tmp_path / "a.ply", small_scene(0))
    data = bytearray((tmp_path / "a.ply").read_bytes())
    struct.pack_into("<f", data, data.index(b"end_header\n") + 11 + 72, float("inf"))  # in the second chunk
    (tmp_path / "a.ply").write_bytes(data)
    with pytest.raises(FileFormatError, match="at row 256: 44 of 300 Gaussians are not finite"):
        ply.read_gaussians(tmp_path / "a.ply")
    assert len(ply.read_gaussians(tmp_path / "a.ply", drop_nan=True)) == 256


def test_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.ply: does not exist; want a \.ply file"):
        compressed_ply.read_gaussians(tmp_path / "none.ply")
