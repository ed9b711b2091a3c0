"""Networks of hands as ONNX graphs, checked against the network that they were made from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import Vision3DError
from vision3d.stages.hand.joints import NAMES, ROOT
from vision3d.stages.hand.network.files import HandModel
from vision3d.stages.hand.network.hand_net import HandNet
from vision3d.stages.hand.synth.frames import FrameConfig, frames
from vision3d.training.onnx_graphs import check_onnx, onnx_graph, shapes_of

_CLOSE = 1e-3  # largest difference of a graph that is written [m, crop sides, logits]
_NAMES = ("uv", "vertices", "joints", "confidence", "side", "presence")


@dataclass(frozen=True)
class Exported:
    """A written graph."""

    inputs: dict[str, list[int | str]]
    """Shape of each input."""
    outputs: dict[str, list[int | str]]
    difference_mm: float
    """Largest difference of a coordinate of a vertex between the graph and the network [mm]."""


class HandGraph(nn.Module):
    """(N, 3, S, S) crops to 2D joints, vertices, 3D joints and, if the network has them, logits."""

    def __init__(self, network: HandNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> tuple[Tensor, ...]:
        """uv in crop sides, vertices and joints relative to the root joint [m]; logits of confidence, right side, presence."""
        found = self.network(images)
        root = found.joints[:, ROOT : ROOT + 1]
        more = () if found.confidence is None else (found.confidence, found.side, found.presence)
        return found.uv, found.vertices - root, found.joints - root, *more


def export_hand(model: HandModel, path: Path | str) -> Exported:
    """Write a network as .onnx and compare both on generated hands.

    The input is (N, 3, S, S) for any N: crops of right hands, red, green and blue in [0, 1]. Mirror left hands before, and the
    results after.

    Args:
        model: The network.
        path: The .onnx file.

    Raises:
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
        InputError: The suffix is not .onnx.
        Vision3DError: The results of the network or of the graph are not finite, or differ.
    """
    path = check_onnx(path, "hand export")
    size = model.config.input_size
    images = (frames(0, 0, 3, FrameConfig(size=size)).images.permute(0, 3, 1, 2).float() / 255).contiguous()
    graph = HandGraph(model.network.cpu().eval()).eval()
    with torch.no_grad():
        want = [value.numpy() for value in graph(images)]
    if not all(np.isfinite(value).all() for value in want):
        raise Vision3DError("network: its results are not finite; nothing is written")
    properties = {"joints": ",".join(NAMES), "input": "right hand, RGB in [0, 1]"}
    proto = onnx_graph(graph, images[:2], "images", _NAMES[: len(want)], properties, fewest_rows=1)
    data = proto.SerializeToString()
    difference = _difference(data, images.numpy(), want)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return Exported(shapes_of(proto.graph.input), shapes_of(proto.graph.output), 1000 * difference)


def _difference(data: bytes, images: np.ndarray, want: list[np.ndarray]) -> float:
    """Largest difference of the vertices [m], also for another number of images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = np.zeros(len(want))
    for count in (1, len(images)):
        got = session.run(None, {"images": images[:count]})
        each = [float(np.abs(np.asarray(a) - b[:count]).max()) for a, b in zip(got, want, strict=True)]
        worst = np.maximum(worst, each)
    if not bool((worst < _CLOSE).all()):
        raise Vision3DError(f"graph: its results differ from the network's by {worst.max():g}; nothing is written")
    return float(worst[1])
