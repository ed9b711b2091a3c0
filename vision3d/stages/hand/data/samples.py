"""Generated hands on disk: made once, in shards, and read as batches of images and their truth."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vision3d.stages.hand.config import BATCH, FrameConfig
from vision3d.stages.hand.data.images import ImageSource, packed_images
from vision3d.stages.hand.shape import HandShape
from vision3d.stages.hand.synth.frames import Frames, frames
from vision3d.stages.hand.template import HandTemplate
from vision3d.training.samples import Sample


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
class SampleSource(ImageSource[HandBatch]):
    """What generated images of hands are made of."""

    NAME, VERSION, SHARD_SIZE = "hands", 4, 64

    frames: FrameConfig = field(default_factory=FrameConfig)

    def make(self, index: int) -> Sample:
        """A sample: `BATCH` images and the numbers that their truth follows from."""
        return packed(self.made(index))

    def made(self, index: int) -> Frames:
        """The images of a sample with their whole truth."""
        return frames(self.seed, index, BATCH, self.frames, backgrounds=self.photos(), objects=self.objects())

    def batch(self, images: UInt8[Tensor, "n s s 3"], sample: Sample) -> HandBatch:
        """Images with their truth."""
        hand, shape = HandTemplate.load("right"), sample["shapes"]
        posed = hand.pose(
            sample["angles"], rotation=sample["rotations"], translation=sample["translations"],
            shape=HandShape(shape[:, :5], shape[:, 5:10], shape[:, 10]),
        )  # fmt: skip
        joints = hand.joints(posed.vertices)
        projected = joints @ sample["Ks"].mT
        uvs = projected[..., :2] / projected[..., 2:]
        return HandBatch(images, sample["Ks"], uvs, sample["visible"], joints, posed.vertices, sample["is_hand"])

    def shown(self) -> dict[str, Any]:
        """What the images show."""
        return asdict(self.frames)


def packed(made: Frames) -> Sample:
    """Images as JPEG, and the numbers that the truth follows from."""
    return {
        **packed_images(made.images),
        "Ks": made.Ks,
        "angles": made.angles,
        "shapes": torch.cat([made.shape.lengths, made.shape.thicknesses, made.shape.scale[:, None]], 1),
        "rotations": made.rotation,
        "translations": made.translation,
        "visible": made.visible,
        "is_hand": made.is_hand,
    }
