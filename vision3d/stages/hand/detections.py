"""Hands found in an image: where, how large, how turned, and which side."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.stages.hand.joints import ROOT, WRIST


@dataclass(frozen=True, eq=False)
class Detections:
    """Squares around the joints of hands.

    Example:
        >>> len(Detections.none())
        0
    """

    centers: Float[Tensor, "n 2"]
    """Middle of the joints' box [px]; pixel centers at half-integers."""
    sides: Float[Tensor, " n"]
    """The longer side of the joints' box [px]; crops take more around it."""
    angles: Float[Tensor, " n"]
    """Rotation of the crop in which the fingers point up, from right to down, as for `perspective_crop` [rad]."""
    is_right: Bool[Tensor, " n"]
    """Right hands; the others are left ones."""
    scores: Float[Tensor, " n"]
    """In [0, 1], highest first."""
    right: Float[Tensor, " n"] | None = None
    """Probability that a hand is a right one; None: the sides are certain."""
    turned: bool = True
    """Whether the angles are known; those of boxes are not."""

    def __post_init__(self) -> None:
        count = len(self.centers)
        for name, shape in (
            ("centers", (count, 2)), ("sides", (count,)), ("angles", (count,)), ("is_right", (count,)), ("scores", (count,)),
        ):  # fmt: skip
            if tuple(getattr(self, name).shape) != shape:
                raise ShapeError(f"Detections.{name}", tuple(getattr(self, name).shape), shape)
        if self.right is not None and tuple(self.right.shape) != (count,):
            raise ShapeError("Detections.right", tuple(self.right.shape), (count,))

    def __len__(self) -> int:
        return len(self.centers)

    def __getitem__(self, rows: Tensor | slice) -> "Detections":
        """Some of them."""
        right = None if self.right is None else self.right[rows]
        return Detections(
            self.centers[rows], self.sides[rows], self.angles[rows], self.is_right[rows], self.scores[rows], right, self.turned
        )

    @classmethod
    def none(cls) -> "Detections":
        """No hand."""
        empty = torch.zeros(0)
        return cls(torch.zeros(0, 2), empty, empty, empty.bool(), empty)


class Finder(Protocol):
    """Finds hands in whole images."""

    def find(self, image: UInt8[Tensor, "h w 3"]) -> Detections:
        """The hands of an image, sRGB."""
        ...


class Turner(Protocol):
    """Sees how hands in boxes are turned."""

    def turns(self, image: UInt8[Tensor, "h w 3"], found: Detections) -> Float[Tensor, " n"]:
        """Rotations as `Detections.angles` has them."""
        ...


@dataclass(frozen=True)
class Square:
    """Squares around the joints of hands."""

    centers: Float[Tensor, "*batch 2"]
    """[px]."""
    sides: Float[Tensor, "*batch"]
    """[px]."""
    angles: Float[Tensor, "*batch"]
    """As of `Detections` [rad]."""


def square_of(uvs: Float[Tensor, "*batch 21 2"]) -> Square:
    """The square around joints: middle and longer side of their box, and the rotation after which the fingers point up."""
    low, high = uvs.amin(-2), uvs.amax(-2)
    fingers = uvs[..., ROOT, :] - uvs[..., WRIST, :]
    # Rotated from right to down by this angle, (across, down) becomes (0, -1).
    angles = torch.atan2(-fingers[..., 0], -fingers[..., 1])
    return Square((low + high) / 2, (high - low).amax(-1), angles)
