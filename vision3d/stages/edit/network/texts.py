"""What a text means for a network: features of its tokens, and a reading of them that can be supervised."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vision3d.stages.edit.instructions.families import KINDS, PARTS, Edit, color_srgb

TEXT_WIDTH = 384
SLOTS = 2
"""Edits of a text that the reading tells apart, in their order."""
_KINDS, _PARTS = len(KINDS) + 1, len(PARTS) + 1  # the first is none
_COLOR = 4  # whether there is one, red, green, blue
_SIZES = (_KINDS, _PARTS, _COLOR, _COLOR)
READING = SLOTS * sum(_SIZES)
"""Features of a reading: of each slot logits of the kinds and parts, the color and the second color."""


class TokenPool(nn.Module):
    """Learned queries that attend to the tokens of a text: unlike their mean, these know the order of words.

    Args:
        inputs: Features of a token.
        outputs: Features of the text.
        queries: Number of queries.
    """

    def __init__(self, inputs: int, outputs: int, queries: int) -> None:
        super().__init__()
        self.each = 64
        self.queries = nn.Parameter(torch.randn(queries, self.each))
        self.norm = nn.LayerNorm(inputs)
        self.keys, self.values = nn.Linear(inputs, self.each), nn.Linear(inputs, self.each)
        self.mix = nn.Sequential(
            nn.LayerNorm(queries * self.each), nn.Linear(queries * self.each, outputs), nn.LayerNorm(outputs)
        )

    def forward(self, tokens: Float[Tensor, "b t i"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b o"]:
        """Features of texts."""
        tokens = self.norm(tokens)
        scores = torch.einsum("qe,bte->bqt", self.queries, self.keys(tokens)) / math.sqrt(self.each)
        shares = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
        return self.mix(torch.einsum("bqt,bte->bqe", shares, self.values(tokens)).flatten(1))


class TextReader(nn.Module):
    """Features of a text, and a reading of them.

    Learned from colors of objects alone, the meaning of a word costs as many steps as its effect; read from the text, it is
    there after some hundred steps.

    Args:
        outputs: Features of the text.
        queries: Of the tokens.
    """

    def __init__(self, outputs: int, queries: int) -> None:
        super().__init__()
        self.pool = TokenPool(TEXT_WIDTH, outputs, queries)
        self.layers = nn.Sequential(nn.Linear(outputs, 2 * outputs), nn.SiLU(), nn.Linear(2 * outputs, READING))

    def forward(
        self, tokens: Float[Tensor, "b t 384"], mask: Bool[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b o"], Float[Tensor, "b r"]]:
        """Features and reading."""
        text = self.pool(tokens, mask)
        return text, self.layers(text)


def reading_loss(reading: Float[Tensor, "b r"], edits: Sequence[Sequence[Edit]]) -> Tensor:
    """How much a reading differs from what the texts mean: cross-entropies, and squared errors of colors."""
    kinds, parts, colors = torch.zeros(2, len(edits), SLOTS).long(), None, reading.new_zeros(len(edits), SLOTS, 2, _COLOR)
    kinds, parts = kinds[0], kinds[1]
    for row, some in enumerate(edits):
        for slot, edit in enumerate(some[:SLOTS]):
            kinds[row, slot] = 1 + KINDS.index(edit.kind)
            parts[row, slot] = 0 if edit.part is None else 1 + PARTS.index(edit.part)
            for number, name in enumerate((edit.color, edit.second)):
                if name is not None:
                    colors[row, slot, number] = reading.new_tensor([1.0, *color_srgb(name)])
    found = reading.view(len(edits), SLOTS, -1).split((_KINDS, _PARTS, 2 * _COLOR), -1)
    cross = nn.functional.cross_entropy
    loss = cross(found[0].flatten(0, 1), kinds.flatten().to(reading.device))
    loss = loss + cross(found[1].flatten(0, 1), parts.flatten().to(reading.device))
    given, is_given = found[2].unflatten(2, (2, _COLOR)), colors[..., 0]
    loss = loss + nn.functional.binary_cross_entropy_with_logits(given[..., 0], is_given)
    errors = (given[..., 1:].sigmoid() - colors[..., 1:]).square().sum(-1) * is_given
    return loss + 10 * errors.sum() / is_given.sum().clamp(min=1)
