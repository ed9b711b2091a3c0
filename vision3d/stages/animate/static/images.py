"""The images that Gaussians on a mesh are refined on, and images of the result."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.io.dataset import load_dataset
from vision3d.io.images import has_alpha
from vision3d.optim.training_views import TrainingView, TrainingViews
from vision3d.render import render_views
from vision3d.report.canvas import FAINT, Canvas, fitted
from vision3d.scene import Cameras, GaussianScene, Mesh, PosedImages
from vision3d.stages.animate.cover import covered_pixels
from vision3d.stages.animate.static.config import StaticConfig
from vision3d.training.evaluation import BLACK

_CELL, _GAP, _LINE = 256, 4, 20  # [px]
_MAX = 4  # views per image


@dataclass(frozen=True, eq=False)
class TargetImages:
    """A data set with masks and background."""

    images: PosedImages
    background: tuple[float, float, float]
    """Color behind the object."""
    with_alpha: bool
    """Whether images have alpha channels that mask the object."""
    valid: dict[int, Bool[Tensor, "h w"]]
    """For images without object masks: the pixels covered by the mesh at the start, except its silhouette."""

    @classmethod
    def of(cls, images: PosedImages, mesh: Mesh, config: StaticConfig) -> "TargetImages":
        """Prepare a data set.

        Raises:
            InputError: Its cameras are not pinhole cameras, or no training camera sees the mesh.
        """
        if images.cameras.model != "pinhole":
            raise InputError(f"{images.source}: cameras are {images.cameras.model}; animate static takes pinhole cameras")
        with_alpha = any(has_alpha(path) for path in images.image_paths)
        knows_object = with_alpha or (config.masks == "object" and images.mask_paths is not None)
        covered = {i: covered_pixels(mesh, images.cameras[i]) for i in range(len(images))}
        if not any(bool(covered[i].any()) for i in images.train.tolist()):
            raise InputError(f"{images.source}: none of its cameras sees the mesh; want both in one world frame")
        background = config.background_color if knows_object else BLACK
        valid = {} if knows_object else {i: _inner(pixels) for i, pixels in covered.items()}
        return cls(replace(images, background=background), background, with_alpha, valid)

    def views(self, config: StaticConfig, device: torch.device) -> TrainingViews:
        """The training views, for reading."""
        return TrainingViews(
            self.images, self.images.train, masks=config.masks != "none", valid=self.valid, with_alpha=self.with_alpha,
            cache_bytes=4e9, device=device,
        )  # fmt: skip

    def target(self, view: TrainingView, config: StaticConfig) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Colors on the background (h, w, 3), opacity (h, w, 1) if known, and the valid pixels (h, w)."""
        behind = view.image.new_tensor(self.background)
        if config.masks == "object" and view.mask is not None:
            alpha = view.mask[..., None].to(view.image)
            image = view.image if view.alpha is None else view.image + (1 - view.alpha) * behind
            return alpha * image + (1 - alpha) * behind, alpha, None
        if view.alpha is None:
            return view.image, None, view.mask
        return view.image + (1 - view.alpha) * behind, view.alpha, view.mask


def load_images(path: Path | str, config: StaticConfig) -> PosedImages:
    """Load a data set like `fit`, with images downscaled to `max_size`.

    Raises:
        InputError: It cannot be read, or all views are held out.
    """
    images = load_dataset(
        path, split_every=config.split_every, skip_missing=config.skip_missing, background=config.background_color
    )
    return shrunk(images.validate(), config.max_size)


def shrunk(images: PosedImages, max_size: int) -> PosedImages:
    """The images with sides of at most `max_size` [px]; 0 keeps their size."""
    longest = torch.maximum(images.cameras.width, images.cameras.height)
    if not max_size or not bool((longest > max_size).any()):
        return images
    factors = (max_size / longest.double()).clamp(max=1)
    cameras = images.cameras
    sizes = ((side * factors).round().long().clamp(min=1) for side in (cameras.width, cameras.height))
    return replace(images, cameras=cameras.resized(*sizes))


def _inner(pixels: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Without pixels near the others, where Gaussians are semi-transparent and the background is visible."""
    size = 2 * (1 + max(pixels.shape) // 200) + 1
    others = torch.nn.functional.max_pool2d((~pixels)[None].float(), size, 1, size // 2)[0] > 0
    return ~others


def draw(scene: GaussianScene, cameras: Cameras, background: Sequence[float], backend: str) -> list[Float[Tensor, "h w 3"]]:
    """Images of Gaussians in [0, 1]."""
    with torch.no_grad():
        views = list(render_views(scene, cameras.to(scene.device), backgrounds=background, backend=backend))
    return [view.image.clamp(0, 1).cpu() for view in views if view.image is not None]


def before_after(rows: Sequence[Sequence[Float[Tensor, "h w 3"]]], heads: Sequence[str]) -> Float[Tensor, "h w 3"]:
    """Rows of images below the headings `heads`, one per column."""
    cells = [[fitted(image, _CELL, _CELL) for image in row] for row in rows[:_MAX]]
    width = max(cell.shape[1] for row in cells for cell in row)
    height = max(cell.shape[0] for row in cells for cell in row)
    canvas = Canvas(len(heads) * (width + _GAP) - _GAP, _LINE + len(cells) * (height + _GAP) - _GAP)
    for column, head in enumerate(heads):
        left = column * (width + _GAP)
        canvas.text(left, 2, head, 13, FAINT, room=width)
        for row, images in enumerate(cells):
            canvas.paste(images[column], left, _LINE + row * (height + _GAP))
    return canvas.image()
