"""`vision3d simulate` on the command line: output, precedence of options, and wrong input."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from tests.stages.test_simulate import cube
from tests.support.refusals import assert_refused
from vision3d.cli.simulate import _up_of
from vision3d.geometry import shapes
from vision3d.io.video import read_video
from vision3d.scene import Cameras, FrameSequence, GaussianScene, Mesh, MeshGaussians, Scene

FEW = ("--frames", 3, "--cells", 6, "--up", 0, 0, 1, "--floor", "below", "--quiet")


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("scenes") / "cube.ply"
    cube(side=7).save(path)
    return path


def test_a_scene_becomes_frames_a_video_and_a_report(cli, scene_file, tmp_path):
    out = tmp_path / "run"
    options = (*FEW[:-1], "--drop", 0.3, "--video", "--video-size", 96, 64, "--ply", "--out", out)
    code, text, err = cli("simulate", scene_file, *options)
    assert code == 0, err
    assert re.match(r"3 frames, [\d,]+ particles \([\d,]+ inside\), \d+ steps in 0\.\d\d minutes: .* by the \w+ engine\n", text)
    assert f"{out / 'video.mp4'}" in text and f"{out / 'frames.zarr'}" in text
    moving = FrameSequence.load(out / "frames.zarr").validate()
    assert len(moving) == 3 and float(moving.times[1]) == pytest.approx(1 / 24)
    frames = list(read_video(out / "video.mp4"))
    assert len(frames) == 3 and frames[0].shape == (64, 96, 3) and frames[0].std() > 0.03
    for index in range(3):
        ply = GaussianScene.load(out / "frames" / f"{index:05d}.ply")
        torch.testing.assert_close(ply.means, moving.frame(index).means)
        torch.testing.assert_close(ply.covars, moving.frame(index).covars, atol=1e-7, rtol=1e-3)
    assert len(Cameras.load(out / "cameras.json")) == 1 and Cameras.load(out / "cameras.json").width == 96
    page = (out / "report.html").read_text("utf-8")
    assert 'alt="energies"' in page and 'alt="frames"' in page and "<video" in page
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    wanted = {
        "kinetic_J",
        "elastic_J",
        "potential_J",
        "total_J",
        "work_J",
        "momentum_kg_m_s",
        "dt_s",
        "steps",
        "kept",
        "particles",
    }
    assert [line["step"] for line in lines] == [0, 1, 2] and wanted <= lines[2].keys()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "done" and summary["results"]["million_particle_substeps_per_s"] > 0
    assert summary["results"]["simulation_minutes"] > 0


def test_precedence_of_options_presets_and_files(cli, scene_file, tmp_path):
    """Options before --preset before --config before defaults."""
    (tmp_path / "scene.yaml").write_text("material: water\ngravity: 5.0\nframes: 2\n")
    arguments = ["simulate", scene_file, "--config", tmp_path / "scene.yaml", "--print-config"]
    assert yaml.safe_load(cli(*arguments)[1])["material"]["law"] == "water"
    code, text, _ = cli(*arguments, "--preset", "sand", "--material.friction-deg", 44, "--gravity", 3)
    values = yaml.safe_load(text)
    assert code == 0 and values["frames"] == 2 and values["gravity"] == 3.0
    assert values["material"]["law"] == "drucker_prager" and values["material"]["friction_deg"] == 44.0
    assert values["material"]["density"] == 2200.0
    assert yaml.safe_load(cli("simulate", scene_file, "--print-config")[1])["material"]["youngs_modulus"] == 5e4


def test_a_scene_file_with_several_bodies(cli, tmp_path):
    scene = cube(side=6).merge(cube(side=6, center=(0.0, 0.0, 1.5)))
    scene.save(tmp_path / "two.ply")
    Mesh(*shapes.box((4.0, 4.0, 0.5))).save(tmp_path / "table.glb")
    content = {
        "bodies": [
            {"name": "lower", "material": "rubber", "select": ["box:0,0,0,0.6,0.6,0.6"], "fill": "none"},
            {"name": "upper", "material": {"preset": "sand", "density": 1500.0}, "velocity": [0.0, 0.0, -1.0], "fill": "none"},
        ],
        "boundaries": [{"shape": "mesh", "mesh": str(tmp_path / "table.glb"), "center": [0, 0, -0.8], "kind": "sticky"}],
        "impulses": [{"time": 0.02, "velocity": [0.0, 0.5, 0.0], "select": ["box:0,0,1.5,0.6,0.6,0.6"]}],
        "frames": 3,
        "cells": 10,
        "up": [0, 0, 1],
        "floor": "none",
    }
    (tmp_path / "scene.yaml").write_text(yaml.safe_dump(content))
    out = tmp_path / "run"
    code, text, err = cli(
        "simulate", tmp_path / "two.ply", "--config", tmp_path / "scene.yaml", "--out", out, "--quiet", "--json"
    )
    assert code == 0, err
    assert json.loads(text.splitlines()[-1])["particles"] == 432
    moving = FrameSequence.load(out / "frames.zarr")
    shift = moving.frame(2).means - scene.means
    assert shift[216:, 2].mean() < shift[:216, 2].mean() - 0.05
    resumed = cli("simulate", tmp_path / "two.ply", "--config", out / "config.yaml", "--out", out, "--quiet", "--resume")
    assert resumed[0] == 0, resumed[2]  # the file of a run repeats it


def test_meshes_and_gaussians_on_meshes(cli, tmp_path):
    ball = Mesh(*shapes.icosphere(2, 0.3))
    MeshGaussians.from_mesh(ball, 3).save(tmp_path / "ball.safetensors")
    ball.save(tmp_path / "plain.glb")
    for name, kind in (("ball.safetensors", GaussianScene), ("plain.glb", Mesh)):
        out = tmp_path / f"run_{name}"
        code, _, err = cli("simulate", tmp_path / name, *FEW, "--ply", "--drop", 1, "--out", out)
        assert code == 0, err
        moving = FrameSequence.load(out / "frames.zarr")
        assert isinstance(moving.frame(2), kind) and set(moving.channels) == {"vertices"}
        assert (moving.channels["vertices"][2] - ball.vertices)[:, 2].mean() < -0.02


def test_folders_with_scenes(cli, tmp_path):
    Scene().add("cube", cube(side=6)).save(tmp_path / "scene")
    code, _, err = cli("simulate", tmp_path / "scene", *FEW, "--out", tmp_path / "run")
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ("--preset", "cheese"),
            2,
            "material: 'cheese' is neither a file nor a preset of materials; valid: foam, jelly, metal, rubber",
        ),
        (("--material.youngs-modulus", "-5"), 2, "youngs_modulus: got -5.0, want a number > 0"),
        (("--material.poisson-ratio", "0.5"), 2, "poisson_ratio: got 0.5, want at least 0 and less than 0.5"),
        (("--material.density", "0"), 2, "density: got 0.0, want a number > 0"),
        (("--gravity", "nan"), 2, "gravity: got nan, want a number"),
        (("--select", "sphere:9,9,9,0.1"), 3, "select: sphere:9,9,9,0.1 holds none of 343 Gaussians, want at least one"),
        (("--select", "ball:1"), 2, "select: 'ball:1' is not a selection"),
        (("--min-opacity", "0.99"), 3, "scene: no opacity of 343 Gaussians is above min_opacity = 0.99, the highest is 0.8"),
        (("--box", "0", "0", "0", "1", "1", "1"), 2, "box: 279 of 343 moving points start outside it; make it larger"),
        (("--cells", "3000"), 2, "cells: 3000 of them make a grid of"),
        (("--engine", "magic"), 2, "engine: got 'magic', want one of auto, "),
        (("--bodies", "x"), 2, "--bodies: unknown option of vision3d simulate"),
        (("--resume",), 2, "--resume needs the run folder: give --out"),
    ],
)
def test_wrong_input_is_one_line(cli, scene_file, tmp_path, monkeypatch, arguments, code, text):
    monkeypatch.chdir(tmp_path)
    found, _, err = cli("simulate", scene_file, *FEW, *arguments)
    assert found == code
    lines = [line for line in err.splitlines() if not line.startswith(("up axis", "the moving part", "warning: "))]
    assert len(lines) == 1 and lines[0].startswith("error: ") and text in lines[0]
    assert not list(tmp_path.iterdir()) or not list((tmp_path / "runs").iterdir())


def test_errors_in_scene_files_are_named_with_their_location(cli, scene_file, tmp_path):
    for content, text in (
        ("bodies:\n  - {selects: [all]}\n", "bodies[0].selects: unknown; did you mean select?"),
        ("materials: sand\n", "materials: unknown; did you mean material?"),
        ("winds: [{velocity: [1, 0]}]\n", "winds[0].velocity: got 2 values, want 3"),
        ("boundaries: [{shape: cone}]\n", "boundaries[0].shape: got 'cone', want one of 'plane', 'box', 'sphere', 'mesh'"),
    ):
        (tmp_path / "scene.yaml").write_text(content)
        code, _, err = cli("simulate", scene_file, "--config", tmp_path / "scene.yaml")
        assert code == 2 and text in err


def test_a_missing_scene_is_rejected(cli, tmp_path):
    assert_refused(cli("simulate", tmp_path / "nothing.ply"), "nothing.ply: does not exist")


def test_up_axis_by_the_format(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "meta.json").write_text("{}")
    (tmp_path / "run").mkdir()
    for name, want in (
        ("a.ply", (0, 0, 1)), ("a.compressed.ply", (0, -1, 0)), ("a.SPZ", (0, -1, 0)), ("folder", (0, -1, 0)),
        ("run", (0, 0, 1)), ("a.glb", (0, 1, 0)),
    ):  # fmt: skip
        assert _up_of(tmp_path / name) == want, name


def blocks(tmp_path):
    """The scene of examples/several_bodies.yaml."""
    one = cube(side=7)
    size = float((one.means.amax(0) - one.means.amin(0)).max())
    centered = one.transform(torch.diag(torch.tensor([0.3 / size] * 3 + [1.0])))
    center = (centered.means.amax(0) + centered.means.amin(0)) / 2

    def at(x):
        matrix = torch.eye(4)
        matrix[:3, 3] = torch.tensor([x, 0.0, 0.0]) - center
        return centered.transform(matrix)

    at(-0.6).merge(at(0.0), at(0.6)).save(tmp_path / "blocks.ply")
    return tmp_path / "blocks.ply", len(one)


@pytest.mark.slow
def test_movers_winds_pins_and_bodies_of_a_scene_file(cli, tmp_path):
    """`examples/several_bodies.yaml`: each block does what its entry in the file says, seen in the frames and the video."""
    path, count = blocks(tmp_path)
    file = Path(__file__).parents[2] / "examples" / "several_bodies.yaml"
    out = tmp_path / "run"
    code, _, err = cli("simulate", path, "--config", file, "--video-size", 96, 64, "--out", out, "--quiet")
    assert code == 0, err
    moving = FrameSequence.load(out / "frames.zarr")
    means = torch.stack([moving.frame(i).means for i in range(len(moving))])
    pushed, blown, hanging = (means[:, i * count : (i + 1) * count] for i in range(3))
    shift = [(part[-1] - part[0]).mean(0) for part in (pushed, blown, hanging)]
    assert 0.25 < float(shift[0][1]) < 0.8 and float(shift[1][1]) > 0.05 and abs(float(shift[2][1])) < 0.02
    assert float(shift[0][2]) < -0.05 and float(shift[1][2]) < -0.05  # two fall to the floor
    top, low = (hanging[0, :, 2] > hanging[0, :, 2].max() - 0.03), (hanging[0, :, 2] < hanging[0, :, 2].min() + 0.03)
    torch.testing.assert_close(hanging[-1, top], hanging[0, top], atol=1e-3, rtol=0)  # the pins hold
    assert -0.12 < float((hanging[-1, low] - hanging[0, low])[:, 2].mean()) < -0.002  # and the rest stretches
    frames = torch.stack([torch.as_tensor(frame).float() for frame in read_video(out / "video.mp4")])
    assert len(frames) == 12 and float((frames[-1] - frames[0]).abs().max()) > 0.2


def test_the_published_method_is_a_preset(cli, scene_file, tmp_path):
    """Triangles of flat Gaussians whose corners are particles; Taichi's engine where it is installed."""
    pytest.importorskip("taichi")
    code, out, err = cli("simulate", scene_file, *FEW, "--preset", "gasp", "--print-config")
    assert code == 0, err
    values = yaml.safe_load(out)
    assert (values["flatten"], values["representation"], values["engine"], values["frames"]) == (True, "points3", "taichi", 3)
    code, _, err = cli("simulate", scene_file, *FEW, "--preset", "gasp", "--fill", "none", "--out", tmp_path / "run")
    assert code == 0, err
    results = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    assert results["engine"] == "taichi" and results["particles"] == 3 * results["gaussians"]
    assert cli("simulate", scene_file, *FEW, "--config", "gasp", "--engine", "native", "--print-config")[0] == 0
