"""Networks of hands as ONNX graphs, checked against the network that they were made from."""

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import InputError, MissingDependencyError, Vision3DError
from vision3d.stages.hand.joints import NAMES, ROOT
from vision3d.stages.hand.network.files import HandModel
from vision3d.stages.hand.network.hand_net import HandNet
from vision3d.stages.hand.synth.frames import FrameConfig, frames

OPSET = 18
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
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: want a file ending in .onnx")
    try:
        import onnx
        import onnxruntime  # noqa: F401  used for the comparison
        import onnxscript  # noqa: F401  used by torch
    except ImportError as error:
        raise MissingDependencyError("onnx, onnxscript and onnxruntime", "export", "hand export") from error
    size = model.config.input_size
    images = (frames(0, 0, 3, FrameConfig(size=size)).images.permute(0, 3, 1, 2).float() / 255).contiguous()
    graph = HandGraph(model.network.cpu().eval()).eval()
    with torch.no_grad():
        want = [value.numpy() for value in graph(images)]
    if not all(np.isfinite(value).all() for value in want):
        raise Vision3DError("network: its results are not finite; nothing is written")
    names = list(_NAMES[: len(want)])
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph, (images[:2],), input_names=["images"], output_names=names, opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},), dynamo=True, verbose=False, optimize=True,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {"joints": ",".join(NAMES), "input": "right hand, RGB in [0, 1]"})
    onnx.checker.check_model(proto)
    data = proto.SerializeToString()
    difference = _difference(data, images.numpy(), want)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return Exported(_shapes(proto.graph.input), _shapes(proto.graph.output), 1000 * difference)


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


def _shapes(values: object) -> dict[str, list[int | str]]:
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in values  # type: ignore[attr-defined]
    }


@contextlib.contextmanager
def _quiet(*names: str):
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
