"""Every example runs, at sizes that take seconds, with correct results."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.support.datasets import write_ring_photographs
from tests.support.photos import blobs
from tests.support.scenes import ring_scene
from tests.support.skins import arm
from vision3d.io.images import read_image
from vision3d.io.video import read_video
from vision3d.scene import FrameSequence, GaussianScene, Mesh, Scene, SkinnedMesh

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an example with arguments and returns its output."""

    def call(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(FOLDER / name), run_name="__main__")
        return capsys.readouterr().out

    return call


def test_every_example_has_a_test_and_is_short():
    files = sorted(FOLDER.glob("*.py"))
    text = Path(__file__).read_text("utf-8")
    assert len(files) == 10
    for path in files:
        assert f'"{path.name}"' in text
        assert len(path.read_text("utf-8").splitlines()) <= 50
        assert path.read_text("utf-8").startswith('"""')


def test_fit_photographs(run, tmp_path):
    data = write_ring_photographs(tmp_path / "data")
    arguments = ("--steps", "30", "--max-gaussians", "300", "--out", tmp_path / "out")
    printed = run("01_fit_photographs.py", data, *arguments)
    assert re.search(r"held-out views: \d+\.\d\d dB, after 30 steps", printed)
    assert GaussianScene.load(tmp_path / "out" / "scene.ply").num_gaussians <= 300
    assert read_image(tmp_path / "out" / "view.png").shape == (36, 48, 3)


def test_find_a_camera(run):
    printed = run("02_find_a_camera.py", "--steps", "150", "--size", "64")
    degrees = [float(value) for value in re.findall(r"off by ([\d.]+) degrees", printed)]
    meters = [float(value) for value in re.findall(r"degrees, ([\d.]+) m", printed)]
    assert len(degrees) == 4
    assert degrees[0] > 10 and degrees[-1] < 0.5
    assert meters[0] > 0.1 and meters[-1] < 0.01


def test_compose_scenes(run, tmp_path):
    ring_scene(400).save(tmp_path / "a.ply")
    ring_scene(100, sh_degree=2).save(tmp_path / "b.ply")
    arguments = ("--box", "1.5", "--frames", "4", "--size", "80", "--out", tmp_path / "out")
    run("03_compose_scenes.py", tmp_path / "a.ply", tmp_path / "b.ply", *arguments)
    scene = GaussianScene.load(tmp_path / "out" / "scene.ply")
    box = torch.tensor([[-1.5] * 3, [1.5] * 3])
    kept = [GaussianScene.load(tmp_path / name).crop(box).num_gaussians for name in ("a.ply", "b.ply")]
    assert scene.num_gaussians == sum(kept) and scene.sh_degree == 2
    assert scene.means[:, 0].max() > 2.25  # the second one is next to the first
    frames = list(read_video(tmp_path / "out" / "turntable.mp4"))
    assert len(frames) == 4 and frames[0].shape == (60, 80, 3)
    assert min(float(frame.std()) for frame in frames) > 0.05


def test_mesh_in_a_scene(run, tmp_path):
    ring_scene(200).save(tmp_path / "a.ply")
    arguments = ("--scale", "0.5", "--at", "0", "0", "0.2", "--frames", "2", "--size", "80", "--out", tmp_path / "out")
    run("04_mesh_in_a_scene.py", tmp_path / "a.ply", *arguments)
    scene = Scene.load(tmp_path / "out" / "scene")
    assert isinstance(scene["mesh"], Mesh) and scene.transforms["mesh"][2, 3] == pytest.approx(0.2)
    frames = list(read_video(tmp_path / "out" / "turntable.mp4"))
    assert len(frames) == 2 and frames[0].shape == (60, 80, 3)
    assert min(float(frame.std()) for frame in frames) > 0.05


def test_recover_a_mesh(run, tmp_path):
    printed = run("05_recover_a_mesh.py", "--steps", "60", "--size", "48", "--out", tmp_path / "out")
    meters = [float(value) for value in re.findall(r"off by ([\d.]+) m", printed)]
    assert len(meters) == 3
    assert meters[0] > 0.15 and meters[-1] < meters[0] / 3
    assert Mesh.load(tmp_path / "out" / "mesh.glb").num_faces == 1280
    assert read_image(tmp_path / "out" / "images.png").shape == (3 * 48, 6 * 48, 3)


def test_fit_and_simulate(run, tmp_path):
    data = write_ring_photographs(tmp_path / "data")
    printed = run("06_fit_and_simulate.py", data, tmp_path / "out", "20", "4")
    assert printed.endswith("video.mp4\n")
    moving = FrameSequence.load(tmp_path / "out" / "moving.zarr").validate()
    fall = (moving.frame(3).means - moving.frame(0).means)[:, 2]
    assert len(moving) == 4 and (fall < -0.01).sum() > 50
    assert len(list(read_video(tmp_path / "out" / "video.mp4"))) == 4
    assert GaussianScene.load(tmp_path / "out" / "last.spz").num_gaussians == moving.base.num_gaussians
    lines = (FOLDER / "06_fit_and_simulate.py").read_text("utf-8").split('"""')[2].splitlines()
    assert sum(bool(line) and not line.startswith(("import", "from")) for line in lines) < 20


