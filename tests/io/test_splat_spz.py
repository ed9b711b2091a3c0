import gzip
import logging
import math
import re
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.splats import assert_close, differences, paired, small_scene
from vision3d.core.errors import FileFormatError, InputError, MissingDependencyError, MissingFileError
from vision3d.core.install import install_command
from vision3d.io import splat, spz
from vision3d.scene import GaussianScene, codecs

SH0 = 0.28209479177387814


@pytest.fixture
def splats(shared_data):
    return shared_data / "splats"


def clipped_colors(scene, limit=0.5 / SH0):
    return replace(scene, sh=torch.cat([scene.sh[:, :1].clamp(-limit, limit), scene.sh[:, 1:]], 1))


class TestSplat:
    def test_round_trip(self, tmp_path):
        scene = clipped_colors(small_scene(0))
        scene.save(tmp_path / "a.splat")
        assert (tmp_path / "a.splat").stat().st_size == 32 * len(scene)
        read = paired(GaussianScene.load(tmp_path / "a.splat"), scene)
        assert torch.equal(read.means, scene.means)
        # A byte of the quaternion has a step of 1/128; 1 is clamped to 127/128.
        assert_close(read, scene, log_scales=1e-5, opacities=0.5 / 255 + 1e-4, sh0=0.5 / 255 / SH0 + 1e-5, angle=0.04)

    def test_fixture(self, splats):
        scene = splat.read_gaussians(splats / "minimal.splat")
        assert scene.means.tolist() == [[-1, 0, -1], [0, 0, -1], [-1, 0, 0], [0, 0, 0]]
        torch.testing.assert_close(scene.scales, torch.full((4, 3), 0.1))
        torch.testing.assert_close(scene.opacities, torch.full((4,), 230 / 255))
        reds = torch.tensor([85, 170, 85, 170]) / 255
        torch.testing.assert_close(scene.sh[:, 0, 0] * SH0 + 0.5, reds)

    def test_large_and_opaque_first(self, tmp_path):
        scene = small_scene(0, 3)
        scene.log_scales[:] = torch.tensor([-4.0, -1.0, -1.0])[:, None]
        scene.opacity_logits[:] = torch.tensor([5.0, 0.0, 3.0])
        scene.save(tmp_path / "a.splat")
        assert torch.equal(splat.read_gaussians(tmp_path / "a.splat").means, scene.means[[2, 1, 0]])

    def test_losses_are_one_line(self, tmp_path, caplog):
        scene = small_scene(2, labels=torch.arange(300), antialiased=True, mode="2dgs")
        scene.sh[0, 0, 0] = 9
        with caplog.at_level(logging.WARNING):
            scene.save(tmp_path / "a.splat")
        (record,) = caplog.records
        text = record.getMessage()
        for part in ("harmonics above degree 0", "labels", "mode 2dgs", "antialiased", "1 values of color beyond 0 to 1"):
            assert part in text
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            clipped_colors(small_scene(0)).save(tmp_path / "b.splat")
        assert not caplog.records

    @pytest.mark.parametrize(
        "data, message",
        [
            (b"", r"at byte 0: is empty \(0 bytes\)"),
            (b"\0" * 33, r"at byte 32: has 33 bytes, want a multiple of 32 \(1 rows are whole\)"),
            (b"\xff" * 32, r"at row 0: 1 of 1 Gaussians are not finite .*--filter-nan"),
        ],
    )
    def test_bad_files(self, tmp_path, data, message):
        (tmp_path / "a.splat").write_bytes(data)
        with pytest.raises(FileFormatError, match=message):
            splat.read_gaussians(tmp_path / "a.splat")

    def test_bad_rows_can_be_dropped(self, tmp_path):
        scene = small_scene(0, 4)
        scene.save(tmp_path / "a.splat")
        data = bytearray((tmp_path / "a.splat").read_bytes())
        data[32:36] = struct.pack("<f", math.nan)  # a center
        data[64 + 12 : 64 + 16] = struct.pack("<f", -1)  # a scale
        data[96 + 12 : 96 + 16] = struct.pack("<f", 0)  # a disc's
        (tmp_path / "a.splat").write_bytes(data)
        with pytest.raises(FileFormatError, match="at row 1: 2 of 4 Gaussians"):
            splat.read_gaussians(tmp_path / "a.splat")
        read = splat.read_gaussians(tmp_path / "a.splat", drop_nan=True)
        assert len(read) == 2 and float(read.scales[1, 0]) == pytest.approx(1e-8)

    def test_wrong_input(self, tmp_path):
        with pytest.raises(MissingFileError, match=r"want a \.splat file"):
            splat.read_gaussians(tmp_path / "none.splat")
        with pytest.raises(InputError, match=r"a \.splat file holds a Gaussian scene, got int"):
            codecs.save(tmp_path / "a.splat", 3)
        with pytest.raises(InputError, match="got 0 Gaussians"):
            splat.write_gaussians(tmp_path / "a.splat", small_scene()[:0])


