"""Matching of joints of two skeletons by their names in different programs."""

import re
from collections.abc import Sequence

from vision3d.optim.motion.humanoid import body_parts


def same_joints(names: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Rows of `names` -> matching rows of `others`.

    First equal names; then names without namespaces (everything up to the last `:` or `|`), case and punctuation; then the rest
    without the prefix of one skeleton that makes most names equal, such as the `mixamorig` of mixamorigHips. If two joints of
    a skeleton then share a name, the first one gets it. Then body parts (`humanoid.body_parts`): the thigh of one program is
    the UpperLeg of another one, and equal names of different parts, such as a shoulder that is a collar bone in one and an
    upper arm in the other, do not match. Spine joints without common names are matched by their position along the spine.

    Example:
        >>> same_joints(["Hips", "LeftUpLeg"], ["Armature", "mixamorig:Hips", "mixamorig:LeftUpLeg"])
        {0: 1, 1: 2}
    """
    found = _equal(names, others)
    plain, plain_others = [_plain(name) for name in names], [_plain(name) for name in others]
    bare, bare_others = _without_prefix(plain, plain_others)
    for mine, theirs in ((plain, plain_others), (bare, bare_others)):
        taken = set(found.values())
        found |= {row: other for row, other in _equal(mine, theirs).items() if row not in found and other not in taken}
    return dict(sorted(_by_body(found, body_parts(names), body_parts(others)).items()))


def _by_body(found: dict[int, int], parts: Sequence[str | None], others: Sequence[str | None]) -> dict[int, int]:
    """The matches without those of different body parts, plus equal parts with different names."""
    found = {row: other for row, other in found.items() if None in (parts[row], others[other]) or parts[row] == others[other]}
    taken = set(found.values())
    rows = {part: other for other, part in enumerate(others) if part and part != "spine" and other not in taken}
    found |= {row: rows[part] for row, part in enumerate(parts) if part in rows and row not in found}
    spine = [row for row, part in enumerate(parts) if part == "spine"]
    theirs = [other for other, part in enumerate(others) if part == "spine"]
    if spine and theirs and not any(row in found for row in spine) and not set(theirs) & set(found.values()):
        few, many = sorted((spine, theirs), key=len)
        places = [round(i * (len(many) - 1) / max(len(few) - 1, 1)) for i in range(len(few))]
        pairs = [(joint, many[place]) for joint, place in zip(few, places)]
        found |= dict(pairs) if few is spine else {mine: other for other, mine in pairs}
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", re.split(r"[:|]", name)[-1]).lower()


def _equal(names: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    rows = {name: row for row, name in reversed(list(enumerate(others)))}
    first = {name: row for row, name in reversed(list(enumerate(names)))}
    return {row: rows[name] for name, row in first.items() if name and name in rows}


def _without_prefix(names: Sequence[str], others: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both lists, one of them without the prefix whose removal makes most names equal."""
    best, most = (list(names), list(others)), len(_equal(names, others))
    for long, short, is_first in ((names, others, True), (others, names, False)):
        known = set(short)
        prefixes = {name[:cut] for name in long for cut in range(1, len(name)) if name[cut:] in known}
        for prefix in sorted(prefixes):
            bare = [name.removeprefix(prefix) for name in long]
            pair = (bare, list(short)) if is_first else (list(short), bare)
            if (count := len(_equal(*pair))) > most:
                best, most = pair, count
    return best
