"""A few shapes whose weighted sums are all frames of a motion: principal components with a bound on the largest error."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError

_ROUNDS = 4
_AHEAD = 0.8
"""Share of the shapes with which is looked for where errors will be large."""


def principal_shapes(
    displacements: Float[Tensor, "t v 3"], tolerance: float, *, most: int | None = None
) -> tuple[Float[Tensor, "t m"], Float[Tensor, "m v 3"]]:
    """Weights and shapes whose sums are the displacements within a tolerance, or as near as `most` shapes come.

    Right singular vectors of the displacements, not centred, so that all weights zero is no displacement. They are the least
    squares choice; as the largest error counts here, vertices with large errors then weigh more in further rounds, which takes
    a quarter fewer shapes. Each is scaled so that its weight reaches 1 or -1.

    Args:
        displacements: Of the vertices in each frame [m].
        tolerance: The largest distance of any vertex in any frame from where it should be [m].
        most: The most shapes; as many as are needed when None.

    Raises:
        InputError: Something is not finite, or the tolerance or the count is negative.
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
        while low < high:  # the largest error hardly ever grows with the number of shapes
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
    """Left singular vectors, those of large values first, without those of rounding."""
    values, left = torch.linalg.eigh(rows @ rows.T)  # frames are few, and half of the digits are enough
    return left.flip(1)[:, : int((values > 1e-14 * values[-1]).sum())]


def _errors(values: Tensor, left: Tensor) -> Tensor:
    """Distances (T, V) that are left of displacements that some left vectors span."""
    rows = values.flatten(1)
    return torch.linalg.vector_norm((rows - left @ (left.T @ rows)).view(values.shape), dim=-1)
