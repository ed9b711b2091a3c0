"""Networks as ONNX graphs."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vision3d.core.errors import InputError, MissingDependencyError

OPSET = 18  # maxima of scattered rows


def check_onnx(path: Path | str, verb: str) -> Path:
    """The path, if a graph can be written there.

    Args:
        path: The .onnx file.
        verb: What the user runs, for the message.

    Raises:
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
        InputError: The suffix is not .onnx.
    """
    path = Path(path)
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: want a file ending in .onnx")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401  used for the comparison
        import onnxscript  # noqa: F401  used by torch
    except ImportError as error:
        raise MissingDependencyError("onnx, onnxscript and onnxruntime", "export", verb) from error
    return path


def onnx_graph(
    network: nn.Module,
    given: Tensor,
    name: str,
    outputs: Sequence[str],
    properties: dict[str, str],
    *,
    fewest_rows: int | None = None,
) -> Any:
    """The graph of a network of one input, as an `onnx.ModelProto` that has been checked.

    Args:
        network: In evaluation mode; its result is a tuple of tensors.
        given: An input, contiguous.
        name: Of the input.
        outputs: Names of the results.
        properties: Stored in the graph.
        fewest_rows: The first axis of the input may be of any size from this one on; None: it is fixed.
    """
    import onnx

    dynamic = None if fewest_rows is None else ({0: torch.export.Dim("N", min=fewest_rows)},)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (given,), input_names=[name], output_names=list(outputs), opset_version=OPSET, dynamic_shapes=dynamic,
            dynamo=True, verbose=False, optimize=True,
        )  # fmt: skip
    assert program is not None
    graph = program.model_proto
    onnx.helper.set_model_props(graph, properties)
    onnx.checker.check_model(graph)
    return graph


def shapes_of(values: Any) -> dict[str, list[int | str]]:
    """Shapes of the inputs or outputs of a graph by name; axes of any size have their name."""
    return {value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values}


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
