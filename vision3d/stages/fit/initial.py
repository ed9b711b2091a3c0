"""Initialization of the Gaussians, in the world of the fit (see `world`)."""

import logging
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.core.progress import ProgressCallback
from vision3d.optim.training_views import TrainingView, TrainingViews
from vision3d.scene import Cameras, GaussianScene, PointCloud, PosedImages, load
from vision3d.stages.fit.config import FitConfig
from vision3d.stages.fit.world import World

logger = logging.getLogger("vision3d.fit")

NEAREST, FARTHEST = 0.5, 8.0  # range of random points, relative to the distance of the look-at point


def initial_scene(
    config: FitConfig, images: PosedImages, views: TrainingViews, world: World, progress: ProgressCallback | None = None
) -> GaussianScene:
    """The scene at step 0.

    Args:
        config: Options of the fit.
        images: The data set, whose points may be used.
        views: Its training views.
        world: The world of the fit.
        progress: Progress callback for `init` sfm.

    Raises:
        InputError: Points were requested, but the data set has none; or the file of `init` cannot be used.
        MissingDependencyError: `init` is sfm and pycolmap is not installed.
    """
    generator = torch.Generator().manual_seed(config.seed)
    kind = config.init
    if isinstance(kind, Path):
        found = _of_file(kind, config, world)
        if isinstance(found, GaussianScene):
            return found
        return _of_points(config, "points of a file", found, world, generator)
    if kind == "auto":
        kind = "random" if images.points is None or len(images.points) < 10 else "points"
    count = min(config.init_count, config.max_gaussians)
    if kind == "random":
        points, colors = random_points(views, world, count, generator)
        return _started(config, kind, points, colors, generator)
    return _of_points(config, kind, _given_points(kind, images, progress), world, generator)


def _of_points(
    config: FitConfig, kind: str, given: tuple[Tensor, Tensor | None], world: World, generator: torch.Generator
) -> GaussianScene:
    """Gaussians at points in the world of the photos, at most `init_count`."""
    points, colors = given
    count = min(config.init_count, config.max_gaussians)
    if len(points) > count:
        chosen = torch.randperm(len(points), generator=generator)[:count]
        points, colors = points[chosen], None if colors is None else colors[chosen]
    return _started(config, kind, world.points_in(points), colors, generator)


def _started(config: FitConfig, kind: str, points: Tensor, colors: Tensor | None, generator: torch.Generator) -> GaussianScene:
    logger.info("%d initial Gaussians (%s)", len(points), kind)
    return GaussianScene.from_points(
        points,
        colors,
        sh_degree=config.sh_degree,
        opacity=config.init_opacity,
        scale_factor=config.init_scale,
        mode=config.mode,
        antialiased=config.antialiased,
        generator=generator,
    )


def _of_file(path: Path, config: FitConfig, world: World) -> GaussianScene | tuple[Tensor, Tensor | None]:
    """Gaussians of a file, in the world of the fit and with its harmonics; or the points of a cloud and their colors.

    Raises:
        InputError: It holds something else, Gaussians of another mode, or too many.
    """
    found = load(path)
    if isinstance(found, PointCloud) and len(found):
        return found.points.cpu().float(), None if found.colors is None else found.colors.cpu().float()
    if not isinstance(found, GaussianScene) or not len(found):
        raise InputError(f"{path}: holds {found!r}, want Gaussians or points to start from")
    if found.mode != config.mode:
        raise InputError(f"{path}: holds Gaussians of mode {found.mode}; fit with --mode {found.mode}")
    if len(found) > config.max_gaussians:
        raise InputError(f"{path}: {len(found)} Gaussians are more than --max-gaussians {config.max_gaussians}")
    size = (config.sh_degree + 1) ** 2
    sh = torch.zeros(len(found), size, 3)
    sh[:, : found.sh.shape[1]] = found.sh[:, :size]
    logger.info("%d initial Gaussians (%s)", len(found), path)
    return world.scene_in(replace(found.to("cpu"), sh=sh, antialiased=config.antialiased))


def random_points(
    views: TrainingViews, world: World, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Points on the rays of random pixels, with the pixels' colors.

    Their distances are log-uniform, around the distance of the look-at point.
    """
    cameras = world.cameras_in(views.cameras)
    focus = focus_distance(cameras)
    place = torch.randint(len(views), (count,), generator=generator)
    spread = torch.rand(count, generator=generator, dtype=torch.float64)
    depths = focus * NEAREST * (FARTHEST / NEAREST) ** spread
    where = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    points = torch.zeros(count, 3, dtype=torch.float64)
    colors = torch.zeros(count, 3)
    camtoworlds = cameras.camtoworlds.double()
    for i in place.unique().tolist():
        rows = (place == i).nonzero()[:, 0]
        view = views.get(i, views.largest_factor)
        K = view.K.cpu().double()
        candidates = _pixels(view)
        row, column = candidates[(where[rows, 0] * len(candidates)).long()].unbind(-1)
        pixel = torch.stack([column, row], -1) + where[rows, 1:]
        rays = torch.cat([(pixel - K[:2, 2]) / K[[0, 1], [0, 1]], torch.ones(len(rows), 1).double()], -1)
        points[rows] = (rays * depths[rows, None]) @ camtoworlds[i, :3, :3].mT + camtoworlds[i, :3, 3]
        colors[rows] = view.image.cpu()[row, column]
    return points.float(), colors


def _pixels(view: TrainingView) -> Int64[Tensor, "m 2"]:
    """Row and column of the valid, opaque pixels; all pixels if none are."""
    counts = torch.ones(view.image.shape[:2], dtype=torch.bool)
    if view.mask is not None:
        counts &= view.mask.cpu()
    if view.alpha is not None:
        counts &= view.alpha.cpu()[..., 0] > 0.5
    return (counts if bool(counts.any()) else torch.ones_like(counts)).nonzero()


def focus_distance(cameras: Cameras) -> float:
    """Median distance of the cameras from the point that they look at; twice the extent if their axes are parallel."""
    centers, axes = cameras.centers.double(), cameras.camtoworlds[:, :3, 2].double()
    # The point with the smallest squared distance to all axes: sum (I - a a^T) (x - c) = 0.
    across = torch.eye(3).double() - axes[:, :, None] * axes[:, None, :]
    values = torch.linalg.eigvalsh(across.sum(0))
    if values[0] < 1e-2 * values[2]:
        return 2.0
    focus = torch.linalg.solve(across.sum(0), (across @ centers[..., None]).sum(0)[:, 0])
    depths = ((focus - centers) * axes).sum(-1)
    return float(depths[depths > 0].median()) if bool((depths > 0).any()) else 2.0


def _given_points(kind: str, images: PosedImages, progress: ProgressCallback | None) -> tuple[Tensor, Tensor | None]:
    if kind == "sfm":
        from vision3d.io.sfm import triangulate

        return triangulate(images, images.train, progress=progress)
    if images.points is None or len(images.points) == 0:
        raise InputError(f"{images.source}: has no points; use --init random, or --init sfm to triangulate points")
    return images.points.cpu(), None if images.point_colors is None else images.point_colors.cpu()
