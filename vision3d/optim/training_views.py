"""Training pictures: kept as bytes, given at the resolution of the moment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.io.images import has_alpha
from vision3d.scene import PosedImages
from vision3d.scene.resample import resize_area, shrink_mask

SMALLEST_SIDE = 32  # pictures are not made smaller than this [px]
WINDOW = 11  # of SSIM [px]


@dataclass(frozen=True)
class TrainingView:
    """One picture as a step takes it."""

    place: int
    """Number among the training views."""
    image: Float[Tensor, "h w 3"]
    """In [0, 1]; times alpha where the view has one."""
    alpha: Float[Tensor, "h w 1"] | None
    """Opacity of the picture, only for random backgrounds."""
    mask: Bool[Tensor, "h w"] | None
    """Pixels that count."""
    K: Float[Tensor, "3 3"]
    """Intrinsics at this resolution [px]."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height [px]."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True)
class _Bytes:
    image: UInt8[Tensor, "h w c"]
    mask: Bool[Tensor, "h w"] | None


class TrainingViews:
    """The training views of a data set.

    Args:
        images: The data set.
        indices: Which of its views.
        masks: Whether masks count.
        valid: More masks, by the index of the view: the pixels that count beside those.
        with_alpha: Whether steps need the pictures' alpha channels.
        cache_bytes: Memory for pictures; views beyond it are read anew at each use.
        device: Where steps want their pictures.

    Raises:
        InputError: A picture is smaller than the window of SSIM.
    """

    def __init__(
        self,
        images: PosedImages,
        indices: Int64[Tensor, " m"],
        *,
        masks: bool,
        valid: Mapping[int, Bool[Tensor, "h w"]] | None = None,
        with_alpha: bool,
        cache_bytes: float,
        device: torch.device,
    ) -> None:
        self.images, self.indices = images.to("cpu"), indices.tolist()
        self.cameras = images.cameras[indices].to("cpu")
        self.masks, self.valid, self.with_alpha, self.device = masks, valid or {}, with_alpha, device
        smallest = check_sizes(images, indices)
        self.largest_factor = max((f for f in (1, 2, 4, 8) if smallest // f >= SMALLEST_SIDE), default=1)
        sizes = (self.cameras.width * self.cameras.height * 3).double().cumsum(0)
        self.num_cached = int((sizes <= cache_bytes).sum())
        self._full: dict[int, _Bytes] = {}
        self._small: dict[int, _Bytes] = {}
        self._factor = 1
        self._at_factor = self.cameras

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.images.names[i] for i in self.indices)

    def read_all(self, report: Callable[[int], None]) -> None:
        """Read the pictures that fit into the memory, so that a damaged one is found before the work begins.

        Raises:
            InputError: A picture or mask cannot be read, or masks leave no pixel.
        """
        for place in range(self.num_cached):
            self._full[place] = self._read(place)
            report(place + 1)
        if self._full and not any(view.mask is None or bool(view.mask.any()) for view in self._full.values()):
            raise InputError(f"{self.images.source}: all masks are black; want white where pixels are used")

    def get(self, place: int, factor: int) -> TrainingView:
        """The view at `place`, `factor` times smaller (no smaller than 32 px a side)."""
        factor = min(factor, self.largest_factor)
        if factor != self._factor:
            self._small.clear()
            self._factor, self._at_factor = factor, self.cameras.scaled(1 / factor)
        stored = self._small.get(place)
        if stored is None:
            stored = self._full[place] if place in self._full else self._read(place)
            if factor > 1:
                stored = _shrunk(stored, int(self._at_factor.width[place]), int(self._at_factor.height[place]))
            if place < self.num_cached:
                self._small[place] = stored
        values = stored.image.to(self.device).float().div_(255)
        alpha = values[..., 3:] if self.with_alpha else None
        mask = None if stored.mask is None else stored.mask.to(self.device)
        return TrainingView(place, values[..., :3], alpha, mask, self._at_factor.Ks[place].to(self.device))

    def _read(self, place: int) -> _Bytes:
        index = self.indices[place]
        if self.with_alpha:
            image, mask = _read_with_alpha(self.images, index)
        else:
            image, mask, _ = self.images.read(index)
        mask = mask if self.masks else None
        if (valid := self.valid.get(index)) is not None:
            mask = valid.cpu() if mask is None else mask & valid.cpu()
        if mask is not None and bool(mask.all()):
            mask = None
        return _Bytes(_bytes(image), mask)


class Order:
    """In which order the views come: each once before any comes again, shuffled anew every time."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.generator = torch.Generator().manual_seed(seed)
        self.waiting: list[int] = []

    def take(self, batch: int) -> list[int]:
        """The next `batch` places."""
        taken = []
        while len(taken) < batch:
            if not self.waiting:
                self.waiting = torch.randperm(self.count, generator=self.generator).tolist()
            taken.append(self.waiting.pop())
        return taken

    def state_dict(self) -> dict[str, Tensor]:
        """What an exact resume needs."""
        return {"generator": self.generator.get_state(), "waiting": torch.tensor(self.waiting, dtype=torch.int64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        self.generator.set_state(state["generator"].cpu())
        self.waiting = state["waiting"].tolist()


def check_sizes(images: PosedImages, indices: Int64[Tensor, " m"]) -> int:
    """The shortest side of some of the views [px].

    Raises:
        InputError: A picture is smaller than the window of SSIM; names it.
    """
    sides = torch.minimum(images.cameras.width, images.cameras.height)[indices]
    first = int(indices[sides.argmin()])
    if int(sides.min()) < WINDOW:
        size = f"{int(images.cameras.width[first])}x{int(images.cameras.height[first])}"
        raise InputError(f"{images.source}: {images.names[first]} has {size} px, want at least {WINDOW}x{WINDOW}")
    return int(sides.min())


def _read_with_alpha(images: PosedImages, index: int) -> tuple[Tensor, Tensor | None]:
    """Colours times alpha, and alpha as the fourth channel, both undistorted."""
    on_black, mask, _ = replace(images, background=(0.0, 0.0, 0.0)).read(index)
    if not has_alpha(images.image_paths[index]):
        return torch.cat([on_black, torch.ones_like(on_black[..., :1])], -1), mask
    on_white = replace(images, background=(1.0, 1.0, 1.0)).read(index)[0]
    alpha = 1 - (on_white - on_black).mean(-1, keepdim=True)
    return torch.cat([on_black, alpha.clamp(0, 1)], -1), mask


def _shrunk(stored: _Bytes, width: int, height: int) -> _Bytes:
    mask = None if stored.mask is None else shrink_mask(stored.mask, width, height)
    return _Bytes(_bytes(resize_area(stored.image.float() / 255, width, height)), mask)


def _bytes(image: Float[Tensor, "h w c"]) -> UInt8[Tensor, "h w c"]:
    return (image * 255).round_().clamp_(0, 255).to(torch.uint8)
