"""Instructions to learn from: edits with phrasings, and the tokens of their texts."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.stages.edit.instructions.families import (
    BASIC_COLORS,
    FAMILIES,
    FINE_COLORS,
    PARTS,
    PATTERNS,
    Edit,
    Kind,
    basic_edits,
    pattern_edits,
)
from vision3d.stages.edit.instructions.phrases import phrase
from vision3d.stages.edit.instructions.text import TextEncoder

_FINE, _PATTERN_COLORS, _PART = 0.4, 0.5, 0.25  # shares
_PATTERN_EDITS = {kind: [edit for edit in pattern_edits() if edit.kind == kind] for kind in PATTERNS}


@dataclass(frozen=True, eq=False)
class Instructions:
    """N instructions."""

    edits: tuple[tuple[Edit, ...], ...]
    """One or two each."""
    texts: tuple[str, ...]
    tokens: Float[Tensor, "n t 384"]
    """float16."""
    mask: Bool[Tensor, "n t"]

    def take(self, rows: Int64[Tensor, " b"]) -> tuple[Float[Tensor, "b t 384"], Bool[Tensor, "b t"]]:
        """Tokens and mask of some, without the padding that none of them needs."""
        mask = self.mask[rows]
        longest = int(mask.sum(1).max())
        return self.tokens[rows, :longest].float(), mask[:, :longest]


def random_edit(generator: torch.Generator, basic: float = 0.0) -> Edit:
    """An edit of a family drawn at random: fine colors, patterns in colors and parts are among them.

    Args:
        generator: Random numbers.
        basic: Share of the basic edits of the whole object.
    """
    if _share(generator) < basic:
        edits = basic_edits()
        return edits[_below(len(edits), generator)]
    families = list(FAMILIES.values())
    kinds = families[_below(len(families), generator)]
    kind: Kind = kinds[_below(len(kinds), generator)]
    edit = Edit("unchanged")
    if kind == "color":
        names = list(FINE_COLORS if _share(generator) < _FINE else BASIC_COLORS)
        edit = Edit(kind, names[_below(len(names), generator)])
    elif kind in PATTERNS and _share(generator) < _PATTERN_COLORS:
        found = _PATTERN_EDITS[kind]
        edit = found[_below(len(found), generator)]
    else:
        edit = Edit(kind)
    if kind != "unchanged" and _share(generator) < _PART:
        edit = replace(edit, part=PARTS[_below(len(PARTS), generator)])
    return edit


def make_instructions(
    count: int, two: float, seed: int, encoder: TextEncoder, *, basic: float = 0.0, held_out: bool = False
) -> Instructions:
    """Random instructions.

    Args:
        count: How many.
        two: Share of those with two edits.
        seed: Of the choices.
        encoder: Encodes the texts.
        basic: Share of the edits that are basic ones.
        held_out: With the phrasings that are not for training.
    """
    generator = torch.Generator().manual_seed(seed)
    edits = []
    for _ in range(count):
        number = 1 + int(_share(generator) < two)
        edits.append(tuple(random_edit(generator, basic) for _ in range(number)))
    return encoded(edits, encoder, generator, held_out=held_out)


def encoded(
    edits: list[tuple[Edit, ...]], encoder: TextEncoder, generator: torch.Generator, *, held_out: bool = False
) -> Instructions:
    """Edits with a random phrasing each."""
    texts = [phrase(each, generator, held_out=held_out) for each in edits]
    parts = [encoder.encode(texts[at : at + 256]) for at in range(0, len(texts), 256)]
    longest = max(part.mask.shape[1] for part in parts)
    tokens = torch.zeros(len(texts), longest, parts[0].tokens.shape[2], dtype=torch.float16)
    mask = torch.zeros(len(texts), longest, dtype=torch.bool)
    row = 0
    for part in parts:
        size, length = part.mask.shape
        tokens[row : row + size, :length], mask[row : row + size, :length] = part.tokens.half(), part.mask
        row += size
    return Instructions(tuple(edits), tuple(texts), tokens, mask)


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def _share(generator: torch.Generator) -> float:
    return float(torch.rand(1, generator=generator))
