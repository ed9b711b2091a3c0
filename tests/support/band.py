"""Image comparison that tolerates pixels at the hard thresholds of blending.

Blending skips alpha below 1/255, clamps it at alpha_max and stops a pixel at a transmittance of 1e-4. Correct implementations
round differently, so a pixel within rounding of a threshold may differ by a whole step. Such pixels are rare; all others must
agree tightly.
"""

import torch
from torch import Tensor


def assert_close_outside_band(
    got: Tensor, want: Tensor, *, atol: float = 1e-5, band: float = 1e-4, band_atol: float = 0.05, what: str = "image"
) -> None:
    """Fails unless all but a fraction `band` of the pixels agree within `atol`, and those within `band_atol`.

    Args:
        got: (..., H, W, D), or (..., H, W) when D would be 1 and `want` has the same shape.
        want: Same shape.
        band: Fraction of the pixels that may exceed `atol`; less than one pixel means none.
        band_atol: Maximum difference of these: alpha 1/255 with a color of 1 is 0.004, a whole last layer more.
    """
    assert got.shape == want.shape, f"{what}: got shape {tuple(got.shape)}, want {tuple(want.shape)}"
    if got.numel() == 0:
        return
    difference = (got.detach().double() - want.detach().double()).abs()
    assert bool(torch.isfinite(difference).all()), f"{what}: not finite"
    pixels = difference.amax(-1) if difference.dim() > 2 and difference.shape[-1] <= 64 else difference
    flips = int((pixels > atol).sum())
    allowed = int(band * pixels.numel())
    worst = float(pixels.detach().max())
    text = f"{what}: {flips} of {pixels.numel()} pixels differ by more than {atol:g} (allowed {allowed})"
    text += f", worst {worst:.3g}"
    assert flips <= allowed, text
    assert worst <= band_atol, text


def cosine(got: Tensor, want: Tensor) -> float:
    """Cosine of the angle between two gradients, in double precision; 1 when both are zero."""
    a, b = got.detach().double().flatten(), want.detach().double().flatten()
    if not a.any() and not b.any():
        return 1.0
    return float(a @ b / (a.norm() * b.norm()).clamp(min=1e-300))


def assert_same_gradients(got: dict[str, Tensor], want: dict[str, Tensor], least: float = 0.99999) -> None:
    """Fails unless each named gradient has the same direction (cosine) and length (1e-3), separately for each name."""
    assert got.keys() == want.keys()
    for name in got:
        similarity = cosine(got[name], want[name])
        assert similarity >= least, f"gradient of {name}: cosine {similarity:.7f}, want >= {least}"
        ratio = float(got[name].double().norm() / want[name].double().norm().clamp(min=1e-300))
        assert abs(ratio - 1) < 1e-3 or not want[name].any(), f"gradient of {name}: {ratio:.5f} times as long"
