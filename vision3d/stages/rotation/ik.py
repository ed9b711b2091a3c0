"""The third experiment: joint rotations from joint positions, with a loss on the resulting positions."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.errors import ConfigError, FileFormatError, InputError, nearest_names
from vision3d.geometry.kinematics import forward_kinematics
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.geometry.rotation import so3_exp
from vision3d.io.bvh import read_motion
from vision3d.scene.motion import Motion, Skeleton
from vision3d.stages.rotation.config import IkConfig
from vision3d.stages.rotation.networks import PoseNet
from vision3d.training.group import Group

MIN_POSES = 16  # per clip, after resampling
_AXES = {"x": 0, "y": 1, "z": 2}
_TEST_SEED, _TEST_YAWS = 20_191, 4
_TOLERANCE = 1e-3  # tolerance for offsets, relative to the skeleton's size


@dataclass(frozen=True)
class Poses:
    """Training poses and test poses, of one skeleton in meters."""

    skeleton: Skeleton
    train: Float[Tensor, "n j 3 3"]
    """Rotation of each joint relative to its parent."""
    test: Float[Tensor, "m j 3"]
    """Joint positions, the root at 0 [m]."""
    up: int
    """Vertical axis."""
    scale: float
    """Meters per unit of the clips."""
    clips: tuple[int, int]
    """Number of clips and poses."""
    source: str


def read_poses(train: Sequence[Path | str], test: Sequence[Path | str], config: IkConfig) -> Poses:
    """Read .bvh clips of one skeleton, resample them, convert them to meters, and move their roots to 0.

    Raises:
        InputError: The skeletons differ, a clip is in both parts, or one is too short.
        FileFormatError: A file is not BVH.
        ConfigError: The up axis, or a weighted joint, cannot be determined.
    """
    paths = [Path(path) for path in (*train, *test)]
    if not train or not test:
        raise InputError(f"clips: got {len(train)} to train on and {len(test)} for testing, want at least one of each")
    motions = [read_motion(path) for path in paths]
    skeleton = motions[0].skeleton
    for path, motion in zip(paths, motions):
        _check_skeleton(paths[0], skeleton, path, motion.skeleton)
    digests = [_digest(motion) for motion in motions]
    for i, digest in enumerate(digests[len(train) :]):
        if digest in digests[: len(train)]:
            twin = paths[digests.index(digest)]
            raise InputError(f"{paths[len(train) + i]}: has the same motion as {twin}, which is a training clip")
    up = up_axis(skeleton, config.up)
    scale = config.scale or config.height / _extent(paths[0], skeleton, up)
    skeleton = dataclasses.replace(skeleton, offsets=skeleton.offsets * scale)
    rotmats, places = [], []
    for i, (path, motion) in enumerate(zip(paths, motions)):
        if len(motion) < 2:
            raise InputError(f"{path}: has {len(motion)} poses, want at least {MIN_POSES}")
        resampled = motion.resampled(config.rate)
        if len(resampled) < MIN_POSES:
            raise InputError(f"{path}: {len(resampled)} poses at {config.rate:g} per second, want at least {MIN_POSES}")
        if i < len(train):
            rotmats.append(quat_to_rotmat(resampled.quats))
        else:
            found = dataclasses.replace(resampled, skeleton=skeleton).positions()
            places.append(found - found[:, :1])
    names = ", ".join(path.name for path in paths[: len(train)]), ", ".join(path.name for path in paths[len(train) :])
    fingerprint = hashlib.sha256(b"".join(digests)).hexdigest()[:12]
    return Poses(
        skeleton,
        torch.cat(rotmats),
        torch.cat(places),
        up,
        scale,
        (len(train), len(test)),
        f"{names[0]}; measured on {names[1]}, {fingerprint}",
    )


def up_axis(skeleton: Skeleton, name: str = "auto") -> int:
    """The vertical axis; `auto`: the axis along which the head is farthest from the feet, by their names.

    Raises:
        ConfigError: No joint has such a name.
    """
    if name != "auto":
        return _AXES[name]
    rest = _rest(skeleton)
    heads = [i for i, joint in enumerate(skeleton.names) if "head" in joint.lower()]
    feet = [i for i, joint in enumerate(skeleton.names) if any(word in joint.lower() for word in ("foot", "toe", "ankle"))]
    if not heads or not feet:
        raise ConfigError("up", "no joint is named head or foot, so the up axis is unknown; give --up x, y or z")
    return int((rest[heads].mean(0) - rest[feet].mean(0)).abs().argmax())


class IkExperiment:
    """Estimate joint rotations from joint positions."""

    name, unit = "ik", "cm"

    def __init__(self, config: IkConfig, poses: Poses, device: torch.device, group: Group | None = None) -> None:
        self.config, self.poses, self.device = config, poses, device
        self.share = (group or Group()).share(config.batch_size)
        self.source = poses.source
        skeleton = poses.skeleton
        self.parents = skeleton.parents
        self.offsets = skeleton.offsets.to(device)
        # The rotation of a joint without children has no effect.
        self.turning = sorted({parent for parent in skeleton.parents if parent >= 0})
        self.weighted = weighted_joints(skeleton, config.weighted)
        self.train = poses.train[:, self.turning].to(device)
        generator = torch.Generator().manual_seed(_TEST_SEED)
        self.test = self._yawed(poses.test.repeat(_TEST_YAWS, 1, 1), generator).to(device)

    def network(self, rep: str) -> nn.Module:
        return PoseNet(**self.shape(rep))

    def shape(self, rep: str) -> dict[str, Any]:
        return {
            "rep": rep,
            "places": len(self.parents),
            "joints": len(self.turning),
            "width": self.config.width,
        }

    def loss(self, network: nn.Module, generator: torch.Generator) -> Float[Tensor, ""]:
        config = self.config
        rows = torch.randint(len(self.train), (config.batch_size,), generator=generator)
        rotmats = self.train[rows.to(self.device)]
        if config.jitter_deg:
            vectors = math.radians(config.jitter_deg) * torch.randn(*rotmats.shape[:2], 3, generator=generator)
            rotmats = rotmats @ so3_exp(vectors).to(rotmats)
        places = self._yawed(self.places(rotmats, torch.zeros(len(rows), 3, device=self.device)), generator)
        shift = config.shift * (2 * torch.rand(len(places), 1, 3, generator=generator) - 1)
        shift[..., self.poses.up] = 0
        places = (places + shift.to(self.device))[self.share.start : self.share.stop]
        apart = (self.places(network(places), places[:, 0]) - places).square()
        return apart.mean() + config.hip_weight * apart[:, self.weighted].mean()

    def errors(self, network: nn.Module) -> Float[Tensor, " n"]:
        found = []
        for places in self.test.split(1000):
            apart = self.places(network(places), places[:, 0]) - places
            # The root keeps its position, independent of the network.
            found.append(100 * torch.linalg.vector_norm(apart[:, 1:], dim=-1).flatten())
        return torch.cat(found)

    def about(self) -> dict[str, Any]:
        return {
            "training_clips": self.poses.clips[0],
            "training_poses": len(self.train),
            "test_poses": len(self.poses.test),
            "test_yaws": _TEST_YAWS,
            "joints": len(self.parents),
            "rotations": len(self.turning),
            "scale": self.poses.scale,
            "up": "xyz"[self.poses.up],
            "weighted": [self.poses.skeleton.names[joint] for joint in self.weighted],
        }

    def facts(self) -> dict[str, Any]:
        names = self.poses.skeleton.names
        rotated = [names[joint] for joint in self.turning]
        return {"joints": list(names), "rotated_joints": rotated, "scale": self.poses.scale, "up": "xyz"[self.poses.up]}

    def places(self, rotmats: Float[Tensor, "b k 3 3"], roots: Float[Tensor, "b 3"]) -> Float[Tensor, "b j 3"]:
        """Joint positions from the rotations of the moving joints; the root's offset is ignored."""
        identity = torch.eye(3, device=rotmats.device).expand(len(rotmats), 1, 3, 3)
        every = [
            self.turning.index(joint) if joint in self.turning else len(self.turning) for joint in range(len(self.parents))
        ]
        rotmats = torch.cat([rotmats, identity], 1)[:, every]
        offsets = torch.cat([torch.zeros_like(self.offsets[:1]), self.offsets[1:]])
        return forward_kinematics(rotmats, offsets, self.parents, roots)[1]

    def _yawed(self, places: Float[Tensor, "b j 3"], generator: torch.Generator) -> Float[Tensor, "b j 3"]:
        vectors = torch.zeros(len(places), 3)
        vectors[:, self.poses.up] = 2 * math.pi * torch.rand(len(places), generator=generator)
        return places @ so3_exp(vectors).to(places).mT


