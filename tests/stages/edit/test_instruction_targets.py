"""Edits and their targets in closed form."""

import math

import pytest
import torch

from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.scene.lab import delta_e, lab_to_srgb, srgb_to_lab
from vision3d.stages.edit.instructions import families, patterns
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.instructions.targets import apply_edit, apply_edits, part_weight

TEXEL = 2 / 64


def sphere(count=4000, seed=0):
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return points / points.norm(dim=-1, keepdim=True)


def shaded(positions, lightness=55.0, chroma=30.0, hue=0.6):
    """Colors of one hue with detail of L*."""
    light = lightness + 8 * (4 * positions[:, 0] + 2 * positions[:, 2]).sin()
    tint = torch.full_like(light, chroma)
    return lab_to_srgb(torch.stack([light, tint * math.cos(hue), tint * math.sin(hue)], -1)).clamp(0, 1)


@pytest.mark.parametrize(
    "values, key",
    [
        ({"kind": "taller"}, "kind"),
        ({"kind": "color"}, "color"),
        ({"kind": "color", "color": "grey"}, "color"),
        ({"kind": "wood", "color": "red"}, "color"),
        ({"kind": "color", "color": "rde"}, "color"),
        ({"kind": "stripes", "second": "red"}, "second"),
        ({"kind": "stripes", "color": "red", "second": "red"}, "second"),
        ({"kind": "stripes", "part": "left"}, "part"),
    ],
)
def test_edits_that_do_not_exist(values, key):
    with pytest.raises(ConfigError) as caught:
        Edit(**values)
    assert caught.value.key == key and caught.value.exit_code == 2


def test_a_misspelled_color_is_corrected():
    with pytest.raises(ConfigError, match="did you mean crimson"):
        Edit("color", "crimsom")


def test_families_hold_each_kind_once():
    kinds = [kind for kinds in families.FAMILIES.values() for kind in kinds]
    assert len(families.FAMILIES) == 12 and sorted(kinds) == sorted(families.KINDS)


def test_color_groups_do_not_overlap():
    groups = [families.BASIC_COLORS, families.FINE_COLORS, families.HELD_OUT_COLORS, families.MATERIAL_COLORS]
    assert (
        len(families.COLORS) == sum(map(len, groups))
        and len(families.BASIC_COLORS) == 8
        and len(families.HELD_OUT_COLORS) == 10
    )


