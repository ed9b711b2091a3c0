"""`play_skin`: the motion, its outputs, and that files reproduce the computed vertices."""

import json
import subprocess
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.gltf_reader import Animated
from tests.support.outside import npm_package
from tests.support.skins import arm
from vision3d.core.errors import ConfigError, InputError
from vision3d.core.runs import RunFolder
from vision3d.geometry.mesh import volume
from vision3d.io.images import read_image
from vision3d.io.video import read_video
from vision3d.render.camera_paths import path_cameras
from vision3d.scene import Cameras, FrameSequence, GaussianScene, Mesh, MeshGaussians, Motion, Skeleton, SkinnedMesh
from vision3d.stages.animate import RigConfig, play_skin
from vision3d.stages.animate.rig.images import check_seen, orbit

CREATURE = Path(str(resources.files("vision3d") / "assets" / "creature" / "creature.glb"))
SMALL = {"video_size": (64, 48), "frames": 3}


def run(config, skin, folder=None, **inputs):
    run_folder = None if folder is None else RunFolder.create(folder, config, overwrite=True)
    return play_skin(config, skin, run_folder=run_folder, progress=lambda *_: None, **inputs)


def test_the_first_clip_is_played_unless_a_pose_is_given():
    skin = arm()
    result = run(RigConfig(fps=8), skin)
    assert result.summary["clip"] == "wave" and result.summary["frames"] == 9 and len(result.frames) == 9
    torch.testing.assert_close(result.frames.channels["vertices"][4], skin.posed(skin.clips[0], [0.5])[0], rtol=0, atol=1e-6)
    still = run(RigConfig(pose=("joint_1=0,0,0",)), skin)
    assert still.summary["clip"] is None and len(still.frames) == 1
    torch.testing.assert_close(still.skin.mesh.vertices, skin.mesh.vertices, rtol=0, atol=1e-6)
    named = run(RigConfig(clip="still"), skin)
    assert named.summary["clip"] == "still" and named.summary["frames"] == 1
    alone = run(RigConfig(), replace(skin, clips=()))
    assert alone.summary["clip"] is None


@pytest.mark.parametrize("method, blend", [("lbs", 0.5), ("dqs", 0.5), ("hybrid", 0.0), ("hybrid", 1.0)])
def test_methods(method, blend):
    skin = arm()
    angles = {"joint_1": "joint_1=0,0,60", "joint_2": "joint_2=0,0,50"}
    config = RigConfig(pose=tuple(angles.values()), method=method, blend=blend, axes="world", order="xyz")
    result = run(config, skin)
    same = {"hybrid": "lbs" if blend else "dqs"}.get(method, method)
    other = run(replace(config, method=same), skin)
    torch.testing.assert_close(result.skin.mesh.vertices, other.skin.mesh.vertices, rtol=0, atol=2e-6)
    mesh = result.skin.mesh
    ratio = float(volume(mesh.vertices, mesh.faces) / volume(skin.mesh.vertices, skin.mesh.faces))
    assert result.summary["smallest_volume"] == pytest.approx(ratio, abs=1e-3)


def test_twists_lose_volume_with_lbs_and_not_with_dqs():
    ratios = {}
    for method in ("lbs", "dqs"):
        config = RigConfig(pose=("joint_1=0,150,0",), method=method, axes="world")
        ratios[method] = run(config, arm(2)).summary["smallest_volume"]
    assert ratios["lbs"] < ratios["dqs"] - 0.05 and ratios["dqs"] > 0.95


