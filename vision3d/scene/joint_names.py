"""Which joints of two skeletons are the same: by their names, as different programs write these."""

import re
from collections.abc import Sequence


def same_joints(names: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Rows of `names` -> rows of `others` that are the same joint.

    Equal names first; else names without namespaces (all up to the last `:` or `|`), case and punctuation; else what is left
    without the prefix of one skeleton that makes most names equal, such as the `mixamorig` of mixamorigHips. Names that two
    joints of a skeleton share after that belong to the first of them.

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
    return dict(sorted(found.items()))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", re.split(r"[:|]", name)[-1]).lower()


def _equal(names: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    rows = {name: row for row, name in reversed(list(enumerate(others)))}
    first = {name: row for row, name in reversed(list(enumerate(names)))}
    return {row: rows[name] for name, row in first.items() if name and name in rows}


def _without_prefix(names: Sequence[str], others: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both lists, one of them without the prefix that makes most names equal."""
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
