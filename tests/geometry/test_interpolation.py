import math

import pytest
import torch

from vision3d.core.errors import ShapeError
from vision3d.geometry import gram_schmidt, interpolation, means, quaternion, registration, rotation, se3
from vision3d.geometry.groups import sim3


def haar64(*shape):
    return gram_schmidt.haar_rotmats(3, *shape, dtype=torch.float64)


def quats64(*shape):
    return quaternion.random_quats(*shape, dtype=torch.float64)


def close(actual, expected, atol=1e-12):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-10)


STEPS = torch.linspace(0, 1, 11, dtype=torch.float64)


@pytest.mark.parametrize("by", ["slerp", "matrices"])
def test_speed_between_two_rotations_is_constant(by):
    start, end = haar64(30), haar64(30)
    if by == "slerp":
        ends = [quaternion.rotmat_to_quat(r)[:, None] for r in (start, end)]
        path = quaternion.quat_to_rotmat(interpolation.slerp(*ends, STEPS))
    else:
        path = interpolation.so3_interpolate(start[:, None], end[:, None], STEPS)
    steps = rotation.geodesic_distance(path[:, 1:], path[:, :-1])
    close(steps, (rotation.geodesic_distance(start, end) / 10)[:, None].expand(30, 10), atol=1e-9)
    close(path[:, 0], start)
    close(path[:, -1], end)


def test_screw_motions():
    start, end = se3.exp(torch.randn(20, 6).double()), se3.exp(torch.randn(20, 6).double())
    path = interpolation.se3_interpolate(start[:, None], end[:, None], STEPS)
    close(path[:, 0], start)
    close(path[:, -1], end)
    moves = se3.log(se3.inverse(path[:, :-1]) @ path[:, 1:])
    close(moves, moves[:, :1].expand_as(moves), atol=1e-9)
    frame = se3.exp(torch.randn(6).double())  # the same in every frame
    close(interpolation.se3_interpolate(frame @ start, frame @ end, 0.3), frame @ path[:, 3], atol=1e-11)
    # A rotation about an axis away from the origin: points on the axis stay fixed.
    axis = se3.exp(torch.tensor([1.0, 2, 0, 0, 0, 0]).double())
    turn = axis @ se3.exp(torch.tensor([0.0, 0, 0, 0, 0, 2]).double()) @ se3.inverse(axis)
    half = interpolation.se3_interpolate(torch.eye(4).double(), turn, 0.5)
    close(half[:3, :3] @ torch.tensor([1.0, 2, 5]).double() + half[:3, 3], torch.tensor([1.0, 2, 5]).double())


def test_interpolation_of_similarities():
    start, end = sim3.exp(torch.randn(9, 7).double()), sim3.exp(torch.randn(9, 7).double())
    path = interpolation.sim3_interpolate(start[:, None], end[:, None], STEPS)
    close(path[:, 0], start)
    close(path[:, -1], end, atol=1e-10)
    scales = torch.linalg.det(path[..., :3, :3]).pow(1 / 3)
    ratios = scales[:, 1:] / scales[:, :-1]
    close(ratios, ratios[:, :1].expand_as(ratios))


def test_squad_goes_through_its_points_smoothly():
    quats = quats64(6)
    times = torch.arange(6, dtype=torch.float64)
    found = interpolation.squad(quats, times)
    close((found * quats).sum(-1).abs(), torch.ones(6, dtype=torch.float64))
    close(interpolation.squad(quats, torch.tensor([-3.0, 9.0]).double())[1], found[-1])
    # The angular velocity is continuous at the inner points.
    near = torch.cat([times[1:-1] - 2e-6, times[1:-1] - 1e-6, times[1:-1] + 1e-6, times[1:-1] + 2e-6])
    before2, before, after, after2 = quaternion.quat_to_rotmat(interpolation.squad(quats, near)).view(4, 4, 3, 3)
    velocity_before = rotation.so3_log(before @ before2.mT) / 1e-6
    velocity_after = rotation.so3_log(after2 @ after.mT) / 1e-6
    torch.testing.assert_close(velocity_before, velocity_after, atol=1e-4, rtol=0)
    # For rotations about one axis in equal steps, the speed is constant.
    turns = torch.tensor([[math.cos(a), 0, 0, math.sin(a)] for a in (0, 0.2, 0.4, 0.6)], dtype=torch.float64)
    want = torch.tensor([math.cos(0.26), 0, 0, math.sin(0.26)], dtype=torch.float64)
    close(interpolation.squad(turns, torch.tensor([1.3], dtype=torch.float64))[0], want)


def test_signs_do_not_matter_to_squad():
    quats, times = quats64(5), torch.linspace(0, 4, 30, dtype=torch.float64)
    flipped = quats * torch.tensor([1.0, -1, 1, 1, -1])[:, None]
    first, second = (quaternion.quat_to_rotmat(interpolation.squad(q, times)) for q in (quats, flipped))
    close(first, second)
    aligned = interpolation.align_signs(flipped)
    assert ((aligned[1:] * aligned[:-1]).sum(-1) >= 0).all()


