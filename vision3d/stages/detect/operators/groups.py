"""Sequences stored one after the other: row t of a tensor (T, ...) belongs to group i if starts[i] <= t < starts[i + 1]."""

from functools import cached_property

import torch
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError


class Groups:
    """Which rows belong to which sequence. Groups may be empty, and no function here mixes rows of different groups.

    Args:
        starts: (groups + 1,) int64, from 0 up to the number of rows.
        size: Length of all groups if it is the same, which saves index operations.

    Raises:
        ShapeError: starts is not one axis of int64 with at least one value.
        InputError: starts does not begin at 0 or decreases (checked on a CPU; reading it would stall a GPU).
    """

    def __init__(self, starts: Tensor, size: int | None = None) -> None:
        if starts.dim() != 1 or starts.dtype != torch.int64 or not len(starts):
            raise ShapeError("starts", f"{tuple(starts.shape)} of {starts.dtype}", "(groups + 1,) of torch.int64")
        if starts.device.type == "cpu" and size is None and (int(starts[0]) != 0 or bool((starts.diff() < 0).any())):
            raise InputError(f"starts: got {starts[:8].tolist()}, want values that begin at 0 and do not decrease")
        self.starts, self.size = starts, size

    @classmethod
    def equal(cls, count: int, size: int, device: torch.device | str = "cpu") -> "Groups":
        """`count` groups of `size` rows each."""
        return cls(torch.arange(count + 1, device=device) * size, size)

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.starts) - 1

    @cached_property
    def rows(self) -> int:
        """Number of rows of all groups."""
        return self.count * self.size if self.size is not None else int(self.starts[-1])

    @cached_property
    def longest(self) -> int:
        """Length of the longest group."""
        if self.size is not None:
            return self.size
        return int(self.starts.diff().max()) if self.count else 0

    @cached_property
    def owner(self) -> Tensor:
        """(T,) index of each row's group."""
        index = torch.arange(self.count, device=self.starts.device)
        return index.repeat_interleave(self.starts.diff(), output_size=self.rows)

    @cached_property
    def position(self) -> Tensor:
        """(T,) index of each row in its group."""
        return torch.arange(self.rows, device=self.starts.device) - self.starts[self.owner]

    @cached_property
    def _opposite(self) -> Tensor:
        return self.starts[self.owner] + self.starts[self.owner + 1] - 1 - torch.arange(self.rows, device=self.starts.device)

    @cached_property
    def _slot(self) -> Tensor:
        return self.owner * self.longest + self.position

    def ends(self, width: int, last: bool) -> tuple[Tensor, Tensor]:
        """The first `width` rows of each group, or the last ones, and how many rows of the group are beyond each."""
        place = torch.arange(width, device=self.starts.device).expand(self.count, width)
        first, end = self.starts[:-1, None], self.starts[1:, None]
        rows = end - 1 - place if last else first + place
        inside = (rows >= first) & (rows < end)
        return rows[inside], place[inside]

    def check(self, name: str, rows: Tensor) -> None:
        """Check that a tensor has the number of rows of all groups.

        Raises:
            ShapeError: It has not.
        """
        if len(rows) != self.rows:
            raise ShapeError(name, rows.shape, f"{self.rows} rows, the last value of starts")

    def padded(self, rows: Tensor) -> Tensor:
        """(T, ...) -> (groups, longest, ...), zero behind the end of a group."""
        shape = (self.count, self.longest, *rows.shape[1:])
        if self.size is not None:
            return rows.reshape(shape)
        return rows.new_zeros((self.count * self.longest, *rows.shape[1:])).index_copy(0, self._slot, rows).reshape(shape)

    def unpadded(self, padded: Tensor) -> Tensor:
        """(groups, longest, ...) -> (T, ...)."""
        rows = padded.flatten(0, 1)
        return rows if self.size is not None else rows[self._slot]

    def flipped(self, rows: Tensor) -> Tensor:
        """Each group in reversed order."""
        if self.size is not None:
            return self.padded(rows).flip(1).flatten(0, 1)
        return rows[self._opposite]

    def shifted(self, rows: Tensor, by: int, before: Tensor | None = None) -> Tensor:
        """Row t is row t - by of the same group; beyond the ends of a group it is zero.

        Args:
            rows: (T, C).
            by: Positive, or negative for rows that follow.
            before: (groups, width, C) rows in front of each group, width >= by; zeros when None.
        """
        if by == 0:
            return rows
        if before is not None:
            return self._with_tail(rows, before, self.owner, self.position - by)
        if self.size is not None:
            padded = self.padded(rows)
            kept = padded[:, : max(self.size - by, 0)] if by > 0 else padded[:, -by:]
            width = self.size - kept.shape[1]
            return torch.nn.functional.pad(kept, (0, 0, width, 0) if by > 0 else (0, 0, 0, width)).flatten(0, 1)
        if by > 0:
            inside = self.position >= by
        else:
            inside = self.position < self.starts.diff()[self.owner] + by
        index = (torch.arange(self.rows, device=rows.device) - by).clamp(0, max(self.rows - 1, 0))
        return torch.where(inside[:, None], rows[index], 0)

    def tail(self, rows: Tensor, width: int, before: Tensor | None = None) -> Tensor:
        """(groups, width, C): the last rows of each group, continued by those in front of it (zeros when None)."""
        if before is None:
            before = rows.new_zeros((self.count, width, rows.shape[1]))
        owner = torch.arange(self.count, device=rows.device).repeat_interleave(width)
        position = (self.starts.diff()[:, None] - width + torch.arange(width, device=rows.device)).flatten()
        return self._with_tail(rows, before, owner, position).view_as(before)

    def _with_tail(self, rows: Tensor, before: Tensor, owner: Tensor, position: Tensor) -> Tensor:
        """Rows at positions of groups; negative positions are in `before`."""
        width = before.shape[1]
        index = torch.where(
            position < 0, owner * width + width + position, before.shape[0] * width + self.starts[owner] + position
        )
        return torch.cat([before.flatten(0, 1), rows])[index]

    def drop(self, rows: Tensor, probability: float) -> Tensor:
        """Set whole groups to zero at random and scale the others by 1 / (1 - probability)."""
        if probability == 0:
            return rows
        kept = (torch.rand(self.count, 1, device=rows.device) >= probability).to(rows.dtype) / (1 - probability)
        return rows * kept[self.owner]
