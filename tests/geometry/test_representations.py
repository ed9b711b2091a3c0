import math
from inspect import unwrap  # bypasses the runtime type checks of the tests

import pytest
import torch
from hypothesis import given, strategies as st

from tests.support.rotations import hostile, rotmats_at_all_angles
from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.geometry import charts, euler, quaternion, representations, rotation
from vision3d.geometry.gram_schmidt import haar_rotmats

ALL = list(representations.REPRESENTATIONS)
DISTINCT = [name for name in ALL if not (name.startswith("euler_") and len(name) == 9) or name in ("euler_ZYX", "euler_zxz")]
BY_NAME = representations.REPRESENTATIONS
DIMENSIONS = {
    "6d": 6, "6d_columns": 6, "6d_interleaved": 6, "6d_rows": 6, "6d_symmetric": 6, "5d": 5, "9d_svd": 9, "9d_gs": 9,
    "9d_direct": 9, "quat": 4, "quat_half": 4, "10d": 10, "axis_angle4": 4, "rotvec": 3, "rodrigues_rc": 3, "gibbs": 3,
    "cayley": 3, "mrp": 3, "hopf": 3, "euler": 3, "euler_sin_cos": 6,
}  # fmt: skip


def haar64(*shape):
    return haar_rotmats(3, *shape, dtype=torch.float64)


