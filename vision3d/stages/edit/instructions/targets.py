"""What an edit makes of the colors of an object, in closed form: the targets of training and evaluation.

All of it happens in CIE L*a*b*, so that shading and detail stay: a color word replaces hue and chroma and shifts the mean
lightness. Patterns depend on the position in the object's frame alone. Their periods are at least 9 texels of planes with 64
texels over [-1, 1], their edges about two texels wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.scene.lab import lab_to_srgb, srgb_to_lab
from vision3d.stages.edit.instructions.families import Edit, color_srgb
from vision3d.stages.edit.instructions.patterns import checks, dots, gradient, horizon, marble, rings, spot, stripes

DIELECTRIC, ROUGH = 0.0, 0.8
"""Metallic factor and roughness of an object whose material is not known."""
_STEEPEST = 3.0  # detail of dark objects that become light is amplified by no more
_PALEST = 0.5  # share of the chroma of a color that is left at L* 100
_SOFT = 0.06  # width of the edge of a part, about two texels
_CONTRAST_AT = 55.0  # L*: marks on darker objects are white, on lighter ones black
_WOOD = ((200, 150, 95), (118, 72, 38))
_MARBLE = ((236, 235, 232), (112, 115, 124))


@dataclass(frozen=True)
class Target:
    """Appearance of n surface points; leading axes are batches."""

    colors: Float[Tensor, "... n 3"]
    """sRGB in [0, 1]."""
    metallic: Float[Tensor, "... n"]
    """glTF metallic factor in [0, 1]."""
    roughness: Float[Tensor, "... n"]
    """glTF roughness factor in [0, 1]."""
    changed: Bool[Tensor, "... n"]
    """The points that the edit applies to; everything else is bit-equal."""


def apply_edit(
    edit: Edit,
    positions: Float[Tensor, "... n 3"],
    colors: Float[Tensor, "... n 3"],
    *,
    metallic: Float[Tensor, "... n"] | None = None,
    roughness: Float[Tensor, "... n"] | None = None,
    baked: bool = True,
) -> Target:
    """The appearance of an object after an edit. Differentiable in the colors.

    Args:
        edit: The edit.
        positions: Points spread evenly over the surface, z up; center of the bounding box 0, longest side from -1 to 1.
        colors: sRGB in [0, 1].
        metallic: Metallic factors before the edit; `DIELECTRIC` when None.
        roughness: Roughness factors before the edit; `ROUGH` when None.
        baked: Paint the reflections of metallic, gold, glossy and matte into the colors, as a scene without materials
            needs. They do not follow the viewer. False: only the factors change, and the color where it is gold.

    Raises:
        ShapeError: The shapes do not match.
        InputError: No points, no point in the part, values that are not finite, or colors outside [0, 1].
    """
    _check(positions, colors)
    rows = colors[..., 0]
    metallic = torch.full_like(rows, DIELECTRIC) if metallic is None else metallic
    roughness = torch.full_like(rows, ROUGH) if roughness is None else roughness
    for name, factor in (("metallic", metallic), ("roughness", roughness)):
        if factor.shape != rows.shape:
            raise ShapeError(name, factor.shape, f"shape {tuple(rows.shape)} as the colors")
    if edit.kind == "unchanged":
        return Target(colors.clone(), metallic.clone(), roughness.clone(), torch.zeros_like(rows, dtype=torch.bool))
    weight = part_weight(positions, edit.part)
    changed = weight > 0
    if not bool(changed.any(-1).all()):
        raise InputError(f"edit {edit}: no point lies in the {edit.part} third of the object; leave the part away")
    lab = srgb_to_lab(colors)
    new = _APPEARANCE[edit.kind](edit, positions, lab, weight[..., None], baked)
    lab = lab + weight[..., None] * (new - lab)
    edited = torch.where(changed[..., None], lab_to_srgb(lab).clamp(0, 1), colors)
    metal, rough = _FACTORS.get(edit.kind, (None, None))
    rough = None if rough is None else min(rough * edit.variation.roughness, 1.0)
    return Target(edited, _blend(metallic, metal, weight), _blend(roughness, rough, weight), changed)


def apply_edits(
    edits: Sequence[Edit],
    positions: Float[Tensor, "... n 3"],
    colors: Float[Tensor, "... n 3"],
    *,
    metallic: Float[Tensor, "... n"] | None = None,
    roughness: Float[Tensor, "... n"] | None = None,
    baked: bool = True,
) -> Target:
    """The appearance after several edits, in order; `changed` are the points that any of them applies to.

    Args:
        edits: In order.
        positions, colors, metallic, roughness, baked: As for `apply_edit`.

    Raises:
        ShapeError, InputError: As `apply_edit`.
    """
    target = apply_edit(Edit("unchanged"), positions, colors, metallic=metallic, roughness=roughness)
    for edit in edits:
        new = apply_edit(edit, positions, target.colors, metallic=target.metallic, roughness=target.roughness, baked=baked)
        target = Target(new.colors, new.metallic, new.roughness, target.changed | new.changed)
    return target


def part_weight(positions: Float[Tensor, "... n 3"], part: str | None) -> Float[Tensor, "... n"]:
    """1 in a part and 0 outside of it, with a soft edge inside; ones where the part is None."""
    z = positions[..., 2]
    if part is None:
        return torch.ones_like(z)
    low, high = z.amin(-1, keepdim=True), z.amax(-1, keepdim=True)
    third = (high - low) / 3
    soft = torch.minimum(third / 4, third.new_tensor(_SOFT)).clamp(min=1e-6)
    above = ((z - low - third) / soft).clamp(0, 1)  # 0 in the bottom third
    below = ((high - third - z) / soft).clamp(0, 1)
    weight = {"bottom": (low + third - z) / soft, "top": (z - high + third) / soft, "middle": torch.minimum(above, below)}[part]
    weight = weight.clamp(0, 1)
    return weight.square() * (3 - 2 * weight)


def recolor(lab: Tensor, weight: Tensor, srgb: Sequence[float] | Tensor) -> Tensor:
    """L*a*b* (..., n, 3) in the hue and chroma of a color, with its lightness on average and the detail relative to the mean.

    Lighter than the color, chroma falls to half of it; darker, it falls as under less light. Highlights are compressed
    towards L* 100 instead of clipped.

    Args:
        lab: The colors.
        weight: Share of each point in the mean (..., n, 1).
        srgb: The color, sRGB in [0, 1].
    """
    return _shaded(lab, weight, srgb_to_lab(torch.as_tensor(srgb, dtype=lab.dtype, device=lab.device)))


def _painted(edit: Edit, lab: Tensor, weight: Tensor, srgb: Sequence[float]) -> Tensor:
    """As `recolor`, in the shade of the color that the edit varies to."""
    goal = srgb_to_lab(torch.as_tensor(srgb, dtype=lab.dtype, device=lab.device))
    return _shaded(lab, weight, edit.variation.shade(goal))


def _shaded(lab: Tensor, weight: Tensor, goal: Tensor) -> Tensor:
    mean, light = _mean(lab[..., :1], weight), goal[..., :1]
    detail = (lab[..., :1] - mean) * (light / mean.clamp(min=1)).clamp(max=_STEEPEST)
    room = (100 - light).clamp(min=1)
    detail = torch.where(detail > 0, room * (1 - torch.exp(-detail.clamp(min=0) / room)), detail)
    new = (light + detail).clamp(0, 100)
    return torch.cat([new, goal[..., 1:] * _shade(new, light)], -1)


def _shade(new: Tensor, light: Tensor) -> Tensor:
    """Factor of the chroma of a color of lightness `light` at another lightness: never white, so that parts of the object that
    are lighter than others still have the color."""
    paler = 1 - (1 - _PALEST) * (new - light) / (100 - light).clamp(min=1)
    return torch.where(new <= light, (new + 16) / (light + 16), paler)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)


def _blend(values: Tensor, goal: float | None, weight: Tensor) -> Tensor:
    return values.clone() if goal is None else torch.where(weight > 0, values + weight * (goal - values), values)


def _color(edit: Edit, positions: Tensor, lab: Tensor, weight: Tensor, baked: bool) -> Tensor:
    assert edit.color is not None
    return _painted(edit, lab, weight, color_srgb(edit.color))


def _tone(edit: Edit, positions: Tensor, lab: Tensor, weight: Tensor, baked: bool) -> Tensor:
    light, strength = lab[..., :1], edit.variation.strength
    if edit.kind == "darker":
        new = 0.42**strength * light
        return torch.cat([new, lab[..., 1:] * (new + 16) / (light + 16)], -1)
    return torch.cat([100 - 0.5**strength * (100 - light), 0.65**strength * lab[..., 1:]], -1)


def _saturation(edit: Edit, positions: Tensor, lab: Tensor, weight: Tensor, baked: bool) -> Tensor:
    by = edit.variation
    light = lab[..., :1] if by.lightness == 0 else (lab[..., :1] + by.lightness).clamp(0, 100)
    return torch.cat([light, lab[..., 1:] * (2.5**by.strength if edit.kind == "saturated" else 0)], -1)


def _pattern(edit: Edit, positions: Tensor, lab: Tensor, weight: Tensor, baked: bool) -> Tensor:
    share = {"stripes": stripes, "checks": checks, "dots": dots}[edit.kind](positions, edit.variation)[..., None]
    ground = lab if edit.second is None else recolor(lab, weight, color_srgb(edit.second))
    if edit.color is not None:
        marks = _painted(edit, lab, weight, color_srgb(edit.color))
    else:
        is_dark = _mean(lab[..., :1], weight) < _CONTRAST_AT
        marks = torch.where(is_dark, *(recolor(lab, weight, color_srgb(name)) for name in ("white", "black")))
    return torch.lerp(ground, marks, share)


def _gradient(edit: Edit, positions: Tensor, lab: Tensor, weight: Tensor, baked: bool) -> Tensor:
    share = gradient(positions, weight[..., 0] > 0, edit.variation)[..., None]
    if edit.color is None:
        tint = _mean(lab[..., 1:], weight)
        light = torch.ones_like(tint[..., :1])
        return torch.lerp(
            _shaded(lab, weight, torch.cat([22 * light, 0.6 * tint], -1)),
            _shaded(lab, weight, torch.cat([92 * light, 0.25 * tint], -1)),
            share,
        )
    start = lab if edit.second is None else recolor(lab, weight, color_srgb(edit.second))
    return torch.lerp(start, _painted(edit, lab, weight, color_srgb(edit.color)), share)


def _wood(edit: Edit, positions: Tensor, lab: Tensor, weight: Tensor, baked: bool) -> Tensor:
    light, dark = (_painted(edit, lab, weight, [value / 255 for value in color]) for color in _WOOD)
    return torch.lerp(light, dark, rings(positions, edit.variation)[..., None])


def _marble(edit: Edit, positions: Tensor, lab: Tensor, weight: Tensor, baked: bool) -> Tensor:
    ground, veins = (_painted(edit, lab, weight, [value / 255 for value in color]) for color in _MARBLE)
    return torch.lerp(ground, veins, marble(positions, edit.variation)[..., None])


def _metal(edit: Edit, positions: Tensor, lab: Tensor, weight: Tensor, baked: bool) -> Tensor:
    base = _painted(edit, lab, weight, color_srgb("gold")) if edit.kind == "gold" else lab
    if not baked:
        return base
    mean = _mean(base[..., :1], weight)
    middle = 66.0 if edit.kind == "gold" else 56 + 0.15 * (mean - 50)
    new = (middle + 30 * horizon(positions, edit.variation)[..., None] + 0.5 * (base[..., :1] - mean)).clamp(4, 97)
    keep = 1.0 if edit.kind == "gold" else 0.7
    return torch.cat([new, keep * _mean(base[..., 1:], weight) * _shade(new, mean)], -1)


def _finish(edit: Edit, positions: Tensor, lab: Tensor, weight: Tensor, baked: bool) -> Tensor:
    if not baked:
        return lab
    light = lab[..., :1]
    if edit.kind == "glossy":  # varnish: darker, more saturated, with highlights
        new = 0.72 * light
        wet = torch.cat([new, 1.5 * lab[..., 1:] * (new + 16) / (light + 16)], -1)
        painted = torch.lerp(wet, lab.new_tensor([97.0, 0, 0]), 0.9 * spot(positions, edit.variation)[..., None])
    else:
        mean = _mean(light, weight)  # chalk: little contrast and chroma, towards a light gray
        painted = torch.cat([0.5 * mean + 37 + 0.35 * (light - mean), 0.35 * lab[..., 1:]], -1)
    return painted if edit.variation.strength == 1 else torch.lerp(lab, painted, edit.variation.strength)


_APPEARANCE = {
    "color": _color,
    "darker": _tone,
    "lighter": _tone,
    "saturated": _saturation,
    "grey": _saturation,
    "stripes": _pattern,
    "checks": _pattern,
    "dots": _pattern,
    "gradient": _gradient,
    "wood": _wood,
    "marble": _marble,
    "metallic": _metal,
    "gold": _metal,
    "glossy": _finish,
    "matte": _finish,
}
_FACTORS: dict[str, tuple[float | None, float | None]] = {
    "wood": (0.0, 0.7),
    "marble": (0.0, 0.25),
    "metallic": (1.0, 0.3),
    "gold": (1.0, 0.25),
    "glossy": (None, 0.1),
    "matte": (0.0, 0.95),
}
"""Metallic factor and roughness after the edit; None: as before."""


def _check(positions: Tensor, colors: Tensor) -> None:
    for name, value in (("positions", positions), ("colors", colors)):
        if value.ndim < 2 or value.shape[-1] != 3 or not value.is_floating_point():
            raise ShapeError(name, f"{value.dtype} of shape {tuple(value.shape)}", "floats of shape (..., n, 3)")
        if not bool(value.detach().isfinite().all()):
            is_bad = ~value.detach().isfinite().all(-1)
            raise InputError(f"{name}: not finite at {int(is_bad.sum())} of {is_bad.numel()} points")
    if positions.shape != colors.shape:
        raise ShapeError("colors", colors.shape, f"shape {tuple(positions.shape)} as the positions")
    if positions.shape[-2] == 0:
        raise InputError("positions: got no points, want the surface points of an object")
    if bool((colors.detach() < -1e-4).any() or (colors.detach() > 1 + 1e-4).any()):
        low, high = float(colors.detach().amin()), float(colors.detach().amax())
        raise InputError(f"colors: got values from {low:.3g} to {high:.3g}, want sRGB in [0, 1]")