def test_files_of_a_clip_reproduce_it(tmp_path):
    skin = arm()
    for method in ("lbs", "dqs"):
        config = RigConfig(clip="wave", pose=("joint_1=20,0,0",), method=method, fps=8, **SMALL)
        result = run(config, skin, tmp_path / method)
        second = Animated(tmp_path / method / "rig.glb")
        for index in (0, 3, 8):
            want = result.frames.channels["vertices"][index].numpy()
            assert np.abs(second.vertices("wave", index / 8) - want).max() < 1e-5
        loaded = FrameSequence.load(tmp_path / method / "frames.zarr")
        assert isinstance(loaded.base, Mesh) and len(loaded) == 9
        torch.testing.assert_close(loaded.frame(5).vertices, result.frames.channels["vertices"][5])
        video = read_video(tmp_path / method / "video.mp4")
        assert (video.width, video.height, len(list(video))) == (64, 48, 9)
        assert (tmp_path / method / "figures" / "frames.png").is_file()
        assert not (tmp_path / method / "image.png").exists()
    assert len(SkinnedMesh.load(tmp_path / "lbs" / "rig.glb")) == 3


@pytest.mark.parametrize("method", ["lbs", "dqs"])
def test_a_clip_is_played_at_the_rate_of_its_file(tmp_path, method):
    config = RigConfig(clip="wave", method=method, **SMALL)
    for fps, given, count in ((None, None, 25), (12.0, None, 13), (12.0, 6.0, 7)):
        result = run(replace(config, fps=given), replace(arm(), fps=fps), tmp_path / str(count))
        assert len(result.frames) == count and result.skin.fps == count - 1
        assert read_video(tmp_path / str(count) / "video.mp4").fps == pytest.approx(count - 1)
    assert run(RigConfig(pose=("joint_2=0,0,45",)), arm()).skin.fps is None  # its clips are unchanged


def test_files_of_a_pose(tmp_path):
    config = RigConfig(pose=("joint_2=0,0,45",), render="gaussians", per_face=3, **SMALL)
    result = run(config, arm(), tmp_path)
    splats = GaussianScene.load(tmp_path / "gaussians.ply")
    assert len(splats) == result.summary["gaussians"] == 3 * result.summary["faces"]
    base = result.frames.base
    assert isinstance(base, MeshGaussians)
    torch.testing.assert_close(splats.means, base.to_gaussians(result.skin.mesh.vertices).means, rtol=0, atol=1e-5)
    new = SkinnedMesh.load(tmp_path / "rig.glb")
    torch.testing.assert_close(new.posed(None, [0.0])[0], result.skin.mesh.vertices, rtol=0, atol=1e-5)
    assert [clip.name for clip in new.clips] == ["wave", "still"]
    image = torch.as_tensor(read_image(tmp_path / "image.png"))
    assert image.shape == (48, 64, 3) and image.amin() < 0.9 < image.amax()
    assert len(list(read_video(tmp_path / "video.mp4"))) == 3
    assert isinstance(FrameSequence.load(tmp_path / "frames.zarr").base, MeshGaussians)


def test_one_video_per_given_camera(tmp_path):
    skin = arm()
    cameras = path_cameras(skin.mesh, "orbit", num=2, size=(32, 32), up=torch.tensor([0.0, 1, 0]))
    run(RigConfig(fps=4), skin, tmp_path / "clip", cameras=replace(cameras, names=("left.png", "right.png")))
    assert sorted(path.name for path in (tmp_path / "clip").glob("*.mp4")) == ["video_left.mp4", "video_right.mp4"]
    run(RigConfig(pose=("joint_1=0,0,1",)), skin, tmp_path / "still", cameras=cameras[:1])
    assert (tmp_path / "still" / "image.png").is_file() and not (tmp_path / "still" / "video.mp4").exists()
    run(RigConfig(pose=("joint_1=0,0,1",)), skin, tmp_path / "stills", cameras=cameras)
    assert len(list((tmp_path / "stills").glob("image_*.png"))) == 2


