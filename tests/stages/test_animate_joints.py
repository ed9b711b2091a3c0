"""`animate fit` with joints: joints used, exact poses and files, recovered motion, resuming, lost limbs."""

import json
from dataclasses import replace

import pytest
import torch

from tests.support.clips import worm
from tests.support.rigs import moving_worm, rigged_worm, shorten_searches
from tests.support.stopping import interrupt_at
from vision3d import animate
from vision3d.core.errors import ConfigError, InputError
from vision3d.core.progress import silent
from vision3d.core.runs import Interrupted, RunFolder
from vision3d.scene import SkinnedMesh
from vision3d.scene.clip import Clip
from vision3d.stages.animate.dynamic.config import AnimateConfig
from vision3d.stages.animate.dynamic.frame_adam import FrameAdam
from vision3d.stages.animate.dynamic.intake import Intake
from vision3d.stages.animate.dynamic.joints import JointField, JointTree

FEW = AnimateConfig(nodes=10, steps=24, frames_per_step=2, checkpoint_every=5, log_every=3, video=False)


def test_joints_with_vertices_or_several_branches_are_used():
    tree = JointTree.of(rigged_worm())
    assert [tree.skin.names[joint] for joint in tree.joints] == ["root", "left", "left_end", "right", "right_end"]
    assert tree.parents == (-1, 0, 1, 0, 3) and tree.roots == [0] and sorted(tree.limbs) == [[1, 2], [3, 4]]
    # Without its own weights, the root still joins two branches; otherwise it would not be used.
    skin = rigged_worm()
    no_root = replace(skin, weights=skin.weights.index_fill(1, torch.tensor([2]), 0.0) + torch.tensor([0, 1e-6, 0, 0, 0]))
    no_root = replace(no_root, weights=no_root.weights / no_root.weights.sum(1, keepdim=True))
    assert skin.names[JointTree.of(no_root).joints[0]] == "root"


def test_poses_of_joints_are_those_of_gltf():
    """The fit's poses equal those a viewer computes from the written keys, with scaled and rotated parents."""
    torch.manual_seed(0)
    tree, times = JointTree.of(rigged_worm()), torch.arange(4, dtype=torch.float64)
    turns, shifts = torch.randn(4, len(tree), 3), 0.3 * torch.randn(4, 1, 3)
    drawn = tree.pose(tree.skin.mesh.vertices, turns, shifts)
    played = replace(tree.skin, clips=(Clip("a", tuple(tree.channels(times, turns, shifts))),))
    torch.testing.assert_close(played.posed(played.clips[0], times), drawn, atol=2e-6, rtol=0)
    still = tree.pose(tree.skin.mesh.vertices, torch.zeros_like(turns), torch.zeros_like(shifts))
    torch.testing.assert_close(still, tree.skin.mesh.vertices.expand_as(still), atol=1e-6, rtol=0)
    each = tree.pose(tree.skin.mesh.vertices.expand(4, -1, -1), turns, shifts)
    torch.testing.assert_close(each, drawn)


def test_rest_weights_of_morph_targets_are_part_of_the_rest_pose():
    skin = rigged_worm()
    morphs = torch.zeros(2, skin.mesh.num_vertices, 3)
    morphs[1, :, 1] = 0.2
    weights = {"rest_weights": torch.tensor([0.0, 0.5]), "morph_names": ("a", "b"), "morph_normals": torch.zeros_like(morphs)}
    tree = JointTree.of(replace(skin, morphs=morphs, **weights))
    want = skin.mesh.vertices + torch.tensor([0.0, 0.1, 0.0])
    torch.testing.assert_close(tree.skin.mesh.vertices, want, atol=1e-6, rtol=0)
    assert tree.skin.num_morphs == 0


def test_a_root_moves_all_vertices_equally():
    tree = JointTree.of(rigged_worm())
    shift = torch.tensor([0.1, -0.2, 0.3])
    moved = tree.pose(tree.skin.mesh.vertices, torch.zeros(1, len(tree), 3), shift.view(1, 1, 3))[0]
    torch.testing.assert_close(moved, tree.skin.mesh.vertices + shift, atol=1e-6, rtol=0)


def test_a_skin_without_joints_has_no_tree():
    clip = worm()
    with pytest.raises(InputError, match="skin: has no joints"):
        JointTree.of(SkinnedMesh.from_frames(clip.mesh, clip.vertices, clip.times))
    with pytest.raises(ConfigError, match="fit: got joints, but the mesh has none; want a"):
        animate(replace(FEW, fit="joints"), clip.footage(), clip.mesh, progress=silent)


def test_frames_of_the_field_are_splines_with_a_fixed_reference():
    tree, times = JointTree.of(rigged_worm()), torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    field = JointField(tree, times, 0.0, 2.0)
    with torch.no_grad():
        field.values += torch.arange(1.0, 4.0)[:, None, None]
    turns, shifts = field(times)
    assert bool((turns[0] == 0).all()) and bool((turns[1] == 2).all()) and bool((shifts[2] == 6).all())
    field.start_from(2.0, 1.0, 0.0)
    assert bool((field.values[2] == 4).all())  # extrapolated linearly


