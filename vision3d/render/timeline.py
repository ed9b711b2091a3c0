"""What moves, frame by frame: the objects of a render at each of its times."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vision3d.errors import InputError
from vision3d.scene import Cameras, Scene, Sequence as Moving

_DRAWN = ("GaussianScene", "Mesh", "MeshGaussians")


@dataclass(frozen=True, eq=False)
class Timeline:
    """Objects of which at least one is a `vision3d.Sequence`."""

    objects: Any
    """A scene, a sequence, or a list."""
    times: torch.Tensor
    """Of the frames [s]: those of the sequence that has most."""

    @classmethod
    def of(cls, objects: Any) -> "Timeline | None":
        """The timeline of what is to be drawn; None where nothing of it moves.

        Raises:
            InputError: A sequence has no frames, or holds what is not drawn.
        """
        values = objects.objects.values() if isinstance(objects, Scene) else _listed(objects)
        moving = [value for value in values if isinstance(value, Moving)]
        if isinstance(objects, Scene):  # which may hold point clouds and boxes, too: these are not drawn
            moving = [value for value in moving if type(value.base).__name__ in _DRAWN]
        if not moving:
            return None
        for value in moving:
            if type(value.base).__name__ not in _DRAWN:
                raise InputError(f"objects: a sequence of {type(value.base).__name__} is not drawn; want {', '.join(_DRAWN)}")
            if not len(value):
                raise InputError("objects: a sequence has 0 frames, want at least one")
        return cls(objects, max((value.times for value in moving), key=len))

    def __len__(self) -> int:
        return len(self.times)

    def at(self, index: int) -> Any:
        """The objects in a frame; a sequence with other times is in its last frame that has begun."""
        time = float(self.times[index])
        if isinstance(self.objects, Scene):
            kept = {name: _at(value, time) for name, value in self.objects.objects.items()}
            return Scene(kept, self.objects.transforms, self.objects.cameras)
        return [_at(value, time) for value in _listed(self.objects)]

    def cameras(self, cameras: Cameras) -> Cameras:
        """A camera a frame.

        Raises:
            InputError: There are neither one nor as many as frames.
        """
        if len(cameras) not in (1, len(self)):
            raise InputError(
                f"cameras: got {len(cameras)} for a sequence of {len(self)} frames; want one, or one for each frame"
            )
        return cameras if len(cameras) == len(self) else cameras[[0] * len(self)]


def _listed(objects: Any) -> Sequence[Any]:
    return list(objects) if isinstance(objects, list | tuple) else [objects]


def _at(value: Any, time: float) -> Any:
    if not isinstance(value, Moving) or type(value.base).__name__ not in _DRAWN:
        return value
    index = max(0, int(torch.searchsorted(value.times.double(), time + 1e-9, right=True)) - 1)
    return value.mesh_at(index) if type(value.base).__name__ == "Mesh" else value.frame(index)
