"""`vision3d animate static` on the command line."""

import json

import pytest

from tests.support.balls import ball, photos_of
from tests.support.refusals import assert_refused

FEW = ("--steps", 4, "--per-face", 1, "--quiet")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    ball().save(folder / "ball.glb")
    photos_of(ball(), folder / "set")
    return folder


def test_a_mesh_becomes_gaussians_that_other_commands_open(cli, inputs, tmp_path):
    out = tmp_path / "run"
    code, text, err = cli("animate", "static", inputs / "ball.glb", "--data", inputs / "set", *FEW[:-1], "--out", out)
    assert code == 0, err
    assert text.startswith("320 Gaussians on 320 faces, 4 steps in ") and "guidance: none" in text
    assert "held-out views (2): PSNR " in text and str(out / "gaussians.safetensors") in text
    page = (out / "report.html").read_text("utf-8")
    assert 'alt="before_after"' in page and 'class="pair"' in page
    results = json.loads((out / "summary.json").read_text())["results"]
    assert results["guidance"] == "none" and results["psnr"] > 10
    assert cli("info", out / "gaussians.safetensors", "--json")[0] == 0
    assert cli("render", out / "gaussians.safetensors", "--out", tmp_path / "views", "--frames", 2, "--size", "32x32")[0] == 0
    moving = ("--frames", 2, "--cells", 6, "--up", 0, 1, 0, "--floor", "below", "--quiet", "--out", tmp_path / "moving")
    assert cli("simulate", out / "gaussians.safetensors", *moving)[0] == 0
    again = cli("animate", "static", inputs / "ball.glb", "--data", inputs / "set", *FEW, "--out", out)
    assert_refused(again, "exists and is not empty", code=5)


def test_gaussians_are_bound_without_images(cli, inputs, tmp_path):
    code, text, err = cli("animate", "static", inputs / "ball.glb", "--steps", 0, "--out", tmp_path / "run")
    assert code == 0 and text.startswith("1,920 Gaussians on 320 faces, 0 steps"), err
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_stopped_run_is_resumed(cli, inputs, tmp_path):
    out = tmp_path / "run"
    command = ("animate", "static", inputs / "ball.glb", "--data", inputs / "set", *FEW, "--out", out)
    assert cli(*command)[0] == 0
    before = (out / "gaussians.safetensors").read_bytes()
    assert cli(*command, "--resume", "--keep", 5)[0] == 0
    assert (out / "gaussians.safetensors").read_bytes() == before
    assert_refused(cli(*command, "--resume", "--seed", 3), "cannot resume", "seed: 0 there, 3 here", code=2)


def test_wrong_input_leaves_nothing_behind(cli, inputs, tmp_path):
    out = tmp_path / "run"
    mesh, data = inputs / "ball.glb", inputs / "set"
    (tmp_path / "cut.glb").write_bytes(mesh.read_bytes()[:300])
    for options, part, code in [
        ((mesh, *FEW), "--data or --image: got neither", 2),
        ((mesh, "--data", data, "--image", data / "images" / "000.png", *FEW), "got both", 2),
        ((tmp_path / "none.glb", "--data", data, *FEW), "none.glb: does not exist; want a mesh", 3),
        ((tmp_path / "cut.glb", "--data", data, *FEW), "cut.glb", 3),
        ((mesh, "--data", tmp_path / "none", *FEW), "none: does not exist", 3),
        ((mesh, "--data", data, "--per-face", 2, "--quiet"), "--per-face", 2),
        ((mesh, "--data", data, "--opacity", 2, "--quiet"), "opacity: got 2", 2),
        ((mesh, "--data", data, *FEW, "--steps=-1"), "steps: got -1", 2),
    ]:
        assert_refused(cli("animate", "static", *options, "--out", out), part, code=code)
        assert not out.exists(), part


def test_menu(cli):
    code, text, _ = cli("animate", "--help")
    assert code == 0 and "static" in text
    assert_refused(cli("animate", "statik"), "statik: unknown task; did you mean static?", code=2)
