"""Detail that an edit keeps."""

import math

import pytest
import torch

from vision3d.core.errors import ShapeError
from vision3d.scene.lab import lab_to_srgb, srgb_to_lab
from vision3d.stages.edit.evaluation.detail import detail_kept


def texture(contrast=1.0, tint=0.0, light=50.0):
    noise = torch.rand(24, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    lab = torch.stack([light * (1 + 0.4 * contrast * noise), tint * torch.ones_like(noise), -tint * torch.ones_like(noise)], -1)
    return lab_to_srgb(lab)


def test_energy_is_relative_to_the_lightness():
    before = texture()
    assert detail_kept(before, before).energy == pytest.approx(1)
    assert detail_kept(before, texture(tint=12)).energy == pytest.approx(1, abs=1e-3)
    assert detail_kept(before, texture(light=30.0)).energy == pytest.approx(1, abs=1e-3)
    assert detail_kept(before, texture(contrast=0.5)).energy == pytest.approx(0.25, abs=2e-3)
    assert detail_kept(before, texture(contrast=0.0)).energy == pytest.approx(0, abs=1e-6)
    assert detail_kept(before, before).clipped == 0


def test_clipped_and_unused_texels_do_not_count():
    before, after = texture(), texture(contrast=0.5)
    after[:6] = 1.0
    found = detail_kept(before, after)
    assert found.clipped == pytest.approx(6 / 24)
    assert found.energy == pytest.approx(0.25, rel=0.05)
    used = torch.ones(24, 32, dtype=torch.bool)
    used[:6] = False
    found = detail_kept(before, after, used)
    assert found.clipped == 0 and found.energy == pytest.approx(0.25, rel=0.05)


def test_plain_textures_have_no_detail():
    plain = torch.full((8, 8, 3), 0.5)
    assert math.isnan(detail_kept(plain, plain).energy)
    assert srgb_to_lab(plain).isfinite().all()
    with pytest.raises(ShapeError):
        detail_kept(plain, plain[:4])
