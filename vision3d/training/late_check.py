"""Detection of values that are not finite, on a GPU without waiting for it: the CPU reads the result of a step a step later."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor


class LateCheck:
    """Whether the values of the last step were finite.

    The largest magnitude of each is copied to the CPU while the GPU works. Until it is read, the step protects its state by
    the flag on the device that `put` returns.
    """

    def __init__(self) -> None:
        self._waiting: tuple[int, list[str], Tensor, torch.cuda.Event] | None = None

    def put(self, step: int, values: Mapping[str, Tensor]) -> Bool[Tensor, ""]:
        """Start the check of a step.

        Args:
            step: Number of the step.
            values: Not empty, all on one GPU.

        Returns:
            Whether all are finite, on the GPU.
        """
        largest = torch.stack([torch.linalg.vector_norm(value, math.inf) for value in values.values()])  # NaN if one is
        arriving = largest.to("cpu", non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(largest.device))
        self._waiting = step, list(values), arriving, arrived
        return torch.isfinite(largest).all()

    def read(self) -> tuple[int, str] | None:
        """Step and name of the first value of the last `put` that was not finite; None if all were or it was read already."""
        if self._waiting is None:
            return None
        (step, names, largest, arrived), self._waiting = self._waiting, None
        arrived.synchronize()
        return next(((step, name) for name, value in zip(names, largest.tolist()) if not math.isfinite(value)), None)
