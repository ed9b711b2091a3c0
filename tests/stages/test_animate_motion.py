"""Node fields and motions: initial rest pose, exact rest pose at the reference time, splines, gradients, losses."""

from dataclasses import replace

import pytest
import torch

from tests.support.clips import worm
from vision3d.core.errors import ConfigError
from vision3d.geometry import shapes
from vision3d.geometry.deformation_graph import DeformationGraph
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.rotation import so3_exp
from vision3d.stages.animate.dynamic.config import AnimateConfig, FieldConfig, LossConfig
from vision3d.stages.animate.dynamic.fields import DiscreteField, NodePoses, make_field
from vision3d.stages.animate.dynamic.losses import NormalConsistency, acceleration_loss, blurred_loss, edge_loss
from vision3d.stages.animate.dynamic.motion import Motion, all_vertices

KINDS = ["discrete", "mlp", "hexplane"]
F64 = {"dtype": torch.float64}


def motion(kind, method="hybrid", reference=2, frames=6, stretch=True):
    torch.manual_seed(0)
    clip = worm(frames=frames, cameras=1)
    graph = DeformationGraph.of(clip.mesh.vertices, clip.mesh.faces, 12, 4)
    config = AnimateConfig(nodes=12, method=method, motion=FieldConfig(kind=kind, stretch=stretch))
    return Motion(clip.mesh, graph, config, clip.times, float(clip.times[reference])), clip


