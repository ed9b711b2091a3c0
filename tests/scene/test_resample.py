import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from vision3d.core.errors import InputError
from vision3d.scene.resample import resize_area, sample, shrink_mask


def area_means(values, target):
    """Exact box averages of a piecewise constant row, by its integral."""
    source = len(values)
    integral = np.concatenate([[0], np.cumsum(values)])
    edges = np.interp(np.arange(target + 1) * source / target, np.arange(source + 1), integral)
    return np.diff(edges) * target / source


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30))
def test_resize_area_is_the_integral_over_each_pixel(source, target):
    row = np.random.default_rng(source * 31 + target).random(source)
    image = torch.from_numpy(np.outer(row, row))[..., None]
    expected = np.outer(area_means(row, target), area_means(row, target))
    np.testing.assert_allclose(resize_area(image, target, target)[..., 0].numpy(), expected, atol=1e-12)


def test_resize_area_keeps_the_mean_and_the_channels():
    image = torch.rand(31, 45, 3)
    small = resize_area(image, 7, 11)
    assert small.shape == (11, 7, 3)
    torch.testing.assert_close(small.mean((0, 1)), image.mean((0, 1)), atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="0x5"):
        resize_area(image, 0, 5)


def test_sample_at_pixel_centers_is_the_image():
    image = torch.rand(9, 7, 3)
    rows, columns = torch.meshgrid(torch.arange(9) + 0.5, torch.arange(7) + 0.5, indexing="ij")
    torch.testing.assert_close(sample(image, torch.stack([columns, rows], -1)), image, atol=1e-5, rtol=0)


def test_sample_reads_a_ramp_between_pixels():
    image = (torch.arange(20.0) / 20).expand(9, 20)[..., None]
    places = torch.tensor([[[5.75, 4.0], [11.2, 3.3]]])
    expected = (places[..., 0] - 0.5) / 20
    # torch's cubic kernel (a = -0.75) is off by up to 0.047 px on a ramp of slope 1/20.
    torch.testing.assert_close(sample(image, places)[..., 0], expected, atol=0.047 / 20, rtol=0)


def test_shrink_mask_sets_only_fully_covered_pixels():
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[0, 0] = False
    assert shrink_mask(mask, 3, 2).tolist() == [[False, True, True], [True, True, True]]