def test_drop_on_a_mesh(run, tmp_path):
    scene = ring_scene(400)
    scene.save(tmp_path / "a.ply")
    printed = run("07_drop_on_a_mesh.py", tmp_path / "a.ply", "--material", "rubber", "--frames", "12", "--out", tmp_path)
    assert printed.startswith("12 frames; now open ")
    moving = FrameSequence.load(tmp_path / "run" / "frames.zarr").validate()
    obstacle = Mesh.load(tmp_path / "obstacle.glb")
    last = moving.frame(11).means
    center, radius = obstacle.vertices.mean(0), (obstacle.vertices - obstacle.vertices.mean(0)).norm(dim=-1).mean()
    moved = (last - scene.means)[:, 2] < -0.05
    assert moved.float().mean() > 0.5
    assert (last[moved] - center).norm(dim=-1).min() > 0.7 * radius  # within a cell of its surface
    frames = list(read_video(tmp_path / "run" / "video.mp4"))
    assert len(frames) == 12 and (frames[11] - frames[0]).abs().mean() > 0.003


def test_pose_a_creature(run, tmp_path):
    arm().save(tmp_path / "arm.glb")
    arguments = ("--skin", tmp_path / "arm.glb", "--pose", "joint_1=0,0,40", "--clip", "wave", "--out", tmp_path / "out")
    printed = run("08_pose_a_creature.py", *arguments)
    assert "3 joints: joint_0, joint_1, joint_2" in printed
    posed = SkinnedMesh.load(tmp_path / "out" / "posed.glb")
    assert (posed.mesh.vertices - arm().mesh.vertices).norm(dim=-1).max() > 0.5
    assert GaussianScene.load(tmp_path / "out" / "posed.ply").num_gaussians == 6 * posed.mesh.num_faces
    frames = list(read_video(tmp_path / "out" / "clip" / "video.mp4"))
    assert len(frames) == 25 and frames[0].shape == (360, 480, 3)


def test_hand_pushes_jelly(run, tmp_path):
    arguments = ("--frames", "15", "--cells", "10", "--video-size", "64", "48", "--out", tmp_path)
    printed = run("10_hand_pushes_jelly.py", *arguments)
    assert printed.startswith("15 frames; now open ")
    moving = FrameSequence.load(tmp_path / "run" / "frames.zarr").validate()
    first, last = moving.frame(0).vertices, moving.frame(14).vertices
    side = (first[:, 0] > 0.069) & (first[:, 1] > 0)  # what the palm presses on
    assert (last - first)[side, 0].mean() < -0.02
    assert (last - first)[first[:, 1] < -0.0449, 0].abs().median() < 0.01  # it sticks to the floor
    frames = list(read_video(tmp_path / "run" / "video.mp4"))
    assert len(frames) == 15 and (frames[14] - frames[0]).abs().mean() > 0.01


def rigid(cli, monkeypatch, scene, out, frames, *options):
    monkeypatch.chdir(FOLDER)
    arguments = ("--frames", frames, "--engine", "09_own_engine:Rigid", "--fill", "density", "--up", 0, 0, 1, "--out", out)
    code, _, err = cli("simulate", scene, *arguments, "--quiet", *options)
    assert code == 0, err
    return FrameSequence.load(out / "frames.zarr")


@pytest.mark.slow
def test_own_engine(cli, monkeypatch, tmp_path):
    """ "09_own_engine.py": on the command line, with the floor, particles inside, a video, and a run that is resumed."""
    assert (FOLDER / "09_own_engine.py").is_file()
    blobs(400).save(tmp_path / "object.ply")
    options = ("--drop", 0.2, "--floor", "below", "--size", 0.5, "--cells", 12, "--checkpoint-every", 2)
    whole = rigid(cli, monkeypatch, tmp_path / "object.ply", tmp_path / "whole", 9, *options, "--video", "--video-size", 64, 48)
    means = torch.stack([whole.frame(i).means for i in range(9)]).double()
    apart = torch.cdist(means[:, :40], means[:, :40])
    torch.testing.assert_close(apart, apart[:1].expand_as(apart), atol=1e-3 * float(apart.max()), rtol=0)  # rigid
    fall = (means[0] - means)[..., 2].mean(1)
    assert float(fall[3]) > 0 and float(fall.max()) < 3 * float(fall[-1])  # until the floor stops it
    assert len(list(read_video(tmp_path / "whole" / "video.mp4"))) == 9
    rigid(cli, monkeypatch, tmp_path / "object.ply", tmp_path / "half", 4, *options)
    half = rigid(cli, monkeypatch, tmp_path / "object.ply", tmp_path / "half", 9, *options, "--resume")
    assert torch.equal(half.frame(8).means, whole.frame(8).means)
