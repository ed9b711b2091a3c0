"""A network without Python between its operations, for videos: a third of the time of small operations is the interpreter's."""

import logging
import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.stages.hand.network.hand_net import HandNet, HandOutputs

logger = logging.getLogger(__name__)
_CLOSE = 1e-4  # largest difference of the results [crop sides, m, logits]
_MAX_BATCH = 2


class FrozenNet:
    """Calls a network by graphs of one batch size each, made at its first use; larger batches are run eagerly.

    Args:
        network: Of `HandNet.for_inference`, on the CPU.
    """

    def __init__(self, network: HandNet) -> None:
        self.network = network
        self._graphs: dict[tuple[int, ...], torch.jit.ScriptModule | None] = {}

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> HandOutputs:
        """As the network."""
        if len(images) > _MAX_BATCH:
            return self.network(images)
        key = tuple(images.shape)
        if key not in self._graphs:
            self._graphs[key] = _graph(self.network, images)
        graph = self._graphs[key]
        return self.network(images) if graph is None else HandOutputs(*graph(images))


class _Tuple(nn.Module):
    def __init__(self, network: HandNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.network(images)
        more = () if found.confidence is None else (found.confidence, found.side, found.presence)
        return found.uv, found.vertices, found.joints, *more


def _graph(network: HandNet, images: Tensor) -> torch.jit.ScriptModule | None:
    """The traced network if its results are those of the network, else None."""
    module = _Tuple(network).eval()
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            example = images.clone()  # a tensor of inference mode could not be traced
            graph = torch.jit.freeze(torch.jit.trace(module, example, check_trace=False))
            other = torch.rand_like(example)
            for _ in range(3):  # torch optimizes a graph after its first calls
                found = graph(other)
            difference = max(float((a - b).abs().max()) for a, b in zip(found, module(other), strict=True))
    except Exception as error:  # torch raises many kinds; the network itself works without a graph
        logger.info("no graph of the network (%s)", error)
        return None
    if not difference < _CLOSE:
        logger.info("no graph of the network: results differ by %g", difference)
        return None
    return graph
