"""Evaluation of a scene: renders compared with held-out photos."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.device import resolve_device
from vision3d.core.errors import InputError
from vision3d.core.plain import to_json
from vision3d.core.progress import ProgressCallback, silent
from vision3d.io.images import has_alpha, write_image
from vision3d.optim import metrics
from vision3d.optim.training_views import check_sizes
from vision3d.render import render_views
from vision3d.scene import Cameras, GaussianScene, PosedImages
from vision3d.scene.resample import resize_area

logger = logging.getLogger("vision3d.fit")

BLACK = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class ViewMetrics:
    """Metrics of one held-out view."""

    name: str
    psnr: float
    """[dB]."""
    ssim: float
    """11x11 Gaussian window inside the image."""
    ms_ssim: float | None = None
    """Five scales; None for images below 176 px and for masked ones."""
    lpips: float | None = None
    """Only if LPIPS weights are given."""
    psnr_nearest: float | None = None
    """PSNR of the nearest training photo shown instead [dB]."""
    psnr_exposed: float | None = None
    """PSNR of the right half after a color transform (3x4) fitted to the left half [dB]."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of all held-out views."""

    views: tuple[ViewMetrics, ...]

    def mean(self) -> dict[str, float]:
        """Mean of each metric over the views that have it, and the gain over the nearest view as `above_nearest`."""
        means = {}
        for name in ("psnr", "ssim", "ms_ssim", "lpips", "psnr_nearest", "psnr_exposed"):
            values = [value for view in self.views if (value := getattr(view, name)) is not None]
            if values:
                means[name] = sum(values) / len(values)
        if "psnr_nearest" in means:
            means["above_nearest"] = means["psnr"] - means["psnr_nearest"]
        return means

    def file_name(self, index: int) -> str:
        """File name of the image of a view in the folder of renders."""
        return file_name(index, self.views[index].name)

    def to_dict(self) -> dict[str, object]:
        """Plain values: the means, and those of each view with its file name."""
        views = [{**asdict(view), "file": self.file_name(i)} for i, view in enumerate(self.views)]
        return {"mean": self.mean(), "views": views}

    def save(self, path: Path | str, **more: str) -> None:
        """Write `to_dict` and additional values as JSON."""
        with atomic_write(path) as temporary:
            temporary.write_text(to_json({**more, **self.to_dict()}, indent=2) + "\n", "utf-8")


