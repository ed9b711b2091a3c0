"""The position of a hand in space: recovered, differentiable, and as uncertain as predicted; intrinsics that are singular."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.cameras import project
from vision3d.stages.hand.translation import translation


def scene(count: int, dtype=torch.float64):
    """Hands at 0.3 to 1 m: points relative to a root, positions, intrinsics, pixels."""
    points = 0.05 * torch.randn(count, 21, 3, dtype=dtype)
    at = torch.stack([0.3 * torch.randn(count), 0.2 * torch.randn(count), 0.3 + 0.7 * torch.rand(count)], -1).to(dtype)
    Ks = torch.tensor([[600.0, 3, 320], [0, 580, 240], [0, 0, 1]], dtype=dtype).expand(count, 3, 3)
    return points, at, Ks, project(points + at[:, None], Ks)


@given(st.integers(0, 2**16))
def test_exact_pixels_give_the_exact_position(seed):
    torch.manual_seed(seed)
    points, at, Ks, pixels = scene(8)
    assert float((translation(points, pixels, Ks) - at).abs().max()) < 1e-9
    weights = torch.rand(8, 21).double()
    assert float((translation(points, pixels, Ks, weights, steps=0) - at).abs().max()) < 1e-9


def test_float32_is_below_a_millimeter_and_batches_may_have_any_shape():
    points, at, Ks, pixels = scene(6, torch.float32)
    got = translation(points, pixels, Ks)
    assert got.dtype == torch.float32 and float((got - at).abs().max()) < 1e-3
    many = translation(*(value.unflatten(0, (2, 3)) for value in (points, pixels, Ks)))
    torch.testing.assert_close(many.flatten(0, 1), got)
    torch.testing.assert_close(translation(points[0], pixels[0], Ks[0]), got[0])
    assert translation(points[:0], pixels[:0], Ks[:0]).shape == (0, 3)


def test_the_error_grows_with_noise_as_predicted():
    """Of least squares: covariance sigma^2 (J^T J)^-1."""
    torch.manual_seed(1)
    points = 0.05 * torch.randn(21, 3, dtype=torch.float64)
    at = torch.tensor([0.05, -0.1, 0.6], dtype=torch.float64)
    K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=torch.float64)
    slopes = torch.func.jacrev(lambda t: project((points + t)[None], K[None])[0].flatten())(at)
    covariance = torch.linalg.inv(slopes.T @ slopes)
    many = 4000
    for sigma in (0.5, 2.0):
        pixels = project((points + at)[None], K[None]) + sigma * torch.randn(many, 21, 2, dtype=torch.float64)
        errors = translation(points.expand(many, -1, -1), pixels, K.expand(many, 3, 3)) - at
        spread = errors.square().mean(0).sqrt()
        torch.testing.assert_close(spread, sigma * covariance.diagonal().sqrt(), rtol=0.06, atol=0)


def test_the_last_steps_minimize_the_error_in_pixels():
    torch.manual_seed(2)
    points, _, Ks, pixels = scene(20)
    pixels = pixels + 3 * torch.randn_like(pixels)
    weights = torch.rand(20, 21).double()

    def error(t):
        return (weights * (project(points + t[:, None], Ks) - pixels).square().sum(-1)).sum(-1)

    first, last = (translation(points, pixels, Ks, weights, steps=steps) for steps in (0, 8))
    assert bool((error(last) <= error(first)).all())
    t = last.clone().requires_grad_()
    assert float(torch.autograd.grad(error(t).sum(), t)[0].abs().max()) < 1e-2
    assert float((translation(points, pixels, Ks, weights) - last).norm(dim=1).median()) < 1e-4


def test_a_larger_hand_is_farther_away():
    points, at, Ks, pixels = scene(5)
    torch.testing.assert_close(translation(1.1 * points, pixels, Ks), 1.1 * at)


def test_points_without_weight_do_not_count():
    points, at, Ks, pixels = scene(4)
    pixels[:, 15:] += 300
    weights = (torch.arange(21) < 15).double().expand(4, -1)
    torch.testing.assert_close(translation(points, pixels, Ks, weights), at)


def test_gradients():
    points, _, Ks, pixels = scene(2)
    pixels = (pixels + torch.randn_like(pixels)).requires_grad_()
    weights = (torch.rand(2, 21).double() + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, x, w: translation(p, x, Ks, w), (points.requires_grad_(), pixels, weights))


@pytest.mark.parametrize("name", ["points", "pixels", "weights"])
def test_nan_gives_nan_in_its_row(name):
    points, at, Ks, pixels = scene(3)
    values = {"points": points, "pixels": pixels, "weights": torch.ones(3, 21).double()}
    values[name].view(3, -1)[1, 5] = torch.nan
    got = translation(values["points"], values["pixels"], Ks, values["weights"])
    assert bool(got[1].isnan().all())
    torch.testing.assert_close(got[[0, 2]], at[[0, 2]])


def test_undetermined_positions_are_nan():
    points, _, Ks, pixels = scene(3)
    weights = torch.zeros(3, 21).double()
    weights[1:, 4] = 1
    weights[2, 5] = 1
    got = translation(points, pixels, Ks, weights)
    assert bool(got[:2].isnan().all() & got[2].isfinite().all())


@pytest.mark.parametrize(
    "K",
    [
        [[0.0, 0, 320], [0, 600, 240], [0, 0, 1]],
        [[600.0, 0, 320], [0, 0, 240], [0, 0, 1]],
        [[600.0, 0, 320], [0, 600, 240], [0, 0, 0]],
        [[math.nan, 0, 320], [0, 600, 240], [0, 0, 1]],
        [[600.0, 600, 320], [600, 600, 240], [0, 0, 1]],
    ],
)
def test_singular_intrinsics_are_refused(K):
    points, _, Ks, pixels = scene(2)
    Ks = Ks.clone()
    Ks[1] = torch.tensor(K)
    with pytest.raises(InputError, match=r"intrinsics: got \[\[.*, which is singular; want \[\[fx, s, cx\], \[0, fy, cy\]"):
        translation(points, pixels, Ks)


def test_shapes_are_checked():
    points, _, Ks, pixels = scene(2)
    with pytest.raises(ShapeError, match=r"pixels: got shape \(2, 20, 2\), want \(..., P, 2\) for points \(2, 21, 3\)"):
        translation(points, pixels[:, :20], Ks)
    with pytest.raises(ShapeError, match=r"weights: got shape \(2, 20\), want \(2, 21\), one for each point"):
        translation(points, pixels, Ks, torch.ones(2, 20))
