import json

import pytest

from tests.support.datasets import write_ring_photographs
from vision3d.cli import demo
from vision3d.io.images import image_size
from vision3d.io.video import read_video
from vision3d.scene import GaussianScene

SHORT = ("--steps", "25", "--max-gaussians", "300", "--init-count", "300")


@pytest.fixture
def small_photo_set(tmp_path, monkeypatch):
    """Images of 48x36 instead of the bundled ones, and a short video."""
    folder = write_ring_photographs(tmp_path / "photographs")
    monkeypatch.setattr(demo, "photo_set", lambda: folder)
    monkeypatch.setattr(demo, "FRAMES", 6)
    monkeypatch.setattr(demo, "SIZE", (50, 40))


def test_demo_writes_what_it_reports(cli, small_photo_set, tmp_path):
    out = tmp_path / "out"
    code, stdout, err = cli("demo", "--out", out, *SHORT, "--log-every", "10", "--json")
    assert code == 0, err
    *lines, last = stdout.splitlines()
    values = json.loads(last)
    assert lines[0] == f"2 held-out views: PSNR {values['psnr']:.2f} dB, SSIM {values['ssim']:.3f}"
    assert lines[1] == f"nearest training view shown instead: PSNR {values['psnr_nearest']:.2f} dB"
    opened = [line.split()[0] for line in lines[lines.index("now open") + 1 :]]
    assert opened == [str(out / name) for name in ("report.html", "contact_sheet.png", "orbit.mp4", "curves.png", "scene.ply")]
    assert GaussianScene.load(out / "scene.ply").num_gaussians == values["gaussians"]
    assert 285 <= values["gaussians"] <= 300  # those that no photo shows are pruned
    video = read_video(out / "orbit.mp4")
    assert (video.width, video.height, video.fps, len(list(video))) == (50, 40, 24, 6)
    assert min(image_size(out / "contact_sheet.png")) > 100
    assert json.loads((out / "summary.json").read_text())["status"] == "done"


def test_second_demo_needs_overwrite(cli, small_photo_set, tmp_path):
    arguments = ("demo", "--out", tmp_path / "out", *SHORT, "--quiet")
    assert cli(*arguments)[0] == 0
    code, _, err = cli(*arguments)
    assert code == 5 and "exists and is not empty; give --overwrite" in err
    assert cli(*arguments, "--overwrite")[0] == 0


def test_demo_writes_to_runs_with_its_preset(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = cli("demo", "--print-config", "--minutes", "0.5")
    assert code == 0
    assert "minutes: 0.5\n" in out and "checkpoint_every: 0\n" in out
    assert demo.DemoOptions().out.parts == ("runs", "demo")
    assert demo.DemoOptions().settings.minutes == 2


def test_photo_set_is_bundled():
    folder = demo.photo_set()
    content = json.loads((folder / "transforms.json").read_text())
    assert (len(content["train_filenames"]), len(content["test_filenames"])) == (48, 8)
    assert len(list((folder / "images").glob("*.webp"))) == 56


def test_installation_without_the_photo_set(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "files", lambda name: tmp_path)
    code, _, err = cli("demo", "--out", tmp_path / "out")
    assert code == 3 and "want the bundled photo set, which this installation lacks" in err
