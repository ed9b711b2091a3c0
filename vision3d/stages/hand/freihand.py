"""Folders in the layout of FreiHAND (Zimmermann et al. 2019): images, intrinsics, joints and vertices of right hands."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vision3d.core.atomic import atomic_write, make_folder
from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.core.plain import to_json
from vision3d.io.images import read_photo, write_image
from vision3d.stages.hand.intrinsics import check_intrinsics
from vision3d.stages.hand.synth.frames import Frames
from vision3d.stages.hand.template import NUM_VERTICES

SPLITS = ("evaluation", "training")
TOPOLOGY = "vision3d"
"""Of the vertices, in training_info.json of generated folders; those of the published set are MANO's."""
_SUFFIXES = (".jpg", ".png")
_TABLES = {"K": (3, 3), "xyz": (21, 3), "verts": (NUM_VERTICES, 3)}
_MILLIMETERS = 65.535  # the largest depth that 16 bits hold [m]


@dataclass(frozen=True, eq=False)
class FreiHandFolder:
    """The labelled images of a split."""

    path: Path
    split: str
    Ks: Float[Tensor, "n 3 3"]
    """[px]"""
    joints: Float[Tensor, "n 21 3"]
    """In the camera's frame [m]."""
    vertices: Float[Tensor, "n 778 3"] | None
    """[m]; None if the folder has none."""
    has_own_topology: bool
    """Whether the vertices are those of the bundled template, so that predicted ones can be compared with them."""

    def __len__(self) -> int:
        return len(self.Ks)

    def image(self, index: int) -> UInt8[Tensor, "h w 3"]:
        """An image, sRGB."""
        folder = self.path / self.split / "rgb"
        for suffix in _SUFFIXES:
            if (file := folder / f"{index:08d}{suffix}").is_file():
                return read_photo(file)
        raise MissingFileError(folder / f"{index:08d}.jpg", f"the image of entry {index} of {self.split}_K.json")

    @classmethod
    def open(cls, path: Path | str, split: str = "") -> "FreiHandFolder":
        """Read the labels of a folder: SPLIT_K.json, SPLIT_xyz.json, SPLIT_verts.json beside SPLIT/rgb/00000000.jpg.

        Args:
            path: The folder.
            split: evaluation or training; by default the first of them that is there.

        Raises:
            MissingFileError: A file does not exist.
            FileFormatError: It is damaged, or has other sizes.
            InputError: There are no labels.
        """
        path = Path(path)
        splits = [split] if split else [name for name in SPLITS if (path / f"{name}_K.json").is_file()]
        if not splits:
            raise MissingFileError(path / "evaluation_K.json", "a folder in FreiHAND's layout, or the word synth")
        split = splits[0]
        tables = {name: _table(path / f"{split}_{name}.json", shape) for name, shape in _TABLES.items()}
        Ks, joints, vertices = tables["K"], tables["xyz"], tables["verts"]
        if Ks is None or joints is None:
            missing = "K" if Ks is None else "xyz"
            raise MissingFileError(path / f"{split}_{missing}.json", "labels of FreiHAND")
        for name, table in tables.items():
            if table is not None and len(table) != len(Ks):
                raise FileFormatError(path / f"{split}_{name}.json", f"has {len(table)} entries, {split}_K.json {len(Ks)}")
        if not len(Ks):
            raise InputError(f"{path / f'{split}_K.json'}: has no entries")
        check_intrinsics(Ks)
        info = path / f"{split}_info.json"
        is_own = info.is_file() and TOPOLOGY in info.read_text("utf-8", "replace")
        return cls(path, split, Ks, joints, vertices, is_own)