def test_all_representations_exist():
    assert set(ALL) == set(DIMENSIONS) | {f"euler_{order}" for order in euler.EULER_ORDERS}
    assert {name: representations.dimension(name) for name in DIMENSIONS} == DIMENSIONS
    assert representations.MISSES_HALF_TURNS == ("gibbs", "cayley")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_round_trip(name, dtype, atol):
    check_round_trip(name, dtype, atol, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_round_trip_of_many(name):
    check_round_trip(name, torch.float32, 2e-6, 100_000)
    check_round_trip(name, torch.float64, 1e-12, 100_000)


def check_round_trip(name, dtype, atol, count):
    rotmats = torch.cat([haar64(count), rotmats_at_all_angles()]).to(dtype)
    values = representations.from_rotmat(rotmats, name)
    assert values.shape == (len(rotmats), representations.dimension(name)) and values.isfinite().all()
    back = representations.to_rotmat(values, name)
    assert rotation.geodesic_distance(back.double(), rotmats.double()).max() < atol


@pytest.mark.parametrize("name", DISTINCT)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_any_numbers_give_a_rotation_and_finite_gradients(name, dtype, atol):
    check_hostile(name, dtype, atol, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTINCT)
def test_many_numbers_give_a_rotation_and_finite_gradients(name):
    for _ in range(2):
        check_hostile(name, torch.float32, 2e-6, 250_000)  # 10^7 in total; with float64 another 10^7
        check_hostile(name, torch.float64, 1e-14, 250_000)


def check_hostile(name, dtype, atol, count):
    values = hostile(count, representations.dimension(name), dtype).requires_grad_()
    rotmats = representations.to_rotmat(values, name)
    (grad,) = torch.autograd.grad((rotmats * torch.randn(3, 3, dtype=dtype)).sum(), values)
    assert rotmats.isfinite().all() and not grad.isnan().any()
    if BY_NAME[name].is_rotation:
        exact = rotmats.detach().double()
        assert (exact.mT @ exact - torch.eye(3)).abs().max() < atol
        assert (torch.linalg.det(exact) - 1).abs().max() < atol


@pytest.mark.parametrize("name", DISTINCT)
def test_gradients(name):
    values = torch.randn(2, representations.dimension(name), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(BY_NAME[name].to_rotmat, values)
    assert torch.autograd.gradgradcheck(BY_NAME[name].to_rotmat, values)
    # On the group: rotmats move along exp(x) R.
    rotmats, start = haar64(2), torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: BY_NAME[name].from_rotmat(rotation.so3_exp(x) @ rotmats), start)
    assert torch.autograd.gradgradcheck(lambda x: BY_NAME[name].from_rotmat(rotation.so3_exp(x) @ rotmats), start)


@pytest.mark.parametrize("name", DISTINCT)
def test_gradients_of_the_inverse_are_finite_at_singular_rotations(name):
    rotmats = rotmats_at_all_angles(10).requires_grad_()
    values = representations.from_rotmat(rotmats, name)
    (grad,) = torch.autograd.grad(values.sum(), rotmats)
    assert grad.isfinite().all()


@pytest.mark.parametrize("name", DISTINCT)
def test_under_vmap_and_functional_derivatives(name):
    values = torch.randn(4, representations.dimension(name), dtype=torch.float64)
    maps = BY_NAME[name]
    rotmats = maps.to_rotmat(values)
    torch.testing.assert_close(torch.vmap(maps.to_rotmat)(values), rotmats)
    rotations = haar64(4)
    torch.testing.assert_close(torch.vmap(maps.from_rotmat)(rotations), maps.from_rotmat(rotations))
    weights = torch.randn(3, 3, dtype=torch.float64)
    grads = torch.vmap(torch.func.grad(lambda x: (maps.to_rotmat(x) * weights).sum()))(values)
    leaf = values.clone().requires_grad_()
    torch.testing.assert_close(grads, torch.autograd.grad((maps.to_rotmat(leaf) * weights).sum(), leaf)[0])


def test_agrees_with_roma():
    roma = pytest.importorskip("roma")
    rotmats, noisy = haar64(200), torch.randn(200, 9, dtype=torch.float64)
    to_rotmat, from_rotmat = representations.to_rotmat, representations.from_rotmat

    def same(ours, theirs):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)

    same(to_rotmat(noisy[:, :6], "6d"), roma.special_gramschmidt(noisy[:, :6].view(-1, 2, 3).mT))
    same(to_rotmat(noisy, "9d_svd"), roma.special_procrustes(noisy.view(-1, 3, 3)))
    quats = noisy[:, :4]
    same(to_rotmat(quats, "quat"), roma.unitquat_to_rotmat(roma.quat_normalize(quaternion.wxyz_to_xyzw(quats))))
    same(to_rotmat(noisy[:, :3], "rotvec"), roma.rotvec_to_rotmat(noisy[:, :3]))
    same(from_rotmat(rotmats, "rotvec"), roma.rotmat_to_rotvec(rotmats))
    # roma's ten values fill a symmetric matrix of xyzw, ours one of wxyz.
    matrix = torch.randn(200, 4, 4, dtype=torch.float64)
    matrix = matrix + matrix.mT
    ours = matrix.roll((1, 1), (1, 2))
    rows, columns = torch.triu_indices(4, 4)
    theirs = roma.symmatrixvec_to_unitquat(matrix[:, rows, columns])
    same(to_rotmat(ours[:, rows, columns], "10d"), roma.unitquat_to_rotmat(theirs))


def test_agrees_with_scipy():
    rotation_class = pytest.importorskip("scipy.spatial.transform").Rotation
    rotmats = haar64(200)
    theirs = rotation_class.from_matrix(rotmats.numpy())
    for name, values in {"rotvec": theirs.as_rotvec(), "mrp": theirs.as_mrp()}.items():
        assert representations.from_rotmat(rotmats, name).numpy() == pytest.approx(values, abs=1e-12)
    quats = torch.from_numpy(theirs.as_quat(canonical=True))
    torch.testing.assert_close(representations.from_rotmat(rotmats, "quat"), quaternion.xyzw_to_wxyz(quats), atol=1e-12, rtol=0)


