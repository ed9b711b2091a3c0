"""Animation of rendered objects: their states frame by frame."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.scene import Cameras, FrameSequence, Scene, SkinnedMesh
from vision3d.scene.clip import frame_rate
from vision3d.scene.scene import at_moment, is_moving

_DRAWN = ("GaussianScene", "Mesh", "MeshGaussians")
_FPS = 30.0  # frame rate of clips that do not record one


@dataclass(frozen=True, eq=False)
class Timeline:
    """Objects of which at least one is animated: a `vision3d.FrameSequence`, or a `vision3d.SkinnedMesh` with a clip."""

    objects: Any
    """A scene, one object, or a list."""
    times: Float[Tensor, " t"]
    """Times of the frames [s]: those of the longest sequence; without sequences those of the longest clip."""

    @classmethod
    def of(cls, objects: Any) -> "Timeline | None":
        """The timeline of objects to render; None if none of them is animated.

        Raises:
            InputError: A sequence has no frames, or its type is not rendered.
        """
        values = objects.objects.values() if isinstance(objects, Scene) else _listed(objects)
        moving = [value for value in values if is_moving(value)]
        if isinstance(objects, Scene):  # may contain point clouds and boxes, which are not rendered
            moving = [value for value in moving if isinstance(value, SkinnedMesh) or type(value.base).__name__ in _DRAWN]
        sequences = [value for value in moving if isinstance(value, FrameSequence)]
        for value in sequences:
            if type(value.base).__name__ not in _DRAWN:
                raise InputError(f"objects: a sequence of {type(value.base).__name__} is not drawn; want {', '.join(_DRAWN)}")
            if not len(value):
                raise InputError("objects: a sequence has 0 frames, want at least one")
        if not moving:
            return None
        if sequences:
            return cls(objects, max((value.times for value in sequences), key=len))
        longest = max(
            (value for value in moving if isinstance(value, SkinnedMesh)), key=lambda skin: skin.span[1] - skin.span[0]
        )
        return cls(objects, longest.clips[0].times(longest.fps or _FPS))

    def __len__(self) -> int:
        return len(self.times)

    @property
    def fps(self) -> float:
        """Frames per second; 30 if times are not evenly spaced."""
        return frame_rate(self.times) or _FPS

    def resampled(self, count: int) -> "Timeline":
        """`count` frames at the same rate: looping objects repeat, ended ones keep their last frame."""
        start = float(self.times[0])
        return replace(self, times=start + torch.arange(count, dtype=torch.float64) / self.fps)

    def at(self, index: int) -> Any:
        """The objects in a frame, as for `Scene.at`: skins loop, a sequence is in the last frame that has started."""
        time = float(self.times[index])
        if isinstance(self.objects, Scene):
            drawn = {name: value for name, value in self.objects.objects.items() if not _is_hidden(value)}
            kept = {name: matrix for name, matrix in self.objects.transforms.items() if name in drawn}
            return replace(self.objects, objects=drawn, transforms=kept).at(time)
        return [at_moment(value, time) for value in _listed(self.objects)]

    def cameras(self, cameras: Cameras) -> Cameras:
        """One camera per frame.

        Raises:
            InputError: Their number is neither one nor that of the frames.
        """
        if len(cameras) not in (1, len(self)):
            raise InputError(
                f"cameras: got {len(cameras)} for a sequence of {len(self)} frames; want one, or one for each frame"
            )
        return cameras if len(cameras) == len(self) else cameras[[0] * len(self)]


def _is_hidden(value: Any) -> bool:
    """Whether this is a sequence of a type that is not rendered, whose frames need not be read."""
    return isinstance(value, FrameSequence) and type(value.base).__name__ not in _DRAWN


def _listed(objects: Any) -> Sequence[Any]:
    return list(objects) if isinstance(objects, list | tuple) else [objects]
