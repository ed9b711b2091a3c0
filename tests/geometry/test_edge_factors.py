from inspect import unwrap  # bypasses the runtime type checks of the tests

import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import edge_factors, triangles
from vision3d.geometry.covariance import quat_scale_to_covar
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats

WIDTHS = [2, 3]


def factors64(count, width):
    return torch.randn(count, 3, width, dtype=torch.float64)


def small_gaussians(count, dtype=torch.float32):
    """Log-uniform scales of 1e-5 to 1e-3, the third axis flat."""
    scales = 10 ** (-5 + 2 * torch.rand(count, 3, dtype=dtype))
    scales[:, 2] = 1e-12
    return random_quats(count, dtype=dtype), scales


def angle_between_lines(a, b):
    sine = torch.linalg.cross(a.double(), b.double()).norm(dim=-1)
    return torch.rad2deg(torch.atan2(sine, (a.double() * b.double()).sum(-1).abs()))


def relative(found, want):
    return (found - want).norm(dim=(-2, -1)) / want.norm(dim=(-2, -1))


def test_small_discs_round_trip_with_their_rotation():
    quats, scales = small_gaussians(100_000)
    edges = triangles.gaussians_to_edges(quats, scales)
    want = quat_to_rotmat(quats.double())
    covars = quat_scale_to_covar(quats.double(), scales.double())
    for method in ("exact", "gram_schmidt"):
        back_quats, back_scales = triangles.edges_to_gaussians(edges, thickness=1e-12, method=method)
        back = quat_to_rotmat(back_quats)
        assert angle_between_lines(back[..., 2], want[..., 2]).max() < 0.05
        assert relative(quat_scale_to_covar(back_quats.double(), back_scales.double()), covars).max() < 1e-5
        if method == "gram_schmidt":
            assert angle_between_lines(back[..., 0], want[..., 0]).max() < 0.05
        else:  # axes in the plane are only defined for elliptic discs
            is_first = scales[:, 0] > scales[:, 1]
            longest = torch.where(is_first[:, None], want[..., 0], want[..., 1])
            is_clear = (scales[:, 0] / scales[:, 1]).log().abs() > 0.01
            assert is_clear.sum() > 99_000
            assert angle_between_lines(back[..., 0], longest)[is_clear].max() < 0.05


def test_random_affine_maps_of_small_discs_in_float32():
    quats, scales = small_gaussians(100_000)
    maps = torch.eye(3) + 0.5 * torch.randn(100_000, 3, 3)
    edges = triangles.gaussians_to_edges(quats, scales)
    want = maps.double() @ edges.double() @ edges.double().mT @ maps.double().mT
    found = [v.double() for v in triangles.edges_to_gaussians(maps @ edges, thickness=1e-12)]
    assert relative(quat_scale_to_covar(*found), want).max() < 1e-5
    published = [v.double() for v in triangles.edges_to_gaussians(maps @ edges, thickness=1e-12, method="gram_schmidt")]
    assert relative(quat_scale_to_covar(*published), want).median() > 0.1


def test_random_affine_maps_of_ellipsoids_in_float32():
    quats, scales = random_quats(2000), 10 ** (-5 + 2 * torch.rand(2000, 3))
    maps = torch.eye(3) + 0.5 * torch.randn(2000, 3, 3)
    factors = edge_factors.gaussians_to_factors(quats, scales)
    want = maps.double() @ factors.double() @ factors.double().mT @ maps.double().mT
    found = [v.double() for v in edge_factors.factors_to_gaussians(maps @ factors, 1e-12)]
    assert relative(quat_scale_to_covar(*found), want).max() < 1e-5


def test_thin_ellipsoids_keep_scales_lost_in_a_covariance():
    from vision3d.geometry.covariance import covar_to_quat_scale

    scales = torch.tensor([[1.0, 1e-2, 1e-5]]).expand(200, 3)
    factors = edge_factors.gaussians_to_factors(random_quats(200), scales)
    _, found = edge_factors.factors_to_gaussians(factors)
    assert ((found - scales).abs() / scales).max() < 0.02
    _, lost = covar_to_quat_scale(factors @ factors.mT)
    assert ((lost[:, 0] - 1e-5).abs() / 1e-5).median() > 0.5


@pytest.mark.parametrize("width", WIDTHS)
def test_rotating_the_factor_rotates_the_gaussian(width):
    factors, rotation = factors64(200, width), quat_to_rotmat(random_quats(200, dtype=torch.float64))
    before = quat_scale_to_covar(*edge_factors.factors_to_gaussians(factors))
    after = quat_scale_to_covar(*edge_factors.factors_to_gaussians(rotation @ factors))
    torch.testing.assert_close(after, rotation @ before @ rotation.mT, atol=1e-12, rtol=0)


