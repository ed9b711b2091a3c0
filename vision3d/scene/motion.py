"""Skeletons and their motion, as in motion capture."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.kinematics import forward_kinematics
from vision3d.geometry.quaternion import quat_to_rotmat, slerp
from vision3d.scene import codecs, similarity
from vision3d.scene.checks import check_device, check_finite, check_shape, html_table


@dataclass(frozen=True, eq=False)
class Skeleton:
    """J joints, parents before children.

    Example:
        >>> Skeleton(("hip", "knee"), (-1, 0), torch.tensor([[0.0, 0, 0], [0, -0.4, 0]]))
        Skeleton(2 joints, root hip)
    """

    names: tuple[str, ...]
    """Names of the joints, all distinct."""
    parents: tuple[int, ...]
    """Parent of each joint, an earlier joint; -1 for a root."""
    offsets: Float[Tensor, "j 3"]
    """Position of each joint in its parent's frame [m]."""
    tips: tuple[int, ...] = ()
    """Joints that only mark the end of a bone and never rotate."""

    def __post_init__(self) -> None:
        for name in ("names", "parents", "tips"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_shape("Skeleton.offsets", self.offsets, (len(self.names), 3))
        if len(self.parents) != len(self.names):
            raise InputError(f"Skeleton: {len(self.parents)} parents for {len(self.names)} joints")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InputError(f"Skeleton: duplicate joint name {twice!r}")
        for joint, parent in enumerate(self.parents):
            if not -1 <= parent < joint:
                raise InputError(f"Skeleton: joint {joint} has parent {parent}; want an earlier joint, or -1 for a root")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Skeleton({len(self)} joints, root {self.names[0] if self.names else '-'})"


@dataclass(frozen=True, eq=False)
class Motion:
    """T poses of a skeleton."""

    skeleton: Skeleton
    times: Float64[Tensor, " t"]
    """Time of each pose [s], ascending."""
    quats: Float[Tensor, "t j 4"]
    """Rotation of each joint relative to its parent, wxyz, unit length."""
    translations: Float[Tensor, "t 3"]
    """Added to the offset of the root [m]; the sum is its position."""

    def __post_init__(self) -> None:
        count = len(self.times)
        check_shape("Motion.times", self.times, ("T",))
        check_shape("Motion.quats", self.quats, (count, len(self.skeleton), 4))
        check_shape("Motion.translations", self.translations, (count, 3))
        tensors: dict[str, Tensor | None] = {
            "offsets": self.skeleton.offsets,
            "quats": self.quats,
            "translations": self.translations,
        }
        check_device("Motion", tensors)

    @classmethod
    def load(cls, path: Path | str) -> "Motion":
        """Load the motion of a .bvh, without scaling its lengths (`vision3d.io.bvh.read_motion` has a scale).

        Raises:
            InputError: The file contains something else, or cannot be read.
        """
        return codecs.load_as(cls, path)

    def save(self, path: Path | str) -> None:
        """Write a .bvh atomically; the poses must be evenly spaced in time."""
        codecs.save(path, self)

    def validate(self) -> "Motion":
        """Check the values.

        Raises:
            InputError: A value is not finite, a quaternion is not of unit length, or the times do not ascend.
        """
        for name in ("times", "quats", "translations"):
            if len(getattr(self, name)):
                check_finite("Motion", name, getattr(self, name))
        check_finite("Motion", "offsets", self.skeleton.offsets)
        if bool((is_back := self.times.diff() <= 0).any()):
            raise InputError(f"Motion: times do not ascend after pose {int(is_back.nonzero()[0])}")
        lengths = torch.linalg.vector_norm(self.quats, dim=-1)
        if bool((is_off := (lengths - 1).abs() > 1e-3).any()):
            pose, joint = is_off.nonzero()[0].tolist()
            raise InputError(
                f"Motion: quaternion of {self.skeleton.names[joint]} in pose {pose} has length {lengths[pose, joint]:.4g}"
            )
        return self

    def positions(self) -> Float[Tensor, "t j 3"]:
        """Joint positions [m]."""
        skeleton = self.skeleton
        return forward_kinematics(quat_to_rotmat(self.quats), skeleton.offsets, skeleton.parents, self.translations)[1]

    def resampled(self, rate: float) -> "Motion":
        """The same motion with `rate` poses per second from the first time on: slerp of rotations, linear translations.

        Raises:
            InputError: No poses, or the rate is not positive.
        """
        if not len(self) or not rate > 0:
            raise InputError(f"Motion: cannot resample {len(self)} poses at {rate} per second")
        span = float(self.times[-1] - self.times[0])
        steps = torch.arange(int(span * rate * (1 + 1e-9)) + 1, dtype=torch.float64, device=self.times.device)
        times = (self.times[0] + steps / rate).clamp(max=self.times[-1])
        after = torch.searchsorted(self.times, times, right=True).clamp(max=len(self) - 1)
        before = (after - 1).clamp(min=0)
        gap = self.times[after] - self.times[before]
        share = torch.where(gap > 0, (times - self.times[before]) / torch.where(gap > 0, gap, 1), 0).to(self.quats)
        quats = slerp(self.quats[before], self.quats[after], share[:, None].expand(-1, len(self.skeleton)))
        return replace(
            self,
            times=times,
            quats=quats,
            translations=torch.lerp(self.translations[before], self.translations[after], share[:, None]),
        )

    @property
    def device(self) -> torch.device:
        return self.quats.device

    def to(self, device: torch.device | str) -> "Motion":
        """The same motion on another device."""
        skeleton = replace(self.skeleton, offsets=self.skeleton.offsets.to(device))
        return Motion(skeleton, self.times.to(device), self.quats.to(device), self.translations.to(device))

    def transform(self, matrix: Float[Tensor, "4 4"]) -> "Motion":
        """The motion transformed by a similarity x' = s R x + t; bones are scaled by s.

        Raises:
            InputError: The matrix shears, reflects or is singular.
        """
        return similarity.transform_motion(self, matrix)

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        seconds = float(self.times[-1] - self.times[0]) if len(self) else 0.0
        return f"Motion({len(self)} poses in {seconds:.3g} s, {self.skeleton!r}, {self.device})"

    def _repr_html_(self) -> str:
        seconds = f"{float(self.times[0]):.4g} to {float(self.times[-1]):.4g}" if len(self) else "-"
        rows = [("poses", len(self)), ("time [s]", seconds), ("joints", ", ".join(self.skeleton.names))]
        return html_table("Motion", rows, codecs.preview(self))
