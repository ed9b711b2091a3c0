"""Equal groups of consecutive voxels for sequence operators."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.stages.detect.voxels.segments import Segments, expand


@dataclass(frozen=True, eq=False)
class Partition:
    """A partition of M voxels into groups of `size`; the last group of a sample may have fewer. Groups do not cross samples."""

    order: Int64[Tensor, " m"]
    """Voxels by group."""
    starts: Int64[Tensor, " groups+1"]
    """Place in `order` at which each group begins, and M."""
    padded: Int64[Tensor, "groups size"]
    """Voxels of each group, filled up with voxels of the same sample."""
    slots: Int64[Tensor, " m"]
    """Place of each voxel in the flat `padded`."""

    @cached_property
    def gathered(self) -> Segments:
        """From voxels to their order by group, for `segments.expand`."""
        return Segments(_inverse(self.order), torch.arange(len(self.order) + 1, device=self.order.device), self.order)

    @cached_property
    def scattered(self) -> Segments:
        """From the order by group to voxels."""
        return Segments(self.order, self.gathered.starts, self.gathered.order)

    @cached_property
    def filled(self) -> Segments:
        """From voxels to the flat `padded`."""
        return Segments.of_keys(self.padded.flatten())[1]


def equal_groups(order: Int64[Tensor, " m"], counts: Int64[Tensor, " b"], size: int) -> Partition:
    """Cut the voxels of each sample into groups.

    The last group of a sample is filled up with the voxels at the same places of the group before it, or, if there is none, by
    repeating its own: 10 voxels in groups of 4 are 0123, 4567, 8967.

    Args:
        order: Voxels sorted by sample, as from `window_order`.
        counts: Number of voxels of each sample.
        size: Voxels of a group.

    Raises:
        InputError: The size is not positive.
    """
    if size < 1:
        raise InputError(f"size: got {size}, want at least one voxel a group")
    firsts = counts.cumsum(0) - counts
    per_sample = (counts + size - 1).div(size, rounding_mode="floor")
    first_groups = per_sample.cumsum(0) - per_sample
    sample = torch.repeat_interleave(torch.arange(len(counts), device=order.device), per_sample)
    within = torch.arange(len(sample), device=order.device) - first_groups[sample]
    starts = torch.cat([firsts[sample] + within * size, order.new_tensor([len(order)])])
    place, count = within[:, None] * size + torch.arange(size, device=order.device), counts[sample, None]
    filled = torch.where(count >= size, place - size, place.remainder(count.clamp(min=1)))
    padded = order[firsts[sample, None] + torch.where(place < count, place, filled)]
    voxel_sample = torch.repeat_interleave(torch.arange(len(counts), device=order.device), counts)
    local = torch.arange(len(order), device=order.device) - firsts[voxel_sample]
    slots = torch.empty_like(order)
    slots[order] = first_groups[voxel_sample] * size + local
    return Partition(order, starts, padded, slots)


def apply_padded(
    operator: Callable[[Float[Tensor, "groups size c"]], Float[Tensor, "groups size c"]],
    features: Float[Tensor, "m c"],
    groups: Partition,
) -> Float[Tensor, "m c"]:
    """Run an operator on groups of equal size; outputs at the filled-up places are dropped."""
    gathered = expand(features, groups.filled) if features.requires_grad else features[groups.padded.flatten()]
    out = operator(gathered.view(*groups.padded.shape, features.shape[1]))
    return out.flatten(0, 1).index_select(0, groups.slots)


def apply_ragged(
    operator: Callable[[Float[Tensor, "m c"], Int64[Tensor, " groups+1"]], Float[Tensor, "m c"]],
    features: Float[Tensor, "m c"],
    groups: Partition,
) -> Float[Tensor, "m c"]:
    """Run an operator on groups without padding: it takes all rows by group, and `starts`."""
    return expand(operator(expand(features, groups.gathered), groups.starts), groups.scattered)


def _inverse(order: Tensor) -> Tensor:
    out = torch.empty_like(order)
    out[order] = torch.arange(len(order), device=order.device)
    return out
