"""Distributed training: images or samples are split among processes, gradients averaged, process 0 writes."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vision3d.core.errors import ConfigError


@dataclass(frozen=True)
class Group:
    """The process group of a training; also works for a single process."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Group":
        """The default process group of torch.distributed, if it was initialized."""
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def share(self, batch: int, name: str = "batch_size") -> range:
        """The indices of a batch that belong to this process.

        Args:
            batch: Size of the batch.
            name: The option that sets it.

        Raises:
            ConfigError: The batch cannot be divided evenly.
        """
        if batch % self.size:
            raise ConfigError(name, f"got {batch} for {self.size} processes, want a multiple of {self.size}")
        part = batch // self.size
        return range(self.rank * part, (self.rank + 1) * part)

    def sum(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.size > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def mean(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over the processes."""
        self.sum(tensors)
        if self.size > 1:
            for tensor in tensors:
                tensor /= self.size

    def agree(self, progress: float, stop: bool) -> tuple[float, bool]:
        """The progress of process 0, and whether any process was asked to stop, so that all make the same decisions."""
        if self.size == 1:
            return progress, stop
        values = torch.tensor([progress if self.is_first else 0.0, float(stop)], dtype=torch.float64)
        torch.distributed.all_reduce(values)
        return float(values[0]), bool(values[1] > 0)

    def from_first(self, value: Any) -> Any:
        """The value of process 0 (tensors and plain values) in every process."""
        if self.size == 1:
            return value
        buffer = io.BytesIO()
        if self.is_first:
            torch.save(value, buffer)
        length = torch.tensor(buffer.getbuffer().nbytes)
        torch.distributed.broadcast(length, 0)
        data = torch.zeros(int(length), dtype=torch.uint8)
        if self.is_first:
            data.copy_(torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8))
        torch.distributed.broadcast(data, 0)
        return torch.load(io.BytesIO(data.numpy().tobytes()), weights_only=True)


@contextlib.contextmanager
def launched_group() -> Iterator[Group]:
    """The group that torchrun started this process in, or this process alone."""
    distributed = torch.distributed
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not distributed.is_available() or distributed.is_initialized():
        yield Group.current()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    distributed.init_process_group("gloo")
    try:
        yield Group.current()
    finally:
        distributed.destroy_process_group()
