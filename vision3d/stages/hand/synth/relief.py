"""Normals of skin that is raised and lowered a little, without more triangles."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.geometry.vectors import unit

_STEP = 0.006
"""Neighbors whose depths differ by more are on another surface [m]."""


def raised(
    normals: Float[Tensor, "n 3"],
    heights: Float[Tensor, " n"],
    is_raised: Bool[Tensor, " n"],
    depths: Float[Tensor, "b h w"],
    Ks: Float[Tensor, "b 3 3"],
    pixels: tuple[Int64[Tensor, " n"], Int64[Tensor, " n"], Int64[Tensor, " n"]],
) -> Float[Tensor, "n 3"]:
    """Normals of a surface that is moved along its normals (Mikkelsen 2010, "Bump Mapping Unparametrized Surfaces on the GPU").

    Derivatives are differences of neighboring pixels, where these show the same surface.

    Args:
        normals: Unit vectors at some pixels, in the camera's frame.
        heights: How far the surface is moved there [m].
        is_raised: Pixels whose normals change; others are no neighbors of theirs.
        depths: Of all pixels [m].
        Ks: Intrinsics [px].
        pixels: Image, row and column of each of these pixels.

    Returns:
        Unit vectors.
    """
    image, row, column = pixels
    size = depths.shape[1:]
    place = torch.full(depths.shape, -1, dtype=torch.int64)
    place[pixels] = torch.where(is_raised, torch.arange(len(image)), -1)
    depth, K = depths[pixels], Ks[image]
    x, y = column + 0.5 - K[:, 0, 2], row + 0.5 - K[:, 1, 2]
    points = depth[:, None] * torch.stack([x / K[:, 0, 0], y / K[:, 1, 1], torch.ones_like(x)], 1)

    def differences(down: int, right: int) -> tuple[Tensor, Tensor]:
        ends = []
        for sign in (-1, 1):
            beside_row, beside_column = row + sign * down, column + sign * right
            at = (image, beside_row.clamp(0, size[0] - 1), beside_column.clamp(0, size[1] - 1))
            found = place[at]
            is_same = (found >= 0) & ((depths[at] - depth).abs() < _STEP)
            ends.append(torch.where(is_same, found, torch.arange(len(image))))
        low, high = ends
        return points[high] - points[low], heights[high] - heights[low]

    along_x, rise_x = differences(0, 1)
    along_y, rise_y = differences(1, 0)
    across_x, across_y = torch.linalg.cross(along_y, normals), torch.linalg.cross(normals, along_x)
    area = (along_x * across_x).sum(-1, keepdim=True)
    slope = torch.sign(area) * (rise_x[:, None] * across_x + rise_y[:, None] * across_y)
    changes = is_raised & (area[:, 0].abs() > 1e-12)
    return torch.where(changes[:, None], unit(area.abs() * normals - slope), normals)
