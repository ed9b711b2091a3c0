"""Cache of the most recently used frames of sequences."""

from collections import OrderedDict
from typing import Any

from torch import Tensor

from vision3d.scene import FrameSequence, MeshGaussians


class FrameCache:
    """Reads frames on demand and drops the least recently used ones beyond a size.

    Args:
        max_bytes: Total size of the cached frames' values; the last one is cached whatever its size.
    """

    def __init__(self, max_bytes: float) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._frames: OrderedDict[tuple[int, int | None], tuple[FrameSequence, Any, int]] = OrderedDict()

    def get(self, sequence: FrameSequence, index: int | None) -> Any:
        """A frame of a sequence; None: the base (rest pose).

        Raises:
            InputError: The frame cannot be read.
        """
        key = (id(sequence), index)  # the entry keeps the sequence alive, so that its id stays unique
        if key in self._frames:
            self._frames.move_to_end(key)
            return self._frames[key][1]
        if index is None:
            frame = sequence.base.to_gaussians() if isinstance(sequence.base, MeshGaussians) else sequence.base
        else:
            frame = sequence.frame(index)
        size = sum(value.nbytes for name, value in vars(frame).items() if _is_own(sequence, name, value))
        self._frames[key] = (sequence, frame, size)
        self.num_bytes += size
        while self.num_bytes > self.max_bytes and len(self._frames) > 1:
            self.num_bytes -= self._frames.popitem(last=False)[1][2]
        return frame


def _is_own(sequence: FrameSequence, name: str, value: object) -> bool:
    """Whether a field is a tensor that the frame does not share with the base."""
    shared = getattr(sequence.base, name, None)
    return isinstance(value, Tensor) and not (isinstance(shared, Tensor) and shared.data_ptr() == value.data_ptr())
