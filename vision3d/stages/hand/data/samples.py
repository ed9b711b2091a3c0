"""Generated hands on disk: made once, in shards, and read as batches of images and their truth."""

import functools
import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64, UInt8
from PIL import Image
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.core.progress import ProgressCallback
from vision3d.scene.mesh import Mesh
from vision3d.stages.hand.config import BATCH
from vision3d.stages.hand.shape import HandShape
from vision3d.stages.hand.synth.backgrounds import Backgrounds
from vision3d.stages.hand.synth.frames import FrameConfig, Frames, frames
from vision3d.stages.hand.synth.objects import Split, load_objects
from vision3d.stages.hand.synth.rooms import rooms
from vision3d.stages.hand.template import HandTemplate
from vision3d.training.samples import GeneratedSamples, Sample

VERSION = 2
"""Changes with the images, so that older shards are not used."""
_QUALITIES = (92, 85, 75, 60, 45, 30)
_BYTES_PER_PIXEL = 0.43
"""Room for a JPEG: 7 KB of 128 x 128 pixels; the quality of the few larger ones is reduced."""


class HandBatch(NamedTuple):
    """Images of right hands with their truth, in the camera's frame."""

    images: UInt8[Tensor, "n s s 3"]
    """sRGB."""
    Ks: Float[Tensor, "n 3 3"]
    """[px]."""
    uvs: Float[Tensor, "n 21 2"]
    """[px]."""
    visible: Bool[Tensor, "n 21"]
    joints: Float[Tensor, "n 21 3"]
    """[m]."""
    vertices: Float[Tensor, "n 778 3"]
    """[m]."""
    is_hand: Bool[Tensor, " n"]
    """Whether there is a hand; without one its truth means nothing."""


@dataclass(frozen=True)
class SampleSource:
    """What generated images are made of."""

    frames: FrameConfig = field(default_factory=FrameConfig)
    backgrounds: Path | None = None
    """Folder with photographs; None: procedural."""
    furniture: Path | None = None
    """Folder with the .sh3f files of Debian's sweethome3d-furniture: things to hold, and rooms; None: simple shapes."""
    split: Split = "train"
    """train or test: of other models."""
    seed: int = 0

    def make(self, index: int) -> Sample:
        """A sample: `BATCH` images and the numbers that their truth follows from."""
        return packed(self.made(index))

    def made(self, index: int) -> Frames:
        """The images of a sample with their whole truth."""
        backgrounds = backgrounds_of(self.backgrounds, self.furniture, self.split)
        objects = () if self.furniture is None else objects_of(self.furniture, self.split)
        return frames(self.seed, index, BATCH, self.frames, backgrounds=backgrounds, objects=objects)

    def prepare(self) -> None:
        """Make what all samples need: pictures of rooms.

        Raises:
            MissingFileError: A folder has no photographs, or no furniture.
        """
        backgrounds_of(self.backgrounds, self.furniture, self.split)

    @property
    def options(self) -> dict[str, Any]:
        """Everything that the images depend on, besides the seed."""
        names = {name: None if path is None else str(path) for name, path in self._folders}
        shown = asdict(self.frames)
        if not self.frames.whole:
            del shown["whole"]  # younger than the first shards, which stay valid
        return {**shown, **names, "split": self.split}

    @property
    def _folders(self) -> tuple[tuple[str, Path | None], ...]:
        return ("backgrounds", self.backgrounds), ("furniture", self.furniture)


