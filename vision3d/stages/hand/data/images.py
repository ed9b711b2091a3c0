"""Generated images on disk: what they are made of, and batches of them. JPEGs of one size, `BATCH` to a sample."""

import functools
import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Int32, Int64, UInt8
from PIL import Image
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.core.progress import ProgressCallback
from vision3d.scene.mesh import Mesh
from vision3d.stages.hand.config import BATCH
from vision3d.stages.hand.synth.backgrounds import Backgrounds
from vision3d.stages.hand.synth.objects import Split, load_objects
from vision3d.stages.hand.synth.people import people
from vision3d.stages.hand.synth.rooms import rooms
from vision3d.training.samples import GeneratedSamples, Sample

_QUALITIES = (92, 85, 75, 60, 45, 30)
_BYTES_PER_PIXEL = 0.43
"""Room for a JPEG: 7 KB of 128 x 128 pixels; the quality of the few larger ones is reduced."""


Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True)
class ImageSource(ABC, Generic[Batch]):
    """What generated images are made of; subclasses say what they show."""

    NAME: ClassVar[str]
    """For messages and the folder."""
    VERSION: ClassVar[int]
    """Changes with the images, so that older shards are not used."""
    SHARD_SIZE: ClassVar[int]
    """Samples per file."""

    backgrounds: Path | None = None
    """Folder with photographs; None: procedural."""
    furniture: Path | None = None
    """Folder with the .sh3f files of Debian's sweethome3d-furniture: things to hold, and rooms; None: simple shapes."""
    split: Split = "train"
    """train or test: of other models."""
    seed: int = 0

    @abstractmethod
    def make(self, index: int) -> Sample:
        """A sample: `BATCH` images and their truth, with the files of `packed_images`."""

    @abstractmethod
    def batch(self, images: UInt8[Tensor, "n s s 3"], sample: Sample) -> Batch:
        """Images with their truth.

        Args:
            images: Of some samples.
            sample: The other values of these, a row for each image.
        """

    @abstractmethod
    def shown(self) -> dict[str, Any]:
        """What the images show, as plain values."""

    def photos(self) -> Backgrounds:
        """Photographs, rooms and people; procedural without folders.

        Raises:
            MissingFileError: A folder has no photographs, or no furniture.
        """
        return _backgrounds(self.backgrounds, self.furniture, self.split)

    def objects(self) -> tuple[Mesh, ...]:
        """Things to hold; none without a folder."""
        return () if self.furniture is None else _objects(self.furniture, self.split)

    @property
    def options(self) -> dict[str, Any]:
        """Everything that the images depend on, besides the seed."""
        folders = {"backgrounds": self.backgrounds, "furniture": self.furniture}
        names = {name: None if path is None else str(path) for name, path in folders.items()}
        return {**self.shown(), **names, "split": self.split}


class ImageSamples(Generic[Batch]):
    """Any number of generated images; see `GeneratedSamples`.

    Args:
        source: What they are made of.
        count: Number of images, a multiple of 16.
        folder: Of the shards; None: in the cache.
        workers: Processes that make them; 0: this one.

    Raises:
        InputError: The count is not a positive multiple of 16.
    """

    def __init__(self, source: ImageSource[Batch], count: int, *, folder: Path | str | None = None, workers: int = 0) -> None:
        if count < BATCH or count % BATCH:
            raise InputError(f"count: got {count}, want a positive multiple of {BATCH}")
        self.count, self.source = count, source
        self.samples = GeneratedSamples(
            source.make, count // BATCH, name=source.NAME, version=source.VERSION, seed=source.seed, options=source.options,
            folder=folder, workers=workers, shard_size=source.SHARD_SIZE,
        )  # fmt: skip

    def __len__(self) -> int:
        return self.count

    def prepare(self, progress: ProgressCallback | None = None) -> None:
        """Make those that are not on disk yet.

        Raises:
            MissingFileError: A folder has no photographs, or no furniture.
        """
        self.source.photos()  # the rooms, before several processes make them
        self.samples.prepare(progress)

    def take(self, rows: Int64[Tensor, " n"]) -> Batch:
        """The images with these numbers."""
        groups, inverse = torch.unique(rows // BATCH, return_inverse=True)
        within = inverse * BATCH + rows % BATCH
        sample = {name: value.flatten(0, 1)[within] for name, value in self.samples.take(groups).items()}
        return self.source.batch(unpacked_images(sample), sample)


def packed_images(images: UInt8[Tensor, "n s s 3"]) -> Sample:
    """Files of images, padded to a common length, and their lengths."""
    size = images.shape[1]
    files = [_jpeg(image, int(_BYTES_PER_PIXEL * size * size)) for image in images.numpy()]
    table = np.zeros((len(files), int(_BYTES_PER_PIXEL * size * size)), np.uint8)
    for row, data in zip(table, files):
        row[: len(data)] = np.frombuffer(data, np.uint8)
    lengths: Int32[Tensor, " n"] = torch.tensor([len(data) for data in files], dtype=torch.int32)
    return {"jpegs": torch.from_numpy(table), "lengths": lengths}


def unpacked_images(sample: Sample) -> UInt8[Tensor, "n s s 3"]:
    """The images of `packed_images`."""
    images = []
    for data, length in zip(sample["jpegs"], sample["lengths"].tolist()):
        with Image.open(io.BytesIO(data[:length].numpy().tobytes()), formats=["JPEG"]) as image:
            images.append(np.asarray(image.convert("RGB")))
    return torch.from_numpy(np.stack(images))


def _jpeg(image: np.ndarray, most: int) -> bytes:
    """The image in at most so many bytes."""
    for quality in _QUALITIES:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=quality)
        if stream.tell() <= most:
            return stream.getvalue()
    raise InputError(f"image: a JPEG of {image.shape[1]} x {image.shape[0]} pixels does not fit into {most} bytes")


@functools.cache
def _backgrounds(folder: Path | None, furniture: Path | None, split: Split) -> Backgrounds:
    photos = () if folder is None else Backgrounds.load(folder).photos
    if furniture is None:
        return Backgrounds(photos)
    return Backgrounds(photos, tuple(rooms(furniture, split)), tuple(people(furniture, split)))


@functools.cache
def _objects(furniture: Path, split: Split) -> tuple[Mesh, ...]:
    return load_objects(furniture, split)
