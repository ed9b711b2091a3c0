import struct
from dataclasses import replace

import pytest
import torch

from tests.support.ksplat import ksplat_bytes
from tests.support.splats import assert_close, small_scene
from vision3d.core.errors import FileFormatError, InputError
from vision3d.io import ksplat
from vision3d.scene import GaussianScene

SH0 = 0.28209479177387814


def bounded(degree, count=300):
    scene = small_scene(degree, count)
    sh = torch.cat([scene.sh[:, :1].clamp(-0.5 / SH0, 0.5 / SH0), scene.sh[:, 1:]], 1)
    return replace(scene, sh=sh, quats=torch.nn.functional.normalize(scene.quats, dim=1))


@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize(
    "level, mean, log_scale, angle, rest", [(0, 0, 1e-6, 1e-6, 0), (1, 1.3e-4, 5e-4, 1e-3, 4e-4), (2, 1.3e-4, 5e-4, 1e-3, 6e-3)]
)
def test_levels(tmp_path, degree, level, mean, log_scale, angle, rest):
    scene = bounded(degree)
    (tmp_path / "a.ksplat").write_bytes(ksplat_bytes(scene, level))
    read = GaussianScene.load(tmp_path / "a.ksplat")
    assert_close(read, scene, means=mean, log_scales=log_scale, angle=angle, rest=rest)
    assert_close(read, scene, opacities=0.5 / 255 + 1e-6, sh0=0.5 / 255 / SH0 + 1e-5)


def test_fixture(shared_data):
    scene = ksplat.read_gaussians(shared_data / "splats" / "minimal.ksplat")
    assert scene.means.tolist() == [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(scene.scales, torch.full((4, 3), 0.1))
    torch.testing.assert_close(scene.opacities, torch.full((4,), 230 / 255))
    torch.testing.assert_close(scene.sh[:, 0, 0] * SH0 + 0.5, torch.tensor([85, 170, 85, 170]) / 255)


@pytest.mark.parametrize(
    "place, kind, value, message",
    [
        (0, "<B", 1, r"at byte 0: has version 1\.1; 0\.1 and later"),
        (1, "<B", 0, r"has version 0\.0"),
        (4, "<I", 2**31, "is truncated within the headers of its 2147483648 sections"),
        (16, "<I", 2**31, "has 2147483648 Gaussians in its header and 300 in its sections"),
        (20, "<H", 3, "has compression level 3; 0, 1 and 2 are read"),
        (4096, "<I", 2**31, "has 2147483648 Gaussians in a section with room for 300"),
        (4096 + 4, "<I", 2**31, None),
        (4096 + 12, "<I", 2**31, "is truncated: a section"),
        (4096 + 36, "<I", 2**31, "2147483648 other ones of 2"),
        (4096 + 40, "<H", 9, "has harmonics of degree 9"),
        (5120, "<I", 1, "has buckets for 257 of the 300"),
    ],
)
def test_wrong_headers(tmp_path, place, kind, value, message):
    data = bytearray(ksplat_bytes(bounded(1), 1))
    struct.pack_into(kind, data, place, value)
    (tmp_path / "a.ksplat").write_bytes(data)
    if message is None:  # space after the last row may be truncated
        assert len(ksplat.read_gaussians(tmp_path / "a.ksplat")) == 300
        return
    with pytest.raises(FileFormatError, match=message):
        ksplat.read_gaussians(tmp_path / "a.ksplat")


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 5000, 5120, 5130, 8000])
def test_truncated(tmp_path, length):
    (tmp_path / "a.ksplat").write_bytes(ksplat_bytes(bounded(1), 2)[:length])
    with pytest.raises(FileFormatError, match=r"is truncated|is empty|header is truncated"):
        ksplat.read_gaussians(tmp_path / "a.ksplat")


def test_it_is_not_written(tmp_path):
    with pytest.raises(InputError, match=r"\.ksplat can be read but not written"):
        small_scene().save(tmp_path / "a.ksplat")
