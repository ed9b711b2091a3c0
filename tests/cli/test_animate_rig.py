"""`vision3d animate rig` on the command line: output and wrong input."""

import json
import os
import pickle
from pathlib import Path

import pytest

from tests.support.hand_rigs import other_rig, track
from tests.support.refusals import assert_refused
from tests.support.skins import arm

DATA = os.environ.get("VISION3D_DATA")
FAST = ("--video-size", 32, 24, "--frames", 2, "--quiet")


@pytest.fixture(scope="module")
def glb(tmp_path_factory):
    path = tmp_path_factory.mktemp("rig") / "arm.glb"
    arm().save(path)
    return path


def test_menu(cli):
    code, out, _ = cli("animate", "--help")
    assert code == 0 and "rig" in out
    assert cli("animate")[0] == 2
    assert_refused(cli("animate", "rigg"), "rigg: unknown task", "rig", code=2)
    code, out, _ = cli("animate", "rig", "--help")
    assert code == 0 and "--pose" in out and "--bvh" in out


def test_a_pose(cli, glb, tmp_path):
    out = tmp_path / "out"
    arguments = (
        "animate",
        "rig",
        glb,
        "--pose",
        "joint_1=0,0,30",
        "joint_2=0,20,0",
        "--method",
        "dqs",
        "--out",
        out,
        *FAST[:-1],
    )
    code, text, err = cli(*arguments)
    assert code == 0, err
    assert "a still pose of 642 vertices on 3 joints by dqs" in text and "now open" in text
    assert {path.name for path in out.iterdir()} == {
        "config.yaml", "figures", "frames.zarr", "inputs.yaml", "image.png", "report.html", "rig.glb", "summary.json",
        "video.mp4",
    }  # fmt: skip
    assert "data:image/png" in (out / "report.html").read_text()
    assert_refused(cli(*arguments), "exists and is not empty", code=5)
    assert cli(*arguments, "--overwrite")[0] == 0
    assert cli("animate", "rig", glb, "--config", out / "config.yaml", "--out", tmp_path / "again", "--quiet")[0] == 0


def test_a_clip(cli, glb, tmp_path):
    out = tmp_path / "out"
    arguments = ("--clip", "wave", "--fps", 6, "--render", "gaussians", "--per-face", 1, "--no-video", "--json")
    code, text, err = cli("animate", "rig", glb, *arguments, "--out", out, "--quiet")
    assert code == 0, err
    values = json.loads(text)
    assert values["ok"] and values["clip"] == "wave" and values["frames"] == 7 and values["gaussians"] == 1280
    assert not (out / "video.mp4").exists()
    assert json.loads((out / "summary.json").read_text())["status"] == "done"


@pytest.mark.parametrize(
    "options, parts, code",
    [
        (("--pose", "hat=0,1,2"), ("no joint hat", "joint_0, joint_1, joint_2"), 3),
        (("--pose", "joint_1=0,1"), ("joint_1=0,1", "JOINT=A,B,C"), 3),
        (("--pose", "joint_1=0,nan,1"), ("JOINT=A,B,C",), 3),
        (("--clip", "walk"), ("no clip is called 'walk'", "wave, still"), 3),
        (("--method", "cubic"), ("lbs", "dqs", "hybrid"), 2),
        (("--order", "XYY"), ("order", "XYY"), 2),
        (("--blend", "2"), ("blend", "[0, 1]"), 2),
        (("--joints", "none.yaml"), ("none.yaml: does not exist; want a YAML file of joints",), 3),
        (("--bvh", "none.bvh"), ("none.bvh: does not exist",), 3),
        (("--cameras", "none.json"), ("none.json: does not exist",), 3),
        (("--posee", "a"), ("--posee", "--pose"), 2),
        (("--device", "tpu"), ("tpu",), 4),
    ],
)
def test_wrong_options(cli, glb, tmp_path, options, parts, code):
    out = tmp_path / "out"
    assert_refused(cli("animate", "rig", glb, "--out", out, *FAST, *options), *parts, code=code)
    assert not out.exists()


def test_wrong_files(cli, glb, tmp_path):
    whole = glb.read_bytes()
    (tmp_path / "cut.glb").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.glb").write_bytes(b"")
    (tmp_path / "pickle.glb").write_bytes(pickle.dumps({"a": 1}))
    arm().mesh.save(tmp_path / "still.glb")
    (tmp_path / "text.bvh").write_text("HIERARCHY\nROOT a\n")
    for name, part in (
        ("missing.glb", "does not exist"),
        ("cut.glb", "cut.glb"),
        ("empty.glb", "empty.glb"),
        ("pickle.glb", "pickle.glb"),
        ("still.glb", "want an animated mesh"),
        ("text.bvh", "a .bvh file holds motion, want a skin (.glb, .gltf)"),
    ):
        assert_refused(cli("animate", "rig", tmp_path / name, "--out", tmp_path / "out", *FAST), part)
        assert not (tmp_path / "out").exists()
    assert_refused(cli("animate", "rig", glb, "--bvh", tmp_path / "text.bvh", "--out", tmp_path / "out", *FAST), "text.bvh")
    assert_refused(cli("animate", "rig", glb, "--bvh", glb, "--out", tmp_path / "out", *FAST), "want motion (.bvh)")


@pytest.mark.skipif(DATA is None, reason="VISION3D_DATA is not set")
def test_fox_runs_dances_and_rejects_a_robot(cli, tmp_path):
    fox = Path(str(DATA)) / "skinning" / "fox.glb"
    options = ("--clip", "Run", "--pose", "b_Neck_04=0,0,20", "--fps", 6, "--out", tmp_path / "run", *FAST[:-1])
    code, text, err = cli("animate", "rig", fox, *options)
    assert code == 0, err
    assert "Run: 7 frames of 1,728 vertices on 24 joints by lbs" in text
    dancer = Path(str(DATA)) / "mocap" / "dab.bvh"
    code, _, err = cli("animate", "rig", fox, "--bvh", dancer, "--fps", 2, "--out", tmp_path / "dance", *FAST)
    assert code == 0 and "the skin has no joint for Spine1, Spine2," in err
    robot = Path(str(DATA)) / "mocap" / "sinusoidal.bvh"
    result = cli("animate", "rig", fox, "--bvh", robot, "--out", tmp_path / "out", *FAST)
    want = ("want at least half of them", "joints of the skin: _rootJoint", "of the motion: ")
    assert_refused(result, *want)
    assert not (tmp_path / "out").exists()


def test_a_track_of_a_hand_moves_another_hand(cli, tmp_path):
    motion, skin = tmp_path / "hands.glb", tmp_path / "rig.glb"
    track().save(motion)
    other_rig().save(skin)
    code, text, err = cli("animate", "rig", skin, "--motion", motion, "--fps", 10, "--no-video", "--out", tmp_path / "out")
    assert code == 0, err
    assert "motion: 4 frames of" in text and (tmp_path / "out" / "rig.glb").is_file()
    arguments = ("animate", "rig", skin, "--motion", motion, "--out", tmp_path / "other")
    assert_refused(cli(*arguments, "--bvh", "dance.bvh"), "--bvh and --motion are mutually exclusive", code=2)
    for path, text in ((tmp_path / "none.glb", "none.glb: does not exist"), (skin, "has joints but no clip")):
        assert_refused(cli("animate", "rig", skin, "--motion", path, "--out", tmp_path / "other"), text)
    assert not (tmp_path / "other").exists()
