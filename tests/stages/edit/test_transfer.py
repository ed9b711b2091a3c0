"""Residual transfer: what is unchanged, what detail keeps, how tints are mapped."""

import torch

from vision3d.scene.lab import lab_to_srgb, srgb_to_lab
from vision3d.stages.edit.transfer import Transfer


def textured(count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth colors as planes hold them, and the object's own with fine detail."""
    generator = torch.Generator().manual_seed(0)
    lab = torch.tensor([55.0, 10, -20]) + torch.randn(count, 3, generator=generator) * torch.tensor([4.0, 3, 3])
    fine = lab + torch.randn(count, 3, generator=generator) * torch.tensor([5.0, 2, 2])
    return lab_to_srgb(lab).clamp(0, 1), lab_to_srgb(fine).clamp(0, 1)


def test_planes_that_do_not_change_change_nothing():
    smooth, own = textured()
    assert torch.allclose(Transfer.of(smooth, smooth).apply(own), own, atol=2e-5)


def test_a_darker_object_keeps_its_relative_contrast():
    smooth, own = textured()
    lab = srgb_to_lab(smooth)
    darker = lab_to_srgb(torch.cat([0.5 * lab[:, :1], lab[:, 1:]], 1))
    before, after = srgb_to_lab(own)[:, 0], srgb_to_lab(Transfer.of(smooth, darker).apply(own))[:, 0]
    residual_before = (before - lab[:, 0]) / before.mean()
    residual_after = (after - 0.5 * lab[:, 0]) / after.mean()
    assert float(residual_after.std() / residual_before.std()) > 0.95
    assert float(residual_after.std() / residual_before.std()) < 1.05


def test_a_gray_object_has_no_colored_detail():
    smooth, own = textured()
    lab = srgb_to_lab(smooth)
    gray = lab_to_srgb(torch.cat([lab[:, :1], 0 * lab[:, 1:]], 1))
    chroma = torch.linalg.vector_norm(srgb_to_lab(Transfer.of(smooth, gray).apply(own))[:, 1:], dim=1)
    assert float(chroma.mean()) < 0.35 * float(torch.linalg.vector_norm(srgb_to_lab(own)[:, 1:], dim=1).std() + 2.5)


def test_an_edit_of_one_half_keeps_the_tints_of_the_other():
    smooth, own = textured()
    changed = smooth.clone()
    changed[::2] = torch.tensor([0.8, 0.1, 0.1])
    result = Transfer.of(smooth, changed).apply(own)
    lab = srgb_to_lab(own)
    assert torch.allclose(srgb_to_lab(result)[1::2], lab[1::2], atol=0.05)
    assert not torch.allclose(srgb_to_lab(result)[::2], lab[::2], atol=5)


def test_the_slope_is_the_derivative():
    smooth, own = (value[:20].double() for value in textured(40))
    red = smooth * torch.tensor([1.0, 0.3, 0.3], dtype=torch.float64)
    transfer = Transfer.of(smooth, red)
    own = own.clamp(0.1, 0.9).requires_grad_(True)
    rows = [torch.autograd.grad(transfer.apply(own)[:, i].sum(), own, retain_graph=True)[0] for i in range(3)]
    assert torch.allclose(transfer.slope(own.detach()), torch.stack(rows, 1), atol=0.05)


def test_black_and_white_do_not_blow_up():
    ends = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]])
    result = Transfer.of(ends, ends.flip(0)).apply(ends)
    assert bool(torch.isfinite(result).all()) and torch.allclose(result, ends.flip(0), atol=1e-4)
