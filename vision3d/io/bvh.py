"""BVH motion capture: a tree of joints with their channels, then one line of numbers per pose.

The rotations of a joint are multiplied in the order of its channels, R = R_1 R_2 R_3; each joint has its own order. The
position channels of a root replace its OFFSET, axis by axis (in many files the OFFSET is its rest position). The same holds
for the topmost branching joint if the root is fixed on the floor. BVH has no unit of length: `scale` converts its lengths to
meters.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError
from vision3d.geometry.quaternion import multiply, quat_to_rotmat, rotate
from vision3d.io.guards import read_bytes
from vision3d.scene.motion import Motion, Skeleton

_AXES = {"X": 0, "Y": 1, "Z": 2}
_CHANNEL = re.compile(r"([XYZ])(position|rotation)", re.IGNORECASE)
_MAX_JOINTS = 100_000


@dataclass
class _Joint:
    name: str
    parent: int
    is_tip: bool
    offset: list[float] | None = None
    channels: list[tuple[str, int]] = field(default_factory=list)


def read_motion(path: Path | str, scale: float = 1.0) -> Motion:
    """Read a .bvh file.

    The ends of bones become joints named after their parent: `Head end`. Positions of the topmost branching joint move the
    root. Positions of other joints repeat their offset or are zero; if they do neither, a warning is logged, since bones have a
    fixed length.

    Args:
        path: The file.
        scale: Meters per unit of length of the file.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: The file is not BVH, is truncated, or has non-finite numbers; the message has the line.
    """
    path = Path(path)
    text = read_bytes(path, "a .bvh file").decode("utf-8", "replace")
    lines = text.splitlines()
    joints, place = _read_hierarchy(path, lines)
    count, interval, place = _read_header(path, lines, place)
    values = _read_poses(path, lines, place, count, sum(len(joint.channels) for joint in joints))
    return _motion(path, joints, torch.from_numpy(values), interval, scale)


def load(path: Path) -> Motion:
    """Codec: read motion, without scaling lengths."""
    return read_motion(path)


def save(path: Path, value: Motion) -> None:
    """Codec: write motion."""
    write_motion(path, value)


def write_motion(path: Path | str, motion: Motion, scale: float = 1.0) -> None:
    """Write a .bvh file atomically; rotations in the order Z Y X.

    Args:
        path: The file.
        motion: Evenly spaced in time, with one root.
        scale: Meters per unit of length of the file.

    Raises:
        InputError: The poses are not evenly spaced, or the skeleton cannot be written.
    """
    motion.validate()
    skeleton = motion.skeleton
    steps = motion.times.diff()
    interval = float(steps.mean()) if len(steps) else 1 / 30
    if len(steps) and float((steps - interval).abs().max()) > 1e-3 * interval:
        raise InputError(f"{path}: the poses are not evenly spaced in time, as BVH has them; use Motion.resampled")
    if skeleton.parents.count(-1) != 1:
        raise InputError(f"{path}: the skeleton has {skeleton.parents.count(-1)} roots, want one")
    children = [[j for j, parent in enumerate(skeleton.parents) if parent == joint] for joint in range(len(skeleton))]
    if any(children[tip] for tip in skeleton.tips):
        raise InputError(f"{path}: a tip of the skeleton has joints below it")
    offsets = (skeleton.offsets.detach().cpu().double() / scale).tolist()
    out = ["HIERARCHY"]
    moving: list[int] = []  # in file order
    pending: list[tuple[int, int, bool]] = [(0, 0, False)]
    while pending:
        joint, depth, is_close = pending.pop()
        indent = "\t" * depth
        if is_close:
            out.append(indent + "}")
            continue
        is_tip = joint in skeleton.tips
        name = re.sub(r"\s+", "_", skeleton.names[joint])
        out += [f"{indent}{'End Site' if is_tip else ('ROOT ' if depth == 0 else 'JOINT ') + name}", indent + "{"]
        out.append(f"{indent}\tOFFSET {' '.join(f'{x:.9g}' for x in offsets[joint])}")
        if not is_tip:
            moving.append(joint)
            place = "6 Xposition Yposition Zposition" if depth == 0 else "3"
            out.append(f"{indent}\tCHANNELS {place} Zrotation Yrotation Xrotation")
        pending.append((joint, depth, True))
        pending += [(child, depth + 1, False) for child in reversed(children[joint])]
    out += ["MOTION", f"Frames: {len(motion)}", f"Frame Time: {interval:.9g}"]
    degrees = torch.rad2deg(_zyx(quat_to_rotmat(motion.quats.detach().cpu().double()))[:, moving])
    places = (motion.translations.detach().cpu().double() + skeleton.offsets[0].detach().cpu().double()) / scale
    rows = torch.cat([places, degrees.flatten(1)], 1)
    out += [" ".join(f"{x:.9g}" for x in row) for row in rows.tolist()]
    with atomic_write(Path(path)) as temporary:
        temporary.write_text("\n".join(out) + "\n", encoding="utf-8")


def _read_hierarchy(path: Path, lines: list[str]) -> tuple[list[_Joint], int]:
    """The joints, and the number of the line after them."""
    joints: list[_Joint] = []
    stack: list[int] = []  # joints with open braces
    waiting: _Joint | None = None  # waiting for its opening brace
    seen_header = False
    for number, line in enumerate(lines):
        words = line.split()
        if not words:
            continue
        where = f"line {number + 1}"
        if not seen_header:
            if words[0].upper() != "HIERARCHY":
                raise FileFormatError(path, f"begins with {line.strip()[:40]!r}, want HIERARCHY", where)
            seen_header = True
            continue
        key = words[0].upper()
        if waiting is not None and key != "{":
            raise FileFormatError(path, f"got {line.strip()[:40]!r}, want {{", where)
        if key in ("ROOT", "JOINT", "END"):
            if key == "ROOT" and joints:
                raise FileFormatError(path, "has a second ROOT; want one skeleton", where)
            if key != "ROOT" and not stack:
                raise FileFormatError(path, f"{words[0]} is outside of a joint", where)
            if len(joints) >= _MAX_JOINTS:
                raise FileFormatError(path, f"has more than {_MAX_JOINTS} joints", where)
            parent = stack[-1] if stack else -1
            name = f"{joints[parent].name} end" if key == "END" else " ".join(words[1:])
            if not name:
                raise FileFormatError(path, f"{words[0]} has no name", where)
            waiting = _Joint(name, parent, key == "END")
        elif key == "{":
            if waiting is None:
                raise FileFormatError(path, "opens a brace that belongs to no joint", where)
            stack.append(len(joints))
            joints.append(waiting)
            waiting = None
        elif key == "}":
            if not stack:
                raise FileFormatError(path, "closes a brace that is not open", where)
            joint = joints[stack.pop()]
            if joint.offset is None:
                raise FileFormatError(path, f"{joint.name} has no OFFSET", where)
        elif key == "OFFSET" and stack:
            joints[stack[-1]].offset = _numbers(path, words[1:], 3, where)
        elif key == "CHANNELS" and stack:
            joints[stack[-1]].channels = _channels(path, words[1:], joints[stack[-1]], where)
        elif key == "MOTION":
            if stack or not joints:
                what = f"the joint {joints[stack[-1]].name} is not closed" if stack else "there is no ROOT"
                raise FileFormatError(path, f"MOTION begins but {what}", where)
            return joints, number + 1
        else:
            raise FileFormatError(
                path, f"got {line.strip()[:40]!r}, want JOINT, End Site, OFFSET, CHANNELS, braces or MOTION", where
            )
    raise FileFormatError(path, "is truncated: has no MOTION" if seen_header else "is not a BVH file", f"line {len(lines)}")


def _channels(path: Path, words: list[str], joint: _Joint, where: str) -> list[tuple[str, int]]:
    found = [_CHANNEL.fullmatch(word) for word in words[1:]]
    if not words or not words[0].isdecimal() or len(words[0]) > 3 or int(words[0]) != len(found) or None in found:
        raise FileFormatError(
            path,
            f"CHANNELS of {joint.name} are {' '.join(words)[:80]!r}, want a count and as many names such as Xrotation",
            where,
        )
    channels = [(match[2].lower(), _AXES[match[1].upper()]) for match in found if match]
    if len(set(channels)) < len(channels):
        raise FileFormatError(path, f"CHANNELS of {joint.name} name one twice", where)
    if joint.is_tip and channels:
        raise FileFormatError(path, "an End Site has no CHANNELS", where)
    return channels


def _read_header(path: Path, lines: list[str], place: int) -> tuple[int, float, int]:
    """Number of poses, seconds between two, and the number of the next line."""
    found: list[str] = []
    places: list[int] = []
    for name in ("Frames", "Frame Time"):
        while place < len(lines) and not lines[place].strip():
            place += 1
        key, _, value = (lines[place] if place < len(lines) else "").partition(":")
        if key.strip().lower() != name.lower():
            raise FileFormatError(path, f"got {key.strip()[:40]!r}, want {name}:", f"line {min(place + 1, len(lines))}")
        found.append(value.strip())
        place += 1
        places.append(place)
    if not found[0].isdecimal() or len(found[0]) > 9:
        raise FileFormatError(path, f"Frames is {found[0][:40]!r}, want a whole number", f"line {places[0]}")
    interval = _numbers(path, [found[1]], 1, f"line {places[1]}")[0]
    if interval <= 0:
        raise FileFormatError(path, f"Frame Time is {interval}, want a positive number of seconds", f"line {places[1]}")
    return int(found[0]), interval, place


def _read_poses(path: Path, lines: list[str], place: int, count: int, width: int) -> np.ndarray:
    """(count, width) numbers; a pose may span several lines."""
    words: list[str] = []
    numbers: list[int] = []  # line number of each word
    for number in range(place, len(lines)):
        found = lines[number].split()
        words += found
        numbers += [number] * len(found)
    if len(words) != count * width:
        raise FileFormatError(
            path, f"has {len(words)} numbers for {count} poses of {width}, want {count * width}", f"line {len(lines)}"
        )
    try:
        values = np.array(words, np.float64)
    except ValueError:
        bad = next(i for i, word in enumerate(words) if not _is_number(word))
        raise FileFormatError(path, f"{words[bad][:40]!r} is not a number", f"line {numbers[bad] + 1}") from None
    is_bad = ~np.isfinite(values)
    if is_bad.any():
        bad = int(is_bad.argmax())
        raise FileFormatError(path, f"pose {bad // width} holds {words[bad]}, want finite numbers", f"line {numbers[bad] + 1}")
    return values.reshape(count, width)


def _motion(path: Path, joints: list[_Joint], values: Float64[torch.Tensor, "t c"], interval: float, scale: float) -> Motion:
    count = len(values)
    quats = torch.zeros(count, len(joints), 4, dtype=torch.float64)
    quats[..., 0] = 1
    translations = torch.zeros(count, 3, dtype=torch.float64)
    column, trunk = 0, _trunk(joints)
    above = quats[:, 0].clone()  # rotation of the parent chain of a trunk joint
    for j, joint in enumerate(joints):
        shift = torch.zeros(count, 3, dtype=torch.float64)
        for kind, axis in joint.channels:
            number = values[:, column]
            column += 1
            if kind == "position":
                shift[:, axis] = number
                continue
            half = torch.deg2rad(number) / 2
            turn = torch.zeros(count, 4, dtype=torch.float64)
            turn[:, 0], turn[:, 1 + axis] = half.cos(), half.sin()
            quats[:, j] = multiply(quats[:, j], turn)
        offset = torch.tensor(joint.offset, dtype=torch.float64)
        if joint.parent < 0 or (j in trunk and _moves(joint, shift)):
            given = [axis for kind, axis in joint.channels if kind == "position"]
            moved = torch.zeros_like(shift)
            moved[:, given] = shift[:, given] - offset[given]
            translations = translations + rotate(above, moved)
        elif count and _moves(joint, shift):
            _warn_of_moving_bone(path, joint, shift)
        if j in trunk:
            above = multiply(above, quats[:, j])
    offsets = torch.tensor([joint.offset for joint in joints], dtype=torch.float64)
    names = _distinct([joint.name for joint in joints])
    tips = tuple(j for j, joint in enumerate(joints) if joint.is_tip)
    skeleton = Skeleton(names, tuple(joint.parent for joint in joints), (offsets * scale).float(), tips)
    times = torch.arange(count, dtype=torch.float64) * interval
    return Motion(skeleton, times, quats.float(), (translations * scale).float())


def _trunk(joints: list[_Joint]) -> set[int]:
    """The root and its descendants down to the topmost branching joint."""
    parents = [joint.parent for joint in joints]
    found = [0]
    while parents.count(found[-1]) == 1:
        found.append(parents.index(found[-1]))
    return set(found)


def _apart(joint: _Joint, shift: torch.Tensor) -> float:
    """Distance of the positions of a joint from its OFFSET and from zero, whichever is smaller."""
    offset = torch.tensor(joint.offset, dtype=torch.float64)
    has_place = len(shift) and any(kind == "position" for kind, _ in joint.channels)
    return float(torch.minimum((shift - offset).abs(), shift.abs()).max()) if has_place else 0.0


def _moves(joint: _Joint, shift: torch.Tensor) -> bool:
    length = max(map(abs, joint.offset or [0.0]))
    return _apart(joint, shift) > 1e-3 * max(length, 1e-3)


def _warn_of_moving_bone(path: Path, joint: _Joint, shift: torch.Tensor) -> None:
    import warnings

    apart = _apart(joint, shift)
    text = f"{path}: positions of {joint.name} differ from its OFFSET by up to {apart:.3g}; its bone keeps the OFFSET"
    warnings.warn(text, stacklevel=4)


def _distinct(names: list[str]) -> tuple[str, ...]:
    """The names, with a number appended to duplicates."""
    used: dict[str, int] = {}
    found = []
    for name in names:
        used[name] = used.get(name, 0) + 1
        found.append(name if used[name] == 1 else f"{name} {used[name]}")
    return tuple(found)


def _numbers(path: Path, words: list[str], count: int, where: str) -> list[float]:
    values = [float(word) for word in words if _is_number(word)]
    if len(words) != count or len(values) != count or not all(map(math.isfinite, values)):
        raise FileFormatError(
            path, f"got {' '.join(words)[:60]!r}, want {count} finite number{'s' if count > 1 else ''}", where
        )
    return values


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _zyx(rotmats: Float64[torch.Tensor, "t j 3 3"]) -> Float64[torch.Tensor, "t j 3"]:
    """Angles (z, y, x) [rad] with R = R_z R_y R_x; x is zero if y is 90 degrees."""
    across = torch.hypot(rotmats[..., 0, 0], rotmats[..., 1, 0])
    y = torch.atan2(-rotmats[..., 2, 0], across)
    is_locked = across < 1e-12
    x = torch.where(is_locked, 0, torch.atan2(rotmats[..., 2, 1], rotmats[..., 2, 2]))
    z = torch.where(
        is_locked,
        torch.atan2(-rotmats[..., 0, 1], rotmats[..., 1, 1]),
        torch.atan2(rotmats[..., 1, 0], rotmats[..., 0, 0]),
    )
    return torch.stack([z, y, x], -1)
