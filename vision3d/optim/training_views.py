"""Training images: stored as bytes, provided at the current resolution."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vision3d.core.device import sent
from vision3d.core.errors import InputError
from vision3d.io.images import has_alpha
from vision3d.scene import PosedImages
from vision3d.scene.resample import resize_area, shrink_depth, shrink_mask

SMALLEST_SIDE = 32  # images are not downscaled below this [px]
WINDOW = 11  # of SSIM [px]
GPU_SHARE = 0.25  # fraction of the free memory of a GPU for images


@dataclass(frozen=True)
class TrainingView:
    """One image as used by a training step."""

    place: int
    """Index among the training views."""
    image: Float[Tensor, "h w 3"]
    """In [0, 1]; multiplied by alpha if the view has one."""
    alpha: Float[Tensor, "h w 1"] | None
    """Opacity of the image, only for random backgrounds."""
    mask: Bool[Tensor, "h w"] | None
    """Mask of valid pixels."""
    depth: Float[Tensor, "h w"] | None
    """Measured depth, 0 where there is none; only if steps need it and the view has a depth map."""
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
    depth: Float[Tensor, "h w"] | None = None

    def sent(self, device: torch.device) -> "_Bytes":
        mask, depth = (None if value is None else sent(value, device) for value in (self.mask, self.depth))
        return _Bytes(sent(self.image, device), mask, depth)

    @property
    def size(self) -> int:
        return self.image.nbytes + sum(value.nbytes for value in (self.mask, self.depth) if value is not None)


class TrainingViews:
    """The training views of a data set.

    Args:
        images: The data set.
        indices: Indices of the training views.
        masks: Whether to use masks.
        valid: Additional masks by view index: True for valid pixels.
        with_alpha: Whether steps need the alpha channels.
        depth_scale: Factor on the depth maps; None: steps do not need them.
        cache_bytes: Memory for images; views beyond it are read again at each use.
        device: Device for the images. A GPU keeps as many as fit into `cache_bytes` and a quarter of its free memory.

    Raises:
        InputError: An image is smaller than the window of SSIM.
    """

    def __init__(
        self,
        images: PosedImages,
        indices: Int64[Tensor, " m"],
        *,
        masks: bool,
        valid: Mapping[int, Bool[Tensor, "h w"]] | None = None,
        with_alpha: bool,
        depth_scale: float | None = None,
        cache_bytes: float,
        device: torch.device,
    ) -> None:
        self.images, self.indices = images.to("cpu"), indices.tolist()
        self.cameras = images.cameras[indices].to("cpu")
        self.masks, self.valid, self.with_alpha, self.device = masks, valid or {}, with_alpha, device
        self.depth_scale = None if images.depth_paths is None else depth_scale
        smallest = check_sizes(images, indices)
        self.largest_factor = max((f for f in (1, 2, 4, 8) if smallest // f >= SMALLEST_SIDE), default=1)
        per_pixel = 3 if self.depth_scale is None else 7
        sizes = (self.cameras.width * self.cameras.height * per_pixel).double().cumsum(0)
        self.num_cached = int((sizes <= cache_bytes).sum())
        self._full: dict[int, _Bytes] = {}
        self._small: dict[int, _Bytes] = {}
        self._gpu_bytes = 0 if device.type != "cuda" else min(cache_bytes, GPU_SHARE * torch.cuda.mem_get_info(device)[0])
        self._use_factor(1)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.images.names[i] for i in self.indices)

    def read_all(self, report: Callable[[int], None]) -> None:
        """Read the images that fit into the cache, so that damaged ones are detected before training starts.

        Raises:
            InputError: An image or mask cannot be read, masks leave no pixel, or depth maps are empty.
        """
        for place in range(self.num_cached):
            self._full[place] = self._read(place)
            report(place + 1)
        if self._full and not any(view.mask is None or bool(view.mask.any()) for view in self._full.values()):
            raise InputError(f"{self.images.source}: all masks are black; want white where pixels are used")
        depths = [view.depth for view in self._full.values() if view.depth is not None]
        if depths and not any(bool((depth > 0).any()) for depth in depths):
            raise InputError(f"{self.images.source}: all depth maps are empty; want depths > 0 where something was measured")

    def get(self, place: int, factor: int) -> TrainingView:
        """The view at index `place`, downscaled by `factor` (but not below 32 px)."""
        factor = min(factor, self.largest_factor)
        if factor != self._factor:
            self._use_factor(factor)
        stored = self._on_gpu.get(place)
        if stored is None:
            stored = self._stored(place).sent(self.device)
            if stored.size <= self._gpu_room:
                self._gpu_room -= stored.size
                self._on_gpu[place] = stored
        values = stored.image.float().div_(255)
        alpha = values[..., 3:] if self.with_alpha else None
        return TrainingView(place, values[..., :3], alpha, stored.mask, stored.depth, self._Ks[place])

    def _use_factor(self, factor: int) -> None:
        self._factor, self._at_factor = factor, self.cameras if factor == 1 else self.cameras.scaled(1 / factor)
        self._Ks = self._at_factor.Ks.to(self.device)
        self._small.clear()
        self._on_gpu: dict[int, _Bytes] = {}
        self._gpu_room = self._gpu_bytes

    def _stored(self, place: int) -> _Bytes:
        """The view at the current resolution, in CPU memory."""
        stored = self._small.get(place)
        if stored is None:
            stored = self._full[place] if place in self._full else self._read(place)
            if self._factor > 1:
                stored = _shrunk(stored, int(self._at_factor.width[place]), int(self._at_factor.height[place]))
            if place < self.num_cached:
                self._small[place] = stored
        return stored

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
        depth = None
        if self.depth_scale is not None and (read := self.images.read_depth(index)) is not None:
            depth = read * self.depth_scale
        return _Bytes(_bytes(image), mask, depth)


class Order:
    """The order of the views: a new shuffled pass over all of them each time."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.generator = torch.Generator().manual_seed(seed)
        self.waiting: list[int] = []

    def take(self, batch: int) -> list[int]:
        """The next `batch` indices."""
        taken = []
        while len(taken) < batch:
            if not self.waiting:
                self.waiting = torch.randperm(self.count, generator=self.generator).tolist()
            taken.append(self.waiting.pop())
        return taken

    def state_dict(self) -> dict[str, Tensor]:
        """State needed for exact resume."""
        return {"generator": self.generator.get_state(), "waiting": torch.tensor(self.waiting, dtype=torch.int64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        self.generator.set_state(state["generator"].cpu())
        self.waiting = state["waiting"].tolist()


def check_sizes(images: PosedImages, indices: Int64[Tensor, " m"]) -> int:
    """The shortest side of some views [px].

    Raises:
        InputError: An image is smaller than the window of SSIM; the message names it.
    """
    sides = torch.minimum(images.cameras.width, images.cameras.height)[indices]
    first = int(indices[sides.argmin()])
    if int(sides.min()) < WINDOW:
        size = f"{int(images.cameras.width[first])}x{int(images.cameras.height[first])}"
        raise InputError(f"{images.source}: {images.names[first]} has {size} px, want at least {WINDOW}x{WINDOW}")
    return int(sides.min())


def _read_with_alpha(images: PosedImages, index: int) -> tuple[Tensor, Tensor | None]:
    """Colors times alpha, and alpha as the fourth channel, both undistorted."""
    on_black, mask, _ = replace(images, background=(0.0, 0.0, 0.0)).read(index)
    if not has_alpha(images.image_paths[index]):
        return torch.cat([on_black, torch.ones_like(on_black[..., :1])], -1), mask
    on_white = replace(images, background=(1.0, 1.0, 1.0)).read(index)[0]
    alpha = 1 - (on_white - on_black).mean(-1, keepdim=True)
    return torch.cat([on_black, alpha.clamp(0, 1)], -1), mask


def _shrunk(stored: _Bytes, width: int, height: int) -> _Bytes:
    mask = None if stored.mask is None else shrink_mask(stored.mask, width, height)
    depth = None if stored.depth is None else shrink_depth(stored.depth, width, height)
    return _Bytes(_bytes(resize_area(stored.image.float() / 255, width, height)), mask, depth)


def _bytes(image: Float[Tensor, "h w c"]) -> UInt8[Tensor, "h w c"]:
    return (image * 255).round_().clamp_(0, 255).to(torch.uint8)
