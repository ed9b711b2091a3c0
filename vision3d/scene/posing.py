"""Poses of skins by hand: joints turned by angles, clips with such turns in them, and a pose as the new rest."""

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
"""Three angles [degrees] for each joint that is turned, by its name."""
Axes = Literal["joint", "world"]


def parse_pose(texts: tuple[str, ...] | list[str]) -> dict[str, tuple[float, float, float]]:
    """Angles out of texts such as "head=0,30,0".

    Raises:
        InputError: A text is something else, an angle is not finite, or a joint is there twice.

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
    """A clip sampled at times, with joints turned further by the same angles in all of them; linear keys that begin at 0 s.

    Args:
        skin: Whose joints these are.
        clip: What it does; None for the rest pose.
        times: In the clip [s], ascending.
        angles: Turns that come on top of the clip's or the rest's.
        order: Axes of the three angles (`geometry.euler`): XYZ is Rx(a) Ry(b) Rz(c).
        axes: Of the joint itself, or those of the world as the joint rests in it.
        name: Of the clip that is made.

    Raises:
        InputError: There is no joint of a name; the names that there are stand in the text.
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
    """A skin that rests as this one is at a time: vertices and joints are there, and its clips go on to work.

    Between joints, clips bend the new rest and not the old one, so vertices there differ a little from before.

    Args:
        skin: With joints, or with morphs alone.
        clip: How it moves; None for the rest pose.
        time: In the clip [s].
        method: Of skinning.
        blend: For "hybrid", of all joints: 1 is linear, 0 dual quaternions.

    Raises:
        InputError: A joint is scaled to nothing there.
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
    """Quaternion in the joint's own frame for each joint that is turned."""
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