def test_gradients():
    fraction = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for function, exp, width in ((interpolation.se3_interpolate, se3.exp, 6), (interpolation.sim3_interpolate, sim3.exp, 7)):
        ends = [torch.randn(width, dtype=torch.float64, requires_grad=True) for _ in range(2)]
        assert torch.autograd.gradcheck(lambda a, b, f, g=function, e=exp: g(e(a), e(b), f), (*ends, fraction))
    quats = quats64(4).requires_grad_()
    times = torch.tensor([0.2, 1.7, 2.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(interpolation.squad, (quats, times))
    same = haar64(1).requires_grad_()
    assert torch.autograd.grad(interpolation.so3_interpolate(same, same.detach(), 0.5).sum(), same)[0].isfinite().all()


@pytest.mark.wrong_types
def test_squad_needs_two():
    with pytest.raises(ShapeError, match=r"quats: got shape \(1, 4\), want \(..., k, 4\) with k >= 2"):
        interpolation.squad(torch.ones(1, 4), torch.zeros(1))


def test_mean_of_rotations_around_one():
    middle = haar64()
    offsets = 0.5 * torch.randn(200, 3, dtype=torch.float64)
    rotmats = middle @ rotation.so3_exp(torch.cat([offsets, -offsets]))  # symmetric, so all means are the center
    close(means.chordal_mean(rotmats), middle)
    close(means.karcher_mean(rotmats), middle)
    close(quaternion.quat_to_rotmat(means.quaternion_mean(quaternion.rotmat_to_quat(rotmats))), middle)


def test_means_minimize_their_cost():
    rotmats, weights = haar64() @ rotation.so3_exp(torch.randn(3, 9, 3).double() / 2), torch.rand(3, 9).double()
    nudges = rotation.so3_exp(1e-3 * torch.randn(200, 1, 3).double())
    for mean, distance in (
        (means.chordal_mean(rotmats, weights), means.chordal_distance),
        (means.karcher_mean(rotmats, weights), rotation.geodesic_distance),
    ):

        def cost(candidates, measure=distance):
            return (weights * measure(candidates[..., None, :, :], rotmats).square()).sum(-1)

        assert (cost(mean @ nudges) > cost(mean)).all()
    gradient = (weights[..., None] * rotation.so3_log(means.karcher_mean(rotmats, weights).mT[:, None] @ rotmats)).sum(1)
    assert gradient.abs().max() < 1e-12


def test_means_agree_with_each_other_and_with_scipy():
    rotation_class = pytest.importorskip("scipy.spatial.transform").Rotation
    quats, weights = quats64(20), torch.rand(20).double()
    theirs = rotation_class.from_quat(quaternion.wxyz_to_xyzw(quats).numpy()).mean(weights.numpy()).as_matrix()
    rotmats = quaternion.quat_to_rotmat(quats)
    ours = means.chordal_mean(rotmats, weights)
    assert ours.numpy() == pytest.approx(theirs, abs=1e-11)
    signs = torch.randn(20, 1).double().sign()
    close(quaternion.quat_to_rotmat(means.quaternion_mean(signs * quats, weights)), ours, atol=1e-11)
    close(quaternion.quat_to_rotmat(means.quaternion_mean(signs * quats)), means.chordal_mean(rotmats), atol=1e-11)


def test_distances():
    a, b = haar64(50), haar64(50)
    chord = means.chordal_distance(a, b)
    close(chord, 2 * math.sqrt(2) * (means.geodesic_distance(a, b) / 2).sin())
    leaf = a.clone().requires_grad_()
    assert (torch.autograd.grad(means.chordal_distance(leaf, a).sum(), leaf)[0] == 0).all()


def test_gradients_of_means():
    x, weights = (
        torch.randn(4, 3, dtype=torch.float64, requires_grad=True),
        torch.rand(4, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda x, w: means.chordal_mean(rotation.so3_exp(x / 2), w), (x, weights))
    assert torch.autograd.gradcheck(lambda x, w: means.karcher_mean(rotation.so3_exp(x / 3), w, 3), (x, weights))
    assert torch.autograd.gradcheck(lambda x, w: means.quaternion_mean(rotation.rotvec_to_quat(x / 3), w), (x, weights))
    rotmats = haar64(3, 5)
    close(torch.vmap(means.karcher_mean)(rotmats), means.karcher_mean(rotmats))


def test_density_of_angles():
    angles = torch.linspace(0, math.pi, 10_001, dtype=torch.float64)
    close(torch.trapezoid(means.haar_angle_density(angles), angles), torch.tensor(1.0, dtype=torch.float64), atol=1e-8)


@pytest.mark.parametrize("dimension", [2, 3, 5])
@pytest.mark.parametrize("with_scale", [False, True])
def test_registration_finds_the_motion(dimension, with_scale):
    source = torch.randn(4, 3, 20, dimension, dtype=torch.float64)
    rotmats = gram_schmidt.haar_rotmats(dimension, 4, 3, dtype=torch.float64)
    shifts, scales = torch.randn(4, 3, dimension).double(), torch.rand(4, 3).double() + 0.5
    moved = source @ rotmats.mT
    if with_scale:
        moved = scales[..., None, None] * moved
    found = (registration.umeyama if with_scale else registration.kabsch)(source, moved + shifts[..., None, :])
    for value, want in zip(found, (scales, rotmats, shifts) if with_scale else (rotmats, shifts)):
        close(value, want, atol=1e-11)


def test_registration_of_noisy_points_agrees_with_roma():
    roma = pytest.importorskip("roma")
    source, target, weights = torch.randn(5, 30, 3).double(), torch.randn(5, 30, 3).double(), torch.rand(5, 30).double()
    rotmats, shifts = registration.kabsch(source, target, weights)
    theirs = roma.rigid_points_registration(source, target, weights)
    close(rotmats, theirs[0], atol=1e-11)
    close(shifts, theirs[1], atol=1e-11)
    scales, _, shifts = registration.umeyama(source, target, weights)
    theirs = roma.rigid_points_registration(source, target, weights, compute_scaling=True)
    close(shifts, theirs[1], atol=1e-11)
    close(scales, theirs[2], atol=1e-11)


def test_registration_never_reflects():
    source = torch.randn(50, 3).double()
    rotmat, _ = registration.kabsch(source, source * torch.tensor([1.0, 1, -1]))
    assert torch.linalg.det(rotmat).item() == pytest.approx(1)
    scale, _, _ = registration.umeyama(source[:, :2], source[:, :2] * torch.tensor([1.0, -1]))
    assert scale >= 0


@pytest.mark.parametrize(
    "source", [torch.zeros(5, 3), torch.arange(5.0)[:, None] * torch.tensor([1.0, 2, 3]), torch.zeros(0, 3)]
)
def test_registration_of_degenerate_points(source):
    source = source.double().requires_grad_()
    target = (source.detach() @ rotation.so3_exp(torch.tensor([0.3, 0.2, 0.1]).double()).T + 1).requires_grad_()
    for weights in (None, torch.zeros(len(source)).double()):
        scale, rotmat, shift = registration.umeyama(source, target, weights)
        close(rotmat.T @ rotmat, torch.eye(3, dtype=torch.float64))
        grads = torch.autograd.grad(scale + rotmat.sum() + shift.sum(), (source, target))
        assert all(g.isfinite().all() for g in grads)
        if weights is None and len(source):
            close(source @ (scale * rotmat).T + shift, target)


def test_registration_ignores_points_without_weight():
    source, rotmat = torch.randn(20, 3).double(), haar64()
    target = source @ rotmat.T
    target[10:] += 100 * torch.randn(10, 3).double()
    weights = torch.cat([torch.ones(10), torch.zeros(10)]).double()
    close(registration.kabsch(source, target, weights)[0], rotmat)


@pytest.mark.parametrize("count", [3, 6])
def test_gradients_of_registration(count):
    source, target = (torch.randn(count, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(registration.umeyama, (source, target), fast_mode=True)
    assert torch.autograd.gradgradcheck(registration.kabsch, (source, target), fast_mode=True)


@pytest.mark.wrong_types
def test_registration_of_unequal_shapes_is_rejected():
    with pytest.raises(ShapeError, match=r"target: got shape \(4, 3\), want that of the source, .* here \(5, 3\)"):
        registration.kabsch(torch.zeros(5, 3), torch.zeros(4, 3))


def test_the_long_path_has_constant_speed_and_the_right_end():
    start, end = quats64(40), quats64(40)
    end = torch.where((start * end).sum(-1, keepdim=True) > 0, -end, end)
    path = quaternion.slerp(start[:, None], end[:, None], STEPS, shortest=False)
    close(path[:, 0], start)
    close(path[:, -1], end)
    steps = (path[:, 1:] * path[:, :-1]).sum(-1).clamp(max=1).acos()
    half = math.pi - (start * -end).sum(-1).acos()  # more than 90 degrees between the quaternions
    assert bool((half >= math.pi / 2).all())
    close(steps, (half / 10)[:, None].expand(40, 10), atol=1e-7)
    close(quaternion.slerp(start, -end, 0.3, shortest=False), quaternion.slerp(start, end, 0.3))


def test_the_full_rotation_between_opposite_quaternions():
    start = quats64(5)
    path = quaternion.slerp(start[:, None], -start[:, None], STEPS, shortest=False)
    close((path[:, 1:] * path[:, :-1]).sum(-1), torch.full((5, 10), math.cos(math.pi / 10), dtype=torch.float64))
    assert torch.autograd.gradcheck(
        lambda a, b: quaternion.slerp(a, b, 0.3, shortest=False), (start.requires_grad_(), quats64(5).requires_grad_())
    )


def test_the_long_path_agrees_with_roma():
    roma = pytest.importorskip("roma")
    start, end = quats64(50), quats64(50)
    theirs = roma.unitquat_slerp(quaternion.wxyz_to_xyzw(start), quaternion.wxyz_to_xyzw(end), STEPS, shortest_arc=False)
    found = quaternion.slerp(start, end, STEPS[:, None], shortest=False)
    close(quaternion.wxyz_to_xyzw(found), theirs, atol=1e-9)