@pytest.mark.parametrize("width", WIDTHS)
def test_singular_values_agree_with_lapack(width):
    factors = factors64(300, width)
    axes, lengths, turns = edge_factors.factors_svd(factors)
    torch.testing.assert_close(lengths, torch.linalg.svdvals(factors), atol=1e-13, rtol=1e-12)
    torch.testing.assert_close((axes * lengths[:, None]) @ turns.mT, factors, atol=1e-13, rtol=0)
    eye = torch.eye(width, dtype=torch.float64).expand(300, -1, -1)
    torch.testing.assert_close(axes.mT @ axes, eye, atol=1e-13, rtol=0)
    torch.testing.assert_close(turns.mT @ turns, eye, atol=1e-13, rtol=0)


def test_exchanging_the_edges_mirrors_the_normal_and_nothing_else():
    edges = factors64(50, 2)
    covars = quat_scale_to_covar(*triangles.edges_to_gaussians(edges))
    flipped = triangles.edges_to_gaussians(edges.flip(-1))
    torch.testing.assert_close(quat_scale_to_covar(*flipped), covars, atol=1e-13, rtol=0)
    normals = [quat_to_rotmat(triangles.edges_to_gaussians(e)[0])[..., 2] for e in (edges, edges.flip(-1))]
    torch.testing.assert_close(normals[0], -normals[1])


