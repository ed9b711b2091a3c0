"""Submanifold convolution (Graham & van der Maaten 2017): 3 x 3 x 3, only at and from occupied voxels."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.stages.detect.voxels.grid import Shape
from vision3d.stages.detect.voxels.reference.submanifold import Rulebook, neighbors, submanifold_conv

__all__ = ["Rulebook", "SubmanifoldConv", "neighbors", "submanifold_conv"]


class SubmanifoldConv(nn.Module):
    """A submanifold convolution without bias.

    Args:
        inputs: Features of a voxel.
        outputs: Features of the result.
        kernel: Size along x, y, z, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Shape = (3, 3, 3)) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(math.prod(kernel), inputs, outputs))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (inputs * min(math.prod(kernel), 8))))

    def forward(self, features: Float[Tensor, "m c"], rules: Rulebook) -> Float[Tensor, "m d"]:
        """The convolution with the neighbors of these voxels for this kernel."""
        return submanifold_conv(features, rules, self.weight)
