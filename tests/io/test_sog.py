import io
import json
import logging
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.splats import assert_close, paired, small_scene
from vision3d.errors import FileFormatError
from vision3d.io import palette, sog
from vision3d.scene import GaussianScene


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, content, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def webp(width, height, **options):
    buffer = io.BytesIO()
    Image.new("RGBA", (width, height)).save(buffer, "WEBP", **{"lossless": True, **options})
    return buffer.getvalue()


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("count", [1, 300])
def test_round_trip(tmp_path, degree, count):
    scene = small_scene(degree, count)
    scene.save(tmp_path / "a.sog")
    read = paired(GaussianScene.load(tmp_path / "a.sog"), scene)
    # Steps: 2 ln 5 / 65535 of the logarithm of at most 5; 1/254 of the range of the tables.
    assert_close(read, scene, means=2 * np.log(5) / 65535 * 5 / 2 + 1e-6, log_scales=6.9 / 254 + 1e-5, angle=0.02)
    assert_close(read, scene, opacities=0.5 / 255 + 1e-6, sh0=1.8 / 254 + 1e-5, rest=1.8 / 254 + 1e-5)


@pytest.mark.parametrize("mode, antialiased", [("3dgs", True), ("2dgs", False)])
def test_modes_survive(tmp_path, mode, antialiased):
    scene = small_scene(0, mode=mode, antialiased=antialiased)
    scene.save(tmp_path / "a.sog")
    assert_close(paired(sog.read_gaussians(tmp_path / "a.sog"), scene), scene, means=1e-3)


def test_losses_are_one_line(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(sog, "_MAX_PALETTE", 64)
    scene = small_scene(4, labels=torch.arange(300), mode="flat")
    with caplog.at_level(logging.WARNING):
        scene.save(tmp_path / "a.sog")
    (record,) = caplog.records
    for part in ("harmonics above degree 3", "labels", "mode flat", "a palette of 64 stands for 300"):
        assert part in record.getMessage()
    read = paired(sog.read_gaussians(tmp_path / "a.sog"), scene)
    assert len(read.sh[:, 1:].unique(dim=0)) <= 64


def test_palettes():
    random = np.random.default_rng(0)
    centers = random.normal(size=(16, 9)).astype(np.float32) * 10
    rows = centers[random.integers(0, 16, 5000)]
    found, labels = palette.palette_of(rows, 64)
    np.testing.assert_allclose(found[labels], rows, atol=1e-4)
    noisy = rows + random.normal(size=rows.shape).astype(np.float32)
    found, labels = palette.palette_of(noisy, 16)
    assert len(found) == 16 and np.square(found[labels] - noisy).mean() < 0.3 * noisy.var()


def test_tables_reach_every_value():
    values = np.random.default_rng(0).standard_cauchy(5000).astype(np.float32)
    table = palette.codebook_of(values)
    assert table.shape == (256,) and (np.diff(table) >= 0).all()
    errors = np.abs(table[palette.nearest_entries(table, values)] - values)
    assert errors.max() <= np.ptp(values) / 253
    assert (palette.codebook_of(np.full(3, 7, np.float32)) == 7).all()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "c:\\x", "..\\x"])
def test_names_that_lead_out(tmp_path, name):
    small_scene(0).save(tmp_path / "a.sog")
    write_members(tmp_path / "a.sog", {**members(tmp_path / "a.sog"), name: b"x"})
    with pytest.raises(FileFormatError, match="has a name that leads out of the archive"):
        sog.read_gaussians(tmp_path / "a.sog")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("version", 1, r"meta\.json: version: has SOG version 1; 2 is read"),
        ("count", 2**31, "meta.json: count: got 2147483648, want a whole number"),
        ("count", 0, "got 0, want a whole number"),
        ("count", 301, None),
        ("count", 2000, "is a picture of 20x15, want 2000 to"),
        ("means", {}, r"meta\.json: means\.files: got null, want a list of 2 names"),
        ("scales", {"codebook": [1], "files": ["scales.webp"]}, r"scales\.codebook: got \[1\], want a list of 256 numbers"),
        ("quats", {"files": ["none.webp"]}, "lacks none.webp; it has meta.json"),
    ],
)
def test_wrong_meta(tmp_path, key, value, message):
    small_scene(0).save(tmp_path / "a.sog")
    content = members(tmp_path / "a.sog")
    content["meta.json"] = json.dumps({**json.loads(content["meta.json"]), key: value}).encode()
    write_members(tmp_path / "a.sog", content)
    with pytest.raises(FileFormatError, match=message):
        sog.read_gaussians(tmp_path / "a.sog")


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("means_l.webp", webp(16000, 16000), "is a picture of 16000x16000, want 300 to"),
        ("means_l.webp", webp(20, 15, lossless=False), "lossless"),
        ("means_l.webp", b"GIF89a" + bytes(50), "is no WebP picture"),
        ("means_l.webp", webp(20, 15)[:32], "damaged picture"),
        ("meta.json", b"[" * 100000, "is no JSON"),
        ("meta.json", b"[1]", "holds no object"),
    ],
)
def test_wrong_members(tmp_path, name, data, message):
    small_scene(0).save(tmp_path / "a.sog")
    write_members(tmp_path / "a.sog", {**members(tmp_path / "a.sog"), name: data})
    with pytest.raises(FileFormatError, match=message):
        sog.read_gaussians(tmp_path / "a.sog")


@pytest.mark.parametrize("name", ["meta.json", "quats.webp"])
def test_zip_bombs(tmp_path, name):
    small_scene(0).save(tmp_path / "a.sog")
    write_members(tmp_path / "a.sog", {**members(tmp_path / "a.sog"), name: bytes(100 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(FileFormatError, match=f"member '{name}': has 104857600 bytes, want at most"):
        sog.read_gaussians(tmp_path / "a.sog")


@pytest.mark.parametrize("data, message", [(b"", "is empty"), (b"x" * 100, "is no zip file"), (b"PK\3\4", "is no zip file")])
def test_no_zip(tmp_path, data, message):
    (tmp_path / "a.sog").write_bytes(data)
    with pytest.raises(FileFormatError, match=message):
        sog.read_gaussians(tmp_path / "a.sog")