@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, 1e-20, 1e15, -3e-7]), min_size=9, max_size=9), st.sampled_from(WIDTHS))
def test_any_factor_becomes_a_valid_gaussian(values, width):
    factors = torch.tensor(values, dtype=torch.float64).view(3, 3)[:, :width]
    quats, scales = edge_factors.factors_to_gaussians(factors, 1e-25)
    rotmat = quat_to_rotmat(quats)
    assert (scales >= 1e-25).all() and scales.isfinite().all()
    torch.testing.assert_close(rotmat @ rotmat.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(rotmat) > 0
    clamped = edge_factors.clamp_factors(factors, torch.ones(width, dtype=torch.float64))
    lengths = torch.linalg.svdvals(clamped)
    assert (lengths >= 1 / 1.5 - 1e-6).all() and (lengths <= 1.5 + 1e-6).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_corners_round_trip(width):
    means, factors = torch.randn(20, 3, dtype=torch.float64), factors64(20, width)
    corners = edge_factors.factors_to_vertices(means, factors)
    assert corners.shape == (20, width + 1, 3)
    back_means, back = edge_factors.vertices_to_factors(corners)
    torch.testing.assert_close(back_means, means)
    torch.testing.assert_close(back, factors)


def test_flattening_returns_the_fraction_of_the_trace():
    scales = torch.tensor([[1.0, 2.0, 2.0], [0.5, 0.5, 0.5]])
    quats = random_quats(2)
    edges, lost = edge_factors.flatten_gaussians(quats, scales)
    torch.testing.assert_close(lost, torch.tensor([1 / 9, 1 / 3]))
    kept = (edges @ edges.mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(1 - kept / scales.square().sum(-1), lost)
    error = quat_scale_to_covar(quats, scales) - edges @ edges.mT
    torch.testing.assert_close(torch.linalg.matrix_norm(error), torch.tensor([1.0, 0.25]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("width", WIDTHS)
def test_clamp_enforces_its_bounds_and_keeps_values_within(width):
    rest = factors64(500, width)
    lengths = torch.linalg.svdvals(rest)
    moved = (torch.eye(3).double() + torch.randn(500, 3, 3).double()) @ rest
    clamped = edge_factors.clamp_factors(moved, lengths, 1.3)
    ratio = torch.linalg.svdvals(clamped) / lengths
    assert ratio.max() < 1.3 + 1e-9 and ratio.min() > 1 / 1.3 - 1e-9
    assert (clamped != moved).any()
    left, _, right = torch.linalg.svd(torch.randn(500, 3, 3).double())
    stretches = 1.3 ** (1.98 * torch.rand(500, 3).double() - 0.99)
    gentle = (left * stretches[:, None]) @ right @ rest  # singular values of the map within the bounds: nothing is clamped
    assert torch.equal(edge_factors.clamp_factors(gentle, lengths, 1.3), gentle)
    pinned = edge_factors.clamp_factors(moved, lengths, 1.0)
    torch.testing.assert_close(torch.linalg.svdvals(pinned), lengths)
    assert torch.linalg.svdvals(edge_factors.clamp_factors(moved, lengths, 1.3, 0.5)).max() < 0.5 + 1e-12


def test_clamp_keeps_directions():
    stretched = torch.tensor([[5.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    want = torch.tensor([[1.5, 0.0], [0.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(edge_factors.clamp_factors(stretched, torch.ones(2)), want)


@pytest.mark.parametrize("width", WIDTHS)
def test_clamp_turns_points_and_lines_into_discs(width):
    factors = torch.zeros(2, 3, width)
    factors[1, 0, 0] = 3.0
    lengths = torch.linalg.svdvals(edge_factors.clamp_factors(factors, torch.ones(2, width)))
    torch.testing.assert_close(lengths[0], torch.full((width,), 1 / 1.5))
    torch.testing.assert_close(lengths[1], torch.tensor([1.5] + [1 / 1.5] * (width - 1)))


@pytest.mark.parametrize("width", WIDTHS)
def test_long_gaussians_are_split(width):
    factors = torch.eye(3).double()[:, :width].repeat(3, 1, 1)
    factors[1, 0, 0] = 4.0
    factors[2, 0, 0] = 2.9
    means, opacities = torch.randn(3, 3).double(), torch.tensor([0.3, 0.75, 0.9]).double()
    rest = torch.ones(3, width).double()
    new_means, new, new_opacities, rows = edge_factors.split_long(means, factors, opacities, rest)
    assert rows.tolist() == [0, 1, 2, 1]
    assert torch.equal(new[[0, 2]], factors[[0, 2]]) and torch.equal(new_means[[0, 2]], means[[0, 2]])
    offset = torch.tensor([2.0, 0, 0]).double()
    between = (new_means[3] - new_means[1]).abs()
    torch.testing.assert_close(between, 2 * offset)
    torch.testing.assert_close((new_means[1] + new_means[3]) / 2, means[1])
    torch.testing.assert_close(torch.linalg.svdvals(new[[1, 3]]), torch.tensor([[2.0] + [1.0] * (width - 1)] * 2).double())
    torch.testing.assert_close(1 - (1 - new_opacities[1]) ** 2, opacities[1])
    assert new_opacities[1] == new_opacities[3] and torch.equal(new_opacities[[0, 2]], opacities[[0, 2]])


def test_gradients():
    edges, rest = factors64(4, 2).requires_grad_(), torch.rand(4, 2).double() + 0.5
    assert torch.autograd.gradcheck(lambda e: edge_factors.clamp_factors(e, rest, 1.1), edges)
    assert torch.autograd.gradcheck(edge_factors.factors_svd, edges)
    full = factors64(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: edge_factors.factors_to_gaussians(e)[1], full)
    quats, scales = random_quats(4, dtype=torch.float64).requires_grad_(), (torch.rand(4, 3).double() + 1).requires_grad_()
    assert torch.autograd.gradcheck(edge_factors.gaussians_to_factors, (quats, scales))


def test_sheared_discs_match_the_true_map():
    """Images of discs after a shear of 1: ours match the true covariance, those of the published method do not."""
    from vision3d.render import rasterize

    count = 60
    quats, scales = random_quats(count), torch.full((count, 3), 0.12)
    scales[:, 2] = 1e-6
    shear = torch.eye(3)
    shear[0, 1] = 1.0
    means, colors, opacities = torch.rand(count, 3) - 0.5, torch.rand(count, 3), torch.full((count,), 0.6)
    edges = triangles.gaussians_to_edges(quats, scales, 2)
    true = edge_factors.gaussians_to_factors(quats, scales)
    Ks, viewmat = torch.tensor([[[60.0, 0, 32], [0, 60, 32], [0, 0, 1]]]), torch.eye(4)[None].clone()
    viewmat[:, 2, 3] = 2.5

    def image(gaussians):
        quats, scales = gaussians
        return rasterize(means @ shear.T, quats, scales, opacities, colors, viewmat, Ks, 64, 64)[0][0]

    want = image(edge_factors.factors_to_gaussians(shear @ true, 1e-6))
    psnr = [
        -10 * (image(triangles.edges_to_gaussians(shear @ edges, 1e-6, method=m)) - want).square().mean().log10()
        for m in ("exact", "gram_schmidt")
    ]
    assert psnr[0] > 60
    assert psnr[1] < psnr[0] - 20


@pytest.mark.wrong_types
def test_wrong_input_is_named():
    with pytest.raises(ShapeError, match=r"factors: got shape \(2, 3, 4\), want \(\.\.\., 3, 2 or 3\)"):
        unwrap(edge_factors.factors_svd)(torch.zeros(2, 3, 4))
    with pytest.raises(ShapeError, match=r"vertices: got shape \(2, 5, 3\), want \(\.\.\., 3 or 4, 3\)"):
        unwrap(edge_factors.vertices_to_factors)(torch.zeros(2, 5, 3))
    with pytest.raises(InputError, match=r"stretch: got 0\.5, want a number of at least 1"):
        edge_factors.clamp_factors(torch.zeros(2, 3, 2), torch.ones(2, 2), 0.5)
    with pytest.raises(InputError, match="max_length: got 0, want a length > 0"):
        edge_factors.clamp_factors(torch.zeros(2, 3, 2), torch.ones(2, 2), 1.5, 0)
