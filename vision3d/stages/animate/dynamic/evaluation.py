"""Evaluation of a motion: training images, unseen frames, unseen cameras, and true vertices if known."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.lazy import renamed_attribute
from vision3d.core.plain import to_json
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.io.images import write_image
from vision3d.optim import metrics
from vision3d.scene import Cameras
from vision3d.stages.animate.dynamic.footage import SPLITS, Footage, Split
from vision3d.stages.animate.dynamic.painters import Painter, over, with_views

_SSIM_SIDE = 11  # pixels


@dataclass(frozen=True)
class ViewMetrics:
    """Metrics of one image, over `background_color`."""

    split: Split
    """Whether it was trained on, or why not."""
    camera: str
    frame: int
    psnr: float
    """[dB]; at most 100, for identical images."""
    ssim: float | None
    """None for images smaller than 11 pixels."""
    iou: float
    """Mask IoU at opacity 0.5."""


@dataclass(frozen=True)
class MotionEvaluation:
    """Metrics of all images."""

    views: tuple[ViewMetrics, ...]
    reference: int
    """The frame of the rest pose."""
    pictures = renamed_attribute("views")

    def mean(self) -> dict[str, float]:
        """Mean of each metric over the images of each split, such as unseen_frames_psnr.

        Without the reference frame: its shape is given, so it is exact in all cameras.
        """
        means = {}
        for split in SPLITS:
            rows = [asdict(row) for row in self.views if row.split == split and row.frame != self.reference]
            for name in ("psnr", "ssim", "iou"):
                values = [row[name] for row in rows if row[name] is not None]
                if values:
                    means[f"{split}_{name}"] = sum(values) / len(values)
        return means

    def save(self, path: Path) -> None:
        """Write the means, and as `views` the metrics of held-out images with their file names."""
        views = [{"name": _name(row), "file": file_name(row), **asdict(row)} for row in self.views if row.split != "fitted"]
        with atomic_write(path) as temporary:
            temporary.write_text(to_json({"mean": self.mean(), "views": views}, indent=2) + "\n", "utf-8")


@torch.no_grad()
def evaluate_motion(
    painter: Painter,
    vertices: Float[Tensor, "t v 3"],
    footage: Footage,
    cameras: Cameras,
    splits: dict[Split, Int64[Tensor, " m"]],
    reference: int,
    background: Float[Tensor, " 3"],
    *,
    renders: Path | None = None,
    progress: ProgressCallback | None = None,
) -> MotionEvaluation:
    """Render every image and compare it with the target.

    Args:
        painter: Renderer of the mesh.
        vertices: At all times of the footage [m].
        footage: The targets.
        cameras: One per image.
        splits: Images of each split.
        reference: The frame of the rest pose.
        background: Background color.
        renders: Folder for the held-out images: target on the left, render on the right.
        progress: Progress callback.
    """
    rows, total = [], sum(map(len, splits.values()))
    with Progress(total, "eval", progress) as bar:
        for split, views in splits.items():
            for view in views.tolist():
                one = torch.tensor([view], device=footage.images.device)
                colors, alphas = painter.paint(vertices, footage.frames[one], with_views(cameras, one, 1))
                given, masks = footage.read(one, 1, background)
                image = over(colors, alphas, background).clamp(0, 1)[0]
                row = _measure(split, footage, view, image, alphas[0], given[0], masks[0])
                if renders is not None and split != "fitted":
                    write_image(renders / file_name(row), torch.cat([given[0], image], 1))
                rows.append(row)
                bar.update(len(rows), psnr=row.psnr)
    return MotionEvaluation(tuple(rows), reference)


def vertex_errors(
    vertices: Float[Tensor, "t v 3"], truth: Float[Tensor, "t v 3"], rest: Float[Tensor, "v 3"]
) -> Float[Tensor, " t"]:
    """Mean distance of the vertices from the true ones in each frame, relative to the box diagonal of the rest mesh."""
    diagonal = torch.linalg.vector_norm(rest.amax(0) - rest.amin(0))
    return torch.linalg.vector_norm(vertices - truth.to(vertices), dim=-1).mean(-1) / diagonal


def file_name(row: ViewMetrics) -> str:
    """File name of the image in the folder of renders."""
    return f"{row.camera.replace('/', '_')}_{row.frame:04d}.png"


def _name(row: ViewMetrics) -> str:
    return f"{row.camera}, frame {row.frame} ({row.split.replace('_', ' ')})"


def _measure(
    split: Split, footage: Footage, view: int, image: Tensor, alpha: Tensor, given: Tensor, mask: Tensor
) -> ViewMetrics:
    iou = metrics.mask_iou(alpha > 0.5, mask > 0.5)
    ssim = metrics.ssim(image, given) if min(given.shape[:2]) >= _SSIM_SIDE else None
    psnr = min(metrics.psnr(image, given), 100.0)
    return ViewMetrics(split, footage.camera_names[view], int(footage.frames[view]), psnr, ssim, iou)
