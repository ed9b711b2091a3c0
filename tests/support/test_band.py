import pytest
import torch

from tests.support.band import assert_close_outside_band, assert_same_gradients, cosine


def images() -> tuple[torch.Tensor, torch.Tensor]:
    want = torch.rand(1, 100, 100, 3, generator=torch.Generator().manual_seed(0))
    return want.clone(), want


def test_rounding_passes_and_a_small_shift_of_all_pixels_fails():
    got, want = images()
    assert_close_outside_band(got + 5e-6, want)
    with pytest.raises(AssertionError, match=r"10000 of 10000 pixels differ by more than 1e-05 \(allowed 1\)"):
        assert_close_outside_band(got + 2e-5, want)


def test_one_pixel_in_ten_thousand_may_flip_and_two_may_not():
    got, want = images()
    got[0, 3, 4] += 0.004
    assert_close_outside_band(got, want)
    got[0, 50, 60, 1] -= 0.004
    with pytest.raises(AssertionError, match="2 of 10000 pixels"):
        assert_close_outside_band(got, want)


def test_small_images_have_no_band():
    got, want = images()
    got[0, 3, 4] += 0.004
    with pytest.raises(AssertionError, match="allowed 0"):
        assert_close_outside_band(got[:, :50, :50], want[:, :50, :50])


def test_a_flip_does_not_hide_a_wrong_pixel():
    got, want = images()
    got[0, 3, 4] += 0.2
    with pytest.raises(AssertionError, match=r"worst 0\.2"):
        assert_close_outside_band(got, want)


def test_nan_and_shapes_are_checked():
    got, want = images()
    with pytest.raises(AssertionError, match="shape"):
        assert_close_outside_band(got[..., :2], want)
    got[0, 0, 0, 0] = torch.nan
    with pytest.raises(AssertionError, match="not finite"):
        assert_close_outside_band(got, want)


def test_gradients_are_compared_by_direction_and_length_for_each_name():
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert cosine(a, 3 * a) == pytest.approx(1)
    assert cosine(torch.zeros(3), torch.zeros(3)) == 1
    assert_same_gradients({"x": a, "y": torch.zeros(2)}, {"x": a * 1.0001, "y": torch.zeros(2)})
    with pytest.raises(AssertionError, match="gradient of x: cosine"):
        assert_same_gradients({"x": a, "y": b}, {"x": a + 0.1 * b, "y": b})
    with pytest.raises(AssertionError, match=r"gradient of y: 2\.0"):
        assert_same_gradients({"x": a, "y": 2 * b}, {"x": a, "y": b})
