"""`animate fit`: joints from the surface, limbs confused with each other, nodes that replace joints."""

from dataclasses import replace

import pytest
import torch

from tests.support.figures import PARTS, figure, posed, walking_figure
from tests.support.rigs import moving_worm, rigged_worm, shorten_searches
from tests.support.stopping import interrupt_at
from vision3d import animate
from vision3d.core.progress import silent
from vision3d.core.runs import Interrupted, RunFolder
from vision3d.geometry import shapes
from vision3d.geometry.rotation import so3_exp, so3_log
from vision3d.scene import Mesh
from vision3d.stages.animate.dynamic.config import AnimateConfig
from vision3d.stages.animate.dynamic.frame_adam import FrameAdam
from vision3d.stages.animate.dynamic.joints import JointField, JointTree
from vision3d.stages.animate.dynamic.limb_search import exchanged_limbs, refined, turned_bodies
from vision3d.stages.animate.dynamic.painters import MeshPainter
from vision3d.stages.animate.dynamic.pose_path import smoothest_path
from vision3d.stages.animate.dynamic.pose_search import PoseSearch
from vision3d.stages.animate.dynamic.surface_rig import surface_skin

ARMS = torch.tensor([[1.0, 0.0, 0.0], [-0.5, 0.9, 0.0], [-0.5, -0.9, 0.0]])


def star() -> Mesh:
    """A sphere with three arms in a plane."""
    vertices, faces = shapes.icosphere(4)
    near = (vertices @ torch.nn.functional.normalize(ARMS, dim=1).T).amax(1)
    return Mesh(vertices * (0.3 + 1.5 * torch.exp(-8 * (1 - near)))[:, None], faces)


def test_a_surface_gets_a_chain_of_joints_along_each_arm():
    mesh = star()
    skin = surface_skin(mesh).validate()
    tree = JointTree.of(skin)
    limbs = [limb for limb in tree.limbs if len(limb) > 1]
    assert len(tree.roots) == 1 and len(limbs) == 3 and all(len(limb) >= 3 for limb in limbs)
    pivots = tree.frames[:, :3, 3]
    assert float(pivots[tree.roots[0]].norm()) < 0.1
    for limb in limbs:
        along = pivots[limb] @ torch.nn.functional.normalize(ARMS, dim=1).T
        arm = int(along[-1].argmax())
        assert bool((along[:, arm].diff() > 0.1).all())  # outwards
        assert (
            float((pivots[limb] - along[:, arm, None] * torch.nn.functional.normalize(ARMS[arm], dim=0)).norm(dim=1).max())
            < 0.06
        )
        carried = torch.where(torch.isin(tree.indices, torch.tensor(limb)), skin.weights, 0).sum(1)
        others = mesh.vertices @ torch.nn.functional.normalize(ARMS, dim=1).T
        assert float(carried[others[:, arm] > 0.8].min()) > 0.9 and float(carried[others[:, arm] < -0.3].max()) < 0.1
    still = tree.pose(mesh.vertices, torch.zeros(1, len(tree), 3), torch.zeros(1, 1, 3))[0]
    torch.testing.assert_close(still, mesh.vertices, atol=1e-6, rtol=0)


def test_disconnected_parts_share_one_skeleton():
    (ball, faces), (box, sides) = shapes.icosphere(3), shapes.box((1.0, 0.3, 0.3), divisions=4)
    parts = torch.cat([ball, box + torch.tensor([1.7, 0.0, 0.0])])
    skin = surface_skin(Mesh(parts, torch.cat([faces, sides + len(ball)])))
    assert skin.parents.count(-1) == 1
    shares = torch.zeros(len(parts), len(skin)).scatter_add_(1, skin.indices, skin.weights)
    of_ball, of_end = shares[: len(ball)].amax(0), shares[parts[:, 0] > 2].amax(0)
    assert float(torch.minimum(of_ball, of_end).max()) < 1e-5
    one = surface_skin(Mesh(*shapes.box()))
    assert len(one) >= 1 and bool(one.weights.isfinite().all())


def test_a_trunk_has_several_rings_with_a_long_pole_attached():
    """A rigid trunk cannot be twisted, so hips and shoulders would be fitted by limbs in each other's positions."""
    mesh, length, ((_, height, _), _, divisions) = figure().mesh, 1.6, PARTS[0]
    count = len(shapes.box(divisions=divisions)[0])
    pole, sides = shapes.box((0.04, 0.04, length), divisions=8)
    vertices = torch.cat([mesh.vertices, pole + torch.tensor([0.33, 0.2, length / 2])])
    skin = surface_skin(Mesh(vertices, torch.cat([mesh.faces, sides + mesh.num_vertices])))
    shares = torch.zeros(len(vertices), len(skin)).scatter_add_(1, skin.indices, skin.weights)[:count]
    joints, heights = shares.argmax(1), vertices[:count, 1]
    rings = [heights[joints == joint] for joint in joints.unique()]
    assert len(rings) >= 3 and max(float(ring.max() - ring.min()) for ring in rings) < 0.51 * height


