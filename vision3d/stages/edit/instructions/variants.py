"""Several versions of what a text asks for, which differ in what it leaves open."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.scene.lab import delta_e, srgb_to_lab
from vision3d.stages.edit.instructions.families import BASIC_COLORS, COLORS, PATTERNS, Edit, color_srgb
from vision3d.stages.edit.instructions.variation import USUAL, Variation

_SHADE = {"lightness": (-10.0, 7.0), "chroma": (0.75, 1.2), "hue": (-0.1, 0.06)}
_WAVE = {"period": (0.7, 1.6), "phase": (0.15, 0.85)}
_FREE: dict[str, dict[str, tuple[float, float]]] = {
    "color": _SHADE,
    "darker": {"strength": (0.6, 1.5)},
    "lighter": {"strength": (0.6, 1.5)},
    "saturated": {"strength": (0.5, 1.4)},
    "grey": {"lightness": (-18.0, 18.0)},
    "stripes": _WAVE,
    "checks": _WAVE,
    "dots": {**_WAVE, "period": (0.65, 1.3)},
    "gradient": {"strength": (0.6, 1.7)},
    "wood": {**_WAVE, "lightness": (-14.0, 8.0), "chroma": (0.75, 1.2), "hue": (-0.2, 0.1)},
    "marble": {**_WAVE, "lightness": (-22.0, 0.0)},
    "metallic": {"phase": (0.15, 0.85), "roughness": (0.5, 1.8)},
    "gold": {**_SHADE, "phase": (0.15, 0.85), "roughness": (0.5, 1.8)},
    "glossy": {"phase": (0.15, 0.85), "strength": (0.6, 1.2), "roughness": (0.3, 3.0)},
    "matte": {"strength": (0.55, 1.1), "roughness": (0.8, 1.05)},
    "unchanged": {},
}
"""Ranges of what each kind leaves open."""
_PARTNERS = ("white", "black", "cream", "navy", *BASIC_COLORS, "turquoise", "beige", "charcoal", "sky blue")
"""Colors that a pattern may get which the text does not name."""
_TRUE = 0.4  # maximum distance of a shade from its color word, relative to that from the next one
_GAP = 0.15  # share of a range on either side of the usual value that no variant has
_APART = 25.0  # minimum color difference of the two colors of a pattern


def variants(edits: Sequence[Edit], count: int, own: Float[Tensor, " 3"], seed: int = 0) -> list[tuple[Edit, ...]]:
    """Versions of edits; the first is that of the text without variations.

    Args:
        edits: In order.
        count: Number of versions.
        own: Mean color of the object, sRGB, from which the colors of patterns differ.
        seed: The same seed gives the same versions.
    """
    made = []
    for place, edit in enumerate(edits):
        made.append(_of_one(edit, count - 1, own, seed + 1009 * place))
        if edit.kind == "color" and edit.color is not None and edit.part is None:
            own = torch.tensor(color_srgb(edit.color))
    return [tuple(edits), *(tuple(row) for row in zip(*made))] if edits else [()] * count


def _of_one(edit: Edit, count: int, own: Tensor, seed: int) -> list[Edit]:
    """Variations of one edit."""
    generator = torch.Generator().manual_seed(seed)
    ranges = dict(_FREE[edit.kind])
    if edit.kind in PATTERNS and edit.color is not None:
        ranges |= _SHADE
    drawn = {name: _spread(name, *ends, count, generator) for name, ends in ranges.items()}
    across = torch.rand(count, 2, generator=generator).tolist()
    phases = [(round(x, 3), round(y, 3), z) for (x, y), z in zip(across, drawn.pop("phase", []))]
    found = []
    for row in range(count):
        variation = replace(USUAL, **{name: values[row] for name, values in drawn.items()})
        variation = replace(variation, phase=phases[row]) if phases else variation
        found.append(replace(edit, variation=_true_to_its_word(edit, variation)))
    return _with_partners(found, edit, own, generator) if edit.kind in PATTERNS else found


def _spread(name: str, low: float, high: float, count: int, generator: torch.Generator) -> list[float]:
    """Values over a range in any order, apart from each other and from the usual one."""
    usual = getattr(USUAL, name) if name != "phase" else low
    gap = _GAP * (high - low)
    below = max(usual - gap - low, 0.0)
    total = below + max(high - max(usual + gap, low), 0.0)
    jitter = 0.5 + 0.5 * (torch.rand(count, generator=generator) - 0.5)
    places = (total * (torch.randperm(count, generator=generator) + jitter) / max(count, 1)).tolist()
    return [round(low + place if place < below else max(usual + gap, low) + place - below, 3) for place in places]


def _true_to_its_word(edit: Edit, variation: Variation) -> Variation:
    """A shade that is still much nearer to its own color word than to another one."""
    if edit.color is None:
        return variation
    words = BASIC_COLORS if edit.color in BASIC_COLORS else COLORS
    known = srgb_to_lab(torch.tensor([color_srgb(word) for word in words]))
    own = known[list(words).index(edit.color)]
    for share in (1.0, 0.75, 0.5, 0.25):
        nearer = replace(
            variation,
            lightness=share * variation.lightness,
            chroma=1 + share * (variation.chroma - 1),
            hue=share * variation.hue,
        )
        distances = delta_e(nearer.shade(own).expand_as(known), known)
        of_own = float(distances[list(words).index(edit.color)])
        distances[list(words).index(edit.color)] = torch.inf
        if of_own <= _TRUE * float(distances.min()):
            return nearer
    return replace(variation, lightness=USUAL.lightness, chroma=USUAL.chroma, hue=USUAL.hue)


def _with_partners(found: list[Edit], edit: Edit, own: Tensor, generator: torch.Generator) -> list[Edit]:
    """Patterns with the colors that the text does not give: marks for those without, a ground for every second one."""
    if edit.second is not None:
        return found
    taken = own if edit.color is None else torch.tensor(color_srgb(edit.color))
    labs = srgb_to_lab(torch.tensor([color_srgb(word) for word in _PARTNERS]))
    apart = (delta_e(srgb_to_lab(taken).expand_as(labs), labs) >= _APART).nonzero()[:, 0]
    names = [_PARTNERS[place] for place in apart[torch.randperm(len(apart), generator=generator)].tolist()]
    if edit.color is None:
        return [replace(one, color=names[row % len(names)]) for row, one in enumerate(found)]
    return [replace(one, second=names[row // 2 % len(names)]) if row % 2 == 0 else one for row, one in enumerate(found)]


def text_of(edits: Sequence[Edit]) -> str:
    """Edits with their variations, for a caption: `stripes: red on cream (wider, shifted)`."""
    words = [(str(edit), str(edit.variation)) for edit in edits]
    return ", then ".join(f"{text} ({how})" if how else text for text, how in words)
