"""Features at points of an upsampled map, against the whole map."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from vision3d.core.errors import InputError, ShapeError
from vision3d.stages.hand.network.sampling import full_expansion, sampled_expansion


def values(images=2, height=3, width=4, c_in=5, c_out=6, points=7, step=4, dtype=torch.float64, spread=1.4):
    generator = torch.Generator().manual_seed(0)
    shapes = [(images, height, width, c_in), (step**2, c_in, c_out), (c_out,), (height * width * step**2, c_out)]
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    places = 0.5 + spread * (torch.rand(images, points, 2, generator=generator, dtype=torch.float64) - 0.5)
    return [value.to(dtype) for value in (*made, places)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"images": 1, "height": 7, "width": 7, "c_in": 128, "c_out": 256, "points": 21},
        {"height": 1, "width": 1, "step": 1},
        {"step": 2, "c_out": 37, "points": 100},
        {"images": 3, "c_out": 80, "points": 1, "step": 5},
        {"points": 0},
        {"images": 0},
    ],
)
def test_it_is_that_of_the_whole_map(isa, sizes, dtype):
    inputs = values(**sizes, dtype=dtype)
    got, want = sampled_expansion(*inputs), full_expansion(*(value.double() for value in inputs))
    scale = max(1.0, float(want.abs().max()) if want.numel() else 0)
    assert got.shape == want.shape and got.dtype == dtype
    assert torch.allclose(got.double(), want, rtol=0, atol=scale * (2e-6 if dtype == torch.float32 else 1e-12))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 20))
def test_it_is_that_of_the_whole_map_for_any_sizes(height, width, step, points):
    inputs = values(height=height, width=width, step=step, points=points)
    assert torch.allclose(sampled_expansion(*inputs), full_expansion(*inputs), atol=1e-12)


def test_a_point_at_a_texel_has_its_value():
    features, weights, shift, positions, _ = values(images=1, height=2, width=2)
    places = torch.tensor([[[2 / 7, 5 / 7]]], dtype=torch.float64)  # texel x 2, y 5: place 2 + 4 * 1 of cell (0, 1)
    want = torch.relu(features[0, 1, 0] @ weights[4 * 1 + 2] + shift) + positions[5 * 8 + 2]
    assert torch.allclose(sampled_expansion(features, weights, shift, positions, places)[0, 0], want)


def test_gradients_are_those_of_the_whole_map():
    inputs = [
        value.requires_grad_() for value in values(images=1, height=2, width=2, c_in=2, c_out=2, points=3, step=2, spread=0.9)
    ]
    assert torch.autograd.gradcheck(sampled_expansion, inputs)


def test_results_do_not_depend_on_strides_and_threads(isa):
    inputs = values(images=2, c_in=16, c_out=128, points=21, dtype=torch.float32)
    strided = [value.transpose(0, -1).contiguous().transpose(0, -1) for value in inputs]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        want = sampled_expansion(*inputs)
        torch.set_num_threads(2)
        assert torch.equal(sampled_expansion(*strided), want)
    finally:
        torch.set_num_threads(threads)


def test_nan_stays_nan():
    inputs = values(images=2, dtype=torch.float32)
    inputs[-1][0, 3, 1] = torch.nan
    out = sampled_expansion(*inputs)
    assert bool(out[0, 3].isnan().all()) and int(out.isnan().sum()) == out.shape[2]
    inputs = values(images=2, dtype=torch.float32)
    inputs[0][1, ..., 2] = torch.nan
    out = sampled_expansion(*inputs)
    assert bool(out[1].isnan().all()) and not bool(out[0].isnan().any())


def test_wrong_shapes_are_named():
    features, weights, shift, positions, places = values()
    with pytest.raises(InputError, match="weights: got 15 places in a cell, want a square"):
        sampled_expansion(features, weights[:15], shift, positions, places)
    with pytest.raises(ShapeError, match=r"positions: got shape \(191, 6\)"):
        sampled_expansion(features, weights, shift, positions[1:], places)
    with pytest.raises(InputError, match="features: got a map of 0 x 4 cells, want at least one"):
        sampled_expansion(features[:, :0], weights, shift, positions[:0], places)
