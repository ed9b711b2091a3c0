"""The layout of the NeRF-synthetic scenes: transforms_{train,val,test}.json and RGBA images."""

from dataclasses import replace
from pathlib import Path

from vision3d.core.errors import MissingFileError
from vision3d.io import transforms_json
from vision3d.io.frames import Frame, FrameList


def read_frames(folder: Path | str) -> FrameList:
    """The training views, and the test views as held-out views (without test views, the validation views).

    Raises:
        MissingFileError: transforms_train.json does not exist.
        FileFormatError: A file is damaged, or a pose is invalid.
    """
    folder = Path(folder)
    if not (folder / "transforms_train.json").is_file():
        raise MissingFileError(folder / "transforms_train.json")
    frames: list[Frame] = []
    held_out = "test" if (folder / "transforms_test.json").is_file() else "val"
    for split in ("train", held_out):
        path = folder / f"transforms_{split}.json"
        if path.is_file():
            listed = transforms_json.read_frames(path).frames
            frames += [replace(f, label=f"{split} {f.label}", is_test=split != "train") for f in listed]
    return FrameList(folder, tuple(frames))
