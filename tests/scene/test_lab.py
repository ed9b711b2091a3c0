"""CIE L*a*b* and CIEDE2000."""

import math

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from vision3d.scene.lab import delta_e, lab_to_srgb, srgb_to_lab

COLORS = torch.rand(2000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
lab_values = st.tuples(st.floats(0, 100), st.floats(-100, 100), st.floats(-100, 100))


def by_degrees(first, second):
    """CIEDE2000 of two colors, written from the formula in degrees, one number at a time."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    g = 0.5 * (1 - math.sqrt(mean**7 / (mean**7 + 25.0**7)))
    a1, a2 = a1 * (1 + g), a2 * (1 + g)
    c1, c2 = math.hypot(a1, b1), math.hypot(a2, b2)
    h1, h2 = math.degrees(math.atan2(b1, a1)) % 360, math.degrees(math.atan2(b2, a2)) % 360
    if c1 * c2 == 0:
        turn, hue = 0.0, h1 + h2
    else:
        turn = (h2 - h1 + 180) % 360 - 180
        hue = (h1 + h2) / 2 if abs(h1 - h2) <= 180 else (h1 + h2 + (360 if h1 + h2 < 360 else -360)) / 2
    dh = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2))
    lm, cm = (l1 + l2) / 2, (c1 + c2) / 2

    def cos(x):
        return math.cos(math.radians(x))

    t = 1 - 0.17 * cos(hue - 30) + 0.24 * cos(2 * hue) + 0.32 * cos(3 * hue + 6) - 0.2 * cos(4 * hue - 63)
    sl = 1 + 0.015 * (lm - 50) ** 2 / math.sqrt(20 + (lm - 50) ** 2)
    sc, sh = 1 + 0.045 * cm, 1 + 0.015 * cm * t
    rt = -2 * math.sqrt(cm**7 / (cm**7 + 25.0**7)) * math.sin(math.radians(60 * math.exp(-(((hue - 275) / 25) ** 2))))
    x, y, z = (l2 - l1) / sl, (c2 - c1) / sc, dh / sh
    return math.sqrt(max(x * x + y * y + z * z + rt * y * z, 0))


def test_round_trip():
    torch.testing.assert_close(lab_to_srgb(srgb_to_lab(COLORS)), COLORS, rtol=0, atol=1e-12)


def test_grays_have_no_chroma():
    grays = torch.linspace(0, 1, 11, dtype=torch.float64)[:, None].expand(-1, 3)
    lab = srgb_to_lab(grays)
    assert lab[:, 1:].abs().max() < 1e-10
    linear = ((grays[5, 0] + 0.055) / 1.055) ** 2.4
    torch.testing.assert_close(
        lab[[0, 5, 10], 0], torch.stack([lab.new_zeros(()), 116 * linear ** (1 / 3) - 16, lab.new_tensor(100)])
    )


@hypothesis.given(lab_values, lab_values)
def test_delta_e_is_the_formula(first, second):
    close = abs(abs(math.atan2(first[2], first[1]) - math.atan2(second[2], second[1])) - math.pi) < 1e-6
    hypothesis.assume(not close and all(math.hypot(*color[1:]) > 1e-3 for color in (first, second)))
    found = delta_e(*(torch.tensor(color, dtype=torch.float64) for color in (first, second)))
    assert float(found) == pytest.approx(by_degrees(first, second), rel=2e-3, abs=1e-3)


def test_delta_e_of_grays_is_the_weighted_lightness():
    first, second = torch.tensor([40.0, 0, 0]), torch.tensor([60.0, 0, 0])
    assert float(delta_e(first, second)) == pytest.approx(20, rel=1e-5)  # the mean is 50, where the weight is 1
    assert float(delta_e(first, first)) == pytest.approx(0, abs=1e-6)


def test_delta_e_is_symmetric():
    lab = srgb_to_lab(COLORS)
    torch.testing.assert_close(delta_e(lab[:1000], lab[1000:]), delta_e(lab[1000:], lab[:1000]))


def test_gradients():
    lab = srgb_to_lab(COLORS[:8]).requires_grad_()
    goal = srgb_to_lab(COLORS[8:16])
    assert torch.autograd.gradcheck(lambda x: delta_e(x, goal), lab)
    assert torch.autograd.gradcheck(lab_to_srgb, lab)
    same = goal.clone().requires_grad_()
    delta_e(same, goal).sum().backward()
    assert same.grad is not None and same.grad.isfinite().all()
    grays = torch.full((2, 3), 0.5, requires_grad=True)
    srgb_to_lab(grays).sum().backward()
    assert grays.grad is not None and grays.grad.isfinite().all()


def test_same_as_scikit_image():
    color = pytest.importorskip("skimage.color")
    lab = srgb_to_lab(COLORS)
    torch.testing.assert_close(lab, torch.from_numpy(color.rgb2lab(COLORS.numpy())), rtol=0, atol=0.05)
    want = torch.from_numpy(color.deltaE_ciede2000(lab[:1000].numpy(), lab[1000:].numpy()))
    torch.testing.assert_close(delta_e(lab[:1000], lab[1000:]), want, rtol=2e-3, atol=1e-3)
