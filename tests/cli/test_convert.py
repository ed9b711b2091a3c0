import json

import numpy as np
import pytest
import torch

from tests.support.splats import small_scene
from vision3d.io import gltf_gaussians
from vision3d.io.ply import read_gaussians, write_gaussians
from vision3d.scene import GaussianScene


@pytest.fixture
def scene(tmp_path):
    write_gaussians(tmp_path / "a.ply", small_scene(2))
    return small_scene(2)


@pytest.mark.parametrize("suffix", [".ply", ".compressed.ply", ".splat", ".sog", ".glb", ".gltf"])
def test_every_format(cli, tmp_path, scene, suffix):
    code, out, err = cli("convert", tmp_path / "a.ply", tmp_path / f"b{suffix}", "--json")
    assert code == 0 and ("does not hold" in err) == (suffix == ".splat")
    (values,) = json.loads(out.splitlines()[-1])["files"]
    assert values["gaussians"] == 300 and values["bytes"] == (tmp_path / f"b{suffix}").stat().st_size
    code, out, _ = cli("info", tmp_path / f"b{suffix}", "--json")
    values = json.loads(out.splitlines()[-1])
    assert code == 0 and values["gaussians"] == 300 and values["sh_degree"] == (0 if suffix == ".splat" else 2)
    assert values["bytes"] == (tmp_path / f"b{suffix}").stat().st_size and "quats" in values["attributes"]


def test_several_files(cli, tmp_path, scene):
    write_gaussians(tmp_path / "b.ply", scene)
    code, out, err = cli(
        "convert", tmp_path / "a.ply", tmp_path / "b.ply", tmp_path / "out", "--to", "spz", "--spz-version", "2"
    )
    assert (code, err) == (0, "") and len(out.splitlines()) == 2
    assert len(GaussianScene.load(tmp_path / "out" / "b.spz")) == 300
    code, _, err = cli("convert", tmp_path / "a.ply", tmp_path / "b.ply", tmp_path / "out")
    assert code == 2 and "--to: is needed for 2 files" in err


def test_changes(cli, tmp_path, scene):
    matrix = torch.tensor([[0, -2, 0, 1], [2, 0, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1.0]])
    (tmp_path / "m.json").write_text(json.dumps(matrix.tolist()))
    np.savetxt(tmp_path / "m.txt", matrix.numpy())
    numbers = " ".join(str(v) for v in matrix.flatten().tolist())
    box = torch.tensor([[-2, -2, -2], [2, 2, 2.0]])
    expected = scene.crop(box).transform(matrix)
    for text in (numbers, tmp_path / "m.json", tmp_path / "m.txt"):
        options = ["--transform", text, "--max-sh", 1, "--overwrite", "--crop", *box.flatten().tolist()]
        code, out, err = cli("convert", tmp_path / "a.ply", tmp_path / "b.ply", *options)
        assert (code, err) == (0, "") and "SH degree 1" in out
        read = read_gaussians(tmp_path / "b.ply")
        torch.testing.assert_close(read.means, expected.means)
        torch.testing.assert_close(read.sh, expected.sh[:, :4])


def test_rows_that_are_not_finite(cli, tmp_path):
    scene = small_scene(0, 4)
    scene.save(tmp_path / "a.splat")
    data = bytearray((tmp_path / "a.splat").read_bytes())
    data[0:4] = b"\xff" * 4
    (tmp_path / "a.splat").write_bytes(data)
    code, _, err = cli("convert", tmp_path / "a.splat", tmp_path / "b.glb")
    assert code == 3 and "vision3d convert --filter-nan leaves them out" in err and not (tmp_path / "b.glb").exists()
    code, _, _ = cli("convert", tmp_path / "a.splat", tmp_path / "b.glb", "--filter-nan", "--quiet")
    assert code == 0 and len(gltf_gaussians.read_gaussians(tmp_path / "b.glb")) == 3


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["a.ply"], 2, "want IN OUT"),
        (["a.ply", "b.xyz"], 2, "has no suffix that is written; want .ply"),
        (["a.ply", "b.ksplat"], 2, "has no suffix that is written"),
        (["none.ply", "b.ply"], 3, "none.ply: does not exist"),
        (["a.ply", "a.ply"], 5, "a.ply: exists; give --overwrite or another name"),
        (["m.obj", "b.ply"], 3, "is no scene of Gaussians"),
        (["a.ply", "a.ply", "out", "--to", ".spz"], 2, "several files would become"),
        (["a.ply", "out", "--to", ".obj"], 2, "--to: got '.obj'"),
        (["a.ply", "b.ply", "--max-sh", "5"], 2, "--max-sh: got 5, want 0 to 4"),
        (["a.ply", "b.ply", "--crop", "1", "0", "0", "0", "1", "1"], 2, "--crop: got"),
        (["a.ply", "b.ply", "--crop", "91", "90", "90", "99", "99", "99"], 3, "none of 300 Gaussians is inside --crop"),
        (["a.ply", "b.ply", "--transform", "1 2 3"], 2, "--transform: got 3 numbers, want 16"),
        (["a.ply", "b.ply", "--transform", "m.json"], 3, "m.json: does not exist"),
        (["a.ply", "b.ply", "--transform", "m.obj"], 3, "m.obj: holds no 4x4 matrix"),
    ],
)
def test_what_is_refused(cli, tmp_path, monkeypatch, scene, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.obj").write_text("v a b c\n")
    found, out, err = cli("convert", *arguments)
    assert (found, out) == (code, "") and message in err and not (tmp_path / "b.ply").exists()
