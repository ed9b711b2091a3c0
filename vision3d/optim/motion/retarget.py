"""Retargeting of motion capture to the joints of a skin."""

import itertools
import logging
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from vision3d.core.errors import InputError, nearest_names
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
_CONTACT = 0.05  # fraction of the poses in which the lowest foot may be below the floor
_PERSON = 8  # minimum number of body parts of a person
_CLEARLY = 0.2  # similarity margin; the zero pose has 0.7 to 1 if it is the rest pose, else 0.4 to 0.5


def retarget(
    motion: Motion,
    skin: SkinnedMesh,
    *,
    name: str = "motion",
    scale: float | None = None,
    joints: Mapping[str, str] | None = None,
) -> Clip:
    """A clip that applies the rotation of each joint of the motion, relative to its rest, to the skin's joint of that name.

    Names may differ in namespace, prefix, case, punctuation and in the words for human body parts (`joint_names.same_joints`).
    Arms and legs may have different rest poses (spread here, hanging there): each of their bones is first rotated along the
    shortest path to the rest direction in the motion, and hands follow. Everything else should have the same rest pose. If the
    zero pose of the motion is not a rest pose (all bones along one axis, as some programs write it), the first pose is used
    instead. Local axes and up axis may differ; up is from the feet to the hips, so a person moves an animal on four legs that
    stands. The root starts above its rest position, as high as brings the lowest feet of the clip to their height in the rest
    pose. Joints of the skin that the motion lacks do not move; a warning lists joints of the motion that the skin lacks.

    Args:
        motion: As read from a .bvh file.
        skin: The skin to animate.
        name: Name of the clip.
        scale: Length in the skin per length in the motion; None derives it from the bones that both have.
        joints: Joints of the motion -> joints of the skin, where their names do not match; others are matched by name.

    Raises:
        InputError: The skin has fewer than half of the joints of the motion (of a person: of the body parts); the message lists
            names of both. Or a name in `joints` does not exist, or two joints of the motion have the same one.
    """
    skeleton = motion.skeleton
    moving = [joint for joint in range(len(skeleton)) if joint not in skeleton.tips]
    source = _matched(motion, moving, skin.names, joints or {})
    if missing := [skeleton.names[joint] for joint in moving if joint not in source.values()]:
        logger.warning(
            "the skin has no joint for %s of the motion; its other joints take over its rotations", listed_names(missing)
        )
    if not len(motion):
        raise InputError("retarget: the motion has no poses")
    turned, places = forward_kinematics(
        quat_to_rotmat(motion.quats.double()), skeleton.offsets.double(), skeleton.parents, motion.translations.double()
    )
    rest = skin.joint_matrices(None, torch.zeros(1, dtype=torch.float64))[0].double()
    rest_rotmats = nearest_rotation(rest[:, :3, :3])
    parts = _parts(skin.names, skeleton.names, source)
    theirs = _rest_places(motion)
    ours = rest[list(source), :3, 3]
    at_zero, at_first = (_likeness(ours, pose[list(source.values())]) for pose in (theirs, places[0]))
    if is_unlike := at_first > at_zero + _CLEARLY:
        logger.warning("the motion without rotations is not a rest pose; its first pose is used instead")
        turned, theirs = turned @ turned[:1].mT, places[0]
    world = _axes(source, parts, rest, theirs)
    if is_unlike:
        world = _heading(source, parts, rest, theirs @ world.mT) @ world
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
    targets: dict[int, Float64[Tensor, "t 3"]] = {}
    for joint, other in source.items():
        if not _ancestors(other, skeleton.parents).isdisjoint(source.values()):
            continue
        factor = _length_ratio(source, rest, theirs, skeleton.parents) if scale is None else scale
        joint = _carrier(
            joint, [ours for ours, at in source.items() if other in (at, *_ancestors(at, skeleton.parents))], skin.parents
        )
        if joint in targets:
            continue
        target = rest[joint, :3, 3] + factor * (places[:, other] - places[:1, other])
        targets[joint] = target
    clip = Clip(name, tuple(channels) + _placed(skin, targets, motion.times, rest))
    shift = _floor_shift(skin, clip, parts, motion.times, rest)
    targets = {joint: target + shift for joint, target in targets.items()}
    return Clip(name, tuple(channels) + _placed(skin, targets, motion.times, rest))


