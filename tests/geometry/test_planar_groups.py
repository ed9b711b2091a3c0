import math

import numpy as np
import pytest
import scipy.linalg
import torch

from vision3d.core.errors import ConfigError
from vision3d.geometry.groups import linear, so2, spd
from vision3d.geometry.groups.haar import (
    GroupSamples,
    ball_volume,
    check_group,
    haar_density,
    relative_coordinates,
    sample_group,
)
from vision3d.geometry.groups.planar import (
    coordinates_to_sym2,
    from_polar2,
    inverse_from_polar2,
    polar2,
    sym2_to_coordinates,
)
from vision3d.geometry.smooth import wrapped

F64 = torch.float64


def random_maps(count=100_000, worst=1e3):
    maps = torch.randn(2 * count + 1000, 2, 2, dtype=F64)
    values = torch.linalg.svdvals(maps)
    return maps[(torch.linalg.det(maps) > 0) & (values[:, 0] < worst * values[:, 1])][:count]


def test_polar_chart_round_trip():
    maps = random_maps()
    log_p, angles = polar2(maps)
    assert len(maps) > 99_000
    size = torch.linalg.matrix_norm(maps)
    assert float((torch.linalg.matrix_norm(from_polar2(log_p, angles) - maps) / size).max()) < 1e-12
    assert torch.equal(log_p, log_p.mT)
    inverse = inverse_from_polar2(log_p, angles)
    assert float((inverse @ maps - torch.eye(2, dtype=F64)).abs().max()) < 1e-9


@pytest.mark.parametrize("maps", [[[-2.0, 0], [0, -0.5]], [[-1.0, 0], [0, -1]], [[-1.0, 0], [0, -2]], [[0.0, -1], [1, 0]]])
def test_polar_chart_where_the_matrix_logarithm_is_not_real(maps):
    maps = torch.tensor(maps, dtype=F64)
    np.testing.assert_allclose(from_polar2(*polar2(maps)), maps, atol=1e-15)
    eigenvalues = torch.linalg.eigvals(maps)
    if bool((eigenvalues.real < 0).all()) and float(eigenvalues.real.diff().abs()) > 0:
        assert np.iscomplexobj(scipy.linalg.logm(maps.numpy())), "control: a real logarithm exists"


def test_chart_agrees_with_the_general_one():
    maps = random_maps(1000, worst=100)
    log_p, angles = polar2(maps)
    symmetric, skew = linear.log(maps)
    np.testing.assert_allclose(log_p, symmetric, atol=1e-10)
    np.testing.assert_allclose(angles, skew[:, 1, 0], atol=1e-10)
    for kind, traceless in (("gl", False), ("sl", True)):
        some = maps[:50] / torch.linalg.det(maps[:50]).sqrt()[:, None, None] if traceless else maps[:50]
        theirs = linear.coordinates(some, kind)
        ours = sym2_to_coordinates(polar2(some)[0], traceless=traceless)
        np.testing.assert_allclose(theirs[:, [2, 0]] if traceless else theirs[:, :3], ours, atol=1e-9)


