"""Animation clips: joints and morph targets over time, as keys with an interpolation (glTF 2.0, appendix C)."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.quaternion import normalize, slerp
from vision3d.scene.checks import check_finite, check_shape

Property = Literal["translation", "rotation", "scale", "weights"]
Interpolation = Literal["LINEAR", "STEP", "CUBICSPLINE"]
_WIDTHS = {"translation": 3, "rotation": 4, "scale": 3}
_EVEN = 1e-3  # relative to the gap between frames
_FLOAT32 = 1e-6  # relative error of times read from a file


@dataclass(frozen=True, eq=False)
class Channel:
    """One animated property of one joint."""

    path: Property
    """What is animated: translation [m], rotation (wxyz) or scale relative to the parent, or the weights of all morphs."""
    joint: int
    """Index of the joint; -1 for weights."""
    times: Float64[Tensor, " t"]
    """Time of each key [s], ascending."""
    values: Float[Tensor, "t c"] | Float[Tensor, "t 3 c"]
    """Keys; for CUBICSPLINE each is the tangent before it, the key, and the tangent after it [1/s]."""
    interpolation: Interpolation = "LINEAR"
    """LINEAR (rotations at constant angular speed along the shorter path), STEP or CUBICSPLINE."""

    def __post_init__(self) -> None:
        if self.path not in get_args(Property) or self.interpolation not in get_args(Interpolation):
            paths, kinds = ", ".join(get_args(Property)), ", ".join(get_args(Interpolation))
            raise InputError(f"Channel: got {self.path!r} by {self.interpolation!r}; want {paths} by {kinds}")
        check_shape("Channel.times", self.times, ("T",))
        width = _WIDTHS.get(self.path, "C")
        shape = (len(self.times), 3, width) if self.interpolation == "CUBICSPLINE" else (len(self.times), width)
        check_shape("Channel.values", self.values, shape)

    def validate(self) -> "Channel":
        """Check the values.

        Raises:
            InputError: No keys, times do not ascend, or a value is not finite.
        """
        if not len(self.times):
            raise InputError(f"Channel: {self.path} of joint {self.joint} has no keys")
        for name in ("times", "values"):
            check_finite(f"Channel ({self.path} of joint {self.joint})", name, getattr(self, name))
        if bool((is_back := self.times.diff() <= 0).any()):
            key = int(is_back.nonzero()[0])
            raise InputError(f"Channel: times of {self.path} of joint {self.joint} do not ascend after key {key}")
        return self

    def at(self, times: Float64[Tensor, " n"]) -> Float[Tensor, "n c"]:
        """Values at any times [s]; clamped to the first and last key."""
        keys = self.times
        after = torch.searchsorted(keys, times.contiguous(), right=True).clamp(1, max(len(keys) - 1, 1))
        before = after - 1
        after = after.clamp(max=len(keys) - 1)
        gap = (keys[after] - keys[before])[:, None]
        share = torch.where(gap > 0, (times[:, None] - keys[before][:, None]) / torch.where(gap > 0, gap, 1), 0).clamp(0, 1)
        share, gap = share.to(self.values), gap.to(self.values)
        if self.interpolation == "CUBICSPLINE":
            first, second = self.values[before], self.values[after]
            s2, s3 = share.square(), share**3
            found = (2 * s3 - 3 * s2 + 1) * first[:, 1] + (3 * s2 - 2 * s3) * second[:, 1]
            found = found + gap * ((s3 - 2 * s2 + share) * first[:, 2] + (s3 - s2) * second[:, 0])
            return normalize(found) if self.path == "rotation" else found
        first, second = self.values[before], self.values[after]
        if self.interpolation == "STEP":
            return torch.where(share < 1, first, second)
        return slerp(first, second, share[:, 0]) if self.path == "rotation" else torch.lerp(first, second, share)

    def to(self, device: torch.device | str) -> "Channel":
        """The same channel on another device."""
        return replace(self, times=self.times.to(device), values=self.values.to(device))


@dataclass(frozen=True, eq=False)
class Clip:
    """Channels that play together."""

    name: str
    """Name of the clip."""
    channels: tuple[Channel, ...]
    """At most one channel for each property of a joint."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        keys = [(channel.path, channel.joint) for channel in self.channels]
        if len(set(keys)) < len(keys):
            path, joint = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"Clip {self.name}: two channels move {path} of joint {joint}")

    @property
    def start(self) -> float:
        """Time of the first key [s]."""
        return min((float(channel.times[0]) for channel in self.channels), default=0.0)

    @property
    def end(self) -> float:
        """Time of the last key [s]."""
        return max((float(channel.times[-1]) for channel in self.channels), default=0.0)

    def times(self, rate: float) -> Float64[Tensor, " n"]:
        """Times [s] from the first key to the last one, `rate` per second."""
        count = int((self.end - self.start) * rate * (1 + _FLOAT32)) + 1
        return (self.start + torch.arange(count, dtype=torch.float64) / rate).clamp(max=self.end)

    def __repr__(self) -> str:
        return f"Clip({self.name!r}, {len(self.channels)} channels, {self.start:.3g} to {self.end:.3g} s)"


def frame_rate(times: Float[Tensor, " t"]) -> float | None:
    """Frames per second of evenly spaced times [s]; None if they are not even, or if there is only one."""
    gaps = times.double().diff()
    if not len(gaps) or float(gaps.min()) <= 0 or float((gaps - gaps.mean()).abs().max()) > _EVEN * float(gaps.mean()):
        return None
    return round(1 / float(gaps.mean()), 4)  # so that times rounded to float32 give the same rate
