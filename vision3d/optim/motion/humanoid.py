"""Human body parts from joint names, in the vocabularies of different programs."""

import re
from collections.abc import Sequence

_SIDES = {"l": "left", "left": "left", "r": "right", "right": "right"}
_CONTROLS = {"org", "mch", "ctrl", "control", "ik", "fk", "pole", "tweak", "target", "helper", "twist", "roll", "end", "socket"}
_MIDDLE = {
    "hips": ("hips", "hip", "pelvis"),
    "spine": ("spine", "chest", "torso", "abdomen", "back", "waist", "lowerback", "upperchest", "upperbody"),
    "neck": ("neck",),
    "head": ("head",),
}
_PAIRED = {
    "clavicle": ("clavicle", "collar"),
    "upper_arm": ("upperarm", "uparm", "armupper"),
    "forearm": ("forearm", "lowerarm", "armlower", "elbow"),
    "hand": ("hand", "wrist", "paw"),
    "upper_leg": ("upperleg", "upleg", "legupper", "thigh"),
    "lower_leg": ("lowerleg", "leglower", "shin", "calf", "knee"),
    "foot": ("foot", "ankle"),
    "toes": ("toe", "toes", "toebase", "ball"),
}
_PARTS = {word: part for parts in (_MIDDLE, _PAIRED) for part, words in parts.items() for word in words}
# The meaning of a word depends on the others: shoulder is the collar bone in one program and the upper arm in another.
_OPEN = {"shoulder", "arm", "leg", "hip"}

LIMBS = (("upper_arm", "forearm"), ("forearm", "hand"), ("upper_leg", "lower_leg"), ("lower_leg", "foot"))
"""Parts connected by a bone."""


def body_parts(names: Sequence[str]) -> list[str | None]:
    """The body part of each joint, such as `left upper_arm`, `hips` or `spine` (which can occur several times).

    Each part of a side is assigned to the first joint named after it. None if a name has no known part, as for fingers and
    rig controls.

    Example:
        >>> body_parts(["Hips", "Spine", "LeftUpLeg", "LeftLeg", "LHandThumb1"])
        ['hips', 'spine', 'left upper_leg', 'left lower_leg', None]
        >>> body_parts(["LeftCollar", "LeftShoulder", "LeftElbow"])
        ['left clavicle', 'left upper_arm', 'left forearm']
    """
    read = [_read(name) for name in names]
    known = {(side, _PARTS.get(word)) for side, word in read}
    found: list[str | None] = []
    for side, word in read:
        part = _opened(side, word, known, read) if side and word in _OPEN else _PARTS.get(word)
        is_wrong = part is None or (side is None) != (part in _MIDDLE)
        text = None if is_wrong else part if side is None else f"{side} {part}"
        found.append(None if text in found and text != "spine" else text)
    return found


def _opened(
    side: str, word: str, known: set[tuple[str | None, str | None]], read: Sequence[tuple[str | None, str]]
) -> str | None:
    if word == "shoulder":
        return "clavicle" if (side, "upper_arm") in known or (side, "arm") in read else "upper_arm"
    if word == "leg":
        return "lower_leg" if (side, "upper_leg") in known or (side, "hip") in read else "upper_leg"
    part = "upper_arm" if word == "arm" else "upper_leg"
    return None if (side, part) in known else part


def _read(name: str) -> tuple[str | None, str]:
    """The side in a name, and the rest of it without side, numbers and prefixes."""
    bare = re.split(r"[:|]", name)[-1]
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", " ", bare)
    words = [word for word in re.split(r"[\W_]+", spaced.lower()) if word and not word.isdigit()]
    if not _CONTROLS.isdisjoint(words):
        return None, ""
    sides = [_SIDES[word] for word in words if word in _SIDES]
    rest = [word for word in words if word not in _SIDES]
    for size in range(len(rest), 0, -1):  # the longest known sequence of words
        for start in range(len(rest) - size, -1, -1):
            word = "".join(rest[start : start + size])
            is_whole = start + size == len(rest) or not _is_finger(rest[start + size :])
            if (word in _PARTS or word in _OPEN) and is_whole:
                return (sides[0] if sides else None), word
    return None, ""


def _is_finger(words: Sequence[str]) -> bool:
    return any(re.match("thumb|index|middle|ring|pink|little|pointer|finger|top|joint|nub", word) for word in words)