def _placed(
    skin: SkinnedMesh,
    targets: Mapping[int, Float64[Tensor, "t 3"]],
    times: Float64[Tensor, " t"],
    rest: Float64[Tensor, "j 4 4"],
) -> tuple[Channel, ...]:
    """Translations that move joints to positions in the world."""
    channels = []
    for joint, target in targets.items():
        parent = skin.parents[joint]
        above = rest[parent] if parent >= 0 else torch.eye(4, dtype=torch.float64)
        local = torch.linalg.solve(above[:3, :3], (target - above[:3, 3]).T).T
        channels.append(Channel("translation", joint, times, local.to(skin.translations)))
    return tuple(channels)


def _matched(motion: Motion, moving: Sequence[int], names: Sequence[str], given: Mapping[str, str]) -> dict[int, int]:
    """Joint of the skin -> joint of the motion."""
    known = motion.skeleton.names
    for kind, asked, there in (("motion", given, known), ("skin", given.values(), names)):
        for name in asked:
            if name not in there:
                raise InputError(f"retarget: the {kind} has no joint {name!r}; {nearest_names(name, there)}")
    source = {names.index(ours): known.index(theirs) for theirs, ours in given.items()}
    if len(source) < len(given):
        twice = next(ours for ours in given.values() if list(given.values()).count(ours) > 1)
        raise InputError(f"retarget: joint {twice!r} of the skin is given for two joints of the motion")
    free = [joint for joint in moving if joint not in source.values()]
    for row, ours in same_joints([known[joint] for joint in free], names).items():
        source.setdefault(ours, free[row])
    parts = body_parts([known[joint] for joint in moving])
    body = [joint for joint, part in zip(moving, parts) if part is not None]
    wanted = body if len(body) >= _PERSON else moving  # fingers do not count
    count = len(set(wanted) & set(source.values()))
    if not moving or 2 * count < len(wanted):
        raise InputError(
            f"retarget: the skin has {count} of the {len(wanted)} joints of the motion, want at least half of them; joints of"
            f" the skin: {listed_names(names)}; of the motion: {listed_names([known[joint] for joint in wanted])}. Name pairs"
            " with --joints"
        )
    return dict(sorted(source.items()))


def _parts(names: Sequence[str], others: Sequence[str], source: Mapping[int, int]) -> dict[str, int]:
    """Body parts of joints of the skin, by their own names or by those of the joints that move them."""
    theirs = body_parts(others)
    found = {part: joint for joint, other in source.items() if (part := theirs[other]) is not None}
    return found | {part: joint for joint, part in enumerate(body_parts(names)) if part is not None and joint in source}


def _likeness(ours: Float64[Tensor, "n 3"], theirs: Float64[Tensor, "n 3"]) -> float:
    """Similarity of two poses up to translation, rotation and scale: 1 for the same."""
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    spread = ours.mT @ theirs
    return float((nearest_rotation(spread) * spread).sum()) / max(float(ours.norm() * theirs.norm()), 1e-30)


def _body_axes(parts: Mapping[str, int], places: Float64[Tensor, "k 3"]) -> Float64[Tensor, "3 3"] | None:
    """Left, up and forward of a body, as columns, by its hips and legs: those of a person that stands and of an animal on four
    legs agree, although their spines do not. None without legs.
    """
    if not {f"{side} {part}" for side in ("left", "right") for part in ("upper_leg", "foot")} <= parts.keys():
        return None
    hips, feet = (
        torch.stack([places[parts[f"{side} {part}"]] for side in ("left", "right")]) for part in ("upper_leg", "foot")
    )
    up = torch.nn.functional.normalize((hips - feet).mean(0), dim=0)
    left = hips[0] - hips[1]
    left = torch.nn.functional.normalize(left - (left @ up) * up, dim=0)
    axes = torch.stack([left, up, torch.linalg.cross(left, up)], dim=1)
    return axes if float(torch.linalg.det(axes)) > 0.5 else None


