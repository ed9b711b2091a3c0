"""Backgrounds: crops of photographs, or gradients and noise."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from vision3d.core.errors import MissingFileError
from vision3d.io.images import is_image, read_image
from vision3d.stages.hand.tone import skin_color

_MAX_SIDE = 512
_PEOPLE = 0.3  # share of images with people, where they may be
_SKIN = 0.3  # share of gradients between colors of skin, as of arms and faces behind the hand


Pictures = tuple[UInt8[Tensor, "3 h w"], ...]


@dataclass(frozen=True, eq=False)
class Backgrounds:
    """Images to crop from; without any, backgrounds are procedural."""

    photos: Pictures = ()
    """Photographs."""
    rooms: Pictures = ()
    """Generated pictures, half of the images if there are photographs, too."""
    people: Pictures = ()
    """Pictures of people, whose hands may be in them."""

    @classmethod
    def load(cls, folder: Path | str) -> "Backgrounds":
        """All images in a folder, at any depth, reduced to at most 512 pixels.

        Raises:
            MissingFileError: The folder has no images.
        """
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file() and is_image(path))
        if not paths:
            raise MissingFileError(folder, "a folder with photographs")
        return cls(tuple(_small(read_image(path)) for path in paths))

    def sample(
        self, count: int, size: int, generator: torch.Generator, with_people: Bool[Tensor, " count"] | None = None
    ) -> Float[Tensor, "count size size 3"]:
        """Random crops, mirrored, recolored and out of focus at random, sRGB in [0, 1].

        Args:
            count: Number of images.
            size: Their side [px].
            generator: Random numbers, on the CPU.
            with_people: Images that may show people; none when None.
        """
        found = []
        for number in range(count):
            pictures = self._chosen(generator, with_people is not None and bool(with_people[number]))
            found.append(_crop(pictures, size, generator) if pictures else procedural(size, generator))
        images = torch.stack(found)
        gain = 0.5 + torch.rand(count, 1, 1, 1, generator=generator)
        tint = 0.85 + 0.3 * torch.rand(count, 1, 1, 3, generator=generator)
        return (images * gain * tint).clamp(0, 1)

    def _chosen(self, generator: torch.Generator, with_people: bool) -> Pictures:
        """The pictures to crop from; none for a procedural image."""

        def chance(share: float) -> bool:
            return float(torch.rand(1, generator=generator)) < share

        if with_people and self.people and chance(_PEOPLE):
            return self.people
        if not (self.photos or self.rooms) or not chance(0.85):
            return ()
        is_room = not self.photos or (bool(self.rooms) and chance(0.5))
        return self.rooms if is_room else self.photos


def _crop(chosen: Pictures, size: int, generator: torch.Generator) -> Float[Tensor, "size size 3"]:
    photo = chosen[int(torch.randint(len(chosen), (1,), generator=generator))]
    height, width = photo.shape[1:]
    share, x, y = torch.rand(3, generator=generator).tolist()
    side = int((0.25 + 0.75 * share) * min(height, width))
    left, top = int(x * (width - side)), int(y * (height - side))
    part = photo[None, :, top : top + side, left : left + side].float() / 255
    focus = int(torch.randint(1, 5, (1,), generator=generator))
    small = functional.interpolate(part, size=(size // focus, size // focus), mode="bilinear", antialias=side > size)
    image = functional.interpolate(small, size=(size, size), mode="bilinear") if focus > 1 else small
    if float(torch.rand(1, generator=generator)) < 0.5:
        image = image.flip(3)
    return image[0].permute(1, 2, 0)


def procedural(size: int, generator: torch.Generator) -> Float[Tensor, "size size 3"]:
    """A gradient with noise of a random scale between two colors, which are often those of skin."""
    ends = torch.rand(2, 3, generator=generator)
    if float(torch.rand(1, generator=generator)) < _SKIN:
        melanin, blood = 0.05 + 0.75 * torch.rand(1, generator=generator) ** 1.6, torch.rand(2, generator=generator)
        ends = skin_color(melanin.expand(2), blood) * (0.5 + 0.6 * ends[:, :1])
    direction = torch.randn(2, generator=generator)
    line = torch.linspace(-1, 1, size)
    share = 0.5 + 0.5 * (direction[0] * line[:, None] + direction[1] * line) / direction.abs().sum().clamp(min=0.1)
    cells = int(torch.randint(2, 40, (1,), generator=generator))
    noise = functional.interpolate(torch.randn(1, 1, cells, cells, generator=generator), (size, size), mode="bilinear")[0, 0]
    share = (share + float(torch.rand(1, generator=generator)) * noise).clamp(0, 1)
    return torch.lerp(ends[0], ends[1], share[..., None])


def _small(image: Tensor) -> Tensor:
    image = image[..., :3].permute(2, 0, 1)[None]
    image = image.expand(1, 3, *image.shape[2:])
    share = _MAX_SIDE / max(image.shape[2:])
    if share < 1:
        size = [max(1, round(side * share)) for side in image.shape[2:]]
        image = functional.interpolate(image, size=size, mode="bilinear", antialias=True)
    return (image[0] * 255).round().clamp(0, 255).byte()
