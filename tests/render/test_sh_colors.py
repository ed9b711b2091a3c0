import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

from tests.support.band import assert_same_gradients
from tests.support.gaussians import cameras, random_gaussians, random_sh
from vision3d.render.splats.kernels import kernels


def ids(count: int, num_cameras: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every third (camera, Gaussian) pair of one scene."""
    pairs = torch.arange(0, count * num_cameras, 3)
    return torch.zeros_like(pairs), pairs // count, pairs % count


def real_harmonic(degree: int, order: int, directions: np.ndarray) -> np.ndarray:
    """From scipy's complex harmonics, with the sign convention of Gaussian scenes: band 1 is (-y, z, -x)."""
    polar, azimuth = np.arccos(directions[:, 2]), np.arctan2(directions[:, 1], directions[:, 0])
    value = scipy.special.sph_harm_y(degree, abs(order), polar, azimuth)  # includes (-1)^m
    if order == 0:
        return value.real
    return np.sqrt(2) * (value.imag if order < 0 else value.real)


@pytest.mark.parametrize("degree", range(5))
def test_colors_are_the_real_harmonics_in_the_direction_from_the_camera(backend, degree):
    g, sh = random_gaussians(40), random_sh(40, degree)
    viewmats, _ = cameras(3, 32, 32)
    batch, camera, gaussian = ids(40, 3)
    got = kernels(backend).sh_colors(g["means"][None], sh[None], viewmats[None], batch, camera, gaussian, degree)
    centers = torch.linalg.inv(viewmats.double())[:, :3, 3]
    directions = torch.nn.functional.normalize(g["means"].double()[gaussian] - centers[camera], dim=-1).numpy()
    orders = [(l, m) for l in range(degree + 1) for m in range(-l, l + 1)]
    basis = np.stack([real_harmonic(l, m, directions) for l, m in orders], -1)
    want = np.maximum(np.einsum("pk,pkc->pc", basis, sh[gaussian].double().numpy()) + 0.5, 0)
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_active_degree_reads_only_its_coefficients(backend):
    g, sh = random_gaussians(10), random_sh(10, 3)
    viewmats, _ = cameras(2, 32, 32)
    pairs = ids(10, 2)
    low = kernels(backend).sh_colors(g["means"][None], sh[None], viewmats[None], *pairs, 1)
    cut = kernels(backend).sh_colors(g["means"][None], sh[None, :, :4], viewmats[None], *pairs, 1)
    torch.testing.assert_close(low, cut, atol=0, rtol=0)
    full = kernels(backend).sh_colors(g["means"][None], sh[None], viewmats[None], *pairs, 3)
    assert (full - low).abs().max() > 0.05


def test_coefficients_may_differ_between_cameras(backend):
    g = random_gaussians(10)
    sh = torch.stack([random_sh(10, 2, seed=seed) for seed in range(2)])
    viewmats, _ = cameras(2, 32, 32)
    batch, camera, gaussian = ids(10, 2)
    got = kernels(backend).sh_colors(g["means"][None], sh[None], viewmats[None], batch, camera, gaussian, 2)
    for c in range(2):
        one = camera == c
        view = viewmats[None, c : c + 1]
        want = kernels(backend).sh_colors(g["means"][None], sh[None, c], view, batch[one], batch[one], gaussian[one], 2)
        torch.testing.assert_close(got[one], want, atol=1e-6, rtol=1e-6)


def test_dark_colors_are_zero_without_gradient(backend):
    means, sh = torch.tensor([[[0.0, 0, 1]]]), torch.tensor([[[[-3.0, 0.1, -3.0]]]], requires_grad=True)
    zero = torch.zeros(1, dtype=torch.int64)
    color = kernels(backend).sh_colors(means, sh, torch.eye(4)[None, None], zero, zero, zero, 0)
    color.sum().backward()
    assert color[0, 0] == color[0, 2] == 0
    torch.testing.assert_close(sh.grad.flatten(), torch.tensor([0, 0.28209479, 0]))


@pytest.mark.parametrize("degree", range(5))
def test_gradcheck(degree):
    g, sh = random_gaussians(4, dtype=torch.float64), random_sh(4, degree, dtype=torch.float64)
    viewmats, _ = cameras(2, 32, 32, dtype=torch.float64)
    pairs = ids(4, 2)

    def colors(means: Tensor, sh: Tensor, viewmats: Tensor) -> Tensor:
        return kernels("reference").sh_colors(means[None], sh[None], viewmats[None], *pairs, degree)

    inputs = [tensor.requires_grad_() for tensor in (g["means"], sh, viewmats)]
    assert (colors(*inputs) > 0.01).all()  # not clamped
    assert torch.autograd.gradcheck(colors, inputs, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("degree", range(5))
def test_single_precision_gradients_agree_with_double(backend, degree):
    viewmats, _ = cameras(3, 32, 32)
    pairs = ids(200, 3)
    weights = torch.randn(len(pairs[0]), 3)

    def gradients(dtype: torch.dtype, backend: str) -> dict[str, Tensor]:
        means = random_gaussians(200)["means"].to(dtype).requires_grad_()
        sh = random_sh(200, degree).to(dtype).requires_grad_()
        views = viewmats.to(dtype, copy=True).requires_grad_()
        out = kernels(backend).sh_colors(means[None], sh[None], views[None], *pairs, degree)
        grads = torch.autograd.grad((out * weights).sum(), (means, sh, views), materialize_grads=True)
        return dict(zip(("means", "sh", "viewmats"), grads))

    assert_same_gradients(gradients(torch.float32, backend), gradients(torch.float64, "reference"))
