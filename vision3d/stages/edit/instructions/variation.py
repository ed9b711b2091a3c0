"""What a text leaves open: shades, periods, places and strengths of an edit, and other values of them than the usual."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Variation:
    """How an edit is done where the text does not say; the defaults are the usual."""

    lightness: float = 0.0
    """Added to L* of the colors that it brings."""
    chroma: float = 1.0
    """Factor of their chroma."""
    hue: float = 0.0
    """Rotation of their hue [rad]."""
    strength: float = 1.0
    """How many times darker, lighter and saturated are applied; exponent of a gradient."""
    period: float = 1.0
    """Factor of the period of patterns, wood and marble."""
    phase: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Shift of these, and of painted reflections, along the axes, in periods."""
    roughness: float = 1.0
    """Factor of the roughness that it brings."""

    def shade(self, lab: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """The shade of a color, L*a*b*."""
        if (self.lightness, self.chroma, self.hue) == (0.0, 1.0, 0.0):
            return lab
        cosine, sine = self.chroma * math.cos(self.hue), self.chroma * math.sin(self.hue)
        light, a, b = lab.unbind(-1)
        return torch.stack([(light + self.lightness).clamp(3, 98), cosine * a - sine * b, sine * a + cosine * b], -1)

    def moved(self, positions: Float[Tensor, "*n 3"], period: float) -> Float[Tensor, "*n 3"]:
        """Where a pattern that has this period is looked up for these positions."""
        if self.period == 1 and self.phase == (0.0, 0.0, 0.0):
            return positions
        return positions / self.period + period * positions.new_tensor(self.phase)

    def __str__(self) -> str:
        """What differs from the usual, in words: `lighter, period x1.3`; empty if nothing does."""
        words = []
        if abs(self.lightness) >= 1:
            words.append("lighter shade" if self.lightness > 0 else "darker shade")
        if abs(self.chroma - 1) >= 0.05:
            words.append("more vivid" if self.chroma > 1 else "paler")
        if abs(self.hue) >= 0.03:
            words.append(f"hue {math.degrees(self.hue):+.0f} deg")
        if abs(self.strength - 1) >= 0.05:
            words.append("stronger" if self.strength > 1 else "weaker")
        if abs(self.period - 1) >= 0.05:
            words.append("wider" if self.period > 1 else "finer")
        if any(self.phase):
            words.append("shifted")
        if abs(self.roughness - 1) >= 0.05:
            words.append("rougher" if self.roughness > 1 else "smoother")
        return ", ".join(words)


USUAL = Variation()
"""What is done without being asked."""