def test_closed_forms_of_the_rarer_representations():
    axis = torch.tensor([2.0, -1, 2], dtype=torch.float64) / 3
    rotmat = rotation.so3_exp(1.2 * axis)
    for name, values in {
        "gibbs": math.tan(0.6) * axis,
        "cayley": math.tan(0.6) * axis,
        "mrp": math.tan(0.3) * axis,
        "rodrigues_rc": 0.6 * axis,  # a vector of length 0.6 is an angle of 1.2
        "axis_angle4": torch.cat([torch.tensor([math.atanh(1.2 / math.pi)]), axis]),
    }.items():
        torch.testing.assert_close(representations.to_rotmat(values, name), rotmat)
        torch.testing.assert_close(representations.from_rotmat(rotmat, name), values)
    torch.testing.assert_close(charts.cayley_vector(math.tan(0.6) * axis), rotmat)
    x, y, z = torch.tensor([0.4, -0.7, 1.9], dtype=torch.float64)

    def about(k, angle):
        return rotation.so3_exp(angle * torch.eye(3, dtype=torch.float64)[k])

    torch.testing.assert_close(
        representations.to_rotmat(torch.stack([x, y, z]), "euler"), about(0, x) @ about(2, z) @ about(1, y)
    )
    pairs = 3 * torch.stack([x.sin(), x.cos(), y.sin(), y.cos(), z.sin(), z.cos()])  # pairs of any length
    torch.testing.assert_close(
        representations.to_rotmat(pairs, "euler_sin_cos"), representations.to_rotmat(torch.stack([x, y, z]), "euler")
    )
    theta, phi, tau = (math.pi * (torch.tanh(torch.tensor(v)) + 1).double() for v in (0.3, -0.4, 0.8))
    theta = theta / 2
    hopf = [
        (theta / 2).cos() * (tau / 2).cos(), (theta / 2).cos() * (tau / 2).sin(),
        (theta / 2).sin() * (phi + tau / 2).cos(), (theta / 2).sin() * (phi + tau / 2).sin(),
    ]  # fmt: skip
    found = representations.to_rotmat(torch.tensor([0.3, -0.4, 0.8], dtype=torch.float64), "hopf")
    torch.testing.assert_close(found, quaternion.quat_to_rotmat(torch.stack(hopf)), atol=1e-6, rtol=0)


def test_5d_is_that_of_the_paper():
    # Computed by hand from Zhou et al., section B: the last four of the six, projected and divided by the constants.
    rotmats = haar64(100)
    six = rotation.to_6d(rotmats)
    tail = six[:, 2:] / six[:, 2:].norm(dim=1, keepdim=True)
    projected = tail[:, 1:] / (1 - tail[:, :1])
    want = torch.cat([six[:, :2], projected / torch.tensor([math.sqrt(2) + 1, math.sqrt(2) + 1, math.sqrt(2)])], 1)
    torch.testing.assert_close(representations.from_rotmat(rotmats, "5d"), want)
    assert representations.from_rotmat(haar64(100_000), "5d").abs().max() <= 1


def test_rows_are_columns_of_the_transpose():
    values = torch.randn(100, 6, dtype=torch.float64)
    rows, columns = (representations.to_rotmat(values, name) for name in ("6d_rows", "6d_columns"))
    torch.testing.assert_close(rows, columns.mT)
    interleaved = representations.to_rotmat(values.view(-1, 2, 3).mT.flatten(1), "6d_interleaved")
    torch.testing.assert_close(interleaved, columns)
    assert (rows - columns).abs().max() > 0.5


def test_values_read_directly_can_be_projected():
    values = torch.randn(10, 9, dtype=torch.float64)
    torch.testing.assert_close(representations.to_rotmat(values, "9d_direct"), values.view(10, 3, 3))
    torch.testing.assert_close(
        representations.to_rotmat(values, "9d_direct", project=True), representations.to_rotmat(values, "9d_svd")
    )


@given(st.sampled_from(DISTINCT), st.lists(st.floats(-3, 3), min_size=10, max_size=10))
def test_maps_are_inverse_on_their_range(name, numbers):
    values = torch.tensor(numbers[: representations.dimension(name)], dtype=torch.float64)
    rotmat = representations.to_rotmat(values, name, project=name == "9d_direct")
    back = representations.to_rotmat(representations.from_rotmat(rotmat, name), name)
    torch.testing.assert_close(back, rotmat, atol=1e-12, rtol=0)


