"""Stand-ins for hands: a template, and norms that are not those of the start."""

import torch
from torch import nn
from torch.nn import functional


def template(vertices: int = 778) -> tuple[torch.Tensor, torch.Tensor]:
    """A joint matrix with non-negative rows of sum 1, and vertices of a hand's size."""
    matrix = torch.rand(21, vertices)
    return matrix / matrix.sum(1, keepdim=True), 0.05 * torch.randn(vertices, 3)


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


class BlockMeans(nn.Module):
    """A backbone: means of blocks of 32 pixels, as many times as channels are wanted, with random factors."""

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("factors", torch.randn(channels, 3, 1, 1) / 3)

    def forward(self, images):
        return functional.conv2d(functional.avg_pool2d(images, 32), self.factors)


def shake(module: nn.Module) -> None:
    """Random running averages and factors of norms, so that a mistake in folding them is seen."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, 0, 0.3)
            nn.init.uniform_(norm.running_var, 0.3, 3)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
