"""Distributed training: images or samples are split among processes, gradients averaged, process 0 writes."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vision3d.core.device import resolve_device
from vision3d.core.errors import ConfigError, DeviceError


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
        """The value of process 0 (tensors and plain values) in every process; in the others, tensors are on the CPU."""
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
        return torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)


@contextlib.contextmanager
def launched_group(device: str = "auto", *, backend: str = "auto") -> Iterator[Group]:
    """The group that torchrun started this process in, or this process alone.

    Every process gets the GPU of its local rank as current device, so that `cuda` is a different GPU in each. Tensors on GPUs
    are exchanged by NCCL, those of the CPU by gloo.

    Args:
        device: As for `resolve_device`, without an index; `cpu` leaves the GPUs alone.
        backend: Rasterizer backend, as for `resolve_device`.

    Raises:
        DeviceError: The device cannot be used, or there are more processes on this machine than GPUs.
    """
    distributed = torch.distributed
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not distributed.is_available() or distributed.is_initialized():
        yield Group.current()
        return
    is_nccl = _takes_own_gpu(device, backend) and distributed.is_nccl_available()
    distributed.init_process_group("cpu:gloo,cuda:nccl" if is_nccl else "gloo")
    try:
        yield Group.current()
    finally:
        distributed.destroy_process_group()


def _takes_own_gpu(name: str, backend: str) -> bool:
    """Make the GPU of the local rank the current one, and return whether the device of that name is a GPU."""
    rank, processes = (int(os.environ.get(key, "0")) for key in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    gpus = torch.cuda.device_count() if name != "cpu" and torch.cuda.is_available() else 0
    if rank < gpus:
        torch.cuda.set_device(rank)
    device = resolve_device(name, backend=backend)
    if device.type != "cuda":
        return False
    if device.index is not None:
        raise DeviceError(f"device {name}: torchrun gives each process the GPU of its local rank; want cuda")
    if processes > gpus:
        raise DeviceError(
            f"device {name}: got {processes} processes on this machine for its {gpus} GPUs, want at most one per GPU "
            f"(--nproc-per-node {gpus}), or --device cpu"
        )
    return True