def test_continuity():
    # Pairs of close rotations, half of them on both sides of 180 degrees.
    base = torch.cat([haar64(100_000), rotation.so3_exp((math.pi - 1e-4) * torch.randn(100_000, 3).double().sign() * 3**-0.5)])
    step = torch.nn.functional.normalize(torch.randn(len(base), 3, dtype=torch.float64), dim=1)
    moved = rotation.so3_exp(1e-3 * step) @ base
    slopes = {
        name: (representations.from_rotmat(base, name) - representations.from_rotmat(moved, name)).norm(dim=1).max() / 1e-3
        for name in ("6d", "5d", "9d_svd", "10d", "quat", "rotvec", "mrp", "euler")
    }
    assert slopes["6d"] <= math.sqrt(2) + 1e-6
    assert slopes["9d_svd"] <= math.sqrt(2) + 1e-6  # |R hat(w)| = sqrt 2 |w|
    assert slopes["10d"] <= 1 and slopes["5d"] < 4
    for name in ("quat", "rotvec", "mrp", "euler"):
        assert slopes[name] > 1000, name
    assert all(BY_NAME[name].is_continuous == (slope < 10) for name, slope in slopes.items())


def test_unknown_names_are_rejected():
    with pytest.raises(ConfigError, match=r"rep: '6dd' is not a representation of a rotation; did you mean 6d"):
        representations.to_rotmat(torch.zeros(6), "6dd")
    with pytest.raises(ConfigError, match=r"rep: '\?\?\?' is not a representation .*valid: 10d, 5d, 6d, .*, rotvec"):
        representations.dimension("???")


@pytest.mark.wrong_types
def test_wrong_shapes_are_rejected():
    with pytest.raises(ShapeError, match=r"values: got shape \(2, 5\), want \(..., 6\)"):
        unwrap(representations.to_rotmat)(torch.zeros(2, 5), "6d")
    with pytest.raises(ShapeError, match=r"rotmats: got shape \(3, 2\), want"):
        unwrap(representations.from_rotmat)(torch.zeros(3, 2), "6d")
    with pytest.raises(ShapeError, match=r"want torch\.float32 or torch\.float64"):
        unwrap(representations.to_rotmat)(torch.zeros(6, dtype=torch.int64), "6d")


def test_matrices_that_are_not_rotations_are_rejected_on_request():
    rotmats = haar64(5)
    rotmats[3] *= 1.1  # 0.1 in each of three directions: sqrt(3) / 10 away
    with pytest.raises(InputError, match=r"rotmats: matrix 3 of 5 is not a rotation, its distance from SO\(3\) is 0.173"):
        representations.from_rotmat(rotmats, "quat", check=True)
    with pytest.raises(
        InputError, match=r"the matrix, a reflection, is not a rotation, .* is 2, want at most 0.0001; project it"
    ):
        representations.from_rotmat(torch.diag(torch.tensor([1.0, 1, -1])), "6d", check=True)
    with pytest.raises(InputError, match="not finite"):
        representations.from_rotmat(torch.full((3, 3), torch.nan), "6d", check=True)
    projected = representations.from_rotmat(rotmats, "quat", check=True, project=True)
    torch.testing.assert_close(quaternion.quat_to_rotmat(projected), rotation.nearest_rotation(rotmats))
    representations.from_rotmat(haar64(5).float(), "quat", check=True)
    representations.from_rotmat(haar64(0), "quat", check=True)


@pytest.mark.parametrize("name", ["gibbs", "cayley"])
def test_rotations_by_180_degrees_are_rejected_on_request(name):
    rotmats = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, -1, -1]))])
    assert representations.from_rotmat(rotmats, name).isfinite().all()
    with pytest.raises(
        InputError, match="rotmats: 1 of 2 are rotations by 180 degrees, which gibbs and cayley cannot represent"
    ):
        representations.from_rotmat(rotmats, name, check=True)


def test_half_precision_goes_through_float32():
    values = torch.randn(10, 6).bfloat16()
    rotmats = representations.to_rotmat(values, "6d")
    assert rotmats.dtype == torch.bfloat16
    torch.testing.assert_close(rotmats, rotation.from_6d(values.float()).bfloat16())