class FreiHandWriter:
    """Writes generated images in this layout: training/rgb, and beyond it masks, depths, poses and visibility.

    The labels of a batch are in a file of training/labels once its images are complete, until `finish` joins them. In a folder
    that already has images, complete or not, new ones are appended.

    Args:
        path: The folder.

    Raises:
        FileFormatError: Labels in the folder are damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path, self.parts = Path(path), Path(path) / "training" / "labels"
        self.rows = self._finished()
        for part in sorted(self.parts.glob("*.json")):
            if part.stem.isdecimal() and int(part.stem) == len(self):
                self._append(_read_labels(part))

    def __len__(self) -> int:
        return len(self.rows["K"])

    def add(self, made: Frames, count: int, start: int = 0) -> None:
        """Write the images `start` to `count` of a batch, and then their labels."""
        for name in ("rgb", "mask", "depth"):
            make_folder(self.path / "training" / name)
        first, added = len(self), {name: [] for name in _LABELS}
        for row in range(start, count):
            name = f"{first + row - start:08d}"
            write_image(self.path / "training" / "rgb" / f"{name}.jpg", made.images[row])
            write_image(self.path / "training" / "mask" / f"{name}.png", made.masks[row].float())
            depth = (made.depths[row] / _MILLIMETERS).clamp(0, 1)
            write_image(self.path / "training" / "depth" / f"{name}.png", depth, bits=16)
            for name, value in _labels(made, row).items():
                added[name].append(value)
        _write(self.parts / f"{first:08d}.json", added)
        self._append(added)

    def finish(self) -> None:
        """Write the labels of all images."""
        for name, rows in self.rows.items():
            _write(self.path / f"training_{name}.json", rows)
        text = "right hands; meters in the camera's frame, pixel centers at half-integers; depth: millimeters of 16 bits"
        _write(self.path / "training_info.json", {"topology": TOPOLOGY, "images": len(self), "about": text})
        shutil.rmtree(self.parts, ignore_errors=True)

    def _finished(self) -> dict[str, list[Any]]:
        """Labels that an earlier `finish` joined; of one that was interrupted, those that all files have."""
        paths = {name: self.path / f"training_{name}.json" for name in _LABELS}
        if not all(path.is_file() for path in paths.values()):
            return {name: [] for name in _LABELS}
        tables = {name: _read_labels(path) for name, path in paths.items()}
        count = min(map(len, tables.values()))
        return {name: list(table)[:count] for name, table in tables.items()}

    def _append(self, added: Any) -> None:
        for name, rows in self.rows.items():
            rows += added[name]


_LABELS = ("K", "xyz", "verts", "scale", "uv", "visible", "side", "is_hand", "pose")


def _labels(made: Frames, row: int) -> dict[str, Any]:
    """The labels of an image of a batch, as plain values."""
    joints = made.joints[row]
    pose = {
        "angles": made.angles[row], "rotation": made.rotation[row], "translation": made.translation[row],
        "lengths": made.shape.lengths[row], "thicknesses": made.shape.thicknesses[row], "scale": made.shape.scale[row],
    }  # fmt: skip
    return {
        "K": _plain(made.Ks[row], 4),
        "xyz": _plain(joints, 6),
        "verts": _plain(made.vertices[row], 5),
        "scale": _plain(torch.linalg.vector_norm(joints[10] - joints[9]), 6),  # FreiHAND: a bone of the middle finger
        "uv": _plain(made.uvs[row], 3),
        "visible": made.visible[row].tolist(),
        "side": "right",
        "is_hand": bool(made.is_hand[row]),
        "pose": {name: _plain(value, 6) for name, value in pose.items()},
    }


def _read_labels(path: Path) -> Any:
    """Labels that `FreiHandWriter` wrote."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(path, f"is not JSON ({error}); start over with --overwrite") from error
    if not isinstance(found, list) and not (isinstance(found, dict) and all(name in found for name in _LABELS)):
        raise FileFormatError(path, "is not a file of labels; start over with --overwrite")
    return found


def _table(path: Path, shape: tuple[int, int]) -> Float[Tensor, "n r c"] | None:
    if not path.is_file():
        return None
    try:
        table = torch.tensor(json.loads(path.read_text("utf-8")), dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError, RecursionError) as error:
        raise FileFormatError(path, f"is not a list of numbers of one shape ({str(error)[:80]})") from error
    if table.ndim != 3 or tuple(table.shape[1:]) != shape:
        raise FileFormatError(path, f"has the shape {tuple(table.shape)}, want (N, {shape[0]}, {shape[1]})")
    if not bool(table.isfinite().all()):
        raise FileFormatError(path, "has a number that is not finite")
    return table


def _plain(value: Tensor, digits: int) -> Any:
    return torch.round(value.double(), decimals=digits).tolist()


def _write(path: Path, value: Any) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(to_json(value), "utf-8")