def test_a_camera_that_never_sees_the_mesh_is_refused_before_anything_is_written(tmp_path):
    skin = arm()
    seeing = path_cameras(skin.mesh, "orbit", num=2, size=(32, 32), up=torch.tensor([0.0, 1, 0]))
    behind = replace(seeing, viewmats=torch.diag(torch.tensor([-1.0, 1, -1, 1])) @ seeing.viewmats, names=("left", "right"))
    for bad, name in ((behind, r"camera 0 \(left\)"), (Cameras.merge(seeing, replace(behind[:1], names=None)), "camera 2")):
        with pytest.raises(InputError, match=rf"{name}.* at \(.*\) sees nothing of the mesh, which is in the box from \("):
            run(RigConfig(fps=4), skin, tmp_path / "out", cameras=bad)
    aside = torch.eye(4)
    aside[0, 3] = 100.0
    with pytest.raises(InputError, match=r"camera 0 at .* sees nothing of the mesh"):
        run(RigConfig(fps=4), skin, cameras=replace(seeing, viewmats=aside @ seeing.viewmats))
    assert not list((tmp_path / "out").glob("*.glb")) and not list((tmp_path / "out").glob("*.mp4"))


def test_a_camera_close_to_the_middle_of_a_face_sees_it():
    """No vertex is in its image."""
    wide = Mesh(torch.tensor([[-9.0, -9, 0], [9, -9, 0], [0, 9, 0]]), torch.tensor([[0, 1, 2]]))
    camera = Cameras.from_camtoworlds(torch.diag(torch.tensor([1.0, -1, -1, 1]))[None], torch.eye(3) * 20, 32, 32)
    viewmats = camera.viewmats.clone()
    viewmats[0, 2, 3] = 0.5
    check_seen(wide.vertices[None], wide.faces, replace(camera, viewmats=viewmats))
    viewmats[0, 2, 3] = -0.5
    with pytest.raises(InputError, match="sees nothing"):
        check_seen(wide.vertices[None], wide.faces, replace(camera, viewmats=viewmats))


def test_the_camera_sees_all_of_every_frame():
    skin = arm(4)
    config = RigConfig(video_size=(60, 90), azimuth=75, elevation=40, up="z", turns=0.6)
    frames = run(config, skin).frames
    cameras = orbit(frames, config, 7, config.video_size)
    inside = []
    for viewmat, K in zip(cameras.viewmats, cameras.Ks):
        for vertices in frames.channels["vertices"]:
            local = vertices @ viewmat[:3, :3].T + viewmat[:3, 3]
            pixels = local @ K.T
            inside.append(pixels[:, :2] / pixels[:, 2:] / torch.tensor([60.0, 90.0]))
    seen = torch.cat(inside)
    assert seen.amin() > 0 and seen.amax() < 1
    assert seen.amin() < 0.12 or seen.amax() > 0.88  # and is not farther away than necessary


def test_motion_capture():
    skin = arm()
    skeleton = Skeleton(("joint_0", "joint_1", "joint_2", "end"), (-1, 0, 1, 2), torch.tensor([[0.0, 1, 0]] * 4), (3,))
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(3, 4, 1)
    quats[1, 1] = torch.tensor([0.7071068, 0, 0, 0.7071068])
    motion = Motion(skeleton, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), quats, torch.zeros(3, 3))
    result = run(RigConfig(fps=2), skin, motion=motion)
    assert result.summary["clip"] == "motion" and result.summary["frames"] == 3
    top = result.frames.channels["vertices"][1][skin.mesh.vertices[:, 1].argmax()]
    torch.testing.assert_close(top, torch.tensor([-2.0, 1, 0]), rtol=0, atol=0.02)
    with pytest.raises(InputError, match="want one of the two"):
        run(RigConfig(clip="wave"), skin, motion=motion)
    other = replace(motion, skeleton=replace(skeleton, names=("hip", "knee", "foot", "end")))
    named = run(RigConfig(fps=2), skin, motion=replace(motion, skeleton=replace(skeleton, names=("a", "b", "c", "end"))),
                joints={"a": "joint_0", "b": "joint_1", "c": "joint_2"})  # fmt: skip
    assert torch.equal(named.frames.channels["vertices"], result.frames.channels["vertices"])
    with pytest.raises(InputError, match="no motion to match them with"):
        run(RigConfig(), skin, joints={"a": "joint_0"})
    with pytest.raises(
        InputError, match=r"has 0 of the 3 joints .*; joints of the skin: joint_0, .*; of the motion: hip, knee"
    ):
        run(RigConfig(), skin, motion=other)


