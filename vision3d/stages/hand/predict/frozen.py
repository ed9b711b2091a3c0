"""Functions of tensors without Python between their operations, for videos: it takes a third of the time of small ones."""

import logging
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)
Tensors = tuple[Tensor, ...]
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
"""Largest differences of a graph's results."""
_MAX_ROWS = 2


class Frozen:
    """Calls a function by graphs, one for each shape of its arguments, made at its first use; eagerly for many rows.

    Args:
        function: A module in evaluation mode, or a function that does the same whatever the values are.
    """

    def __init__(self, function: Callable[..., Tensors]) -> None:
        self.function = function
        self.graphs: dict[tuple[torch.Size, ...], Callable[..., Tensors] | None] = {}

    def __call__(self, *tensors: Tensor) -> Tensors:
        """As the function; the first tensor has a row for each hand."""
        if len(tensors[0]) > _MAX_ROWS:
            return self.function(*tensors)
        key = tuple(tensor.shape for tensor in tensors)
        if key not in self.graphs:
            self.graphs[key] = _graph(self.function, tensors)
        return (self.graphs[key] or self.function)(*tensors)


class _Module(nn.Module):
    def __init__(self, function: Callable[..., Tensors]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensors:
        return self.function(*tensors)


def _graph(function: Callable[..., Tensors], tensors: Tensors) -> Callable[..., Tensors] | None:
    """The traced function if its results are the same, else None."""
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            given = tuple(tensor.clone() for tensor in tensors)  # tensors of inference mode could not be traced
            graph = torch.jit.freeze(torch.jit.trace(_Module(function).eval(), given, check_trace=False))
            for _ in range(3):  # torch optimizes a graph after its first calls
                found = graph(*given)
            want = function(*given)
    except Exception as error:  # torch raises many kinds; the function itself works without a graph
        logger.info("no graph of %s (%s)", function, error)
        return None
    close = (torch.allclose(a, b, _RELATIVE, _ABSOLUTE, equal_nan=True) for a, b in zip(found, want, strict=True))
    if not all(close):
        logger.info("no graph of %s: its results differ", function)
        return None
    return graph
