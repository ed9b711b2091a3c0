"""Shapes of hands: lengths and thicknesses of the fingers, and the overall size."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ShapeError


@dataclass(frozen=True, eq=False)
class HandShape:
    """Factors relative to the template; 1 changes nothing.

    Example:
        >>> slim = HandShape(torch.full((5,), 1.05), torch.full((5,), 0.9), torch.tensor(1.0))
    """

    lengths: Float[Tensor, "*shape 5"]
    """Length of the phalanges of each finger, thumb to little, and of the thumb's metacarpal; > 0."""
    thicknesses: Float[Tensor, "*shape 5"]
    """Breadth and thickness of each finger; > 0."""
    scale: Float[Tensor, "*shape"]
    """Size of the whole hand; > 0."""

    def __post_init__(self) -> None:
        batch = tuple(self.scale.shape)
        for name in ("lengths", "thicknesses"):
            value = getattr(self, name)
            if tuple(value.shape) != (*batch, 5):
                raise ShapeError(f"HandShape.{name}", tuple(value.shape), (*batch, 5))

    @classmethod
    def random(cls, count: int, generator: torch.Generator, *, spread: float = 0.06) -> "HandShape":
        """Shapes of adult hands, at random: fingers of one hand vary together, and each a little.

        Args:
            count: Number of hands.
            generator: Random numbers, on the CPU.
            spread: Standard deviation of the factors.
        """

        def factors(*size: int) -> Tensor:
            return 1 + spread * torch.randn(count, *size, generator=generator).clamp(-2.5, 2.5)

        lengths, thicknesses = (factors(1) * (1 + (factors(5) - 1) / 2) for _ in range(2))
        return cls(lengths, thicknesses, factors())

    def to(self, like: Tensor) -> "HandShape":
        """The same shape with the dtype and on the device of `like`."""
        return HandShape(self.lengths.to(like), self.thicknesses.to(like), self.scale.to(like))

    def by_joint(self) -> tuple[Float[Tensor, "*shape 16"], Float[Tensor, "*shape 16"]]:
        """Length and thickness of the bone of each joint, with the scale; the wrist's is the scale."""
        scale = self.scale[..., None]
        found = [torch.cat([scale, scale * values.repeat_interleave(3, -1)], -1) for values in (self.lengths, self.thicknesses)]
        return found[0], found[1]