def test_coordinates_are_isometric():
    sym = torch.randn(20, 2, 2, dtype=F64)
    sym = (sym + sym.mT) / 2
    coordinates = sym2_to_coordinates(sym)
    torch.testing.assert_close(coordinates.square().sum(-1), (sym @ sym).diagonal(dim1=-2, dim2=-1).sum(-1))
    torch.testing.assert_close(coordinates_to_sym2(coordinates), sym)
    free = coordinates_to_sym2(torch.randn(20, 2, dtype=F64))
    assert float(free.diagonal(dim1=-2, dim2=-1).sum(-1).abs().max()) < 1e-15
    torch.testing.assert_close(coordinates_to_sym2(sym2_to_coordinates(free, traceless=True)), free)


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_gradients_at_equal_eigenvalues(scale):
    at = (scale * torch.eye(2, dtype=F64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda g: spd.log((g + g.mT) / 2), at)
    assert torch.autograd.gradcheck(lambda g: spd.exp((g + g.mT) / 2), at)
    turned = (scale * so2.exp(torch.tensor(2.0, dtype=F64))).requires_grad_()
    assert torch.autograd.gradcheck(polar2, turned)
    assert torch.autograd.gradgradcheck(lambda g: polar2(g)[0], turned)
    P = scale * torch.eye(2, dtype=F64, requires_grad=True)  # control: eigenvectors have no gradient here
    values, vectors = torch.linalg.eigh(P)
    assert not torch.autograd.grad((vectors @ values.log().diag() @ vectors.mT)[0, 1], P)[0].isfinite().all()


def test_angles_have_no_jump_at_the_identity():
    near = torch.tensor([-1e-9, 0.0, 1e-9], dtype=F64)
    assert float(wrapped(near).diff().abs().max()) < 1e-8
    assert float(torch.remainder(near, 2 * math.pi).diff().abs().max()) > 6  # control: the range of the published code
    assert float(wrapped(torch.tensor(3 * math.pi + 0.1, dtype=F64))) == pytest.approx(-math.pi + 0.1)


# ---------------------------------------------------------------- the invariant measure


def decaying(maps):
    """A function on GL+(2) that decays in every direction."""
    inverse = torch.linalg.inv(maps)
    return torch.exp(-(maps.square().sum((-2, -1)) + inverse.square().sum((-2, -1))) / 4) * (
        1 + 0.3 * torch.tanh(maps[:, 0, 1])
    )


MOVER = torch.tensor([[1.25, 0.35], [-0.1, 0.8]], dtype=F64)


def sigmas(weights, first, second):
    """Difference of two integrals in units of its standard error."""
    difference = weights * (first - second)
    return float(difference.mean().abs() / (difference.std() / math.sqrt(len(difference))))


@pytest.mark.parametrize("group", ["gl2", "sl2"])
def test_haar_integral_is_invariant(group):
    generator = torch.Generator().manual_seed(0)
    samples = sample_group(group, 400_000, spread=0.6, proposal="normal", angles="uniform", generator=generator, dtype=F64)
    mover = MOVER if group == "gl2" else MOVER / torch.linalg.det(MOVER).sqrt()
    g = samples.matrices()
    f, left, right = decaying(g), decaying(mover @ g), decaying(g @ mover)
    assert sigmas(samples.weights, f, left) < 3
    assert sigmas(samples.weights, f, right) < 3
    without = samples.weights / haar_density(samples.log_p)  # control: Lebesgue measure of the chart
    assert sigmas(without, f, left) > 10
    assert sigmas(without, f, right) > 10


def test_affine_group_is_left_invariant_and_has_a_modular_function():
    """dmu = dx dmu_H / det h; a right translation multiplies it by det of the linear part."""
    generator = torch.Generator().manual_seed(1)
    samples = sample_group("gl2", 400_000, spread=0.6, proposal="normal", angles="uniform", generator=generator, dtype=F64)
    x = 3 * torch.randn(len(samples), 2, generator=generator, dtype=F64)
    weights = samples.weights / samples.determinants() * torch.exp(x.square().sum(-1) / 18)
    mover = 1.3 * MOVER
    h, t = samples.matrices(), torch.tensor([0.3, -0.5], dtype=F64)

    def f(x, h):
        return torch.exp(-2 * x.square().sum(-1)) * decaying(h)

    plain, left = f(x, h), f(x @ mover.T + t, mover @ h)
    right = f(x + (h @ t[:, None])[..., 0], h @ mover)
    det = float(torch.linalg.det(mover))
    assert sigmas(weights, plain, left) < 3
    assert sigmas(weights, det * plain, right) < 3
    assert sigmas(weights, plain, right) > 10
    assert sigmas(weights * samples.determinants(), plain, left) > 10  # control: without the division


def test_the_ball_gives_the_integral():
    """mean(weights f) times the volume against quadrature in the chart, for a function of the eigenvalues of Y only."""
    generator = torch.Generator().manual_seed(2)
    samples = sample_group("sl2", 200_000, spread=0.3, generator=generator, dtype=F64)
    d = samples.log_p[:, 0, 0].square() + samples.log_p[:, 0, 1].square()  # y^2
    values = samples.weights * torch.exp(-3 * d)
    radius = 0.3 * 2.0  # of |Y| = sqrt(2) y
    r = (torch.arange(10_000, dtype=F64) + 0.5) / 10_000 * radius
    y = r / math.sqrt(2)
    exact = float((2 * math.pi * r * torch.sinh(2 * y) / (2 * y) * torch.exp(-3 * y.square())).mean() * radius)
    volume = ball_volume("sl2", 0.3)
    error = float(values.std()) * volume / math.sqrt(len(samples))
    assert abs(float(values.mean()) * volume - exact) < 3 * error
    assert float(samples.weights.std() / samples.weights.mean()) < 0.1


@pytest.mark.parametrize("proposal", ["ball", "normal"])
@pytest.mark.parametrize(("group", "dims"), [("sl2", 2), ("gl2", 3)])
def test_spread_is_the_standard_deviation(group, dims, proposal):
    generator = torch.Generator().manual_seed(3)
    samples = sample_group(group, 50_000, spread=0.2, proposal=proposal, generator=generator, dtype=F64)
    coordinates = sym2_to_coordinates(samples.log_p, traceless=group == "sl2")
    assert coordinates.shape == (50_000, dims)
    torch.testing.assert_close(coordinates.std(0), torch.full((dims,), 0.2, dtype=F64), rtol=0.03, atol=0)
    torch.testing.assert_close(samples.determinants(), torch.linalg.det(samples.matrices()))
    np.testing.assert_allclose(samples.inverses() @ samples.matrices(), torch.eye(2).expand(50_000, 2, 2), atol=1e-12)


def test_rotations_are_evenly_spread_without_duplicates():
    generator = torch.Generator().manual_seed(0)
    even = sample_group("so2", 10, generator=generator).matrices()
    assert float(torch.cdist(even.flatten(1), even.flatten(1)).add(10 * torch.eye(10)).min()) > 0.8
    other = sample_group("so2", 10, generator=generator).matrices()
    assert float((even - other).abs().max()) > 1e-3, "a new random offset"
    published = sample_group("so2", 10, angles="published").matrices()
    torch.testing.assert_close(published[0], published[-1])  # control: ten samples, nine rotations


@pytest.mark.parametrize("kind", ["even", "uniform"])
def test_rotations_fill_the_window(kind):
    generator = torch.Generator().manual_seed(0)
    draws = [sample_group("so2", 6, angles=kind, window=1.0, generator=generator, dtype=F64).angles for _ in range(3000)]
    angles = torch.cat(draws)
    assert float(angles.abs().max()) <= 1
    counts = torch.histc(angles, 10, -1, 1)
    assert float((counts - 1800).abs().max()) < 5 * math.sqrt(1800)
    if kind == "even":
        torch.testing.assert_close(draws[0].diff(), torch.full((5,), 1 / 3, dtype=F64))
    with pytest.raises(ConfigError, match=r"window: got 0, want an angle in \(0, pi\]"):
        sample_group("so2", 6, window=0)


def test_moments_of_rotations():
    R = sample_group("so2", 50_000, angles="uniform", generator=torch.Generator().manual_seed(0), dtype=F64).matrices()
    assert float(R.mean(0).abs().max()) < 3 / math.sqrt(2 * 50_000)
    trace = R.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert abs(float(trace.square().mean()) - 2) < 3 * float(trace.square().std()) / math.sqrt(50_000)


@pytest.mark.parametrize("group", ["so2", "sl2", "gl2"])
def test_relative_coordinates_depend_only_on_the_relative_element(group):
    generator = torch.Generator().manual_seed(0)
    a, b = (sample_group(group, n, spread=0.4, generator=generator, dtype=F64) for n in (4, 3))
    mover = MOVER / torch.linalg.det(MOVER).sqrt() if group == "sl2" else MOVER
    if group == "so2":
        mover = so2.exp(torch.tensor(0.7, dtype=F64))

    def moved(samples):
        log_p, angles = polar2(mover @ samples.matrices())
        return GroupSamples(group, torch.zeros_like(log_p) if group == "so2" else log_p, angles, samples.weights)

    before, after = relative_coordinates(group, a, b), relative_coordinates(group, moved(a), moved(b))
    torch.testing.assert_close(before[0], after[0], atol=1e-12, rtol=0)
    torch.testing.assert_close(before[1].cos(), after[1].cos(), atol=1e-12, rtol=0)


@pytest.mark.wrong_types
def test_unknown_group():
    with pytest.raises(ConfigError, match=r"group: 'gl3' is not a group of planar maps; did you mean gl2"):
        check_group("gl3")
    with pytest.raises(ConfigError, match="group: 'so3' is not a group"):
        sample_group("so3", 2)
    with pytest.raises(ConfigError, match="angles: got 'odd'"):
        sample_group("so2", 2, angles="odd")