def test_wrong_options():
    for options, text in (
        ({"order": "XXZ"}, "order"), ({"blend": 1.5}, "blend"), ({"fps": 0}, "fps"), ({"fps": float("nan")}, "fps"),
        ({"scale": -1}, "scale"), ({"video_size": (4, 4)}, "video_size"), ({"elevation": 120}, "elevation"),
        ({"zoom": 0}, "zoom"), ({"fov": 180}, "fov"), ({"background": (2, 0, 0)}, "background"), ({"clip": ""}, "clip"),
        ({"frames": 0}, "frames"), ({"turns": float("inf")}, "turns"), ({"azimuth": float("nan")}, "azimuth"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=text):
            RigConfig(**options)


def test_too_many_frames_are_rejected():
    skin = arm()
    long = replace(skin.clips[0], channels=tuple(replace(c, times=c.times * 1e6) for c in skin.clips[0].channels))
    with pytest.raises(InputError, match="do not fit in 2 GB; want fewer frames per second"):
        run(RigConfig(fps=1000), replace(skin, clips=(long,)))


def test_the_creature_looks_around(tmp_path):
    skin = SkinnedMesh.load(CREATURE)
    config = RigConfig(pose=("head=0,40,0",), shading="none", **SMALL)
    result = run(config, skin, tmp_path)
    head = skin.names.index("head")
    dense = torch.zeros(len(skin.weights), len(skin)).scatter_add_(1, skin.indices, skin.weights)
    moved = (result.skin.mesh.vertices - skin.mesh.vertices).norm(dim=-1)
    assert moved[dense[:, head] == 0].max() < 1e-6
    snout = int(torch.where(dense[:, head] > 0.9, skin.mesh.vertices[:, 2], -9).argmax())
    assert result.skin.mesh.vertices[snout, 0] - skin.mesh.vertices[snout, 0] > 0.08  # to its left, which is +x
    assert json.loads((tmp_path / "frames.zarr" / ".zattrs").read_text())


def test_a_bvh_of_the_creatures_own_joints_reproduces_its_walk(tmp_path):
    skin = SkinnedMesh.load(CREATURE)
    walk = skin.clip("Walk")
    times = walk.times(24)
    shifts, quats, *_ = skin.locals_at(walk, times)
    offsets = skin.translations.clone()
    skeleton = Skeleton(skin.names, skin.parents, offsets)
    Motion(skeleton, times, quats, shifts[:, 0] - offsets[0]).save(tmp_path / "walk.bvh")
    result = run(RigConfig(fps=24), skin, motion=Motion.load(tmp_path / "walk.bvh"))
    want = skin.posed(walk, times)
    got = torch.stack([result.frames.channels["vertices"][i] for i in range(len(times))])
    # Retargeting starts in the rest pose of the skin, so everything except the root's translation is equal.
    off = (got - want) - (got - want).mean(1, keepdim=True)
    assert off.abs().max() < 1e-3
    way = (got - got[:1]).mean(1) - (want - want[:1]).mean(1)
    assert way.abs().max() < 1e-3


@pytest.mark.viewer
def test_validator_finds_no_errors(tmp_path):
    script = npm_package("gltf-validator").parents[1] / "validate_gltf.mjs"
    skin, files = SkinnedMesh.load(CREATURE), []
    pose = {"pose": ("head=0,40,0", "tail_2=20,0,0")}
    for name, options in {"pose": pose, "lbs": {"clip": "Walk"}, "dqs": {"clip": "Jump", "method": "dqs"}}.items():
        files.append(tmp_path / f"{name}.glb")
        run(RigConfig(**options), skin).skin.save(files[-1])
    done = subprocess.run(["node", script, *files], capture_output=True, text=True, check=True)
    assert done.stdout.count('"numErrors":0') == 3