def test_adam_of_frames_does_not_change_others():
    torch.manual_seed(0)
    start, slopes = torch.randn(3, 4), torch.randn(5, 3, 4)
    parameter, single = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start[1].clone())
    rows, plain = FrameAdam([{"params": [parameter], "lr": 0.1}]), torch.optim.Adam([single], 0.1, (0.9, 0.99), 1e-15)
    for slope in slopes:
        parameter.grad = slope * torch.tensor([[0.0], [1.0], [0.0]])
        rows.step()
        single.grad = slope[1]
        plain.step()
    torch.testing.assert_close(parameter[1], single)
    assert torch.equal(parameter[[0, 2]], start[[0, 2]])
    rows.forget(parameter, 1)
    assert not rows.state[parameter]["count"].any() and not rows.state[parameter]["mean"].any()


def taken(intake: Intake, iou_of) -> dict[int, int]:
    """Number of steps of each frame."""
    steps: dict[int, int] = {}
    while True:
        intake.advance()
        if intake.is_done:
            return steps
        steps[intake.newest] = steps.get(intake.newest, 0) + 1
        intake.record(iou_of(intake.newest, steps[intake.newest]))


def test_a_frame_is_added_when_the_previous_one_is_found():
    """Easy frames need few steps and leave more for difficult ones; every frame gets some; the total is limited."""
    easy = taken(Intake(range(6), 120, first_is_given=True), lambda frame, step: 0.9 if frame != 3 else 0.5 + 0.004 * step)
    assert easy[0] == 1 and easy[3] == 2 * 24 and all(easy[frame] < 20 for frame in (1, 2, 4, 5))
    assert set(easy) == set(range(6)) and sum(easy.values()) <= 120
    hard = taken(Intake(range(6), 30, first_is_given=False), lambda frame, step: 0.9 - 0.1 * frame)
    assert set(hard) == set(range(6)) and sum(hard.values()) <= 30 and min(hard.values()) >= 4
    assert Intake(range(6), 0, first_is_given=False).is_done


@pytest.mark.slow
@pytest.mark.parametrize("start", [0.0, 0.8])
def test_the_motion_of_joints_is_recovered(start, tmp_path):
    """From the rest pose, and from a clip without it; the file plays the fitted motion."""
    skin, clip, vertices = moving_worm(start=start)
    config = AnimateConfig(nodes=16, steps=240, hold_out_cameras=("cam2",), video=False)
    result = animate(config, clip.footage(), skin, truth=vertices, run_folder=tmp_path / "run", progress=silent)
    summary = result.summary
    assert summary["reference"] == (-1 if start else 0) and summary["joints"] == 5
    assert summary["unseen_cameras_iou"] > 0.93 > summary["frozen_unseen_cameras_iou"] + 0.1
    assert summary["fitted_vertex_error"] < 0.012 and summary["frozen_fitted_vertex_error"] > 0.05
    assert not summary["warnings"]
    skin = SkinnedMesh.load(tmp_path / "run" / "animated.glb")
    assert skin.names[1] == "root" and {channel.path for channel in skin.clips[0].channels} >= {"rotation", "translation"}
    played, fitted = skin.posed(skin.clips[0], clip.times), result.sequence.channels["vertices"]
    torch.testing.assert_close(played, fitted, atol=5e-6, rtol=0)


def test_graph_ignores_the_joints():
    skin, clip, _ = moving_worm(frames=3, cameras=1)
    result = animate(replace(FEW, fit="graph", steps=4), clip.footage(), skin, progress=silent)
    assert result.summary["joints"] == 0 and result.summary["nodes"] == 10 and not len(result.skin)
    result = animate(replace(FEW, fit="joints", steps=4), clip.footage(), skin, progress=silent)
    assert result.summary["nodes"] == 0 and result.skin.num_morphs == 0 and len(result.skin) == 6


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [2, 14, 24, 40])
def test_a_stopped_run_resumes_bitwise(stop_at, tmp_path, monkeypatch):
    """Stopped during the search for a first frame, while frames are added, while they are revisited, and with nodes."""

    stop = interrupt_at(stop_at, "animate")
    shorten_searches(monkeypatch)
    skin, clip, _ = moving_worm(frames=3, cameras=2, size=32, start=0.8)
    config = replace(FEW, steps=44, reference=-1)
    whole = animate(config, clip.footage(), skin, run_folder=tmp_path / "whole", progress=silent)
    with pytest.raises(Interrupted, match=f"stopped after step {stop_at}"):
        animate(config, clip.footage(), skin, run_folder=tmp_path / "parts", progress=stop)
    torch.rand(100)
    again = animate(
        config, clip.footage(), skin, run_folder=RunFolder.create(tmp_path / "parts", config, resume=True), progress=silent
    )
    assert torch.equal(whole.sequence.channels["vertices"], again.sequence.channels["vertices"])
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert any("arap_loss" in row for row in rows) and not all("arap_loss" in row for row in rows)
    single = fit_of_one_camera(config)
    assert single["nodes"] == 0 and single["joints"] == 5


def fit_of_one_camera(config) -> dict:
    """Summary of a fit from one camera, where nodes would deform invisible parts."""
    skin, clip, _ = moving_worm(frames=3, cameras=1, size=32, start=0.8)
    return animate(config, clip.footage(), skin, progress=silent).summary
