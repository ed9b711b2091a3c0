"""Skinning against closed forms (rigid motion, twist, bend, one joint); kernels against the reference."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.elephant import read_elephant
from vision3d.core import native
from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import dual_quaternion, mesh, quaternion, skinning
from vision3d.geometry.reference import skinning as reference

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
MODES = [1, 2, 3, 6, 7]
METHODS = ["lbs", "dqs", "hybrid"]


def case(count: int = 40, joints: int = 7, influences: int = 4, poses: int = 2) -> dict[str, Tensor]:
    """Random vertices, weights, joints and poses, float64."""
    f64 = {"dtype": torch.float64}
    weights = torch.rand(count, influences, **f64)
    return {
        "vertices": torch.randn(count, 3, **f64),
        "weights": weights / weights.sum(-1, keepdim=True),
        "indices": torch.rand(count, joints).argsort(-1)[:, :influences].contiguous(),
        "quats": torch.randn(poses, joints, 4, **f64),
        "translations": torch.randn(poses, joints, 3, **f64),
        "centers": torch.randn(joints, 3, **f64),
        "stretches": torch.tensor([1.0, 1, 1, 0, 0, 0], **f64) + 0.2 * torch.randn(poses, joints, 6, **f64),
        "blends": torch.rand(poses, joints, **f64),
    }


def rows_of(given: dict[str, Tensor]) -> Tensor:
    shape = given["quats"].shape[:-1]
    parts = [given[name].expand(*shape, -1) for name in ("quats", "translations", "centers", "stretches")]
    return reference.skin_joint(torch.cat([*parts, given["blends"][..., None]], -1))


def close(actual: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def cylinder(sides: int = 64, rings: int = 81, length: float = 4.0) -> tuple[Tensor, Tensor]:
    """A closed cylinder of radius 1 along z, outward faces; the last two vertices are the centers of its caps."""
    angles = 2 * math.pi * torch.arange(sides, dtype=torch.float64) / sides
    heights = torch.linspace(0, length, rings, dtype=torch.float64)
    ring = torch.stack([angles.cos(), angles.sin()], -1)
    vertices = torch.cat([ring.repeat(rings, 1), heights.repeat_interleave(sides)[:, None]], -1)
    ends = torch.tensor([[0.0, 0, 0], [0, 0, length]], dtype=torch.float64)
    here, right = torch.arange(sides), (torch.arange(sides) + 1) % sides
    faces = []
    for r in range(rings - 1):
        a, b = r * sides, (r + 1) * sides
        faces += [torch.stack([a + here, a + right, b + right], -1), torch.stack([a + here, b + right, b + here], -1)]
    bottom, top, last = rings * sides, rings * sides + 1, (rings - 1) * sides
    faces += [torch.stack([torch.full_like(here, bottom), right, here], -1)]
    faces += [torch.stack([torch.full_like(here, top), last + here, last + right], -1)]
    return torch.cat([vertices, ends]), torch.cat(faces)


def blend_zone(heights: Tensor, begin: float, end: float) -> tuple[Tensor, Tensor]:
    """Two joints: weight of the second rising linearly from 0 to 1 between two heights."""
    second = ((heights - begin) / (end - begin)).clamp(0, 1)
    return torch.stack([1 - second, second], -1), torch.tensor([0, 1]).expand(len(heights), 2)


def turn(axis: int, angle: float) -> Tensor:
    quat = torch.zeros(4, dtype=torch.float64)
    quat[0], quat[1 + axis] = math.cos(angle / 2), math.sin(angle / 2)
    return quat


@pytest.mark.parametrize("method", METHODS)
def test_one_rigid_motion_of_all_joints_moves_everything_rigidly(method):
    given = case(joints=6, poses=1)
    del given["stretches"]
    motion, shift = torch.randn(4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    signs = torch.tensor([1.0, -1, -1, 1, -1, 1], dtype=torch.float64)
    centers = given["centers"]
    given["quats"] = (signs[:, None] * motion)[None]
    # For a joint at its center, R (v - g) + g + T = R v + t requires T = R g + t - g.
    given["translations"] = (quaternion.rotate(motion, centers) + shift - centers)[None]
    close(skinning.skin(**given, method=method)[0], quaternion.rotate(motion, given["vertices"]) + shift)


@pytest.mark.parametrize("method", METHODS)
def test_signs_of_quaternions_do_not_matter(method):
    given = case()
    want = skinning.skin(**given, method=method)
    for _ in range(4):
        signs = torch.randint(0, 2, given["quats"].shape[:-1]).double() * 2 - 1
        close(skinning.skin(**{**given, "quats": signs[..., None] * given["quats"]}, method=method), want)


def test_blending_without_the_sign_rule_would_fail_the_test_above():
    """10 degrees and a sign-flipped 30 degrees: the plain sum rotates by 200 degrees, ours by 20."""
    quats = torch.stack([turn(2, math.radians(10)), -turn(2, math.radians(30))])
    point = torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    half, both = torch.full((1, 2), 0.5, dtype=torch.float64), torch.tensor([[0, 1]])
    moved = skinning.skin(point, half, both, quats, torch.zeros(2, 3, dtype=torch.float64), method="dqs")
    assert math.degrees(math.atan2(float(moved[0, 1]), float(moved[0, 0]))) == pytest.approx(20, abs=1e-9)
    plain = quats.sum(0)
    assert math.degrees(2 * math.atan2(float(plain[3]), float(plain[0]))) % 360 == pytest.approx(200, abs=1e-9)


@pytest.mark.parametrize("degrees", [30, 60, 90, 120, 150, 170])
def test_a_twist_keeps_the_radius_under_dqs_and_shrinks_by_the_formula_under_lbs(degrees):
    vertices, faces = cylinder()
    weights, indices = blend_zone(vertices[:, 2], 1, 3)  # half of the length
    theta = math.radians(degrees)
    pose = {"quats": torch.stack([turn(2, 0), turn(2, theta)]), "translations": torch.zeros(2, 3, dtype=torch.float64)}
    lbs, dqs = (skinning.skin(vertices, weights, indices, **pose, method=method) for method in ("lbs", "dqs"))
    close(dqs[:-2, :2].norm(dim=1), torch.ones(len(vertices) - 2, dtype=torch.float64), 1e-9)
    u = weights[:-2, 1]
    close(lbs[:-2, :2].norm(dim=1), (1 - 2 * u * (1 - u) * (1 - math.cos(theta))).sqrt(), 1e-9)
    rest = float(mesh.volume(vertices, faces))
    assert float(mesh.volume(lbs, faces)) / rest == pytest.approx(1 - 0.5 * (1 - math.cos(theta)) / 3, abs=0.002)
    assert float(mesh.volume(dqs, faces)) / rest == pytest.approx(1, abs=0.002)


def test_a_bend_keeps_the_distance_from_the_common_center_only_under_dqs():
    vertices, _ = cylinder()
    weights, indices = blend_zone(vertices[:, 2], 1, 3)
    center = torch.tensor([0.0, 0, 2], dtype=torch.float64)
    pose = {
        "quats": torch.stack([turn(0, 0), turn(0, math.pi / 2)]),
        "translations": torch.zeros(2, 3, dtype=torch.float64),
        "centers": center.expand(2, 3),
    }
    lbs, dqs = (skinning.skin(vertices, weights, indices, **pose, method=method) for method in ("lbs", "dqs"))
    close((dqs - center).norm(dim=1), (vertices - center).norm(dim=1))
    shrunk = (vertices - center).norm(dim=1) - (lbs - center).norm(dim=1)
    assert float(shrunk.min()) > -1e-12 and float(shrunk.max()) > 0.1


def test_blends_of_1_and_0_are_lbs_and_dqs_and_others_are_between():
    given = case()
    lbs, dqs = (skinning.skin(**given, method=method) for method in ("lbs", "dqs"))
    for eta in (0.0, 0.25, 1.0):
        got = skinning.skin(**{**given, "blends": torch.full_like(given["blends"], eta)}, method="hybrid")
        close(got, dqs + eta * (lbs - dqs))


def test_one_joint_gives_the_same_under_every_method_with_stretch():
    given = case(joints=1, influences=1)
    given["weights"] = torch.ones_like(given["weights"])
    x = given["vertices"] - given["centers"]
    stretched = (reference.symmetric(given["stretches"][:, 0]) @ x.T).mT
    want = quaternion.rotate(given["quats"], stretched) + given["centers"] + given["translations"]
    for method in METHODS:
        close(skinning.skin(**given, method=method), want)


@pytest.mark.parametrize("method", ["lbs", "dqs"])
def test_the_frame_does_not_matter(method):
    """A motion after all joints moves the result; a change of the rest frame does not. Blending q and t separately fails."""
    given = case(poses=1)
    duals = dual_quaternion.from_quat_translation(given["quats"], given["translations"])
    change = dual_quaternion.from_quat_translation(torch.randn(4, dtype=torch.float64), torch.randn(3, dtype=torch.float64))
    inverse = dual_quaternion.quaternion_conjugate(change)

    def moved(duals: Tensor, vertices: Tensor) -> Tensor:
        pose = duals[..., :4], dual_quaternion.translation(duals)
        return skinning.skin(vertices, given["weights"], given["indices"], *pose, method=method)

    want = moved(duals, given["vertices"])
    after = moved(dual_quaternion.multiply(change, duals), given["vertices"])
    close(after, dual_quaternion.transform_points(change, want), 1e-10)
    before = moved(dual_quaternion.multiply(duals, inverse), dual_quaternion.transform_points(change, given["vertices"]))
    close(before, want, 1e-10)

    def apart(duals: Tensor, vertices: Tensor) -> Tensor:
        quats = dual_quaternion.blend(duals[0, given["indices"]], given["weights"])[..., :4]
        shifts = (given["weights"][..., None] * dual_quaternion.translation(duals)[0, given["indices"]]).sum(-2)
        return quaternion.rotate(quats, vertices) + shifts

    away = apart(dual_quaternion.multiply(duals, inverse), dual_quaternion.transform_points(change, given["vertices"]))
    assert float((away - apart(duals, given["vertices"])).abs().max()) > 0.1


def test_linear_blend_equals_the_sum_of_affine_maps():
    given = case()
    matrices = torch.randn(2, 7, 4, 4, dtype=torch.float64)
    ones = torch.nn.functional.pad(given["vertices"], (0, 1), value=1)
    want = torch.einsum("vk,bvkij,vj->bvi", given["weights"], matrices[:, given["indices"], :3], ones)
    close(skinning.linear_blend(given["vertices"], given["weights"], given["indices"], matrices), want)
    close(skinning.linear_blend(given["vertices"], given["weights"], given["indices"], matrices[0, :, :3]), want[0])


def test_opposite_joints_and_zero_quaternions_give_finite_numbers_and_gradients():
    quats = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], requires_grad=True)
    vertices = torch.randn(4, 3, requires_grad=True)
    weights = torch.tensor([[0.5, 0.5], [1, 0], [0, 1], [0.0, 0.0]], requires_grad=True)
    indices = torch.tensor([[0, 1], [1, 2], [0, 2], [0, 1]])
    for method in METHODS:
        moved = skinning.skin(vertices, weights, indices, quats, torch.zeros(3, 3), blends=torch.full((3,), 0.5), method=method)
        grads = torch.autograd.grad(moved.square().sum(), [vertices, weights, quats])
        assert moved.isfinite().all() and all(grad.isfinite().all() for grad in grads)


@pytest.mark.wrong_types
def test_wrong_arguments():
    given = case(poses=1)
    with pytest.raises(InputError, match=r"^method: got 'cubic', want lbs, dqs, hybrid$"):
        skinning.skin(**given, method="cubic")
    with pytest.raises(InputError, match=r"^blends: got None, want one number a joint for the method hybrid"):
        skinning.skin(**{**given, "blends": None})
    indices = given["indices"].clone()
    indices[3] = torch.tensor([0, 1, 2, 7])
    with pytest.raises(InputError, match=r"^indices: vertex 3 names joints \[0, 1, 2, 7\], but there are 7$"):
        skinning.skin(**{**given, "indices": indices})
    with pytest.raises(ShapeError, match=r"^centers: got shape \(6, 3\), want \(\.\.\., 7, 3\)$"):
        skinning.skin(**{**given, "centers": given["centers"][:6]})


def test_keep_largest():
    weights, indices = skinning.keep_largest(torch.tensor([[0.1, 0.6, 0.0, 0.3], [0.0, 0, 2, 0]]), 2)
    close(weights, torch.tensor([[2 / 3, 1 / 3], [1.0, 0.0]]), 1e-6)
    assert indices[0].tolist() == [1, 3] and int(indices[1, 0]) == 2
    with pytest.raises(InputError, match=r"^weights: vertex 1 has no positive weight"):
        skinning.keep_largest(torch.tensor([[1.0, 0], [0, -1]]), 1)
    with pytest.raises(InputError, match=r"^weights: those of vertex 0 are not finite$"):
        skinning.keep_largest(torch.tensor([[1.0, math.nan]]), 1)


def test_rotations_about_one_axis_blend_their_angles():
    quats = torch.stack([turn(1, 0.4), -turn(1, 1.2)])
    got = skinning.blend_rotations(quats, torch.tensor([0.25, 0.75], dtype=torch.float64))
    assert abs(float((got * turn(1, 1.0)).sum())) == pytest.approx(1, abs=1e-12)
    same = torch.randn(4, dtype=torch.float64)
    got = skinning.blend_rotations(same.expand(3, 4), torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64))
    close(quaternion.quat_to_rotmat(got), quaternion.quat_to_rotmat(same))


# The kernels


def native_call(mode: int, given: dict[str, Tensor], rows: Tensor) -> Tensor:
    return skinning._skin(given["vertices"], given["weights"], given["indices"], rows, mode)


def grads_of(function, *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    output = function(*leaves)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(output)
    return output.detach(), *torch.autograd.grad((output * weights).sum(), leaves)


@needs_native
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize("influences", [1, 4, 6])
def test_float64_equals_the_reference(mode, count, influences):
    given = case(count, influences=influences)
    inputs = given["vertices"], given["weights"], rows_of(given)
    got = grads_of(lambda v, w, r: skinning._skin(v, w, given["indices"], r, mode), *inputs)
    want = grads_of(lambda v, w, r: reference.skin(v, w, given["indices"], r, mode), *inputs)
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


@needs_native
@pytest.mark.parametrize("mode", MODES)
def test_every_instruction_set_equals_float64(mode, isa):
    given = case(1003)
    # Rotations within 90 degrees: no sum of dual quaternions is close to zero, and no sign is ambiguous.
    given["quats"] = torch.tensor([2.0, 0, 0, 0], dtype=torch.float64) + 0.5 * torch.randn_like(given["quats"])
    inputs = given["vertices"], given["weights"], rows_of(given)
    singles = [value.float() for value in inputs]
    got = grads_of(lambda v, w, r: skinning._skin(v, w, given["indices"], r, mode), *singles)
    exact = [value.double() for value in singles]
    want = grads_of(lambda v, w, r: reference.skin(v, w, given["indices"], r, mode), *exact)
    for name, a, b in zip(["placed", "vertices", "weights", "rows"], got, want):
        assert float((a - b).abs().max()) <= 1e-5 * float(b.abs().max()), name


@needs_native
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bodies_of_the_cuda_kernels(mode, dtype):
    given = case(60)
    given["quats"] = torch.tensor([2.0, 0, 0, 0], dtype=torch.float64) + 0.5 * torch.randn_like(given["quats"])
    vertices, weights, rows = (value.to(dtype) for value in (given["vertices"], given["weights"], rows_of(given)))
    indices, bodies = given["indices"], native.require().kernel_bodies
    placed = vertices.new_empty(2, 60, 3)
    bodies.skin(vertices, weights, indices, rows, mode, placed)
    v_placed, grads = torch.randn_like(placed), [torch.empty_like(value) for value in (vertices, weights, rows)]
    bodies.skin_vjp(vertices, weights, indices, rows, mode, v_placed, *grads)
    leaves = [value.double().requires_grad_() for value in (vertices, weights, rows)]
    want = reference.skin(leaves[0], leaves[1], indices, leaves[2], mode)
    wanted = torch.autograd.grad(want, leaves, v_placed.double(), allow_unused=True)
    for a, b in zip([placed, *grads], [want.detach(), *wanted]):
        assert float((a - b).abs().max()) <= 100 * torch.finfo(dtype).eps * float(b.abs().max())


@needs_native
@pytest.mark.parametrize("method", METHODS)
def test_bitwise_equal_for_any_number_of_threads(method):
    given = {name: value.float() if value.is_floating_point() else value for name, value in case(5000).items()}
    leaves = {
        name: value.requires_grad_() for name, value in given.items() if name in ("vertices", "weights", "quats", "stretches")
    }
    found, threads = [], torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        moved = skinning.skin(**given, method=method)
        found.append([moved, *torch.autograd.grad(moved.square().sum(), list(leaves.values()), allow_unused=True)])
    torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(a is None or torch.equal(a, b) for a, b in zip(found[0], other))


@needs_native
@pytest.mark.parametrize("method", METHODS)
def test_gradcheck(method):
    given = case(5, joints=3, influences=2, poses=1)
    names = ["vertices", "weights", "quats", "translations", "centers", "stretches", "blends"]
    leaves = [given[name].requires_grad_() for name in names]

    def function(*values: Tensor) -> Tensor:
        return skinning.skin(indices=given["indices"], method=method, **dict(zip(names, values)))

    assert torch.autograd.gradcheck(function, leaves)


@needs_native
@pytest.mark.parametrize("mode", [1, 7])
def test_opcheck(mode):
    given = case(6)
    vertices, weights, rows = (v.requires_grad_() for v in (given["vertices"], given["weights"], rows_of(given)))
    arguments = vertices, weights, given["indices"], rows, mode
    torch.library.opcheck(torch.ops.vision3d.skin.default, arguments)
    v_placed = torch.randn(2, 6, 3, dtype=torch.float64)
    plain = [value.detach() for value in arguments[:4]]
    torch.library.opcheck(torch.ops.vision3d.skin_vjp.default, (*plain, mode, v_placed))


def test_strides_and_mixed_types():
    given = case(33)
    want = skinning.skin(**given)
    strided = {name: torch.stack([value, value], -1)[..., 0] for name, value in given.items()}
    close(skinning.skin(**strided), want)
    mixed = {**given, "vertices": given["vertices"].float(), "translations": given["translations"].float()}
    close(skinning.skin(**mixed), want, 1e-5)


@needs_native
def test_the_kernel_rejects_out_of_bounds_access():
    given = case(4)
    rows = rows_of(given)
    with pytest.raises(ValueError, match=r"^indices: got 7 at place 0, want 0 to 6$"):
        native_call(3, {**given, "indices": torch.full_like(given["indices"], 7)}, rows)
    with pytest.raises(ValueError, match=r"^mode: got 4, want 1, 2, 3, 6 or 7$"):
        native_call(4, given, rows)
    with pytest.raises(ValueError, match=r"^weights: got no influence a vertex"):
        native_call(1, {**given, "weights": torch.empty(4, 0).double(), "indices": torch.empty(4, 0).long()}, rows)


# The elephant of libigl


@pytest.mark.slow
def test_the_elephant(shared_data):
    """LBS equals numpy's sum to 1e-6; the worst volumes measured elsewhere: LBS 0.947, DQS 0.968."""
    elephant, weights, matrices = read_elephant(shared_data / "skinning")
    vertices, faces = elephant.vertices.double(), elephant.faces
    assert weights.shape == (len(vertices), 24) and matrices.shape == (457, 24, 3, 4)
    dense, motions, indices = weights.numpy(), matrices.numpy(), torch.arange(24).expand(len(vertices), 24)
    quats, shifts = quaternion.rotmat_to_quat(matrices[..., :3]), matrices[..., 3]
    rest, ones = float(mesh.volume(vertices, faces)), np.pad(vertices.numpy(), ((0, 0), (0, 1)), constant_values=1)
    eta = torch.full((24,), 0.1)
    worst, gap = dict.fromkeys(METHODS, math.inf), 0.0
    for frame in range(457):
        lbs = skinning.linear_blend(vertices.float(), weights.float(), indices, matrices[frame].float())
        blended = (dense @ motions[frame].reshape(24, 12)).reshape(-1, 3, 4)
        want = np.einsum("vab,vb->va", blended, ones)
        assert np.abs(lbs.double().numpy() - want).max() <= 1e-6 * max(1.0, np.abs(want).max())
        pose = quats[frame].float(), shifts[frame].float()
        given = vertices.float(), weights.float(), indices, *pose
        found = {"lbs": lbs, "dqs": skinning.skin(*given, method="dqs"), "hybrid": skinning.skin(*given, blends=eta)}
        ratios = {name: float(mesh.volume(moved.double(), faces)) / rest for name, moved in found.items()}
        worst = {name: min(worst[name], ratio) for name, ratio in ratios.items()}
        gap = max(gap, ratios["dqs"] - ratios["hybrid"])
    assert gap <= 0.005
    assert worst["lbs"] == pytest.approx(0.947, abs=0.001)
    assert worst["dqs"] == pytest.approx(0.968, abs=0.001)
