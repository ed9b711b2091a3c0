"""Retargeting of motion capture to the joints of a skin."""

import itertools
import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.kinematics import forward_kinematics
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.rotation import nearest_rotation, rotvec_to_rotmat
from vision3d.optim.motion.humanoid import LIMBS, body_parts
from vision3d.optim.motion.joint_names import same_joints
from vision3d.scene.clip import Channel, Clip
from vision3d.scene.motion import Motion
from vision3d.scene.skin import SkinnedMesh

logger = logging.getLogger("vision3d")

_LISTED = 12  # maximum number of names in a message
_CLEARLY = 0.2  # similarity margin; the zero pose has 0.7 to 1 if it is the rest pose, else 0.4 to 0.5


def retarget(motion: Motion, skin: SkinnedMesh, *, name: str = "motion", scale: float | None = None) -> Clip:
    """A clip that applies the rotation of each joint of the motion, relative to its rest, to the skin's joint of that name.

    Names may differ in namespace, prefix, case, punctuation and in the words for human body parts (`joint_names.same_joints`).
    Arms and legs may have different rest poses (spread here, hanging there): each of their bones is first rotated along the
    shortest path to the rest direction in the motion, and hands follow. Everything else should have the same rest pose. If the
    zero pose of the motion is not a rest pose (all bones along one axis, as some programs write it), the first pose is used
    instead. Local axes and up axis may differ. The root starts at its rest position. Joints of the skin that the motion lacks
    do not move; a warning lists joints of the motion that the skin lacks.

    Args:
        motion: As read from a .bvh file.
        skin: The skin to animate.
        name: Name of the clip.
        scale: Length in the skin per length in the motion; None derives it from the bones that both have.

    Raises:
        InputError: The skin has fewer than half of the joints of the motion; the message lists names of both.
    """
    skeleton = motion.skeleton
    moving = [joint for joint in range(len(skeleton)) if joint not in skeleton.tips]
    same = same_joints([skeleton.names[joint] for joint in moving], skin.names)
    if not moving or 2 * len(same) < len(moving):
        named = _some([skeleton.names[joint] for joint in moving])
        raise InputError(
            f"retarget: the skin has {len(same)} of the {len(moving)} joints of the motion, want at least half of them; joints"
            f" of the skin: {_some(skin.names)}; of the motion: {named}"
        )
    source = {ours: moving[row] for row, ours in same.items()}
    if missing := [skeleton.names[joint] for joint in moving if joint not in source.values()]:
        logger.warning("the skin has no joint for %s of the motion; its other joints take over its rotations", _some(missing))
    if not len(motion):
        raise InputError("retarget: the motion has no poses")
    turned, places = forward_kinematics(
        quat_to_rotmat(motion.quats.double()), skeleton.offsets.double(), skeleton.parents, motion.translations.double()
    )
    rest = skin.joint_matrices(None, torch.zeros(1, dtype=torch.float64))[0].double()
    rest_rotmats = nearest_rotation(rest[:, :3, :3])
    parts = {part: joint for joint, part in enumerate(body_parts(skin.names)) if part is not None and joint in source}
    theirs = _rest_places(motion)
    ours = rest[list(source), :3, 3]
    at_zero, at_first = (_likeness(ours, pose[list(source.values())]) for pose in (theirs, places[0]))
    if is_unlike := at_first > at_zero + _CLEARLY:
        logger.warning("the motion without rotations is not a rest pose; its first pose is used instead")
        turned, theirs = turned @ turned[:1].mT, places[0]
    world = _axes(source, rest, theirs)
    if is_unlike:
        world = _heading(parts, source, rest, theirs @ world.mT) @ world
    turned, places, theirs = world @ turned @ world.mT, places @ world.mT, theirs @ world.mT
    aligned = _aligned_limbs(parts, source, rest, theirs)
    posed: list[Tensor] = []  # world rotation of each joint in every pose
    channels = []
    for joint, parent in enumerate(skin.parents):
        above = posed[parent] if parent >= 0 else torch.eye(3, dtype=torch.float64).expand(len(motion), 3, 3)
        if joint not in source:
            posed.append(above @ quat_to_rotmat(skin.quats[joint].double()))
            continue
        posed.append(turned[:, source[joint]] @ aligned.get(joint, torch.eye(3, dtype=torch.float64)) @ rest_rotmats[joint])
        quats = rotmat_to_quat(above.mT @ posed[joint])
        channels.append(Channel("rotation", joint, motion.times, quats.to(skin.quats)))
    carried: set[int] = set()
    for joint, other in source.items():
        if not _ancestors(other, skeleton.parents).isdisjoint(source.values()):
            continue
        factor = _length_ratio(source, rest, theirs, skeleton.parents) if scale is None else scale
        joint = _carrier(
            joint, [ours for ours, at in source.items() if other in (at, *_ancestors(at, skeleton.parents))], skin.parents
        )
        if joint in carried:
            continue
        carried.add(joint)
        target = rest[joint, :3, 3] + factor * (places[:, other] - places[:1, other])
        parent = skin.parents[joint]
        above = rest[parent] if parent >= 0 else torch.eye(4, dtype=torch.float64)
        local = torch.linalg.solve(above[:3, :3], (target - above[:3, 3]).T).T
        channels.append(Channel("translation", joint, motion.times, local.to(skin.translations)))
    return Clip(name, tuple(channels))


