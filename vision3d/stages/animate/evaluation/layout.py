"""The folder of an evaluation: {gt,pred}/OBJECT/eval_VIEW/NUMBER.png, one image per frame."""

import re
from dataclasses import dataclass
from pathlib import Path

from vision3d.core.errors import InputError, MissingFileError
from vision3d.io.images import image_size, is_image

_LAYOUT = "the layout {gt,pred}/OBJECT/eval_VIEW/NUMBER.png"
_MAX_LISTED = 5


@dataclass(frozen=True)
class ClipPair:
    """The frames of one object in one view, in order."""

    object: str
    view: str
    truth: tuple[Path, ...]
    predicted: tuple[Path, ...]
    numbers: tuple[int, ...]
    """Frame numbers, as in the file names."""

    @property
    def name(self) -> str:
        return f"{self.object}/{self.view}"


def find_clips(folder: Path, *, skip_missing: bool = False) -> tuple[list[ClipPair], list[str]]:
    """The clips that exist on both sides, with frames of the same size, and a list of what is missing.

    Args:
        folder: Folder with gt and pred.
        skip_missing: Skip what exists on one side only.

    Raises:
        MissingFileError: The folder, or gt or pred in it, does not exist.
        InputError: Something exists on one side only, no clips were found, a file has no number, or frame sizes differ.
    """
    if not folder.is_dir():
        raise MissingFileError(folder, f"a folder with {_LAYOUT}")
    sides = {side: folder / side for side in ("gt", "pred")}
    for path in sides.values():
        if not path.is_dir():
            raise MissingFileError(path, _LAYOUT)
    found = {side: _frames(path) for side, path in sides.items()}
    if not found["gt"]:
        raise InputError(f"{sides['gt']}: has no folders OBJECT/eval_VIEW; want {_LAYOUT}")
    missing = _missing(found["gt"], found["pred"])
    if missing and not skip_missing:
        raise InputError(
            f"{folder}: {len(missing)} missing ({_listed(missing)}); want the same objects, views and frames in gt and pred, "
            "or --skip-missing"
        )
    pairs = []
    for (name, view), truth in sorted(found["gt"].items()):
        predicted = found["pred"].get((name, view), {})
        numbers = tuple(sorted(truth.keys() & predicted.keys()))
        if not numbers:
            continue
        pair = ClipPair(name, view, tuple(truth[i] for i in numbers), tuple(predicted[i] for i in numbers), numbers)
        _check_sizes(pair)
        pairs.append(pair)
    if not pairs:
        raise InputError(f"{folder}: gt and pred have no frame in common; want {_LAYOUT}")
    return pairs, missing


def _frames(side: Path) -> dict[tuple[str, str], dict[int, Path]]:
    """Files of each object and view by frame number."""
    found: dict[tuple[str, str], dict[int, Path]] = {}
    for view in sorted(path for path in side.glob("*/eval_*") if path.is_dir()):
        frames: dict[int, Path] = {}
        for path in sorted(path for path in view.iterdir() if is_image(path)):
            match = re.fullmatch(r"\D*(\d+)\D*", path.stem)
            if match is None:
                raise InputError(f"{path}: has no number in its name; want frames named 0.png, 1.png, ...")
            if int(match[1]) in frames:
                raise InputError(f"{path}: is frame {int(match[1])} as {frames[int(match[1])].name} is; want each frame once")
            frames[int(match[1])] = path
        found[view.parent.name, view.name] = frames
    return found


def _missing(truth: dict[tuple[str, str], dict[int, Path]], predicted: dict[tuple[str, str], dict[int, Path]]) -> list[str]:
    """What exists on one side only: entire views, or single frames."""
    lines = []
    for ours, theirs, side in ((truth, predicted, "pred"), (predicted, truth, "gt")):
        for (name, view), frames in sorted(ours.items()):
            if (name, view) not in theirs:
                lines.append(f"{side}/{name}/{view}")
                continue
            lines += [f"{side}/{name}/{view}/{frames[i].name}" for i in sorted(frames.keys() - theirs[name, view].keys())]
    return lines


def _listed(names: list[str]) -> str:
    rest = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _check_sizes(pair: ClipPair) -> None:
    shapes = {}
    for side, files in (("gt", pair.truth), ("pred", pair.predicted)):
        sizes = {path: image_size(path) for path in files}
        shapes[side] = sizes[files[0]]
        for path, size in sizes.items():
            if size != shapes[side]:
                text = f"is {size[0]}x{size[1]} px, but {files[0].name} {shapes[side][0]}x{shapes[side][1]}"
                raise InputError(f"{path}: {text}; want frames of one size")
    (width, height), (other_width, other_height) = shapes["gt"], shapes["pred"]
    if abs(width * other_height - height * other_width) > max(width * other_height, height * other_width) * 0.01:
        text = f"gt is {width}x{height} px and pred {other_width}x{other_height}"
        raise InputError(f"{pair.name}: {text}; want images of one shape")