def test_exchanged_limbs_point_to_each_others_positions():
    tree = JointTree.of(rigged_worm())
    joints = JointField(tree, torch.arange(2, dtype=torch.float64), -1.0, 1.0)
    torch.manual_seed(0)
    values = 0.4 * torch.randn_like(joints.values[0].detach())
    (changed,) = exchanged_limbs(joints, tree.skin.mesh.vertices, values)
    assert torch.equal(changed[[0, 2, 4]], values[[0, 2, 4]]) and torch.equal(changed[-1], values[-1])

    def center_and_pivot(pose, limb):
        turns, shifts = joints.split(pose[None])
        posed, matrices = tree.pose(tree.skin.mesh.vertices, turns, shifts)[0], tree.matrices(turns, shifts)[0]
        share = torch.where(torch.isin(tree.indices, torch.tensor(limb)), tree.skin.weights, 0).sum(1, keepdim=True)
        return (share * posed).sum(0) / share.sum(), (matrices @ tree.frames)[limb[0], :3, 3]

    for limb, other in (([1, 2], [3, 4]), ([3, 4], [1, 2])):
        target, (center, pivot) = center_and_pivot(values, other)[0], center_and_pivot(changed, limb)
        # Weights that extend beyond the limb move its center a little less.
        assert float(torch.cosine_similarity(center - pivot, target - pivot, dim=0)) > 0.9
        assert float(torch.cosine_similarity(center_and_pivot(values, limb)[0] - pivot, target - pivot, dim=0)) < 0


def test_limbs_pass_each_other_although_some_frames_favor_an_exchange():
    times = torch.tensor([0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.5, 8.0], dtype=torch.float64)
    x = (times - 4.5).float()
    own = torch.stack([torch.stack([x, x + 1, x * 0], -1), torch.stack([-x, 1 - x, x * 0], -1)], 1)
    points = [torch.stack([pose, pose.flip(0)]) for pose in own]
    costs = [torch.tensor([0.05, 0.06]) for _ in times]
    costs[3] = costs[4] = torch.tensor([0.06, 0.05])
    assert smoothest_path(times, points, costs, 1.0) == [0] * 8
    assert smoothest_path(times, points, costs, 0.0) == [0, 0, 0, 1, 1, 0, 0, 0]
    assert smoothest_path(times, [pose[:1] for pose in points], [cost[:1] for cost in costs], 1.0) == [0] * 8
    assert smoothest_path(times[:1], points[:1], [torch.tensor([0.2, 0.1])], 1.0) == [1]
    first, second = smoothest_path(times[:2], points[:2], [torch.tensor([0.2, 0.1]), torch.tensor([0.1, 0.2])], 1.0)
    assert (first, second) == (1, 0)  # two frames have no second difference


def test_a_body_is_twisted_to_its_mirror_image_with_fixed_limbs():
    joints, clip = walking_figure(frames=3)
    values, vertices = joints.values[2], clip.mesh.vertices
    (twisted,) = turned_bodies(joints, vertices, values)
    tree = joints.tree
    before, after = (tree.matrices(*joints.split(pose[None]))[0, :, :3, :3] for pose in (values, twisted))
    torch.testing.assert_close(after[1:], before[1:], atol=1e-5, rtol=0)
    # The line of the hips is mirrored at the perpendicular of the stride.
    angles = []
    for pose in (values, twisted):
        moved = posed(joints, pose[None])[0]
        hips = (tree.matrices(*joints.split(pose[None]))[0] @ tree.frames)[:, :3, 3]
        feet = [moved[tree.indices[:, 0] == joint].mean(0) for joint in (1, 2)]
        across, apart = hips[2] - hips[1], feet[1] - feet[0]
        angles.append(torch.atan2(across[0] * apart[2] - across[2] * apart[0], across[0] * apart[0] + across[2] * apart[2]))
    assert 0.3 < float(angles[0].abs()) < 1.4
    # Rotating the hips moves the centers of the attached legs slightly.
    torch.testing.assert_close(angles[1].abs(), torch.pi - angles[0].abs(), atol=0.3, rtol=0)
    again = turned_bodies(joints, vertices, twisted)
    assert len(again) == 1


