"""Low-rank approximation of a motion: principal components with a bound on the maximum error."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError

_ROUNDS = 4
_AHEAD = 0.8
"""Fraction of the shapes used to predict where errors will be large."""


def principal_shapes(
    displacements: Float[Tensor, "t v 3"], tolerance: float, *, most: int | None = None
) -> tuple[Float[Tensor, "t m"], Float[Tensor, "m v 3"]]:
    """Weights and shapes whose sums approximate the displacements within a tolerance, or as well as `most` shapes can.

    Right singular vectors of the displacements, not centered, so that zero weights mean no displacement. They are optimal in
    the least-squares sense; since the maximum error counts here, vertices with large errors get more weight in further rounds,
    which saves a quarter of the shapes. Each shape is scaled so that its weight reaches 1 or -1.

    Args:
        displacements: Vertex displacements in each frame [m].
        tolerance: Maximum error of any vertex in any frame [m].
        most: Maximum number of shapes; None for no limit.

    Raises:
        InputError: A value is not finite, or the tolerance or the maximum is negative.
    """
    if not bool(torch.isfinite(displacements).all()) or not tolerance >= 0 or (most is not None and most < 0):
        raise InputError(f"principal_shapes: got tolerance {tolerance}, most {most}; want both >= 0, and finite displacements")
    values = displacements.detach().double()
    rows = values.flatten(1)
    if not values.numel():
        return displacements.new_zeros(len(values), 0), displacements.new_zeros(0, *values.shape[1:])
    found, fewest, least = values.new_zeros(len(values), 0), len(values) + 1, torch.inf
    heaviness = values.new_ones(values.shape[1])
    for _ in range(_ROUNDS):
        left = _left_vectors((values * heaviness[:, None]).flatten(1))
        left = left if most is None else left[:, :most]
        low, high = 0, left.shape[1]
        while low < high:  # the maximum error hardly ever increases with the number of shapes
            middle = (low + high) // 2
            is_enough = float(_errors(values, left[:, :middle]).max()) <= tolerance
            low, high = (low, middle) if is_enough else (middle + 1, high)
        error = float(_errors(values, left[:, :low]).max())
        if (low, error) < (fewest, least):
            found, fewest, least = left[:, :low], low, error
        if low < 2:
            break
        peaks = _errors(values, left[:, : int(_AHEAD * low)]).amax(0)
        heaviness = heaviness * (peaks / peaks.mean()).clamp(1e-2, 1e2).sqrt()
    tops = found.abs().amax(0)
    shapes = (found.T @ rows).view(-1, *values.shape[1:])
    return (found / tops).to(displacements), (shapes * tops[:, None, None]).to(displacements)


def _left_vectors(rows: Tensor) -> Tensor:
    """Left singular vectors, largest values first, without those at rounding level."""
    values, left = torch.linalg.eigh(rows @ rows.T)  # there are few frames, and half of the digits are enough
    return left.flip(1)[:, : int((values > 1e-14 * values[-1]).sum())]


def _errors(values: Tensor, left: Tensor) -> Tensor:
    """Residual distances (T, V) of displacements after projection to some left vectors."""
    rows = values.flatten(1)
    return torch.linalg.vector_norm((rows - left @ (left.T @ rows)).view(values.shape), dim=-1)