class TestSpz:
    @pytest.mark.parametrize("version, degree", [(2, 0), (2, 3), (4, 0), (4, 1), (4, 2), (4, 3), (4, 4)])
    def test_round_trip(self, tmp_path, version, degree):
        if version == 4:
            pytest.importorskip("zstandard")
        scene = small_scene(degree, antialiased=True)
        spz.write_gaussians(tmp_path / "a.spz", scene, version=version)
        read = GaussianScene.load(tmp_path / "a.spz")
        # Version 2 reconstructs w: half a step of the others, sqrt(3) / 255, is an angle of 2 sqrt(2 sqrt(3) / 255) at w = 0.
        angle = 0.234 if version == 2 else 0.005
        assert_close(read, scene, means=2**-13 + 1e-6, log_scales=1 / 32 + 1e-6, opacities=0.5 / 255 + 1e-6, angle=angle)
        assert_close(read, scene, sh0=0.5 / 255 / 0.15 + 1e-6, rest=1 / 16 + 1e-6)
        if degree:
            assert float((read.sh[:, 1:4] - scene.sh[:, 1:4]).abs().max()) <= 1 / 32 + 1e-6

    def test_axes_are_those_of_the_ply_rotated_about_x(self, tmp_path):
        scene = small_scene(1, 1)
        scene.means[:] = torch.tensor([[1.0, 2.0, 3.0]])
        spz.write_gaussians(tmp_path / "a.spz", scene, version=2)
        data = gzip.decompress((tmp_path / "a.spz").read_bytes())
        stored = [int.from_bytes(data[16 + 3 * i : 19 + 3 * i], "little", signed=True) / 4096 for i in range(3)]
        assert stored == [1, -2, -3]  # right, up, back
        # Colors are seen from the same side: coefficients of y and z change their sign, that of x does not.
        rest = (np.frombuffer(data, np.uint8)[-9:].reshape(3, 3) / 128.0) - 1
        np.testing.assert_allclose(rest, scene.sh[0, 1:].numpy() * [[-1], [-1], [1]], atol=1 / 32 + 1e-6)

    @pytest.mark.parametrize("name, x, depth", [("v2", -1, 1), ("raw", -1, 1), ("v3", -1, -1), ("v4", -1, -1)])
    def test_fixtures(self, splats, name, x, depth):
        if name == "v4":
            pytest.importorskip("zstandard")
        scene = spz.read_gaussians(splats / f"minimal-{name}.spz")
        assert scene.means.tolist() == [[x, 0, depth], [0, 0, depth], [x, 0, 0], [0, 0, 0]]
        assert (scene.log_scales == 123 / 16 - 10).all()
        torch.testing.assert_close(scene.opacities, torch.full((4,), 230 / 255))
        high, low = (170, 85) if depth == 1 else (150, 105)
        expected = (torch.tensor([low, high, low, high]) / 255 - 0.5) / 0.15
        torch.testing.assert_close(scene.sh[:, 0, 0], expected)
        torch.testing.assert_close(scene.quats[:, 0].abs(), torch.ones(4), atol=1e-4, rtol=0)

    def test_biker(self, splats):
        pytest.importorskip("zstandard")
        scene = spz.read_gaussians(splats / "biker.spz")
        assert (len(scene), scene.sh_degree, scene.antialiased) == (152_746, 0, False)
        low, high = scene.means.aminmax(dim=0)
        torch.testing.assert_close(low, torch.tensor([-0.62134, -3.18018, -0.53223]), atol=1e-4, rtol=0)
        torch.testing.assert_close(high, torch.tensor([0.41431, 0.0, 0.61328]), atol=1e-4, rtol=0)
        torch.testing.assert_close(scene.quats.norm(dim=1), torch.ones(len(scene)))

    def test_far_positions_get_coarser(self, tmp_path, caplog):
        scene = small_scene(0)
        scene.means[0, 0] = 9000.0
        with caplog.at_level(logging.WARNING):
            spz.write_gaussians(tmp_path / "a.spz", scene, version=2)
        assert "positions finer than 0.00195312 m (they reach 9000 m)" in caplog.text
        assert differences(spz.read_gaussians(tmp_path / "a.spz"), scene)["means"] <= 2**-10

    def test_losses_are_one_line(self, tmp_path, caplog):
        scene = small_scene(4, labels=torch.arange(300), mode="flat")
        scene.log_scales[:, 2] = math.log(1e-8)
        with caplog.at_level(logging.WARNING):
            spz.write_gaussians(tmp_path / "a.spz", scene, version=2)
        (record,) = caplog.records
        for part in ("harmonics above degree 3", "labels", "mode flat", "300 values of log scale beyond -10 to 5.9375 log m"):
            assert part in record.getMessage()

    def test_without_zstandard(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(
            MissingDependencyError,
            match=r"writing \.spz of version 4 \(version 2 does without\).*" + re.escape(install_command("spz")),
        ):
            small_scene().save(tmp_path / "a.spz")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "place, kind, value, message",
        [
            (0, "<I", 1, "byte 0 of the unpacked stream: is not an .spz file"),
            (4, "<I", 5, "has version 5; 2, 3 and 4 are read"),
            (4, "<I", 4, "has version 4 inside a gzip stream"),
            (8, "<I", 2**31, "byte 8 of the unpacked stream: unpacks to .* want at most"),
            (8, "<I", 301, "gzip stream is truncated"),
            (8, "<I", 299, "holds more than"),
            (8, "<I", 0, "has 0 Gaussians"),
            (12, "<B", 5, "harmonics of degree 5"),
            (13, "<B", 24, "24 fraction bits"),
        ],
    )
    def test_wrong_headers_of_version_2(self, tmp_path, place, kind, value, message):
        spz.write_gaussians(tmp_path / "a.spz", small_scene(1), version=2)
        data = bytearray(gzip.decompress((tmp_path / "a.spz").read_bytes()))
        struct.pack_into(kind, data, place, value)
        (tmp_path / "a.spz").write_bytes(gzip.compress(data))
        with pytest.raises(FileFormatError, match=message):
            spz.read_gaussians(tmp_path / "a.spz")

    @pytest.mark.parametrize(
        "place, kind, value, message",
        [
            (0, "<I", 1, "is not an .spz file"),
            (4, "<I", 1, "has version 1; 2, 3 and 4 are read"),
            (8, "<I", 2**31, "at byte 8: unpacks to"),
            (8, "<I", 301, "stream positions has 2700 bytes, want 2709"),
            (15, "<B", 5, "has 5 streams, want 6"),
            (16, "<I", 2**31, "table of streams at byte 2147483648 is outside"),
            (16, "<I", 0, "table of streams at byte 0 is outside"),
            (32, "<Q", 2**63, "is truncated: stream positions of 9223372036854775808 bytes"),
            (32, "<Q", 1, "zstd stream"),
            (40, "<Q", 2**31, "stream positions has 2147483648 bytes"),
            (130, "<I", 0xFFFFFFFF, "zstd stream is damaged"),
        ],
    )
    def test_wrong_headers_of_version_4(self, tmp_path, place, kind, value, message):
        pytest.importorskip("zstandard")
        spz.write_gaussians(tmp_path / "a.spz", small_scene(1))
        data = bytearray((tmp_path / "a.spz").read_bytes())
        struct.pack_into(kind, data, place, value)
        (tmp_path / "a.spz").write_bytes(data)
        with pytest.raises(FileFormatError, match=message):
            spz.read_gaussians(tmp_path / "a.spz")

    @pytest.mark.parametrize("version", [2, 4])
    def test_truncated_anywhere(self, tmp_path, version):
        if version == 4:
            pytest.importorskip("zstandard")
        spz.write_gaussians(tmp_path / "a.spz", small_scene(1, 4), version=version)
        data = (tmp_path / "a.spz").read_bytes()
        for length in range(len(data) - (8 if version == 2 else 0)):  # the checksum of gzip follows the data
            (tmp_path / "a.spz").write_bytes(data[:length])
            with pytest.raises(FileFormatError):
                spz.read_gaussians(tmp_path / "a.spz")

    def test_bombs(self, tmp_path):
        head = struct.pack("<4sIIBBBB", b"NGSP", 2, 2**30 // 19, 0, 12, 0, 0)
        (tmp_path / "a.spz").write_bytes(gzip.compress(head + bytes(100 << 20), 9))
        with pytest.raises(FileFormatError, match="unpacks to 10737"):
            spz.read_gaussians(tmp_path / "a.spz")
        head = struct.pack("<4sIIBBBB", b"NGSP", 2, 1, 0, 12, 0, 0)
        (tmp_path / "a.spz").write_bytes(gzip.compress(head + bytes(100 << 20), 9))
        with pytest.raises(FileFormatError, match="holds more than the 19 bytes"):
            spz.read_gaussians(tmp_path / "a.spz")

    def test_zstd_bomb(self, tmp_path):
        zstandard = pytest.importorskip("zstandard")
        bomb = zstandard.ZstdCompressor().compress(bytes(200 << 20))
        head = struct.pack("<4sIIBBBB", b"NGSP", 4, 1, 0, 12, 0, 5) + struct.pack("<I12x", 32)
        table = b"".join(struct.pack("<QQ", len(bomb), size) for size in (9, 1, 3, 3, 4))
        (tmp_path / "a.spz").write_bytes(head + table + bomb * 5)
        with pytest.raises(FileFormatError, match="zstd stream"):
            spz.read_gaussians(tmp_path / "a.spz")