def disturbed(made, amount=0.3):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.field.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.mark.parametrize("method", ["lbs", "dqs", "hybrid"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_motion_is_bitwise_the_rest_pose(kind, method):
    made, clip = motion(kind, method)
    moved = all_vertices(made, torch.linspace(-0.1, 0.4, 7, **F64))
    assert torch.equal(moved, clip.mesh.vertices.expand_as(moved))


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_time_is_the_rest_pose_for_any_parameters(kind):
    made, clip = motion(kind)
    disturbed(made)
    moved = all_vertices(made, clip.times)
    assert torch.equal(moved[2], clip.mesh.vertices)
    assert all(float((moved[i] - clip.mesh.vertices).abs().max()) > 1e-3 for i in (0, 1, 3, 4, 5))


@pytest.mark.parametrize("kind", KINDS)
def test_all_four_outputs_learn_from_the_first_step(kind):
    """Zero-initialized heads: their last layers have gradients at once, earlier layers after one step."""
    made, clip = motion(kind)
    optimizer = torch.optim.Adam(made.field.groups(FieldConfig(kind=kind)))
    for step in range(3):
        optimizer.zero_grad()
        poses = made.field(clip.times)
        loss = sum((value - 0.1).square().sum() for value in poses)
        loss.backward()
        optimizer.step()
        if step == 0:
            before = [value.detach() for value in poses]
    after = [value.detach() for value in made.field(clip.times)]
    for old, new in zip(before, after):
        assert float((new - old).abs().max()) > 1e-5
    missing = [name for name, parameter in made.field.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not missing


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_is_smooth_in_time(kind):
    made = disturbed(motion(kind)[0], 0.05)
    times = torch.linspace(0, 5 / 24, 4001, **F64)
    steps = all_vertices(made, times, 512).diff(dim=0).norm(dim=-1).amax(1)
    assert float(steps.max()) < 30 * float(steps.mean()) + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_without_stretch_one_node_moves_rigidly(kind):
    torch.manual_seed(0)
    clip = worm(frames=4, cameras=1)
    graph = DeformationGraph.of(clip.mesh.vertices, clip.mesh.faces, 1, 4)
    config = AnimateConfig(motion=FieldConfig(kind=kind, stretch=False))
    made = disturbed(Motion(clip.mesh, graph, config, clip.times, 0.0))
    moved, rest = all_vertices(made, clip.times)[3].double(), clip.mesh.vertices.double()
    want = torch.cdist(rest, rest)
    torch.testing.assert_close(torch.cdist(moved, moved), want, atol=1e-5, rtol=0)


def test_splines_pass_through_the_frames_and_are_exact_for_parabolas():
    times = torch.tensor([0.0, 1, 2, 3, 4, 5], **F64)
    field = DiscreteField(torch.zeros(2, 3, **F64), times, 0.0, 1.0, FieldConfig())
    ramp = times**2 - 3 * times  # zero at the reference
    with torch.no_grad():
        field.values[:] = ramp[:, None, None]
    torch.testing.assert_close(field.raw(times)[:, 0, 0], ramp)
    inner = torch.linspace(1, 4, 31, **F64)
    torch.testing.assert_close(field.raw(inner)[:, 1, 5], inner**2 - 3 * inner)
    ends = field.raw(torch.tensor([-5.0, 9.0], **F64))
    torch.testing.assert_close(ends, field.raw(torch.tensor([0.0, 5.0], **F64)))  # constant at the ends
    assert torch.autograd.gradcheck(lambda v: torch.func.functional_call(field, {"values": v}, (inner[:3],))[:3], (
        0.1 * torch.randn(6, 2, 14, **F64, requires_grad=True),))  # fmt: skip


def test_a_frame_is_initialized_from_its_neighbors():
    times = torch.tensor([0.0, 1, 2, 4], **F64)
    field = DiscreteField(torch.zeros(1, 3), times, 0.0, 1.0, FieldConfig())
    with torch.no_grad():
        field.values[1], field.values[2] = 1.0, 3.0
    field.start_from(4.0, 2.0, 1.0)
    assert field.values[3].unique().tolist() == [7.0]
    field.start_from(1.0, 0.0, 0.0)
    assert not field.values[1].any()


def test_a_reference_between_the_frames_has_its_own_key():
    field = make_field(FieldConfig(), torch.randn(3, 3), torch.tensor([0.0, 1.0, 3.0], **F64), 2.0, 1.0)
    disturb = torch.randn(4, 3, 14)
    with torch.no_grad():
        field.values.copy_(disturb)
    assert not field.raw(torch.tensor([2.0], **F64)).any()
    torch.testing.assert_close(field.raw(torch.tensor([3.0], **F64))[0], disturb[3])


# Losses


def poses_of(turn, shift, graph, count=1):
    quats = rotmat_to_quat(turn).expand(count, len(graph), 4)
    moved = (graph.nodes @ turn.mT + shift - graph.nodes).expand(count, -1, -1)
    return NodePoses(quats, moved, torch.zeros(count, len(graph), 6, **F64), torch.zeros(count, len(graph), **F64))


def test_rigidity_loss_is_zero_only_for_rigid_motions():
    vertices, faces = shapes.torus(dtype=torch.float64)
    graph = DeformationGraph.of(vertices, faces, 20, 4)
    turn, shift = so3_exp(torch.tensor([0.4, 1.0, -2.0], **F64)), torch.tensor([1.0, 2, 3], **F64)
    rigid = poses_of(turn, shift, graph, 2)
    assert float(edge_loss(graph, rigid, 1.0)) <= 1e-24
    # Scaling by s about the origin without rotation: |(s - 1) (g_k - g_j)|^2.
    grown = rigid._replace(
        quats=torch.tensor([1.0, 0, 0, 0], **F64).expand(2, 20, 4), translations=(0.3 * graph.nodes).expand(2, 20, 3)
    )
    lengths = (graph.nodes[graph.edges[:, 0]] - graph.nodes[graph.edges[:, 1]]).square().sum(-1).mean()
    assert float(edge_loss(graph, grown, 2.0)) == pytest.approx(float(0.09 * lengths / 4))
    lonely = DeformationGraph.of(vertices, faces, 1, 4)
    assert float(edge_loss(lonely, poses_of(turn, shift, lonely), 1.0)) == 0


def test_acceleration_of_uneven_times():
    times = torch.tensor([0.0, 1, 3, 4, 6], **F64)
    line = times[:, None, None] * torch.ones(5, 2, 3, **F64)
    assert float(acceleration_loss(line, times, 1.0)) <= 1e-24
    even = torch.arange(5, **F64)
    parabola = (even**2)[:, None, None] * torch.tensor([1.0, 0, 0], **F64).expand(5, 2, 3)
    assert float(acceleration_loss(parabola, even, 2.0)) == pytest.approx(1.0)  # (2 / 2)^2
    assert float(acceleration_loss(parabola[:2], even[:2], 2.0)) == 0


def test_normals_are_compared_with_the_rest_pose():
    vertices, faces = shapes.box(dtype=torch.float64)
    loss = NormalConsistency(vertices, faces)
    turned = vertices @ so3_exp(torch.tensor([1.0, 2, 3], **F64)).mT
    assert float(loss(torch.stack([vertices, turned]))) <= 1e-24
    assert float(loss((vertices * torch.tensor([1.0, 1.0, 2.0]))[None])) <= 1e-24  # edges of a box stay orthogonal
    sheared = vertices + 0.3 * vertices[:, [1, 2, 0]]
    assert float(loss(sheared[None])) > 1e-3
    moved = (sheared[None] + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(loss, (moved,))


def test_blurred_images_have_gradients_over_long_distances():
    """Two dots: without blur, the loss is the same at any distance; with blur, it decreases as they come closer."""

    def value(distance):
        gaps = torch.zeros(1, 32, 32, 1)
        gaps[0, 10, 8], gaps[0, 10, 8 + distance] = 1.0, -1.0
        return float(blurred_loss(gaps))

    assert value(14) > value(10) > value(6) > value(3) > value(1) > 0
    assert float(blurred_loss(torch.zeros(2, 3, 3, 4))) == 0


def test_wrong_options():
    for make, text in (
        (lambda: LossConfig(rgb=-1.0), "loss.rgb: got -1.0, want a number >= 0"),
        (lambda: LossConfig(ssim=2.0), "loss.ssim"),
        (lambda: FieldConfig(width=0), "motion.width"),
        (lambda: FieldConfig(resolutions=()), "motion.resolutions"),
        (lambda: replace(AnimateConfig(), nodes=0), "nodes: got 0, want 1 or more"),
        (lambda: replace(AnimateConfig(), hold_out_every=1), "hold_out_every"),
        (lambda: replace(AnimateConfig(), coarse=3), "coarse: got 3, want 1, 2, 4 or 8"),
    ):
        with pytest.raises(ConfigError, match=text):
            make()
