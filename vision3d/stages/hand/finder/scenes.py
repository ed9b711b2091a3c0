"""Generated whole images with up to two hands, of either side, and where these are."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vision3d.stages.hand.config import BATCH, FrameConfig
from vision3d.stages.hand.data.images import ImageSource, packed_images
from vision3d.stages.hand.finder.config import SceneConfig
from vision3d.stages.hand.synth.backgrounds import Backgrounds
from vision3d.stages.hand.synth.frames import Drawing, draw
from vision3d.stages.hand.synth.sensor import photographed
from vision3d.training.samples import Sample

_SEEN = 0.35
"""A hand of which less is in front and in the image does not count."""
_FEWEST = 20  # pixels of a hand that counts


class SceneBatch(NamedTuple):
    """Whole images, with room for two hands in each."""

    images: UInt8[Tensor, "n s s 3"]
    """sRGB."""
    uvs: Float[Tensor, "n 2 21 2"]
    """Joints [px]."""
    is_right: Bool[Tensor, "n 2"]
    state: UInt8[Tensor, "n 2"]
    """0: no hand, 1: a hand, 2: one that does not count, since others or the edge hide most of it."""


@dataclass(frozen=True)
class SceneSource(ImageSource[SceneBatch]):
    """What generated whole images are made of."""

    NAME, VERSION, SHARD_SIZE = "hand_scenes", 3, 32

    scenes: SceneConfig = field(default_factory=SceneConfig)

    def make(self, index: int) -> Sample:
        """A sample: `BATCH` images."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + index) % 2**62)
        made = scenes(self.scenes, generator, self.photos(), self.objects())
        return {**packed_images(made.images), "uvs": made.uvs, "is_right": made.is_right, "state": made.state}

    def batch(self, images: UInt8[Tensor, "n s s 3"], sample: Sample) -> SceneBatch:
        """Images with their truth."""
        return SceneBatch(images, sample["uvs"], sample["is_right"], sample["state"])

    def shown(self) -> dict[str, Any]:
        """What the images show."""
        return asdict(self.scenes)


def scenes(
    config: SceneConfig, generator: torch.Generator, backgrounds: Backgrounds, objects: tuple[Any, ...] = (), count: int = BATCH
) -> SceneBatch:
    """Whole images; the same generator always gives the same ones.

    Args:
        config: What they show.
        generator: Random numbers, on the CPU.
        backgrounds: Photographs, or none.
        objects: Meshes that a hand can hold.
        count: Number of images.
    """
    size = config.size
    frame = FrameConfig(size=size, whole=True, objects=config.objects)
    canvas = backgrounds.sample(count, size, generator)
    drawn: list[tuple[Drawing, Tensor]] = []
    mirrored = torch.zeros(count, dtype=torch.bool)
    for share in (config.first, config.second):
        # Everything is mirrored before a hand is drawn, so that the earlier one changes sides.
        turn = torch.rand(count, generator=generator) < 0.5
        canvas = torch.where(turn[:, None, None, None], canvas.flip(2), canvas)
        mirrored = mirrored ^ turn
        made = draw(count, replace(frame, empty=1 - share), generator, objects=objects, canvas=canvas)
        canvas = made.images
        drawn.append((made, mirrored.clone()))
    uvs, right, state = [], [], []
    covered = torch.zeros(count, size, size, dtype=torch.bool)
    for made, then in reversed(drawn):
        turn = then ^ mirrored  # mirrored since then
        mask = torch.where(turn[:, None, None], made.masks.flip(2), made.masks)
        seen = (mask & ~covered).flatten(1).sum(1)
        u = torch.where(turn[:, None], size - made.uvs[..., 0], made.uvs[..., 0])
        uv = torch.stack([u, made.uvs[..., 1]], -1)
        area = _area(uv)
        counts = (seen >= _FEWEST) & (seen >= _SEEN * torch.minimum(mask.flatten(1).sum(1), area / 4)) & _inside(uv, size)
        state.append(torch.where(made.is_hand, torch.where(counts, 1, 2), 0))
        uvs.append(uv)
        right.append(~turn)
        covered = covered | mask
    images = (photographed(canvas, generator) * 255).round().byte()
    return SceneBatch(images, torch.stack(uvs, 1), torch.stack(right, 1), torch.stack(state, 1).byte())


def _area(uv: Float[Tensor, "n 21 2"]) -> Float[Tensor, " n"]:
    return (uv.amax(1) - uv.amin(1)).prod(1)


def _inside(uv: Float[Tensor, "n 21 2"], size: int) -> Bool[Tensor, " n"]:
    """Whether at least half of the joints are in the image."""
    return ((uv >= 0) & (uv < size)).all(-1).float().mean(1) >= 0.5
