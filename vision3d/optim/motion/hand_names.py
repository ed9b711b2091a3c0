"""Joints of hands from their names in different programs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Role = tuple[str, int]
"""A finger and the number of a bone: 1 to 3 from the knuckle (of the thumb: from the wrist) to the last joint, 4 the tip, 0
the metacarpal of a finger. The wrist is ("wrist", 0)."""

FINGERS = ("thumb", "index", "middle", "ring", "little")
WRIST: Role = ("wrist", 0)
_WORDS = {
    "thumb": "thumb", "index": "index", "pointer": "index", "fore": "index", "middle": "middle", "mid": "middle",
    "ring": "ring", "little": "little", "pinky": "little", "pinkie": "little", "small": "little",
}  # fmt: skip
_BONES = {
    "metacarpal": 0, "carpal": 0, "proximal": 1, "mcp": 1, "intermediate": 2, "pip": 2, "distal": 3, "dip": 3,
    "tip": 4, "nub": 4,
}  # fmt: skip
_THUMB_BONES = {"metacarpal": 1, "cmc": 1, "proximal": 2, "mcp": 2, "distal": 3, "ip": 3, "tip": 4, "nub": 4}
_OLD_THUMB = {"proximal": 1, "intermediate": 2, "distal": 3}
"""Unity and VRM 0 count the metacarpal of the thumb as its proximal phalanx."""
_SIDES = {"l": "left", "left": "left", "r": "right", "right": "right"}
_OTHERS = {"org", "mch", "ctrl", "control", "ik", "fk", "pole", "tweak", "target", "helper", "twist", "end", "socket"}
_SPLIT = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")


@dataclass(frozen=True)
class HandJoints:
    """The joints of one hand of a skeleton."""

    side: str | None
    """right or left; None if no name has it."""
    joints: Mapping[Role, int]
    """Joint of each role, the wrist among them."""

    @property
    def wrist(self) -> int:
        """Its joint."""
        return self.joints[WRIST]


def find_hands(names: Sequence[str], parents: Sequence[int], given: Mapping[int, Role] | None = None) -> list[HandJoints]:
    """The hands of a skeleton: those with a wrist and the knuckles of two fingers besides the thumb.

    Names may be those of WebXR, Mixamo, VRM, Unity, Unreal, Rigify, Oculus, SMPL-X and MANO, or of the bundled hand. Joints
    belong to the nearest wrist above them; where nothing is above them, as in the files of WebXR, to the one of their side.

    Args:
        names: Of the joints.
        parents: Of the joints; -1: none.
        given: Roles of joints whatever their names.

    Example:
        >>> [hand] = find_hands(["RightHand", "RightHandIndex1", "RightHandMiddle1"], [-1, 0, 0])
        >>> hand.side, hand.joints["index", 1]
        ('right', 1)
    """
    words = [_words(name) for name in names]
    sides = [next((_SIDES[word] for word in some if word in _SIDES), None) for some in words]
    roles = _roles(words) | dict(given or {})
    wrists = {joint for joint, role in roles.items() if role == WRIST}
    owned: dict[int, dict[Role, int]] = {}
    for joint, role in roles.items():
        if role == WRIST:
            continue
        above = list(_ancestors(joint, parents))
        wrist = next((other for other in above if other in wrists), None)
        if wrist is None:
            wrist = _wrist_of(joint, sides, [other for other in sorted(wrists) if not wrists & set(_ancestors(other, parents))])
        if wrist is not None:
            owned.setdefault(wrist, {WRIST: wrist}).setdefault(role, joint)
    found = []
    for wrist, joints in sorted(owned.items()):
        if sum((finger, 1) in joints for finger in FINGERS[1:]) >= 2:
            near = [wrist, *_ancestors(wrist, parents), *joints.values()]
            found.append(HandJoints(next((sides[joint] for joint in near if sides[joint]), None), joints))
    return found


def roles_of(names: Sequence[str]) -> dict[int, Role]:
    """Roles of the joints that have one, by their names alone."""
    return _roles([_words(name) for name in names])


def _roles(words: Sequence[Sequence[str]]) -> dict[int, Role]:
    fingers = [next((_WORDS[word] for word in some if word in _WORDS), None) for some in words]
    is_old = any(finger == "thumb" and "intermediate" in some for finger, some in zip(fingers, words))
    numbers = {finger: set[int]() for finger in FINGERS}
    for finger, some in zip(fingers, words):
        if finger is not None:
            numbers[finger] |= {int(word) for word in some[-3:] if word.isdigit()}
    roles: dict[int, Role] = {}
    for joint, (finger, some) in enumerate(zip(fingers, words)):
        if not _OTHERS.isdisjoint(some):
            continue
        if finger is None:
            if "wrist" in some or "hand" in some:
                roles[joint] = WRIST
            continue
        bones = _BONES if finger != "thumb" else {**_THUMB_BONES, **(_OLD_THUMB if is_old else {})}
        bone = next((bones[word] for word in reversed(some) if word in bones), None)
        if bone is None:
            counted = [int(word) for word in some if word.isdigit()]
            starts_at_0 = 0 in numbers[finger] and 3 not in numbers[finger]
            bone = counted[-1] + starts_at_0 if counted else None
        if bone is not None and 0 <= bone <= 4:
            roles[joint] = (finger, bone)
    # A hand above a wrist is a group; beside joints that are called wrists, only these are.
    if any("wrist" in words[joint] for joint, role in roles.items() if role == WRIST):
        roles = {joint: role for joint, role in roles.items() if role != WRIST or "wrist" in words[joint]}
    return roles


def _wrist_of(joint: int, sides: Sequence[str | None], wrists: Sequence[int]) -> int | None:
    same = [wrist for wrist in wrists if None in (sides[wrist], sides[joint]) or sides[wrist] == sides[joint]]
    return same[0] if same else None


def _words(name: str) -> list[str]:
    bare = re.split(r"[:|]", name)[-1]
    return [word for word in re.split(r"[\W_]+", _SPLIT.sub(" ", bare).lower()) if word]


def _ancestors(joint: int, parents: Sequence[int]):
    while (joint := parents[joint]) >= 0:
        yield joint