def _likeness(ours: Float64[Tensor, "n 3"], theirs: Float64[Tensor, "n 3"]) -> float:
    """Similarity of two poses up to translation, rotation and scale: 1 for the same."""
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    spread = ours.mT @ theirs
    return float((nearest_rotation(spread) * spread).sum()) / max(float(ours.norm() * theirs.norm()), 1e-30)


def _axes(source: dict[int, int], rest: Float64[Tensor, "j 4 4"], places: Float64[Tensor, "k 3"]) -> Float64[Tensor, "3 3"]:
    """From the axes of the motion to those of the skin: the rotation by right angles that makes the rest poses most similar."""
    eyes = torch.eye(3, dtype=torch.float64)
    ours, theirs = rest[list(source), :3, 3], places[list(source.values())]
    spread = (ours - ours.mean(0)).mT @ (theirs - theirs.mean(0))
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=3)), dtype=torch.float64)
    turns = torch.stack([sign[:, None] * eyes[list(order)] for order in itertools.permutations(range(3)) for sign in signs])
    turns = turns[torch.linalg.det(turns) > 0]  # the first is the identity, which wins ties
    scores = (turns * spread).sum((1, 2))
    return turns[0] if scores[0] >= scores.max() - 1e-3 * spread.norm() else turns[int(scores.argmax())]


def _heading(
    parts: dict[str, int], source: dict[int, int], rest: Float64[Tensor, "j 4 4"], places: Float64[Tensor, "k 3"]
) -> Float64[Tensor, "3 3"]:
    """The rotation about the up axis of the skin that makes a pose face like the rest pose of the skin."""
    low = parts.get("hips", parts.get("left foot"))
    if low is None or "head" not in parts:
        return torch.eye(3, dtype=torch.float64)
    along = rest[parts["head"], :3, 3] - rest[low, :3, 3]
    up = torch.eye(3, dtype=torch.float64)[int(along.abs().argmax())]
    ours, theirs = rest[list(source), :3, 3], places[list(source.values())]
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    across, level = torch.linalg.cross(theirs, ours).sum(0) @ up, (theirs * ours * (1 - up)).sum()
    return rotvec_to_rotmat(torch.atan2(across, level) * up)


def _aligned_limbs(
    parts: dict[str, int], source: dict[int, int], rest: Float64[Tensor, "j 4 4"], places: Float64[Tensor, "k 3"]
) -> dict[int, Float64[Tensor, "3 3"]]:
    """World rotations that align bones of arms and legs with the rest pose of the motion, by joint of the skin."""
    found = {}
    for side, (start, end) in itertools.product(("left", "right"), LIMBS):
        joint, tip = parts.get(f"{side} {start}"), parts.get(f"{side} {end}")
        if joint is None or tip is None:
            continue
        ours = rest[tip, :3, 3] - rest[joint, :3, 3]
        theirs = places[source[tip]] - places[source[joint]]
        if min(float(ours.norm()), float(theirs.norm())) > 0:
            found[joint] = _shortest_turn(ours, theirs)
            if end == "hand":
                found[tip] = found[joint]
    return found


def _carrier(joint: int, carried: Sequence[int], parents: Sequence[int]) -> int:
    """The joint or its nearest ancestor that carries all of `carried`: in some rigs the hips do not carry the legs."""
    above = joint
    while above >= 0 and not all(above in (other, *_ancestors(other, parents)) for other in carried):
        above = parents[above]
    return above if above >= 0 else joint


def _shortest_turn(start: Float64[Tensor, " 3"], end: Float64[Tensor, " 3"]) -> Float64[Tensor, "3 3"]:
    """The smallest rotation between two directions; for opposite ones 180 degrees about some perpendicular axis."""
    axis = torch.linalg.cross(start, end)
    if float(axis.norm()) <= 1e-9 * float(start.norm() * end.norm()):
        axis = torch.linalg.cross(start, torch.eye(3, dtype=torch.float64)[int(start.abs().argmin())])
    angle = torch.atan2(torch.linalg.cross(start, end).norm(), start @ end)
    return rotvec_to_rotmat(angle * torch.nn.functional.normalize(axis, dim=0))


def _rest_places(motion: Motion) -> Float64[Tensor, "j 3"]:
    """Rest positions of the joints of a motion."""
    skeleton = motion.skeleton
    still = torch.eye(3, dtype=torch.float64).expand(len(skeleton), 3, 3)
    return forward_kinematics(still, skeleton.offsets.double(), skeleton.parents)[1]


def _ancestors(joint: int, parents: Sequence[int]) -> set[int]:
    found = set()
    while (joint := parents[joint]) >= 0:
        found.add(joint)
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "none") + more


def _length_ratio(
    source: dict[int, int], rest: Float64[Tensor, "j 4 4"], places: Float64[Tensor, "k 3"], parents: Sequence[int]
) -> float:
    """Ratio of the skin's bone lengths to the motion's, summed over the bones that both have."""
    back = {theirs: joint for joint, theirs in source.items()}
    ours, theirs = 0.0, 0.0
    for joint, other in source.items():
        parent = parents[other]
        while parent >= 0 and parent not in back:
            parent = parents[parent]
        if parent >= 0:
            ours += float((rest[joint, :3, 3] - rest[back[parent], :3, 3]).norm())
            theirs += float((places[other] - places[parent]).norm())
    return ours / theirs if theirs > 0 else 1.0
