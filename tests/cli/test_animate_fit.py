"""`vision3d animate fit` on the command line: output, resuming, and wrong input."""

import json

import pytest
import torch
import yaml

from tests.support.clips import worm
from tests.support.refusals import assert_refused
from vision3d.core.config import presets
from vision3d.io.images import write_image
from vision3d.scene import FrameSequence, SkinnedMesh

FEW = ("--steps", 6, "--nodes", 8, "--checkpoint-every", 3, "--frames-per-step", 2, "--quiet")


@pytest.fixture(scope="module")
def worm_files(tmp_path_factory):
    """A clip of two cameras, one of a single camera, the mesh, and the true motion."""
    folder = tmp_path_factory.mktemp("worm")
    clip = worm(frames=4, cameras=2)
    clip.write(folder / "rig")
    worm(frames=4, cameras=1).write(folder / "single")
    clip.mesh.save(folder / "worm.glb")
    FrameSequence(clip.mesh, clip.times, {"vertices": clip.vertices}).save(folder / "truth.zarr")
    return folder


def test_a_clip_becomes_an_animated_mesh(cli, worm_files, tmp_path):
    out = tmp_path / "run"
    options = ("--truth", worm_files / "truth.zarr", "--hold-out-every", 3, *FEW[:-1], "--out", out)
    code, text, err = cli("animate", "fit", worm_files / "rig", "--mesh", worm_files / "worm.glb", *options)
    assert code == 0, err
    assert text.startswith("4 frames of 2 cameras, 8 nodes, 6 steps, guidance: none\nfitted images: PSNR ")
    assert (
        "% of the diagonal (frozen mesh: PSNR " in text and str(out / "animated.glb") in text and "unseen frames: PSNR" in text
    )
    assert "guidance: none" in err
    skin = SkinnedMesh.load(out / "animated.glb")
    assert skin.clips[0].end == pytest.approx(3 / 24) and skin.num_morphs == 4
    assert len(FrameSequence.load(out / "frames.zarr")) == 4
    page = (out / "report.html").read_text("utf-8")
    assert "<video" in page and 'alt="frames"' in page and 'alt="iou"' in page
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "done" and summary["results"]["guidance"] == "none"


def test_resume(cli, worm_files, tmp_path):
    command = ("animate", "fit", worm_files / "single", "--mesh", worm_files / "worm.glb", *FEW)
    assert cli(*command, "--out", tmp_path / "whole")[0] == 0
    assert cli(*command, "--out", tmp_path / "parts")[0] == 0
    (tmp_path / "parts" / "checkpoints" / "step_000006.pt").unlink()
    assert cli(*command, "--out", tmp_path / "parts", "--resume")[0] == 0
    first, second = (SkinnedMesh.load(tmp_path / name / "animated.glb").morphs for name in ("whole", "parts"))
    assert torch.equal(first, second)
    assert_refused(cli(*command, "--out", tmp_path / "whole"), "whole", code=5)
    changed = cli(*command, "--nodes", 9, "--out", tmp_path / "parts", "--resume")
    assert_refused(changed, "nodes", code=2)


@pytest.mark.parametrize("name", list(presets("animate")))
def test_presets_are_valid(cli, worm_files, name):
    command = ("animate", "fit", worm_files / "rig", "--mesh", worm_files / "worm.glb", "--config", name)
    code, text, err = cli(*command, "--nodes", 7, "--print-config")
    assert code == 0, err
    plain = yaml.safe_load(cli(*command[:-2], "--nodes", 7, "--print-config")[1])
    assert yaml.safe_load(text) != plain and plain["nodes"] == 7


def test_the_menu(cli):
    code, text, _ = cli("animate")
    assert code == 2 and "vision3d animate TASK [OPTIONS]" in text and "fit" in text
    assert_refused(cli("animate", "fitt"), "fitt: unknown task; did you mean fit", code=2)
    assert "--motion.kind" in cli("animate", "fit", "--help")[1]


@pytest.mark.parametrize("what", ["size", "alpha", "count", "empty", "missing", "zero", "mesh", "gaussians"])
def test_wrong_input_is_one_line_and_leaves_nothing(cli, worm_files, tmp_path, what):
    clip, mesh = tmp_path / "clip", worm_files / "worm.glb"
    image = torch.zeros(16, 16, 4)
    image[4:12, 4:12] = torch.tensor([0.5, 0.2, 0.1, 1.0])
    for i in range(3):
        write_image(clip / f"{i}.png", image)
    parts = {
        "size": ("1.png has 20x16 px", "want frames of one size"),
        "alpha": ("1.png has no alpha", "want RGBA frames"),
        "count": ("want at least 2 frames",),
        "empty": ("the mask of 1.png is empty",),
        "missing": ("nothing", "a folder of images or a video"),
        "zero": ("points.obj: has no faces",),
        "mesh": ("worm.txt",),
        "gaussians": ("worm.safetensors",),
    }[what]
    if what == "size":
        write_image(clip / "1.png", torch.nn.functional.pad(image, (0, 0, 2, 2)))
    elif what == "alpha":
        write_image(clip / "1.png", torch.rand(16, 16, 3))
    elif what == "count":
        for i in (1, 2):
            (clip / f"{i}.png").unlink()
    elif what == "empty":
        write_image(clip / "1.png", torch.zeros(16, 16, 4))
    elif what == "missing":
        clip = tmp_path / "nothing"
    elif what == "zero":
        mesh = tmp_path / "points.obj"
        mesh.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    else:
        mesh = tmp_path / ("worm.txt" if what == "mesh" else "worm.safetensors")
        mesh.write_text("no mesh")
    out = tmp_path / "out"
    assert_refused(cli("animate", "fit", clip, "--mesh", mesh, "--out", out, *FEW), *parts)
    assert not out.exists()


def test_unsuitable_options(cli, worm_files, tmp_path):
    command = ("animate", "fit", worm_files / "rig", "--mesh", worm_files / "worm.glb", "--out", tmp_path / "out", *FEW)
    assert_refused(cli(*command, "--hold-out-cameras", "cam7"), "cam7", "there are cam0, cam1", code=2)
    assert_refused(cli(*command, "--reference", 9), "reference: got frame 9, but the clip has 4", code=2)
    assert_refused(cli(*command, "--truth", worm_files / "worm.glb"), "worm.glb")
    assert_refused(cli(*command[:3], *command[5:]), "--mesh", code=2)
    assert not (tmp_path / "out").exists()