def _axes(
    source: dict[int, int], parts: Mapping[str, int], rest: Float64[Tensor, "j 4 4"], places: Float64[Tensor, "k 3"]
) -> Float64[Tensor, "3 3"]:
    """From the axes of the motion to those of the skin: the rotation by right angles that makes the rest poses most similar."""
    eyes = torch.eye(3, dtype=torch.float64)
    ours, theirs = rest[list(source), :3, 3], places[list(source.values())]
    spread = (ours - ours.mean(0)).mT @ (theirs - theirs.mean(0))
    bodies = _body_axes(parts, rest[:, :3, 3]), _body_axes({part: source[joint] for part, joint in parts.items()}, places)
    if bodies[0] is not None and bodies[1] is not None:
        spread = bodies[0] @ bodies[1].mT
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=3)), dtype=torch.float64)
    turns = torch.stack([sign[:, None] * eyes[list(order)] for order in itertools.permutations(range(3)) for sign in signs])
    turns = turns[torch.linalg.det(turns) > 0]  # the first is the identity, which wins ties
    scores = (turns * spread).sum((1, 2))
    return turns[0] if scores[0] >= scores.max() - 1e-3 * spread.norm() else turns[int(scores.argmax())]


def _heading(
    source: dict[int, int], parts: Mapping[str, int], rest: Float64[Tensor, "j 4 4"], places: Float64[Tensor, "k 3"]
) -> Float64[Tensor, "3 3"]:
    """The rotation about the up axis of the skin that makes a pose face like the rest pose of the skin."""
    here, there = _body_axes(parts, rest[:, :3, 3]), _body_axes({part: source[joint] for part, joint in parts.items()}, places)
    if here is not None and there is not None:
        up = _nearest_axis(here[:, 1])
        left, theirs = here[:, 0], there[:, 0]
        return rotvec_to_rotmat(torch.atan2(torch.linalg.cross(theirs, left) @ up, (theirs * left * (1 - up.abs())).sum()) * up)
    low = parts.get("hips", parts.get("left foot"))
    if low is None or "head" not in parts:
        return torch.eye(3, dtype=torch.float64)
    along = rest[parts["head"], :3, 3] - rest[low, :3, 3]
    up = torch.eye(3, dtype=torch.float64)[int(along.abs().argmax())]
    ours, theirs = rest[list(source), :3, 3], places[list(source.values())]
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    across, level = torch.linalg.cross(theirs, ours).sum(0) @ up, (theirs * ours * (1 - up)).sum()
    return rotvec_to_rotmat(torch.atan2(across, level) * up)


def _nearest_axis(direction: Float64[Tensor, " 3"]) -> Float64[Tensor, " 3"]:
    axis = int(direction.abs().argmax())
    return torch.eye(3, dtype=torch.float64)[axis] * direction[axis].sign()


def _floor_shift(
    skin: SkinnedMesh, clip: Clip, parts: Mapping[str, int], times: Float64[Tensor, " t"], rest: Float64[Tensor, "j 4 4"]
) -> Float64[Tensor, " 3"]:
    """What moves the lowest foot of a clip to the height of the feet in the rest pose; zero without feet."""
    body = _body_axes(parts, rest[:, :3, 3])
    if body is None:
        return torch.zeros(3, dtype=torch.float64)
    up = _nearest_axis(body[:, 1])
    feet = [joint for part, joint in parts.items() if part.split()[-1] in ("foot", "toes")]
    heights = (skin.joint_matrices(clip, times)[:, feet, :3, 3].double() @ up).amin(1)
    return (float((rest[feet, :3, 3] @ up).min()) - heights.quantile(_CONTACT)) * up


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
            found[joint] = shortest_turn(ours, theirs)
            if end == "hand":
                found[tip] = found[joint]
    return found


def _carrier(joint: int, carried: Sequence[int], parents: Sequence[int]) -> int:
    """The joint or its nearest ancestor that carries all of `carried`: in some rigs the hips do not carry the legs."""
    above = joint
    while above >= 0 and not all(above in (other, *_ancestors(other, parents)) for other in carried):
        above = parents[above]
    return above if above >= 0 else joint


def shortest_turn(start: Float64[Tensor, " 3"], end: Float64[Tensor, " 3"]) -> Float64[Tensor, "3 3"]:
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


def listed_names(names: Sequence[str]) -> str:
    """The first names, for messages."""
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