class HandSamples:
    """Any number of generated hands; see `GeneratedSamples`.

    Args:
        source: What they are made of.
        count: Number of images, a multiple of 16.
        folder: Of the shards; None: in the cache.
        workers: Processes that make them; 0: this one.

    Raises:
        InputError: The count is not a positive multiple of 16.
    """

    def __init__(self, source: SampleSource, count: int, *, folder: Path | str | None = None, workers: int = 0) -> None:
        if count < BATCH or count % BATCH:
            raise InputError(f"count: got {count}, want a positive multiple of {BATCH}")
        self.count, self.source = count, source
        self.samples = GeneratedSamples(
            source.make, count // BATCH, name="hands", version=VERSION, seed=source.seed, options=source.options, folder=folder,
            workers=workers, shard_size=64,
        )  # fmt: skip

    def __len__(self) -> int:
        return self.count

    def prepare(self, progress: ProgressCallback | None = None) -> None:
        """Make those that are not on disk yet.

        Raises:
            MissingFileError: A folder has no photographs, or no furniture.
        """
        self.source.prepare()
        self.samples.prepare(progress)

    def take(self, rows: Int64[Tensor, " n"]) -> HandBatch:
        """The images with these numbers."""
        groups, inverse = torch.unique(rows // BATCH, return_inverse=True)
        return unpacked(self.samples.take(groups), inverse * BATCH + rows % BATCH)


def packed(made: Frames) -> Sample:
    """Images as JPEG, padded to a common length, and the numbers that the truth follows from."""
    jpegs, lengths = padded_jpegs(made.images)
    return {
        "jpegs": jpegs,
        "lengths": lengths,
        "Ks": made.Ks,
        "angles": made.angles,
        "shapes": torch.cat([made.shape.lengths, made.shape.thicknesses, made.shape.scale[:, None]], 1),
        "rotations": made.rotation,
        "translations": made.translation,
        "visible": made.visible,
        "is_hand": made.is_hand,
    }


def unpacked(sample: Sample, rows: Int64[Tensor, " n"]) -> HandBatch:
    """Some images of samples (groups, 16, ...) and their truth."""
    flat = {name: value.flatten(0, 1)[rows] for name, value in sample.items()}
    images = [decoded(data[:length].numpy()) for data, length in zip(flat["jpegs"], flat["lengths"].tolist())]
    hand, shape = HandTemplate.load("right"), flat["shapes"]
    posed = hand.pose(
        flat["angles"], rotation=flat["rotations"], translation=flat["translations"],
        shape=HandShape(shape[:, :5], shape[:, 5:10], shape[:, 10]),
    )  # fmt: skip
    joints = hand.joints(posed.vertices)
    projected = joints @ flat["Ks"].mT
    return HandBatch(
        torch.from_numpy(np.stack(images)), flat["Ks"], projected[..., :2] / projected[..., 2:], flat["visible"], joints,
        posed.vertices, flat["is_hand"],
    )  # fmt: skip


def padded_jpegs(images: UInt8[Tensor, "n s s 3"]) -> tuple[UInt8[Tensor, "n bytes"], Int32[Tensor, " n"]]:
    """Files of images, padded to a common length, and their lengths."""
    size = images.shape[1]
    files = [_jpeg(image, int(_BYTES_PER_PIXEL * size * size)) for image in images.numpy()]
    table = np.zeros((len(files), int(_BYTES_PER_PIXEL * size * size)), np.uint8)
    for row, data in zip(table, files):
        row[: len(data)] = np.frombuffer(data, np.uint8)
    return torch.from_numpy(table), torch.tensor([len(data) for data in files], dtype=torch.int32)


def decoded(data: np.ndarray) -> np.ndarray:
    """The pixels of a JPEG that was made here, (h, w, 3) uint8."""
    with Image.open(io.BytesIO(data.tobytes()), formats=["JPEG"]) as image:
        return np.asarray(image.convert("RGB"))


def _jpeg(image: np.ndarray, most: int) -> bytes:
    """The image in at most so many bytes."""
    for quality in _QUALITIES:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=quality)
        if stream.tell() <= most:
            return stream.getvalue()
    raise InputError(f"image: a JPEG of {image.shape[1]} x {image.shape[0]} pixels does not fit into {most} bytes")


@functools.cache
def backgrounds_of(folder: Path | None, furniture: Path | None, split: Split) -> Backgrounds:
    """Photographs in a folder, and rooms with furniture; without folders, procedural ones.

    Raises:
        MissingFileError: A folder has no photographs, or no furniture.
    """
    photos = () if folder is None else Backgrounds.load(folder).photos
    return Backgrounds(photos, () if furniture is None else tuple(rooms(furniture, split)))


@functools.cache
def objects_of(furniture: Path, split: Split) -> tuple[Mesh, ...]:
    """As `load_objects`, once."""
    return load_objects(furniture, split)
