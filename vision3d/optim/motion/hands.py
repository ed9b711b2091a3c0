"""Retargeting of the motion of hands, as `hand run` writes it, to the hands of other rigs."""

import logging
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from vision3d.core.errors import InputError, nearest_names
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.rotation import nearest_rotation
from vision3d.optim.motion.hand_names import FINGERS, WRIST, HandJoints, Role, find_hands, roles_of
from vision3d.optim.motion.humanoid import body_parts
from vision3d.optim.motion.retarget import listed_names, shortest_turn
from vision3d.scene.clip import Channel, Clip
from vision3d.scene.skin import SkinnedMesh

logger = logging.getLogger("vision3d")

_MOVES = 1e-6  # translations that differ by less from the rest pose, relative to the size of the hand, have no channel
Rigid = Float64[Tensor, "t 4 4"]


def retarget_hands(
    source: SkinnedMesh,
    clip: Clip,
    skin: SkinnedMesh,
    *,
    name: str = "motion",
    scale: float | None = None,
    joints: Mapping[str, str] | None = None,
) -> Clip:
    """A clip that moves the hands of a skin like those of another one.

    Hands and their joints are found by their names (`hand_names.find_hands`). The palms of both rest poses are aligned, and
    each bone by its direction, so rest poses, axes and proportions may differ. A rig of hands alone goes where the hand of the
    clip is, in its own size: positions are multiplied by `scale`, which from a camera at the origin looks the same. On a body
    only the fingers move. Joints without a counterpart follow the next one above; rigs without a hierarchy, as in the files of
    WebXR, get translations.

    Args:
        source: The rig of the clip.
        clip: What it does.
        skin: The skin to animate.
        name: Name of the new clip.
        scale: Length in the skin per length in the clip; None: that of the palms.
        joints: Joints of the source -> joints of the skin, where names are unknown.

    Raises:
        InputError: One of them has no hand, or none of the same side; the message lists names of both.
    """
    times = _key_times(clip)
    if not len(times):
        raise InputError(f"retarget: clip {clip.name} moves no joint")
    given, ours = _given(source, skin, joints or {})
    theirs = find_hands(source.names, source.parents, given)
    hands = find_hands(skin.names, skin.parents, ours)
    for kind, found, names in (("motion", theirs, source.names), ("skin", hands, skin.names)):
        if not found:
            raise InputError(
                f"retarget: the {kind} has no hand, want a wrist and the first joints of two fingers besides the thumb; its"
                f" joints: {listed_names(names)}. Name pairs with --joints"
            )
    rest, moving = source.joint_matrices(None, times[:1])[0].double(), source.joint_matrices(clip, times).double()
    own = skin.joint_matrices(None, times[:1])[0].double()
    motions: dict[int, Rigid] = {}
    for hand, other in _pairs(theirs, hands, rest, own):
        motions |= _followed(hand, other, rest, moving, own, skin, scale)
    return Clip(name, _channels(skin, own, motions, times))


def _key_times(clip: Clip) -> Float64[Tensor, " t"]:
    """All times of keys of rotations; frames in which a hand is hidden have none."""
    keys = [channel.times for channel in clip.channels if channel.path == "rotation"]
    return torch.cat(keys).unique() if keys else torch.zeros(0, dtype=torch.float64)


def _given(source: SkinnedMesh, skin: SkinnedMesh, joints: Mapping[str, str]) -> tuple[dict[int, Role], dict[int, Role]]:
    """Roles of the joints of the source and of the skin that pairs of names give them."""
    for kind, asked, there in (("motion", joints, source.names), ("skin", joints.values(), skin.names)):
        for name in asked:
            if name not in there:
                raise InputError(f"retarget: the {kind} has no joint {name!r}; {nearest_names(name, there)}")
    theirs, ours = roles_of(source.names), roles_of(skin.names)
    first: dict[int, Role] = {}
    second: dict[int, Role] = {}
    for theirs_name, ours_name in joints.items():
        here, there = source.names.index(theirs_name), skin.names.index(ours_name)
        role = theirs.get(here, ours.get(there))
        if role is None:
            raise InputError(f"retarget: neither {theirs_name!r} nor {ours_name!r} is the name of a joint of a hand")
        first[here] = second[there] = role
    return first, second