def evaluate(
    scene: GaussianScene | Path | str,
    dataset: PosedImages | Path | str,
    *,
    background: Sequence[float] | None = None,
    alpha_max: float = 0.99,
    masks: bool = True,
    valid: Mapping[int, Bool[Tensor, "h w"]] | None = None,
    exposed: bool = False,
    nearest: bool = True,
    lpips_weights: Path | None = None,
    renders: Path | None = None,
    device: str = "auto",
    backend: str = "auto",
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Render the held-out views of a data set and compare them with the photos.

    Args:
        scene: The Gaussians, or a .ply of any program.
        dataset: Photos with cameras in the scene's world, some of them held out; or their path.
        background: Background color in [0, 1]. None: that of the data set if images have an alpha channel, else black.
        alpha_max: Maximum alpha of one Gaussian: 0.99 for scenes made here, 0.999 for those of gsplat 1.5.3.
        masks: Ignore pixels that masks mark as black.
        valid: Additional masks by view index: True for valid pixels.
        exposed: Also evaluate each right half after a color transform fitted to the left half, for photos with varying
            exposure.
        nearest: Also evaluate the nearest training photo in place of each view.
        lpips_weights: Weights of LPIPS (see `vision3d.optim.metrics.lpips`).
        renders: Folder for an image of each view: photo on the left, render on the right.
        device: auto, cpu or cuda.
        backend: auto, native, reference or gsplat.
        progress: Progress callback, called for each view.

    Raises:
        InputError: The scene is empty or not finite, no view is held out, masks leave no pixel, or an image cannot be read
            or is too small.

    Example:
        >>> evaluation = evaluate("scene.ply", "data/fox", nearest=False)
        >>> evaluation.mean()["psnr"]
    """
    where = resolve_device(device, backend=backend)
    if not isinstance(dataset, PosedImages):
        from vision3d.io.dataset import load_dataset

        dataset = load_dataset(dataset)
    if not isinstance(scene, GaussianScene):
        scene = GaussianScene.load(scene)
    scene.validate()
    if len(dataset.test) == 0:
        raise InputError(f"{dataset.source}: no view is held out for evaluation (--split-every 8)")
    check_sizes(dataset, dataset.test)
    scene = scene.to(where)
    background = background_of(dataset) if background is None else background
    views, report = [], progress or silent
    for done, index in enumerate(dataset.test.tolist(), 1):
        photo, mask, camera = dataset.read(index)
        mask = mask.to(where) if masks and mask is not None else None
        if valid is not None and index in valid:
            mask = valid[index].to(where) if mask is None else mask & valid[index].to(where)
        if mask is not None and not bool(mask.any()):
            logger.warning("%s: %s skipped: its mask is all black", dataset.source, dataset.names[index])
            continue
        photo = photo.to(where)
        with torch.no_grad():
            view = next(render_views(scene, camera.to(where), backgrounds=background, alpha_max=alpha_max, backend=backend))
        assert view.image is not None
        image = view.image.clamp(0, 1)
        shown = _nearest_photo(dataset, index, photo) if nearest and len(dataset.train) else None
        name = dataset.names[index]
        views.append(_measure(name, image, photo, mask, shown, exposed, lpips_weights))
        if renders is not None:
            write_image(renders / file_name(len(views) - 1, name), torch.cat([photo, image], 1))
        report("eval", done, len(dataset.test), {"psnr": views[-1].psnr})
    if not views:
        raise InputError(_all_black(dataset))
    return Evaluation(tuple(views))


def file_name(index: int, view: str) -> str:
    """File name of the image of a held-out view: its index and the photo's name."""
    return f"{index:03d}_{Path(view).stem}.png"


def check_held_out(dataset: PosedImages, *, masks: bool) -> None:
    """Read the held-out views once, so that damaged ones are detected before a long run instead of at its end.

    Raises:
        InputError: As for `evaluate`.
    """
    if len(dataset.test) == 0:
        return
    check_sizes(dataset, dataset.test)
    read = [dataset.read(index)[1] for index in dataset.test.tolist()]
    if masks and not any(mask is None or bool(mask.any()) for mask in read):
        raise InputError(_all_black(dataset))


def _all_black(dataset: PosedImages) -> str:
    return f"{dataset.source}: the masks of all held-out views are all black (--no-masks)"


def background_of(dataset: PosedImages) -> tuple[float, float, float]:
    """The background color: that of the data set if any image has an alpha channel, else black."""
    return dataset.background if any(has_alpha(path) for path in dataset.image_paths) else BLACK


def nearest_view(cameras: Cameras, index: int, candidates: Sequence[int]) -> int:
    """The candidate whose view is most similar to that of camera `index`.

    It minimizes the sum of the angle between the optical axes [rad] and the distance relative to the spread of all cameras.
    """
    centers, axes = cameras.centers.double(), cameras.camtoworlds[:, :3, 2].double()
    spread = torch.linalg.vector_norm(centers - centers.mean(0), dim=-1).max().clamp(min=1e-12)
    others = torch.tensor(list(candidates), device=centers.device)
    angles = torch.arccos((axes[others] @ axes[index]).clamp(-1, 1))
    distances = torch.linalg.vector_norm(centers[others] - centers[index], dim=-1) / spread
    return int(others[(angles + distances).argmin()])


def fit_exposure(
    image: Float[Tensor, "h w 3"], photo: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None
) -> Float[Tensor, "3 4"]:
    """The color transform [A b] for which A c + b is closest to the photo (least squares)."""
    pixels, targets = (image.reshape(-1, 3), photo.reshape(-1, 3)) if mask is None else (image[mask], photo[mask])
    ones = torch.cat([pixels, torch.ones_like(pixels[:, :1])], -1).double()
    # Slight regularization towards the identity, for colors that do not occur.
    ridge = 1e-4 * len(ones) * torch.eye(4).to(ones)
    identity = torch.eye(4, 3).to(ones)
    return torch.linalg.solve(ones.mT @ ones + ridge, ones.mT @ targets.double() + ridge @ identity).mT.to(image)


def _measure(
    name: str,
    image: Tensor,
    photo: Tensor,
    mask: Tensor | None,
    shown: Tensor | None,
    exposed: bool,
    lpips_weights: Path | None,
) -> ViewMetrics:
    is_large = min(photo.shape[:2]) >= metrics.MS_SSIM_MIN_SIZE
    return ViewMetrics(
        name,
        metrics.psnr(image, photo, mask),
        metrics.ssim(image, photo, mask),
        metrics.ms_ssim(image, photo) if is_large and mask is None else None,
        None if lpips_weights is None else metrics.lpips(image, photo, lpips_weights),
        None if shown is None else metrics.psnr(shown, photo, mask),
        _psnr_exposed(image, photo, mask) if exposed else None,
    )


def _psnr_exposed(image: Tensor, photo: Tensor, mask: Tensor | None) -> float | None:
    half = image.shape[1] // 2
    left, right = (None, None) if mask is None else (mask[:, :half], mask[:, half:])
    if (left is not None and not bool(left.any())) or (right is not None and not bool(right.any())):
        return None
    exposure = fit_exposure(image[:, :half], photo[:, :half], left)
    return metrics.psnr(image[:, half:] @ exposure[:, :3].mT + exposure[:, 3], photo[:, half:], right)


def _nearest_photo(dataset: PosedImages, index: int, photo: Tensor) -> Tensor:
    shown = dataset.read(nearest_view(dataset.cameras, index, dataset.train.tolist()))[0].to(photo)
    return shown if shown.shape == photo.shape else resize_area(shown, photo.shape[1], photo.shape[0])