def test_a_body_with_parallel_limbs_is_not_twisted():
    joints, clip = walking_figure(frames=3, most=0.05)
    assert not len(turned_bodies(joints, clip.mesh.vertices, joints.values[2]))


@pytest.mark.slow
def test_arms_exchanged_under_a_mirrored_twist_are_corrected():
    """In mid-stride, the body is twisted the wrong way, and each arm is at the position of the other."""
    joints, clip = walking_figure(frames=5)
    footage, truth = clip.footage(), joints.values.clone()
    views = {frame: (footage.frames == frame).nonzero()[:, 0] for frame in range(5)}
    assert footage.cameras is not None
    search = PoseSearch(
        AnimateConfig(reference=-1), joints, FrameAdam([{"params": [joints.values]}]), clip.mesh.vertices,
        MeshPainter.of(clip.mesh), footage, footage.cameras, views, torch.ones(3), torch.Generator().manual_seed(0),
        is_borrowed=True,
    )  # fmt: skip
    search.scouts = []
    lost = turned_bodies(joints, clip.mesh.vertices, truth[3])[0]
    turned, body = so3_exp(lost[0]), so3_exp(truth[3, 0])
    for arm, other in ((3, 4), (4, 3)):
        lost[arm] = so3_log(turned.mT @ body @ so3_exp(truth[3, other]))
    joints.values[3], loss = refined(lost[None], search._losses_of(2), 40)

    def misplaced() -> list[int]:
        moved = posed(joints, joints.values[3:4])[0]
        parts = [joints.tree.indices[:, 0] == joint for joint in range(5)]
        gaps = torch.cdist(
            torch.stack([moved[p].mean(0) for p in parts]), torch.stack([clip.vertices[2][p].mean(0) for p in parts])
        )
        return [joint for joint in range(5) if int(gaps[joint].argmin()) != joint]

    assert misplaced() == [3, 4]
    search.plan_revisits([0, 1, 2, 3, 4])
    search.losses = dict.fromkeys(range(5), 0.01) | {2: loss}
    search.revisits = [(frame, kind) for frame, kind in search.revisits if kind == "twists"]
    assert len(search.revisits) == 10
    while search.is_due:
        search.step(None)  # pyright: ignore[reportArgumentType]
    assert not misplaced() and not search.proposals
    moved = posed(joints, joints.values[1:])
    assert float((moved - clip.vertices).norm(dim=-1).mean(1).max()) < 0.05


@pytest.mark.slow
def test_nodes_replace_joints_of_the_surface(tmp_path):
    """The worm is recovered without its rig from a clip without its rest pose; the file has only morph targets."""
    _, clip, vertices = moving_worm(frames=4, size=32, start=0.8)
    config = AnimateConfig(nodes=16, steps=204, hold_out_cameras=("cam2",), video=False)
    result = animate(config, clip.footage(), clip.mesh, truth=vertices, run_folder=tmp_path / "run", progress=silent)
    assert result.summary["joints"] == 0 and result.summary["nodes"] == 16 and not len(result.skin)
    assert result.motion.joints is None and result.skin.num_morphs == 4
    assert result.summary["unseen_cameras_iou"] > 0.9 > result.summary["frozen_unseen_cameras_iou"] + 0.1
    assert result.summary["fitted_vertex_error"] < result.summary["frozen_fitted_vertex_error"]
    networks = replace(config, motion=replace(config.motion, kind="mlp"), steps=4)
    assert not animate(networks, clip.footage(), clip.mesh, progress=silent).motion.is_borrowed


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [14, 41, 54])
def test_a_stopped_run_resumes_bitwise_during_proposals_and_around_the_switch_to_nodes(stop_at, tmp_path, monkeypatch):
    stop = interrupt_at(stop_at, "animate")
    shorten_searches(monkeypatch)
    _, clip, _ = moving_worm(frames=3, cameras=2, size=32, start=0.8)
    config = AnimateConfig(nodes=10, steps=60, frames_per_step=2, checkpoint_every=5, log_every=3, video=False, reference=-1)
    whole = animate(config, clip.footage(), clip.mesh, run_folder=tmp_path / "whole", progress=silent)
    assert whole.motion.is_borrowed and whole.motion.joints is None
    with pytest.raises(Interrupted, match=f"stopped after step {stop_at}"):
        animate(config, clip.footage(), clip.mesh, run_folder=tmp_path / "parts", progress=stop)
    folder = RunFolder.create(tmp_path / "parts", config, resume=True)
    again = animate(config, clip.footage(), clip.mesh, run_folder=folder, progress=silent)
    assert torch.equal(whole.sequence.channels["vertices"], again.sequence.channels["vertices"])
