"""Points of a batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class PointBatch:
    """Points of several samples."""

    points: Float[Tensor, "p 4"]
    """x y z [m], intensity in [0, 1]."""
    sample: Int64[Tensor, " p"]
    """Sample of each point, ascending."""
    num_samples: int

    @classmethod
    def of(cls, clouds: list[Tensor]) -> "PointBatch":
        """Concatenate clouds (n, 4); empty ones are allowed."""
        sizes = torch.tensor([len(cloud) for cloud in clouds])
        return cls(torch.cat(clouds), torch.repeat_interleave(torch.arange(len(clouds)), sizes), len(clouds))

    def to(self, device: torch.device) -> "PointBatch":
        return PointBatch(self.points.to(device), self.sample.to(device), self.num_samples)
