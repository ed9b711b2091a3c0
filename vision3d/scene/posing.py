"""Manual posing of skins: joint angles, clips with added joint rotations, and a pose as the new rest pose."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.euler import euler_to_quat
from vision3d.geometry.quaternion import multiply, quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.rotation import nearest_rotation
from vision3d.geometry.skinning import Method
from vision3d.scene.clip import Channel, Clip, Property
from vision3d.scene.skin import SkinnedMesh

Angles = Mapping[str, tuple[float, float, float]]
"""Three angles [degrees] for each rotated joint, by its name."""
Axes = Literal["joint", "world"]


def parse_pose(texts: tuple[str, ...] | list[str]) -> dict[str, tuple[float, float, float]]:
    """Parse angles from strings such as "head=0,30,0".

    Raises:
        InputError: The syntax is wrong, an angle is not finite, or a joint is given twice.

    Example:
        >>> parse_pose(["head=0,30,0", "tail_1=10,0,-5"])
        {'head': (0.0, 30.0, 0.0), 'tail_1': (10.0, 0.0, -5.0)}
    """
    found: dict[str, tuple[float, float, float]] = {}
    for text in texts:
        name, _, numbers = text.rpartition("=")
        try:
            x, y, z = (float(number) for number in numbers.split(","))
        except ValueError:
            x = y = z = math.nan
        if not name or not all(map(math.isfinite, (x, y, z))):
            raise InputError(f"pose: got {text!r}, want JOINT=A,B,C with three angles in degrees, such as head=0,30,0")
        if name in found:
            raise InputError(f"pose: joint {name} is given twice; want one set of angles for each joint")
        found[name] = (x, y, z)
    return found


def baked_clip(
    skin: SkinnedMesh,
    clip: Clip | None,
    times: Float64[Tensor, " t"],
    angles: Angles | None = None,
    *,
    order: str = "XYZ",
    axes: Axes = "joint",
    name: str = "pose",
) -> Clip:
    """A clip sampled at times, with constant extra joint rotations; linear keys starting at 0 s.

    Args:
        skin: The skin that has the joints.
        clip: The clip to sample; None for the rest pose.
        times: In the clip [s], ascending.
        angles: Rotations added to those of the clip or the rest pose.
        order: Axes of the three angles (`geometry.euler`): XYZ is Rx(a) Ry(b) Rz(c).
        axes: Axes of the joint itself, or world axes at the joint's rest pose.
        name: Name of the new clip.

    Raises:
        InputError: No joint of that name; the message lists the names.
    """
    times = times.to(skin.device)
    translations, quats, scales, weights = skin.locals_at(clip, times)
    for joint, turn in _turns(skin, angles or {}, order, axes).items():
        quats[:, joint] = multiply(quats[:, joint], turn.expand(len(times), 4).to(quats))
    at, channels = times - times[:1], []
    paths: dict[Property, tuple[Tensor, Tensor]] = {
        "rotation": (quats, skin.quats),
        "translation": (translations, skin.translations),
        "scale": (scales, skin.scales),
    }
    for path, (values, rest) in paths.items():
        for joint in range(len(skin)):
            if not torch.equal(values[:, joint], rest[joint].expand(len(times), -1)):
                channels.append(Channel(path, joint, at, values[:, joint]))
    if skin.num_morphs and bool((weights != 0).any()):
        channels.append(Channel("weights", -1, at, weights))
    return Clip(name, tuple(channels))


def rest_at(skin: SkinnedMesh, clip: Clip | None, time: float, *, method: Method = "lbs", blend: float = 0.5) -> SkinnedMesh:
    """A skin whose rest pose is this skin's pose at a time: vertices and joints are there, and its clips still work.

    Between joints, clips deform the new rest pose instead of the old one, so vertices there differ slightly from before.

    Args:
        skin: With joints, or with morphs only.
        clip: The clip to use; None for the rest pose.
        time: In the clip [s].
        method: Skinning method.
        blend: For "hybrid", the same for all joints: 1 is linear, 0 dual quaternions.

    Raises:
        InputError: A joint has scale zero there.
    """
    times = torch.tensor([time], dtype=torch.float64, device=skin.device)
    (vertices,) = skin.posed(clip, times, method=method, blends=skin.translations.new_full((len(skin),), blend))
    mesh = replace(skin.mesh, vertices=vertices, normals=None)
    if not len(skin):
        none = dict.fromkeys(("morphs", "morph_normals", "rest_weights", "etas", "morph_etas"))
        return replace(skin, mesh=mesh, morph_names=(), clips=(), **none)
    placed = skin.joint_matrices(clip, times)[0]
    if bool((is_flat := torch.linalg.det(placed[:, :3, :3].double()).abs() < 1e-12).any()):
        raise InputError(f"rest_at: joint {skin.names[int(is_flat.nonzero()[0])]} is scaled to zero at {time:g} s")
    morphs = skin.morphs
    if morphs is not None:
        linear = (skin.weights[..., None, None] * (placed @ skin.inverse_binds)[skin.indices, :3, :3]).sum(1)
        morphs = torch.einsum("vab,mvb->mva", linear, morphs.to(linear))
    translations, quats, scales, _ = skin.locals_at(clip, times)
    return replace(
        skin,
        mesh=mesh,
        translations=translations[0],
        quats=quats[0],
        scales=scales[0],
        inverse_binds=torch.linalg.inv(placed.double()).to(placed),
        morphs=morphs,
    )


def _turns(skin: SkinnedMesh, angles: Angles, order: str, axes: Axes) -> dict[int, Tensor]:
    """Rotation (quaternion) in the joint's own frame for each rotated joint."""
    if missing := [name for name in angles if name not in skin.names]:
        known = ", ".join(skin.names) or "none"
        raise InputError(f"pose: the skin has no joint {', '.join(missing)}; its joints: {known}")
    found = {}
    rest = skin.joint_matrices(None, torch.zeros(1, dtype=torch.float64, device=skin.device))[0] if angles else None
    for name, degrees in angles.items():
        joint = skin.names.index(name)
        quat = euler_to_quat(torch.tensor(degrees, dtype=torch.float64).deg2rad(), order)
        if axes == "world" and rest is not None:
            own = nearest_rotation(rest[joint, :3, :3].double().cpu())
            quat = rotmat_to_quat(own.mT @ quat_to_rotmat(quat) @ own)
        found[joint] = quat
    return found
