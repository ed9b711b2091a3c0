"""Submanifold convolution in torch: pairs of neighbors by binary search of sorted keys, then gather, multiply and add."""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.stages.detect.voxels.grid import Shape, keys_of


@dataclass(frozen=True)
class Rulebook:
    """Pairs of neighbors by offset; offset k and the one opposite, n - 1 - k, have the same pairs, swapped."""

    outputs: Int64[Tensor, " p"]
    """Rows that receive, offset by offset."""
    inputs: Int64[Tensor, " p"]
    """Rows that give."""
    starts: tuple[int, ...]
    """First pair of each offset, and the number of pairs."""


def neighbors(coords: Int64[Tensor, "m 4"], shape: Shape, kernel: Shape = (3, 3, 3)) -> Rulebook:
    """The pairs of voxels whose cells differ by each offset of a kernel, x slowest.

    Args:
        coords: Sample, x, y, z, sorted and different.
        shape: Cells of the grid.
        kernel: Size along x, y, z, odd.
    """
    keys = keys_of(coords, shape)
    limits = coords.new_tensor(shape)
    outputs, inputs, starts = [], [], [0]
    for offset in itertools.product(*(range(-(size // 2), size // 2 + 1) for size in kernel)):
        cells = coords[:, 1:] + coords.new_tensor(offset)
        wanted = keys_of(torch.cat([coords[:, :1], cells], 1), shape)
        found = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
        is_pair = ((cells >= 0) & (cells < limits)).all(1)
        if len(keys):
            is_pair &= keys[found] == wanted
        rows = is_pair.nonzero()[:, 0]
        outputs.append(rows)
        inputs.append(found[rows])
        starts.append(starts[-1] + len(rows))
    return Rulebook(torch.cat(outputs), torch.cat(inputs), tuple(starts))


def submanifold_conv(features: Float[Tensor, "m c"], rules: Rulebook, weight: Float[Tensor, "k c d"]) -> Float[Tensor, "m d"]:
    """out[i] = sum over offsets k and pairs (i, j) of features[j] @ weight[k]."""
    out = features.new_zeros(len(features), weight.shape[2])
    for matrix, first, last in zip(weight, rules.starts, rules.starts[1:]):
        if last > first:
            out = out.index_add(0, rules.outputs[first:last], features[rules.inputs[first:last]] @ matrix)
    return out
