import io
import json
import logging
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.splats import assert_close, paired, small_scene
from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.io import palette, sog
from vision3d.scene import GaussianScene, load


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
    assert_close(read, scene, means=2 * np.log(5) / 65535 * 5 / 2 + 1e-6, log_scales=6.9 / 128 + 1e-5, angle=0.02)
    assert_close(read, scene, opacities=0.5 / 255 + 1e-6, sh0=1.8 / 254 + 1e-5, rest=1.8 / 254 + 1e-5)


@pytest.mark.parametrize("mode, antialiased", [("3dgs", True), ("2dgs", False)])
def test_modes_round_trip(tmp_path, mode, antialiased):
    scene = small_scene(0, mode=mode, antialiased=antialiased)
    scene.save(tmp_path / "a.sog")
    assert_close(paired(sog.read_gaussians(tmp_path / "a.sog"), scene), scene, means=1e-3)


def test_losses_are_one_line(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(sog, "MAX_PALETTE", 64)
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


def rms(table, values):
    return np.sqrt(np.square(table[palette.nearest_entries(table, values)].astype(float) - values).mean())


def test_tables_cover_every_value():
    values = np.random.default_rng(0).standard_cauchy(5000).astype(np.float32)
    table = palette.codebook_of(values)
    assert table.shape == (256,) and (np.diff(table) >= 0).all()
    errors = np.abs(table[palette.nearest_entries(table, values)] - values)
    assert errors.max() <= np.ptp(values) / 64
    assert (palette.codebook_of(np.full(3, 7, np.float32)) == 7).all()


def test_tables_of_few_values_are_exact():
    values = np.random.default_rng(0).choice(np.random.default_rng(1).normal(size=200).astype(np.float32), 5000)
    assert rms(palette.codebook_of(values), values) == 0


def test_tables_are_almost_optimal():
    """The optimal error for many entries is sqrt((integral of f^(1/3))^3 / 12) / 256: for a normal density of deviation s,
    s sqrt(sqrt(3) pi / 2) / 256.
    """
    values = np.random.default_rng(0).normal(-4, 1.5, 200_000).astype(np.float32)
    assert rms(palette.codebook_of(values), values) < 1.06 * 1.5 * np.sqrt(np.sqrt(3) * np.pi / 2) / 256
    even = np.random.default_rng(0).uniform(0, 1, 200_000).astype(np.float32)
    assert rms(palette.codebook_of(even), even) < 1.06 / 256 / np.sqrt(12)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_version_1(tmp_path, degree):
    """The layout of its specification's example: shapes instead of a count, bytes between bounds, logits for opacities."""
    scene = small_scene(degree)
    scene.save(tmp_path / "a.sog")
    content = members(tmp_path / "a.sog")
    meta = json.loads(content["meta.json"])
    count = meta.pop("count")
    del meta["version"]
    meta["means"]["shape"] = [count, 3]
    meta["scales"] = {"shape": [count, 3], "mins": [-5, -4, -3], "maxs": [-1, -2, 0.5], "files": meta["scales"]["files"]}
    meta["sh0"] = {"mins": [-1, -2, -3, -4], "maxs": [1, 2, 3, 6], "files": meta["sh0"]["files"]}
    if degree:
        meta["shN"] = {"mins": -0.5, "maxs": 2, "quantization": 8, "files": meta["shN"]["files"]}
    read = {
        name: np.asarray(Image.open(io.BytesIO(content[name])).convert("RGBA")).reshape(-1, 4)
        for name in content
        if name.endswith("webp")
    }
    write_members(tmp_path / "b.sog", {**content, "meta.json": json.dumps(meta).encode()})
    first, second = sog.read_gaussians(tmp_path / "b.sog"), sog.read_gaussians(tmp_path / "a.sog")
    assert torch.equal(first.means, second.means) and torch.equal(first.quats, second.quats)
    scales, colors = read["scales.webp"][:count, :3], read["sh0.webp"][:count]
    want = np.array([-5, -4, -3]) + np.array([4, 2, 3.5]) * scales / 255
    np.testing.assert_allclose(first.log_scales.numpy(), want, atol=1e-5)
    want = np.array([-1, -2, -3, -4]) + np.array([2, 4, 6, 10]) * colors / 255
    np.testing.assert_allclose(first.sh[:, 0].numpy(), want[:, :3], atol=1e-5)
    np.testing.assert_allclose(first.opacity_logits.numpy(), want[:, 3], atol=1e-5)
    if degree:
        labels = read["shN_labels.webp"][:count].astype(int)
        rows = read["shN_centroids.webp"][:, :3].reshape(-1, (degree + 1) ** 2 - 1, 3)[labels[:, 0] + 256 * labels[:, 1]]
        np.testing.assert_allclose(first.sh[:, 1:].numpy(), -0.5 + 2.5 * rows / 255, atol=1e-5)


def test_tables_that_start_with_null(tmp_path):
    small_scene(0).save(tmp_path / "a.sog")
    content = members(tmp_path / "a.sog")
    meta = json.loads(content["meta.json"])
    table = meta["scales"]["codebook"]
    table[0] = None
    write_members(tmp_path / "a.sog", {**content, "meta.json": json.dumps(meta).encode()})
    read = sog.read_gaussians(tmp_path / "a.sog")
    assert read.log_scales.isfinite().all() and read.log_scales.min() >= table[1] + (table[1] - table[255]) / 255 - 1e-5


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "c:\\x", "..\\x"])
def test_names_outside_the_archive(tmp_path, name):
    small_scene(0).save(tmp_path / "a.sog")
    write_members(tmp_path / "a.sog", {**members(tmp_path / "a.sog"), name: b"x"})
    with pytest.raises(FileFormatError, match="has a name outside the archive"):
        sog.read_gaussians(tmp_path / "a.sog")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("version", 3, r"meta\.json: version: has SOG version 3; 1 and 2 are read"),
        ("version", 1, r"meta\.json: means\.shape: got null, want a list of whole numbers, the first from 1 to"),
        ("count", None, "meta.json: count: got null, want a whole number"),
        ("count", 2**31, "meta.json: count: got 2147483648, want a whole number"),
        ("count", 0, "got 0, want a whole number"),
        ("count", 301, None),
        ("count", 2000, "is an image of 20x15, want 2000 to"),
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
        ("means_l.webp", webp(16000, 16000), "is an image of 16000x16000, want 300 to"),
        ("means_l.webp", webp(20, 15, lossless=False), "lossless"),
        ("means_l.webp", b"GIF89a" + bytes(50), "is not a WebP image"),
        ("means_l.webp", webp(20, 15)[:32], "damaged image"),
        ("meta.json", b"[" * 100000, "is not JSON"),
        ("meta.json", b"[1]", "is not an object"),
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


