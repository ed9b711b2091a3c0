import math

import pytest
import torch

from vision3d.core.errors import ShapeError
from vision3d.optim import metrics

torchmetrics = pytest.importorskip("torchmetrics.functional.image")


def images(*shape):
    a = torch.rand(shape)
    return a, (a + 0.1 * torch.randn_like(a)).clamp(0, 1)


def channels_first(image):
    return image.movedim(-1, 1)


def test_psnr_against_torchmetrics_and_the_closed_form():
    a, b = images(2, 30, 40, 3)
    want = torchmetrics.peak_signal_noise_ratio(channels_first(b), channels_first(a), data_range=1.0)
    assert metrics.psnr(a, b) == pytest.approx(want.item(), abs=1e-4)
    assert metrics.psnr(a, a) == math.inf
    assert metrics.psnr(torch.zeros(3, 3, 3), torch.full((3, 3, 3), 5.0)) == 0  # clamped to 1 first
    mask = torch.zeros(2, 30, 40, dtype=torch.bool)
    mask[0, :10] = True
    assert metrics.psnr(a, b, mask) == pytest.approx(metrics.psnr(a[0, :10], b[0, :10]))


def test_ssim_against_torchmetrics_without_its_padded_border():
    a, b = images(2, 40, 51, 3)
    _, full = torchmetrics.structural_similarity_index_measure(
        channels_first(b), channels_first(a), data_range=1.0, return_full_image=True
    )
    assert metrics.ssim(a, b) == pytest.approx(full[..., 5:-5, 5:-5].mean().item(), abs=2e-6)
    assert metrics.ssim(a, a) == pytest.approx(1, abs=1e-6)


def test_ms_ssim_against_torchmetrics_scale_by_scale():
    a, b = images(2, 181, 200, 3)
    x, y = channels_first(a), channels_first(b)
    want = torch.ones(2)
    for scale, weight in enumerate(metrics.MS_SSIM_WEIGHTS):
        if scale:
            x, y = torch.nn.functional.avg_pool2d(x, 2), torch.nn.functional.avg_pool2d(y, 2)
        options = {"data_range": 1.0, "reduction": "none"}
        _, contrast = torchmetrics.structural_similarity_index_measure(x, y, return_contrast_sensitivity=True, **options)
        if scale == 4:
            _, full = torchmetrics.structural_similarity_index_measure(x, y, return_full_image=True, **options)
            contrast = full[..., 5:-5, 5:-5].mean((1, 2, 3))
        want *= contrast**weight
    assert metrics.ms_ssim(a, b) == pytest.approx(want.mean().item(), abs=1e-5)
    assert metrics.ms_ssim(a[0], a[0]) == pytest.approx(1, abs=1e-5)


def test_ms_ssim_names_its_minimum():
    a = torch.rand(175, 300, 3)
    with pytest.raises(ShapeError, match="image: got 175x300 pixels, want at least 176x176"):
        metrics.ms_ssim(a, a)
    a = torch.rand(176, 176, 3)
    assert metrics.ms_ssim(a, a) == pytest.approx(1, abs=1e-5)


def test_iou_of_masks():
    full, none = torch.ones(2, 3, 3, dtype=torch.bool), torch.zeros(2, 3, 3, dtype=torch.bool)
    half = full.clone()
    half[0] = False
    assert metrics.mask_iou(none, none) == 1 and metrics.mask_iou(full, none) == 0
    assert metrics.mask_iou(full, half) == metrics.mask_iou(half, full) == 0.5
