"""Kernels as small networks: from coordinates on a group to the C_out x C_in values of a kernel."""

import math
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.errors import ConfigError

KernelKind = Literal["siren", "wire"]
"""sin(w0 z) (Sitzmann et al. 2020), or the real Gabor wave cos(w0 z) exp(-(s0 z)^2) (after Saragadam et al. 2023)."""

WIDTH = 60
OMEGA = 10.0
SIGMA = 3.0


class KernelNet(nn.Module):
    """Three hidden layers of width 60 and a linear layer, initialized as by Sitzmann et al., the last one by the fan-in.

    Args:
        in_dim: Number of coordinates.
        out_dim: Size of one kernel value, C_out * C_in.
        fan: Fan-in of the convolution, C_in * K * K.
        kind: Activation.
        width: Width of the hidden layers.
    """

    def __init__(self, in_dim: int, out_dim: int, fan: int, kind: KernelKind = "siren", width: int = WIDTH) -> None:
        super().__init__()
        if kind not in ("siren", "wire"):
            raise ConfigError("kernel", f"got {kind!r}, want siren or wire")
        self.kind: KernelKind = kind
        sizes = [in_dim, width, width, width]
        self.weights = nn.ParameterList([torch.empty(b, a) for a, b in pairwise(sizes)] + [torch.empty(out_dim, width)])
        self.biases = nn.ParameterList([torch.empty(b) for b in sizes[1:]] + [torch.zeros(out_dim)])
        later = math.sqrt(6 / width) / OMEGA
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            if i < 3:
                bound = 1 / in_dim if i == 0 else later
                nn.init.uniform_(weight, -bound, bound)
                nn.init.uniform_(bias, -1 / math.sqrt(weight.shape[1]), 1 / math.sqrt(weight.shape[1]))
            else:
                bound = math.sqrt(6 / width) / math.sqrt(fan) * math.sqrt(3)
                nn.init.uniform_(weight, -bound, bound)

    def parameters_in_order(self) -> list[Tensor]:
        """W1, b1, ..., W4, b4, in the order of the fused builder."""
        return [tensor for pair in zip(self.weights, self.biases) for tensor in pair]

    def forward(self, coordinates: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch v"]:
        return evaluate(self.kind, coordinates, self.parameters_in_order())


def evaluate(kind: KernelKind, x: Float[Tensor, "*batch d"], parameters: list[Tensor]) -> Float[Tensor, "*batch v"]:
    """Evaluate the network at coordinates."""
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2]):
        x = wave(kind, torch.nn.functional.linear(x, weight, bias))
    return torch.nn.functional.linear(x, parameters[-2], parameters[-1])


def wave(kind: KernelKind, z: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The activation function."""
    return (OMEGA * z).sin() if kind == "siren" else (OMEGA * z).cos() * torch.exp(-(SIGMA * z).square())


def wave_slope(kind: KernelKind, z: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Its derivative."""
    if kind == "siren":
        return OMEGA * (OMEGA * z).cos()
    envelope = torch.exp(-(SIGMA * z).square())
    return -envelope * (OMEGA * (OMEGA * z).sin() + 2 * SIGMA**2 * z * (OMEGA * z).cos())