def weighted_joints(skeleton: Skeleton, names: Sequence[str] = ()) -> list[int]:
    """Joints with these names; without names those next to the root.

    Raises:
        ConfigError: No joint with that name.
    """
    if not names:
        return [joint for joint, parent in enumerate(skeleton.parents) if parent == 0]
    for name in names:
        if name not in skeleton.names:
            raise ConfigError("weighted", f"no joint is named {name!r}; {nearest_names(name, skeleton.names)}")
    return [skeleton.names.index(name) for name in names]


def _check_skeleton(first: Path, skeleton: Skeleton, path: Path, other: Skeleton) -> None:
    if skeleton.parents.count(-1) != 1:
        raise FileFormatError(first, f"has {skeleton.parents.count(-1)} roots, want one")
    problem = ""
    if len(other) != len(skeleton):
        problem = f"{len(other)} joints, there {len(skeleton)}"
    elif other.names != skeleton.names or other.parents != skeleton.parents:
        i = next(i for i in range(len(other)) if (other.names[i], other.parents[i]) != (skeleton.names[i], skeleton.parents[i]))
        problem = f"joint {i} is {other.names[i]}, there {skeleton.names[i]}"
        if other.names[i] == skeleton.names[i]:
            problem = f"joint {other.names[i]} has another parent"
    else:
        # A root's offset is a position, not a bone.
        apart = (other.offsets - skeleton.offsets)[1:].abs().amax(-1) if len(other) > 1 else other.offsets[:0, 0]
        if len(apart) and float(apart.max()) > _TOLERANCE * float(skeleton.offsets[1:].abs().max()):
            problem = f"the bone to {other.names[1 + int(apart.argmax())]} has another length or direction"
    if problem:
        raise InputError(f"{path}: has a different skeleton than {first} ({problem}); want clips of one skeleton")


def _digest(motion: Motion) -> bytes:
    """Digest of the joint rotations, equal for copies of a clip."""
    rounded = (motion.quats * 1e4).round().to(torch.int32)
    return hashlib.sha256(rounded.numpy().tobytes()).digest()


def _rest(skeleton: Skeleton) -> Float[Tensor, "j 3"]:
    return forward_kinematics(torch.eye(3).expand(len(skeleton), 3, 3), skeleton.offsets, skeleton.parents)[1]


def _extent(path: Path, skeleton: Skeleton, up: int) -> float:
    rest = _rest(skeleton)[:, up]
    extent = float(rest.max() - rest.min())
    if not extent > 0:
        raise InputError(f"{path}: the rest pose of the skeleton has no height along {'xyz'[up]}; give --scale or --up")
    return extent