@pytest.mark.parametrize(
    "data, message",
    [(b"", "is empty"), (b"x" * 100, "is damaged or not a zip file"), (b"PK\3\4", "is damaged or not a zip file")],
)
def test_files_that_are_not_zip(tmp_path, data, message):
    (tmp_path / "a.sog").write_bytes(data)
    with pytest.raises(FileFormatError, match=message):
        sog.read_gaussians(tmp_path / "a.sog")


class TestFolder:
    def test_round_trip(self, tmp_path):
        scene = small_scene(2)
        scene.save(tmp_path / "a.sog")
        scene.save(tmp_path / "a" / "meta.json")
        assert {path.name for path in (tmp_path / "a").iterdir()} == set(members(tmp_path / "a.sog"))
        archived = sog.read_gaussians(tmp_path / "a.sog")
        for path in (tmp_path / "a", tmp_path / "a" / "meta.json"):
            read = GaussianScene.load(path)
            assert all(torch.equal(getattr(read, name), getattr(archived, name)) for name in ("means", "quats", "sh"))
        small_scene(0, 9).save(tmp_path / "a" / "meta.json")
        assert len(GaussianScene.load(tmp_path / "a")) == 9

    def test_a_data_set_is_not_replaced(self, tmp_path, monkeypatch):
        (tmp_path / "meta.json").write_text("{}")
        (tmp_path / "transforms.json").write_text('{"frames": []}')
        with pytest.raises(InputError, match="frames"):
            load(tmp_path)

    @pytest.mark.parametrize(
        "change, error, message",
        [
            (lambda folder: (folder / "quats.webp").unlink(), MissingFileError, "quats.webp: does not exist; want an image"),
            (lambda folder: (folder / "quats.webp").write_bytes(b""), FileFormatError, r"is empty \(0 bytes\)"),
            (
                lambda folder: (folder / "quats.webp").write_bytes(webp(200, 200)),
                FileFormatError,
                "'quats.webp': is an image of",
            ),
            (lambda folder: rename(folder, "../quats.webp"), FileFormatError, r"names '\.\./quats.webp', which is outside"),
            (lambda folder: rename(folder, "/etc/passwd"), FileFormatError, "names '/etc/passwd', which is outside"),
        ],
    )
    def test_wrong_folders(self, tmp_path, change, error, message):
        small_scene(0).save(tmp_path / "a" / "meta.json")
        change(tmp_path / "a")
        with pytest.raises(error, match=message):
            GaussianScene.load(tmp_path / "a")

    def test_other_json_files(self, tmp_path):
        with pytest.raises(InputError, match=r"Gaussians as \.json are a SOG folder, whose file is called meta\.json"):
            small_scene(0).save(tmp_path / "a.json")


def rename(folder, name):
    content = json.loads((folder / "meta.json").read_text())
    content["quats"]["files"] = [name]
    (folder / "meta.json").write_text(json.dumps(content))
