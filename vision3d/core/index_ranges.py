"""Ranges of index tensors on a GPU, read once: reading them waits for everything before."""

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from vision3d.core.torch_private import version_of

_known = WeakTensorKeyDictionary()  # tensor -> its version, smallest and largest index


def index_range(indices: Tensor) -> tuple[int, int]:
    """Smallest and largest index; (0, -1) if there are none.

    On a GPU they are read again only after an operation of torch has changed the tensor; what other libraries write to its
    memory is not noticed.
    """
    if not indices.numel():
        return 0, -1
    version = _version(indices)
    known = None if version is None else _known.get(indices)
    if known is not None and known[0] == version:
        return known[1:]
    low, high = indices.aminmax()
    found = int(low), int(high)
    remember(indices, *found)
    return found


def remember(indices: Tensor, low: int, high: int) -> None:
    """Declare that all indices are from `low` to `high`, for a result of a kernel on a GPU; no effect on a CPU."""
    version = _version(indices)
    if version is not None:
        _known[indices] = version, low, high


def _version(indices: Tensor) -> int | None:
    """None where ranges are not remembered: on a CPU, where reading them is cheap, and for tensors without versions."""
    return None if indices.device.type == "cpu" or indices.is_inference() else version_of(indices)
