"""Motion capture onto the joints of a skin."""

import itertools
import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from vision3d.errors import InputError
from vision3d.geometry.kinematics import forward_kinematics
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.rotation import nearest_rotation
from vision3d.scene.clip import Channel, Clip
from vision3d.scene.joint_names import same_joints
from vision3d.scene.motion import Motion
from vision3d.scene.skin import Skin

logger = logging.getLogger("vision3d")

_LISTED = 12  # names in a message


def retarget(motion: Motion, skin: Skin, *, name: str = "motion", scale: float | None = None) -> Clip:
    """A clip that turns each joint of a skin from its rest as the joint of the same name turns in the motion.

    Names may differ in namespace, prefix, case and punctuation (`joint_names.same_joints`). Both skeletons should rest in the
    same pose (arms out, say); their local axes may differ, and so may the axis that is up. The root begins where it rests and
    moves from there. Joints of the
    skin that the motion does not have stay as they are; those of the motion that the skin does not have are left out, and a
    warning names them.

    Args:
        motion: As read from a .bvh file.
        skin: What is to move.
        name: Of the clip.
        scale: Length of the skin for a length of the motion; by the bones that both have when None.

    Raises:
        InputError: Fewer than half of the joints of the motion are in the skin: the text has names of both.
    """
    skeleton = motion.skeleton
    moving = [joint for joint in range(len(skeleton)) if joint not in skeleton.tips]
    same = same_joints([skeleton.names[joint] for joint in moving], skin.names)
    if not moving or 2 * len(same) < len(moving):
        theirs = _some([skeleton.names[joint] for joint in moving])
        raise InputError(
            f"retarget: the skin has {len(same)} of the {len(moving)} joints of the motion, want at least half of them; joints"
            f" of the skin: {_some(skin.names)}; of the motion: {theirs}"
        )
    source = {ours: moving[row] for row, ours in same.items()}
    if missing := [skeleton.names[joint] for joint in moving if joint not in source.values()]:
        logger.warning("the skin has no joint for %s of the motion; its other joints take over its turns", _some(missing))
    if not len(motion):
        raise InputError("retarget: the motion has no poses")
    turned, places = forward_kinematics(
        quat_to_rotmat(motion.quats.double()), skeleton.offsets.double(), skeleton.parents, motion.translations.double()
    )
    rest = skin.joint_matrices(None, torch.zeros(1, dtype=torch.float64))[0].double()
    rest_rotmats = nearest_rotation(rest[:, :3, :3])
    world = _axes(source, rest, motion)
    turned, places = world @ turned @ world.mT, places @ world.mT
    posed: list[Tensor] = []  # rotation of each joint in the world, in every pose
    channels = []
    for joint, parent in enumerate(skin.parents):
        above = posed[parent] if parent >= 0 else torch.eye(3, dtype=torch.float64).expand(len(motion), 3, 3)
        if joint not in source:
            posed.append(above @ quat_to_rotmat(skin.quats[joint].double()))
            continue
        posed.append(turned[:, source[joint]] @ rest_rotmats[joint])
        quats = rotmat_to_quat(above.mT @ posed[joint])
        channels.append(Channel("rotation", joint, motion.times, quats.to(skin.quats)))
    for joint, theirs in source.items():
        if not _ancestors(theirs, skeleton.parents).isdisjoint(source.values()):
            continue
        factor = _length_ratio(source, skin, rest, motion) if scale is None else scale
        target = rest[joint, :3, 3] + factor * (places[:, theirs] - places[:1, theirs])
        parent = skin.parents[joint]
        above = rest[parent] if parent >= 0 else torch.eye(4, dtype=torch.float64)
        local = torch.linalg.solve(above[:3, :3], (target - above[:3, 3]).T).T
        channels.append(Channel("translation", joint, motion.times, local.to(skin.translations)))
    return Clip(name, tuple(channels))


def _axes(source: dict[int, int], rest: Tensor, motion: Motion) -> Float64[Tensor, "3 3"]:
    """From the axes of the motion to those of the skin: the rotation by right angles after which both rest most alike."""
    eyes = torch.eye(3, dtype=torch.float64)
    skeleton = motion.skeleton
    still = eyes.expand(len(skeleton), 3, 3)
    theirs = forward_kinematics(still, skeleton.offsets.double(), skeleton.parents)[1][list(source.values())]
    ours = rest[list(source), :3, 3]
    spread = (ours - ours.mean(0)).mT @ (theirs - theirs.mean(0))
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=3)), dtype=torch.float64)
    turns = torch.stack([sign[:, None] * eyes[list(order)] for order in itertools.permutations(range(3)) for sign in signs])
    turns = turns[torch.linalg.det(turns) > 0]  # the first is the identity, which wins where joints do not tell
    scores = (turns * spread).sum((1, 2))
    return turns[0] if scores[0] >= scores.max() - 1e-3 * spread.norm() else turns[int(scores.argmax())]


def _ancestors(joint: int, parents: Sequence[int]) -> set[int]:
    found = set()
    while (joint := parents[joint]) >= 0:
        found.add(joint)
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "none") + more


def _length_ratio(source: dict[int, int], skin: Skin, rest: Tensor, motion: Motion) -> float:
    """Length of the skin's bones over that of the motion's, summed over the bones that both have."""
    skeleton = motion.skeleton
    eyes = torch.eye(3, dtype=torch.float64).expand(len(skeleton), 3, 3)
    at_rest = forward_kinematics(eyes, skeleton.offsets.double(), skeleton.parents)[1]
    back = {theirs: joint for joint, theirs in source.items()}
    ours, theirs = 0.0, 0.0
    for joint, other in source.items():
        parent = skeleton.parents[other]
        while parent >= 0 and parent not in back:
            parent = skeleton.parents[parent]
        if parent >= 0:
            ours += float((rest[joint, :3, 3] - rest[back[parent], :3, 3]).norm())
            theirs += float((at_rest[other] - at_rest[parent]).norm())
    return ours / theirs if theirs > 0 else 1.0
