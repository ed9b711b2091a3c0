"""Submanifold convolution (Graham et al. 2018): outputs only at occupied voxels, so that the voxels do not grow."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor, nn

from vision3d.core import native
from vision3d.core.errors import InputError
from vision3d.core.op_checks import checked
from vision3d.stages.detect.voxels.reference import sparse as reference
from vision3d.stages.detect.voxels.voxels import Triple, check_grid

MAX_SIZE = 7
MAX_VOXELS = 2**31 - 1


def voxel_neighbors(coords: Int64[Tensor, "m 4"], grid: Triple, size: Triple = (3, 3, 3)) -> Int32[Tensor, "k m"]:
    """Index of the voxel at each offset of a kernel, -1 where there is none.

    Args:
        coords: batch x y z, unique and sorted; not checked on a GPU.
        grid: Cells along x, y, z.
        size: Of the kernel along x, y, z, odd, at most 7; (3, 3, 1) for a convolution in 2D. Offsets are numbered x first, z
        last.

    Raises:
        InputError: The size is invalid, or (on a CPU) voxels are unsorted, repeated or outside of the grid.
    """
    _check_size(size)
    check_grid(grid, 0)
    if native.runs_on(coords):
        try:
            with torch.no_grad():
                return native.direct(_voxel_neighbors)(coords, list(grid), list(size))
        except ValueError as error:
            raise InputError(str(error)) from error
    return reference.voxel_neighbors(coords, grid, size)


def submanifold_conv(
    features: Float[Tensor, "m i"], neighbors: Int32[Tensor, "k m"], weights: Float[Tensor, "k i o"]
) -> Float[Tensor, "m o"]:
    """Convolution at the occupied voxels: sum over offsets k of `features[neighbors[k]] @ weights[k]`.

    Args:
        neighbors: Of `voxel_neighbors`: if j is the neighbor of i at an offset, i must be that of j at the opposite one.
        weights: `conv.weight.permute(2, 3, 4, 1, 0).flatten(0, 2)` of a `torch.nn.Conv3d` over (x, y, z).
    """
    if features.dtype in (torch.float32, torch.float64) and native.is_plain(features, weights):
        return native.direct(_submanifold_conv, _SUBMANIFOLD_CONV)(features, neighbors, weights)
    return reference.submanifold_conv(features, neighbors, weights)


class SubmanifoldConv(nn.Module):
    """Submanifold convolution with its weights, initialized as those of `torch.nn.Conv3d`.

    Args:
        size: As in `voxel_neighbors`.
    """

    def __init__(self, c_in: int, c_out: int, size: Triple = (3, 3, 3), *, bias: bool = False) -> None:
        super().__init__()
        _check_size(size)
        self.size = size
        offsets = math.prod(size)
        limit = 1 / math.sqrt(offsets * c_in)
        self.weights = nn.Parameter(torch.empty(offsets, c_in, c_out).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.empty(c_out).uniform_(-limit, limit)) if bias else None

    def forward(self, features: Float[Tensor, "m i"], neighbors: Int32[Tensor, "k m"]) -> Float[Tensor, "m o"]:
        """Args: as for `submanifold_conv`."""
        out = submanifold_conv(features, neighbors, self.weights)
        return out if self.bias is None else out + self.bias


def _check_size(size: Triple) -> None:
    if any(n % 2 == 0 or not 1 <= n <= MAX_SIZE for n in size):
        raise InputError(f"size: got {tuple(size)}, want odd numbers from 1 to {MAX_SIZE}")


@native.custom_op("voxel_neighbors")
@checked("coords: int64 m 4")
def _voxel_neighbors(coords: Tensor, grid: list[int], size: list[int]) -> Tensor:
    if len(grid) != 3 or len(size) != 3:
        raise InputError(f"grid, size: got {len(grid)} and {len(size)} numbers, want 3")
    _check_size((size[0], size[1], size[2]))
    check_grid((grid[0], grid[1], grid[2]), 0)
    if len(coords) > MAX_VOXELS:
        raise InputError(f"coords: got {len(coords)} voxels, want at most 2^31 - 1")
    neighbors = _fake_neighbors(coords, grid, size)
    native.require().voxel_neighbors(coords.contiguous(), *grid, *size, neighbors, **native.where(coords))
    return neighbors


@native.custom_op("submanifold_conv")
@checked("features: float m i, neighbors: int32 k m, weights: float k i o")
def _submanifold_conv(features: Tensor, neighbors: Tensor, weights: Tensor) -> Tensor:
    out = _fake_conv(features, neighbors, weights)
    given = features.detach().contiguous(), neighbors.contiguous(), weights.detach().contiguous()
    native.require().submanifold_conv(*given, out, **native.where(features))
    return out


@native.custom_op("submanifold_conv_vjp")
@checked("features: float m i, neighbors: int32 k m, weights: float k i o, v_out: float m o")
def _submanifold_conv_vjp(
    features: Tensor, neighbors: Tensor, weights: Tensor, v_out: Tensor, by_features: bool, by_weights: bool
) -> tuple[Tensor, Tensor]:
    module, where = native.require(), native.where(features)
    neighbors, v_out = neighbors.contiguous(), v_out.detach().contiguous()
    v_features, v_weights = _fake_vjp(features, neighbors, weights, v_out, by_features, by_weights)
    if by_features:  # the neighbor at the opposite offset has this voxel as its neighbor
        opposite = weights.detach().flip(0).transpose(1, 2).contiguous()
        module.submanifold_conv(v_out, neighbors, opposite, v_features, **where)
    if by_weights:
        module.submanifold_conv_weights(features.detach().contiguous(), neighbors, v_out, v_weights, **where)
    return v_features, v_weights


def _fake_neighbors(coords: Tensor, grid: list[int], size: list[int]) -> Tensor:
    return coords.new_empty((size[0] * size[1] * size[2], coords.shape[0]), dtype=torch.int32)


def _fake_conv(features: Tensor, neighbors: Tensor, weights: Tensor) -> Tensor:
    return features.new_empty((features.shape[0], weights.shape[2]))


def _fake_vjp(
    features: Tensor, neighbors: Tensor, weights: Tensor, v_out: Tensor, by_features: bool, by_weights: bool
) -> tuple[Tensor, Tensor]:
    return features.new_empty(features.shape if by_features else (0, 0)), weights.new_empty(
        weights.shape if by_weights else (0, 0, 0)
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, v_out: Tensor | None, vjp: Any = _submanifold_conv_vjp) -> tuple[Tensor | None, ...]:
    if v_out is None:
        return None, None, None
    by_features, _, by_weights = ctx.needs_input_grad
    v_features, v_weights = vjp(*ctx.saved_tensors, v_out, by_features, by_weights)
    return v_features if by_features else None, None, v_weights if by_weights else None


_voxel_neighbors.register_fake(_fake_neighbors)
_submanifold_conv.register_fake(_fake_conv)
_submanifold_conv_vjp.register_fake(_fake_vjp)
_submanifold_conv.register_autograd(_backward, setup_context=_keep)
_SUBMANIFOLD_CONV = native.eager_function(_submanifold_conv, _keep, _backward, _submanifold_conv_vjp)