def test_basic_edits_differ():
    """By dE >= 10 on average over objects, except from what an object has already."""
    edits = families.basic_edits()
    differences = []
    for seed in range(6):
        positions = sphere(1500, seed)
        colors = shaded(positions, 40 + 6 * seed, 25 + 4 * seed, seed)
        labs = torch.stack([srgb_to_lab(apply_edit(edit, positions, colors).colors) for edit in edits])
        differences.append(torch.stack([delta_e(lab.expand_as(labs), labs).mean(-1) for lab in labs]))
    mean = torch.stack(differences).mean(0) + 100 * torch.eye(len(edits))
    worst = int(mean.argmin())
    assert mean.min() >= 10, (edits[worst // len(edits)], edits[worst % len(edits)], float(mean.min()))


@pytest.mark.parametrize("name", [*families.BASIC_COLORS, *families.HELD_OUT_COLORS])
def test_color_words_keep_the_detail(name):
    positions = sphere()
    colors = shaded(positions)
    before, after = (srgb_to_lab(c) for c in (colors, apply_edit(Edit("color", name), positions, colors).colors))
    goal = srgb_to_lab(torch.tensor(families.color_srgb(name)))
    assert float(delta_e(after.mean(0), goal)) < 6
    # Where it is darker than the color, nothing is compressed and the detail relative to the mean is exactly the same.
    is_dark = before[:, 0] < before[:, 0].mean() - 1
    relative = after[is_dark, 0] / goal[0] - before[is_dark, 0] / before[:, 0].mean()
    assert relative.abs().max() < 0.02
    correlation = torch.corrcoef(torch.stack([before[:, 0], after[:, 0]]))[0, 1]
    assert correlation > 0.95


@pytest.mark.parametrize("edit", [Edit("color", "yellow"), Edit("color", "red"), Edit("gold")])
def test_the_lightest_parts_still_have_the_color(edit):
    positions = sphere()
    is_light = positions[:, 0] > 0.5
    colors = torch.where(is_light[:, None], 0.9, 0.2).expand(-1, 3).contiguous()
    lab = srgb_to_lab(apply_edit(edit, positions, colors).colors)
    chroma = torch.linalg.vector_norm(lab[:, 1:], dim=1)
    assert float(chroma[is_light].min()) > 15 and float(lab[is_light, 0].mean()) > float(lab[~is_light, 0].mean())


@pytest.mark.parametrize("edit", families.basic_edits(), ids=str)
@pytest.mark.parametrize("part, low, high", [("bottom", -1, -1 / 3), ("middle", -1 / 3, 1 / 3), ("top", 1 / 3, 1)])
def test_parts_change_nothing_else(edit, part, low, high):
    positions = sphere()
    positions = torch.cat([positions, torch.tensor([[0.0, 0, -1], [0, 0, 1]])])
    colors = shaded(positions)
    if edit.kind == "unchanged":
        assert torch.equal(apply_edit(edit, positions, colors).colors, colors)
        return
    target = apply_edit(Edit(edit.kind, edit.color, part=part), positions, colors)
    z = positions[:, 2]
    inside = (z > low + 1e-5) & (z < high - 1e-5)
    assert torch.equal(target.changed, target.changed & (z >= low - 1e-5) & (z <= high + 1e-5))
    assert torch.equal(target.colors[~target.changed], colors[~target.changed])
    assert float(target.changed[inside].float().mean()) > 0.99


def test_parts_are_soft_inside_only():
    z = torch.linspace(-1, 1, 2001)
    positions = torch.stack([0 * z, 0 * z, z], -1)
    weights = {part: part_weight(positions, part) for part in families.PARTS}
    assert sum(weights.values()).max() <= 1 + 1e-6 and all(float(w.amax()) == 1 for w in weights.values())
    assert torch.equal(part_weight(positions, None), torch.ones_like(z))


def test_two_edits_are_applied_in_order():
    positions = sphere()
    colors = shaded(positions)
    first, second = Edit("color", "red"), Edit("stripes", "white")
    both = apply_edits([first, second], positions, colors)
    assert torch.equal(both.colors, apply_edit(second, positions, apply_edit(first, positions, colors).colors).colors)
    assert torch.equal(apply_edits([], positions, colors).colors, colors)
    # A pattern on a ground is the ground, then the pattern.
    torch.testing.assert_close(
        apply_edit(Edit("stripes", "white", "red"), positions, colors).colors, both.colors, rtol=0, atol=0.15
    )


def test_batches_are_loops():
    positions = torch.stack([sphere(500, 1), sphere(500, 2)])
    colors = torch.stack([shaded(positions[0], 30), shaded(positions[1], 75)])
    for edit in families.basic_edits():
        batch = apply_edit(edit, positions, colors)
        for row in range(2):
            torch.testing.assert_close(
                batch.colors[row], apply_edit(edit, positions[row], colors[row]).colors, rtol=0, atol=1e-5
            )


def test_materials():
    positions = sphere(100)
    colors = shaded(positions)
    gold = apply_edit(Edit("gold", part="top"), positions, colors, roughness=torch.full((100,), 0.5))
    assert torch.equal(gold.roughness[~gold.changed], torch.full((100,), 0.5)[~gold.changed])
    assert float(gold.metallic[positions[:, 2] > 0.6].min()) == 1 and float(gold.metallic[~gold.changed].max()) == 0
    for kind in ("metallic", "glossy", "matte"):
        plain = apply_edit(Edit(kind), positions, colors, baked=False)
        torch.testing.assert_close(plain.colors, colors, rtol=0, atol=1e-5)
        assert not torch.equal(plain.roughness, apply_edit(Edit("unchanged"), positions, colors).roughness)


def test_gradients_reach_the_colors():
    positions = sphere(50).double()
    colors = shaded(positions).clamp(0.1, 0.9).requires_grad_()
    for edit in families.basic_edits():
        (gradient,) = torch.autograd.grad(apply_edit(edit, positions, colors).colors.sum(), colors)
        assert gradient.isfinite().all(), edit


@pytest.mark.parametrize("pattern", [patterns.stripes, patterns.checks, patterns.dots, patterns.rings, patterns.marble])
def test_patterns_fit_on_planes(pattern):
    """No edge is narrower than a texel: the share changes by less than its range from one texel to the next."""
    positions = sphere(20000)
    shares = pattern(positions)
    assert shares.min() >= 0 and shares.max() <= 1 and shares.max() - shares.min() > 0.7
    step = torch.zeros(3)
    for axis in range(3):
        step = torch.zeros(3).index_fill_(0, torch.tensor([axis]), TEXEL / 4)
        box = torch.cat([positions + step, positions, torch.tensor([[-1.0, -1, -1], [1.0, 1, 1]])])  # one box for both
        moved = pattern(box)
        assert (moved[: len(positions)] - moved[len(positions) : 2 * len(positions)]).abs().max() < 0.45


def test_flat_sides_lie_within_a_stripe_or_check():
    """At an edge of the pattern the share would be 0.5 all over the side."""
    for height in (0.31, 0.37, 0.5, 0.62, 0.75):
        box = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
        box[:, 2] = torch.where(torch.arange(2000) < 1000, -height, height)
        assert (patterns.stripes(box) - 0.5).abs().min() > 0.49
        assert (patterns.checks(box) - 0.5).abs().median() > 0.35


@pytest.mark.parametrize(
    "change, error, text",
    [
        (lambda p, c: (p, c * float("nan")), InputError, "colors: not finite at 100 of 100 points"),
        (lambda p, c: (p / 0, c), InputError, "positions: not finite"),
        (lambda p, c: (p, c + 1), InputError, r"want sRGB in \[0, 1\]"),
        (lambda p, c: (p[:0], c[:0]), InputError, "got no points"),
        (lambda p, c: (p, c[:50]), ShapeError, "as the positions"),
        (lambda p, c: (p, c[:, 0]), ShapeError, "floats of shape"),
    ],
)
def test_bad_input(change, error, text):
    positions = sphere(100)
    with pytest.raises(error, match=text):
        apply_edit(Edit("color", "red"), *change(positions, shaded(positions)))


def test_a_part_without_points():
    positions = torch.tensor([[0.0, 0, -1], [0, 0, 1]])
    with pytest.raises(InputError, match="middle third"):
        apply_edit(Edit("wood", part="middle"), positions, torch.full((2, 3), 0.5))
