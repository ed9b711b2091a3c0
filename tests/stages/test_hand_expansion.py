"""The expansion block of the hand network, whole and only around points."""

import math

import pytest
import torch

from tests.support.hands import shake
from vision3d.core.errors import ConfigError, ShapeError
from vision3d.stages.hand.network import sampling
from vision3d.stages.hand.network.expansion import Expansion, SampledExpansion, sine_positions
from vision3d.stages.hand.network.sampling import sample_map


def sampled_expansion(features, weight, scale, shift, positions, uv):
    """The operation with the arguments of a convolution and a norm."""
    weights = weight.permute(2, 3, 0, 1).flatten(0, 1) * scale
    return sampling.sampled_expansion(features.permute(0, 2, 3, 1), weights, shift, positions.flatten(1).T, uv)


def explicit_expansion(features, weight, scale, shift, positions):
    """The feature map as loops over texels."""
    image = torch.zeros(len(features), *positions.shape, dtype=features.dtype)
    for y in range(positions.shape[1]):
        for x in range(positions.shape[2]):
            texel = features[:, :, y // 4, x // 4] @ weight[:, :, y % 4, x % 4]
            image[:, :, y, x] = torch.relu(texel * scale + shift) + positions[:, y, x]
    return image


def expansion_arguments(height, width, points=21, inputs=6, outputs=8, dtype=torch.float64, batch=2):
    return (
        torch.randn(batch, inputs, height, width, dtype=dtype),
        torch.randn(inputs, outputs, 4, 4, dtype=dtype),
        torch.rand(outputs, dtype=dtype) + 0.5,
        torch.randn(outputs, dtype=dtype),
        torch.randn(outputs, 4 * height, 4 * width, dtype=dtype),
        2 * torch.rand(batch, points, 2, dtype=dtype) - 0.5,
    )


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 7), (5, 5), (2, 9)])
@pytest.mark.parametrize("points", [0, 1, 21, 101])
def test_sampled_expansion_is_the_map_at_the_points(height, width, points):
    *parts, uv = expansion_arguments(height, width, points)
    want = sample_map(explicit_expansion(*parts), uv)
    torch.testing.assert_close(sampled_expansion(*parts, uv), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduce", [0, 128])
@pytest.mark.parametrize("size", [4, 5, 7])
def test_sampled_expansion_of_the_real_size(reduce, size):
    block = Expansion(576, 256, reduce)
    shake(block)
    block.eval()
    features, uv = torch.randn(2, 576, size, size), 1.4 * torch.rand(2, 21, 2) - 0.2
    with torch.no_grad():
        got, want = SampledExpansion(block).tokens(features, uv), block.tokens(features, uv)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_sampled_expansion_at_the_corners_and_between_texels():
    *parts, _ = expansion_arguments(2, 3)
    image = explicit_expansion(*parts)
    places = [[0, 0], [1, 0], [0, 1], [1, 1], [-3, 0], [7, 9], [0.5 / 11, 0], [3 / 11, 6.5 / 7]]
    uv = torch.tensor(places, dtype=torch.float64).expand(2, -1, -1)
    got = sampled_expansion(*parts, uv)
    texels = [(0, 0), (0, 11), (7, 0), (7, 11), (0, 0), (7, 11)]
    for point, (row, column) in enumerate(texels):
        torch.testing.assert_close(got[:, point], image[:, :, row, column])
    torch.testing.assert_close(got[:, 6], (image[:, :, 0, 0] + image[:, :, 0, 1]) / 2)
    torch.testing.assert_close(got[:, 7], (image[:, :, 6, 3] + image[:, :, 7, 3]) / 2)


def test_sampled_expansion_of_nan_and_infinity():
    *parts, uv = expansion_arguments(3, 3)
    uv[0, 4, 1], uv[1, 2] = torch.nan, torch.tensor([torch.inf, -torch.inf])
    got, want = sampled_expansion(*parts, uv), sample_map(explicit_expansion(*parts), uv)
    for found in (got, want):
        assert bool(found[0, 4].isnan().all()) and int(found.isnan().sum()) == found.shape[2]
    torch.testing.assert_close(got, want, equal_nan=True)
    with pytest.raises(ShapeError, match=r"positions: got shape \(144, 8\)"):
        sampled_expansion(torch.randn(1, 6, 3, 4).double(), *parts[1:], uv)


def test_sampled_expansion_has_the_gradient_of_the_map():
    *parts, uv = expansion_arguments(2, 2, points=5, inputs=3, outputs=4)
    values = [value.requires_grad_() for value in (*parts[:4], uv)]
    v = torch.randn(2, 5, 4, dtype=torch.float64)
    got = torch.autograd.grad((sampled_expansion(*values[:4], parts[4], uv) * v).sum(), values)
    want = torch.autograd.grad((sample_map(explicit_expansion(*values[:4], parts[4]), uv) * v).sum(), values)
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(lambda *args: sampled_expansion(*args, parts[4], uv.detach()), values[:4])


def test_sampled_expansion_needs_all_texels_for_coordinate_attention():
    with pytest.raises(ConfigError, match="coordinate_attention: got True, want False"):
        SampledExpansion(Expansion(4, 8, attention=True))


def test_positions_are_sines_of_rows_and_columns():
    found = sine_positions(5, 7, 16)
    assert found.shape == (16, 5, 7)
    for channel, position, total in ((0, 3, 5), (8, 6, 7)):
        angle = 2 * math.pi * position / total
        pair = found[channel : channel + 2, position - 1, 0] if channel == 0 else found[channel : channel + 2, 0, position - 1]
        assert pair.tolist() == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)
    assert float(found[2, 1, 0]) == pytest.approx(math.sin(2 * math.pi * 2 / 5 / 10), abs=1e-6)  # 10000^(2 / 8) = 10
    assert not bool((found[:8] - found[:8, :, :1]).any()) and not bool((found[8:] - found[8:, :1]).any())
    rows = sine_positions(9, 9, 256).flatten(1).T
    assert float(torch.cdist(rows, rows).fill_diagonal_(1).min()) > 0.1
