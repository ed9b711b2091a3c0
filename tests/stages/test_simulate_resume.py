"""Runs that are stopped, killed, or fail on a full disk: their files are complete, and resumed runs are identical."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from tests.stages.test_simulate import QUICK, cube
from tests.support.stopping import lines
from vision3d.core import atomic
from vision3d.core.config import dump_yaml
from vision3d.core.errors import ConfigError, Vision3DError
from vision3d.core.progress import silent
from vision3d.core.runs import Interrupted, RunFolder
from vision3d.io.zarr_store import SequenceWriter
from vision3d.scene import FrameSequence, GaussianScene, PointCloud
from vision3d.stages.simulate import Impulse, simulate
from vision3d.viewer.layers import Layers

CONFIG = replace(
    QUICK, engine="auto", frames=9, fps=24.0, cells=8, drop=0.1, checkpoint_every=3, impulses=(Impulse((0.5, 0.0, 0.0), 0.26),)
)


def folder_at(path, config=CONFIG, **options):
    return RunFolder.create(path, config, ignore=("frames", "ply", "video"), **options)


def assert_same(first, second):
    assert len(first) == len(second)
    for name in first.channels:
        for index in range(len(first)):
            assert torch.equal(first.channels[name][index], second.channels[name][index]), (name, index)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("whole") / "run"
    scene = cube(side=9)
    return scene, path, simulate(CONFIG, scene, run_folder=folder_at(path), progress=silent).sequence


@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_a_stopped_run_resumes_bitwise(whole, tmp_path, stop_at):
    """Also between two checkpoints: frames since the last one are recomputed."""
    scene, path, moving = whole

    def stop(task, step, total, values):
        if step == stop_at + 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=f"stopped after frame {stop_at}"):
        simulate(CONFIG, scene, run_folder=folder_at(tmp_path / "run"), progress=stop)
    assert len(FrameSequence.load(tmp_path / "run" / "frames.zarr").validate()) == stop_at + 1
    again = simulate(CONFIG, scene, run_folder=folder_at(tmp_path / "run", resume=True), progress=silent).sequence
    assert_same(again, moving)
    assert lines(tmp_path / "run") == lines(path)


def test_a_run_is_resumed_with_more_frames(whole, tmp_path):
    scene, _, moving = whole
    few = replace(CONFIG, frames=5)
    simulate(few, scene, run_folder=folder_at(tmp_path / "run", few), progress=silent)
    again = simulate(CONFIG, scene, run_folder=folder_at(tmp_path / "run", resume=True), progress=silent).sequence
    assert_same(again, moving)


def test_a_run_is_not_resumed_with_other_options(whole, tmp_path):
    scene, _, _ = whole
    few = replace(CONFIG, frames=2)
    simulate(few, scene, run_folder=folder_at(tmp_path / "run", few), progress=silent)
    with pytest.raises(ConfigError, match=r"gravity: cannot resume .*9\.81 there, 1\.6 here"):
        folder_at(tmp_path / "run", replace(few, gravity=1.6), resume=True)


def test_frames_do_not_depend_on_a_run_folder(whole):
    scene, _, moving = whole
    assert_same(simulate(CONFIG, scene, progress=silent).sequence, moving)


@pytest.mark.slow
def test_a_killed_process_resumes_bitwise(whole, tmp_path):
    """SIGKILL at any time."""
    scene, _, moving = whole
    config = replace(CONFIG, frames=200)  # killed long before the end
    scene.save(tmp_path / "scene.ply")
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "vision3d",
        "simulate",
        str(tmp_path / "scene.ply"),
        "--config",
        str(tmp_path / "config.yaml"),
    ]
    process = subprocess.Popen([*command, "--out", str(out), "--quiet"])
    deadline = time.monotonic() + 120
    while not (out / "frames.zarr" / "means" / "7.0.0").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    there = FrameSequence.load(out / "frames.zarr").validate()
    assert 7 <= len(there) < 200
    subprocess.run([*command, "--out", str(out), "--quiet", "--resume", "--frames", "9"], check=True)
    assert_same(FrameSequence.load(out / "frames.zarr"), moving)


def test_a_full_disk_is_one_error_and_frames_stay_complete(whole, tmp_path, monkeypatch):
    scene, _, moving = whole
    flush = atomic._flush

    def full(path):
        if path.name.startswith(".5.0.0") and path.parent.name == "covar_factors":
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(atomic, "_flush", full)
    with pytest.raises(Vision3DError) as error:
        simulate(CONFIG, scene, run_folder=folder_at(tmp_path / "run"), progress=silent)
    where = tmp_path / "run" / "frames.zarr" / "covar_factors" / "5.0.0.0"
    assert str(error.value) == f"{where}: could not be written (No space left on device); no file was left behind"
    assert len(FrameSequence.load(tmp_path / "run" / "frames.zarr").validate()) == 5
    monkeypatch.setattr(atomic, "_flush", flush)
    assert_same(simulate(CONFIG, scene, run_folder=folder_at(tmp_path / "run", resume=True), progress=silent).sequence, moving)


def test_a_folder_that_cannot_be_written_is_one_error(whole, tmp_path):
    scene, _, _ = whole
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    with pytest.raises(Vision3DError, match=r"run: the folder could not be created \(Not a directory\)"):
        folder_at(blocked / "run")
    run = folder_at(tmp_path / "run")
    (run.path / "frames.zarr").write_text("a file")
    with pytest.raises(Vision3DError, match=r"frames\.zarr"):
        simulate(CONFIG, scene, run_folder=run, progress=silent)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(Vision3DError, match=r"the folder could not be created \(Permission denied\)"):
        folder_at(tmp_path / "run")


# The store


@pytest.mark.parametrize("compress", [True, False])
def test_frames_after_the_resumed_ones_are_removed(tmp_path, compress):
    path = tmp_path / "drops.zarr"
    writer = SequenceWriter(path, PointCloud(torch.zeros(4, 3)), compress=compress)
    frames = torch.rand(6, 4, 3)
    for index in range(5):
        writer.append(0.1 * index, points=frames[index])
    again = SequenceWriter(path, PointCloud(torch.zeros(4, 3)), resume=True, keep=2)
    assert len(again) == 2 and len(FrameSequence.load(path)) == 2
    assert sorted(p.name for p in (path / "points").iterdir()) == [".zarray", "0.0.0", "1.0.0"]
    again.append(0.15, points=frames[5])
    moving = FrameSequence.load(path).validate()
    assert moving.times.tolist() == pytest.approx([0.0, 0.1, 0.15])
    assert torch.equal(moving.frame(2).points, frames[5]) and torch.equal(moving.frame(1).points, frames[1])
    assert (path / "points" / "0.0.0").stat().st_size == (48 if not compress else (path / "points" / "0.0.0").stat().st_size)


def test_the_viewer_shows_a_run_with_its_slider(whole):
    """Its checkpoints are particles, not scenes."""
    _, path, moving = whole
    (frame,) = (value for value in Layers.open([path]).frame_at(8 / 24).values() if isinstance(value, GaussianScene))
    assert torch.equal(frame.means, moving.frame(8).means)