def _pairs(
    theirs: Sequence[HandJoints], hands: Sequence[HandJoints], rest: Float64[Tensor, "j 4 4"], own: Float64[Tensor, "k 4 4"]
) -> list[tuple[HandJoints, HandJoints]]:
    """Hands of one side; unknown sides are those of the more similar rest pose."""
    found, free = [], list(hands)
    for hand in theirs:
        fits = [other for other in free if None in (hand.side, other.side) or hand.side == other.side]
        fits.sort(key=lambda other: (other.side is None, -_handedness(hand, other, rest, own)))
        if fits and (fits[0].side == hand.side or _handedness(hand, fits[0], rest, own) > 0):
            found.append((hand, fits[0]))
            free.remove(fits[0])
    if not found:
        sides = [" and a ".join(f"{hand.side or 'mirrored'} hand" for hand in some) for some in (theirs, hands)]
        raise InputError(f"retarget: the motion is of a {sides[0]}, the skin has a {sides[1]}; want hands of the same side")
    if len(found) < len(theirs):
        logger.warning(
            "%d of the %d hands of the motion have none of their side in the skin", len(theirs) - len(found), len(theirs)
        )
    return found


def _handedness(hand: HandJoints, other: HandJoints, rest: Float64[Tensor, "j 4 4"], own: Float64[Tensor, "k 4 4"]) -> float:
    """Agreement of what stands out of the aligned palms, thumb and bent fingers: negative for a mirrored hand."""
    turn = _palm_turn(hand, other, rest, own)
    roles = [role for role in hand.joints if role in other.joints]
    here, there = (_places(some, roles, matrices) for some, matrices in ((hand, rest), (other, own)))
    here = here @ turn.mT
    palm = [roles.index(role) for role in _palm(hand, other)]
    normal = torch.linalg.svd(there[palm] - there[palm].mean(0))[2][2]
    off = ((here - here[palm].mean(0)) @ normal, (there - there[palm].mean(0)) @ normal)
    return float(off[0] @ off[1] / (off[0].norm() * off[1].norm()).clamp(min=1e-12))


def _palm(hand: HandJoints, other: HandJoints) -> list[Role]:
    roles = [WRIST, *((finger, 1) for finger in FINGERS[1:])]
    return [role for role in roles if role in hand.joints and role in other.joints]


def _places(hand: HandJoints, roles: Sequence[Role], matrices: Float64[Tensor, "j 4 4"]) -> Float64[Tensor, "n 3"]:
    return matrices[[hand.joints[role] for role in roles], :3, 3]


def _palm_turn(
    hand: HandJoints, other: HandJoints, rest: Float64[Tensor, "j 4 4"], own: Float64[Tensor, "k 4 4"]
) -> Float64[Tensor, "3 3"]:
    """From the axes of one rest pose to those of the other: the rotation that aligns the palms."""
    roles = _palm(hand, other)
    if len(roles) < 3:
        raise InputError(f"retarget: the hands share {len(roles)} joints of the palm, want the wrist and two fingers at least")
    here, there = (_places(some, roles, matrices) for some, matrices in ((hand, rest), (other, own)))
    return nearest_rotation((there - there.mean(0)).mT @ (here - here.mean(0)))


