"""Gradients that are sums over all pixels, at photo resolutions."""

import pytest
import torch

from vision3d.core import native
from vision3d.render import meshes, splats

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
SIZES = [pytest.param((1920, 1080), id="1080p"), pytest.param((3840, 2160), id="4K", marks=pytest.mark.slow)]


def error(found, want):
    return float((found.double() - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("function", [splats.rasterize, splats.rasterize_2dgs])
@pytest.mark.parametrize("backend", ["reference", pytest.param("native", marks=needs_native)])
def test_gradient_of_backgrounds(size, function, backend):
    width, height = size
    means, quats = torch.tensor([[0.1, 0.0, 2.0]]), torch.tensor([[1.0, 0, 0, 0]])
    K = torch.tensor([[[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]]])
    cloud = (means, quats, torch.full((1, 3), 0.02), torch.full((1,), 0.7), torch.ones(1, 3), torch.eye(4)[None], K)
    backgrounds = torch.rand(1, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    image, alpha = function(*cloud, width, height, backgrounds=backgrounds, backend=backend)[:2]
    upstream = torch.rand(image.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad(image, backgrounds, upstream)
    want = ((1 - alpha).detach().double() * upstream).sum((1, 2))
    assert error(found, want) < 1e-6


@needs_native
@pytest.mark.parametrize("size", SIZES)
def test_gradient_of_a_texel_that_all_pixels_show(size):
    width, height = size
    texture = torch.rand(1, 1, 3).requires_grad_()
    values = meshes.texture(texture, torch.rand(1, height, width, 2), backend="native")
    upstream = torch.rand(values.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad(values, texture, upstream)
    assert error(found, upstream.double().sum((0, 1, 2))[None, None]) < 1e-6


@needs_native
@pytest.mark.parametrize("size", SIZES)
def test_gradients_of_gaussians_that_fill_the_image(size):
    width, height = size

    def gradients(dtype):
        K = torch.tensor([[[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]]], dtype=dtype)
        means = torch.tensor([[0.1, 0.05, 2.0], [-0.2, 0.1, 2.5]], dtype=dtype)
        quats, scales = torch.tensor([[1.0, 0, 0, 0]] * 2, dtype=dtype), torch.full((2, 3), 3.0, dtype=dtype)
        leaves = [means, scales, torch.tensor([0.5, 0.6], dtype=dtype), means.sigmoid(), torch.eye(4, dtype=dtype)[None]]
        means, scales, opacities, colors, viewmats = (leaf.requires_grad_() for leaf in leaves)
        image, _, _ = splats.rasterize(means, quats, scales, opacities, colors, viewmats, K, width, height, backend="native")
        upstream = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
        return torch.autograd.grad(image, leaves, upstream.to(dtype))

    for found, want in zip(gradients(torch.float32), gradients(torch.float64)):
        assert error(found, want) < 1e-6