def _followed(
    hand: HandJoints,
    other: HandJoints,
    rest: Float64[Tensor, "j 4 4"],
    moving: Float64[Tensor, "t j 4 4"],
    own: Float64[Tensor, "k 4 4"],
    skin: SkinnedMesh,
    scale: float | None,
) -> dict[int, Rigid]:
    """Motions of the joints of a hand of the skin, from its rest pose, by joint."""
    turn = _palm_turn(hand, other, rest, own)
    palm = _palm(hand, other)
    sizes = [(places - places.mean(0)).norm() for places in (_places(hand, palm, rest), _places(other, palm, own))]
    factor = float(sizes[1] / sizes[0]) if scale is None else scale
    wrist = hand.wrist
    to_rest = nearest_rotation(rest[:, :3, :3])
    turned = {role: nearest_rotation(moving[:, joint, :3, :3]) @ to_rest[joint].mT for role, joint in hand.joints.items()}
    base = turned[WRIST] @ turn.mT  # from the axes of the skin's rest pose to the world
    start = factor * moving[:, wrist, :3, 3]
    if _is_on_a_body(skin.names):
        base, start = torch.eye(3).to(base).expand_as(base), own[other.wrist, :3, 3].expand_as(start)
    found = {other.wrist: _about(base, own[other.wrist, :3, 3], start)}
    for finger in FINGERS:
        above, aligned = other.wrist, torch.eye(3, dtype=torch.float64)
        for bone in range(5):
            role = (finger, bone)
            if role not in other.joints:
                continue
            joint = other.joints[role]
            motion = found[above]
            rotation = motion[:, :3, :3]
            if role in hand.joints and bone not in (0, 4):
                aligned = _aligned(role, hand, other, turn, rest, own, aligned)
                relative = turn @ turned[WRIST].mT @ turned[role] @ turn.mT @ aligned
                rotation = base @ relative
            place = own[joint, :3, 3]
            found[joint] = _about(rotation, place, motion[:, :3, :3] @ place + motion[:, :3, 3])
            above = joint
    return found


def _aligned(
    role: Role,
    hand: HandJoints,
    other: HandJoints,
    turn: Float64[Tensor, "3 3"],
    rest: Float64[Tensor, "j 4 4"],
    own: Float64[Tensor, "k 4 4"],
    before: Float64[Tensor, "3 3"],
) -> Float64[Tensor, "3 3"]:
    """The shortest rotation of a bone of the skin to the direction of the other one, at rest; `before` for the last bone."""
    finger, bone = role
    following = next(
        ((finger, end) for end in range(bone + 1, 5) if {(finger, end)} <= hand.joints.keys() & other.joints.keys()), None
    )
    if following is None:
        return before
    here, there = (_places(some, [role, following], matrices) for some, matrices in ((hand, rest), (other, own)))
    theirs, ours = turn @ (here[1] - here[0]), there[1] - there[0]
    return shortest_turn(ours, theirs) if min(float(ours.norm()), float(theirs.norm())) > 0 else before


def _about(rotation: Float64[Tensor, "t 3 3"], place: Float64[Tensor, " 3"], target: Float64[Tensor, "t 3"]) -> Rigid:
    """Rigid motions that rotate about a place and move it to its targets."""
    shift = target - (rotation @ place[:, None])[..., 0]
    last = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64).expand(len(rotation), 1, 4).to(rotation)
    return torch.cat([torch.cat([rotation, shift[..., None]], -1), last], -2)


def _is_on_a_body(names: Sequence[str]) -> bool:
    return any(part is not None and not part.endswith("hand") for part in body_parts(names))


def _channels(
    skin: SkinnedMesh, own: Float64[Tensor, "k 4 4"], motions: Mapping[int, Rigid], times: Float64[Tensor, " t"]
) -> tuple[Channel, ...]:
    """Rotations, and translations where the hierarchy does not carry the joints."""
    still = torch.eye(4, dtype=torch.float64).to(own).expand(len(times), 4, 4)
    whole: list[Rigid] = []
    channels = []
    size = float((own[list(motions), :3, 3].amax(0) - own[list(motions), :3, 3].amin(0)).norm())
    for joint, parent in enumerate(skin.parents):
        above = whole[parent] if parent >= 0 else still
        whole.append(motions.get(joint, above))
        if joint not in motions:
            continue
        frame = above @ own[parent] if parent >= 0 else still
        local = torch.linalg.solve(frame, whole[joint] @ own[joint])
        quats = rotmat_to_quat(nearest_rotation(local[:, :3, :3]))
        channels.append(Channel("rotation", joint, times, quats.to(skin.quats)))
        shift = local[:, :3, 3]
        moved = (frame[:, :3, :3] @ (shift - skin.translations[joint])[..., None]).norm(dim=(-2, -1))
        if float(moved.max()) > _MOVES * size:
            channels.append(Channel("translation", joint, times, shift.to(skin.translations)))
    return tuple(channels)
