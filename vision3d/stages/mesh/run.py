"""The stage: views, box, surface, clean-up, charts and colors, one after the other."""

import importlib.util
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vision3d.core.device import resolve_backend, resolve_device
from vision3d.core.errors import ConfigError, InputError, MissingDependencyError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.geometry import mesh as geometry
from vision3d.io.glb import write_mesh
from vision3d.render import surrounding_cameras
from vision3d.render.baking import texels as baking
from vision3d.render.baking.atlas import MAX_SIZE, unwrap_growing
from vision3d.render.baking.normals import normals_of
from vision3d.render.baking.views import SceneViews
from vision3d.scene import Cameras, GaussianScene, Mesh
from vision3d.scene.upright import up_by_convention, up_of
from vision3d.stage import stage
from vision3d.stages.mesh import cleanup
from vision3d.stages.mesh.background import background
from vision3d.stages.mesh.bounds import Box, Extent, find_extent
from vision3d.stages.mesh.config import MIN_RESOLUTION, MeshConfig
from vision3d.stages.mesh.fusion import fuse, open3d, plan, with_blocks_at
from vision3d.stages.mesh.poisson import reconstruct
from vision3d.stages.mesh.refining import refine
from vision3d.stages.mesh.thin import thin_gaussians

logger = logging.getLogger("vision3d.mesh")

_MAX_VOXELS = 1 << 15
_FOR_BACKGROUND = 0.2
"""Fraction of the faces for the background."""
_BEFORE_REFINING = 12
"""Smoothing iterations."""
_THIN = 2.0
"""Thickness up to which surfaces are not smoothed or decimated [voxels]."""
_SLIVER = 1e-3
"""Edges up to this length are collapsed after that smoothing [voxels]."""
_MANY_VIEWS = 24
"""Number of views from which at least three must see a surface by default."""
_FOR_VIEWS = 0.4
"""Fraction of the memory for cached views, so that they are rendered once."""


@dataclass(frozen=True)
class MeshResult:
    """Result of meshing a scene."""

    mesh: Mesh
    """In the world of the scene, with normals, and with uvs and a texture or with vertex colors."""
    summary: dict[str, Any]
    """Plain metrics: vertices, faces, is_closed, voxel, resolution, removed parts, fraction of visible colors, times."""
    run_folder: Path | None = None
    """Output path."""


@stage("mesh", {"scene": "scene", "cameras": "cameras"})
def run(
    config: MeshConfig,
    scene: GaussianScene,
    cameras: Cameras | None = None,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> MeshResult:
    """Create a textured mesh from a scene of Gaussians.

    Args:
        config: Options.
        scene: Of any mode; 2dgs scenes are on surfaces and give the best meshes.
        cameras: Cameras of the photos: what they show is reliable. Without them, cameras are placed all around the scene.
        run_folder: Receives mesh.glb, y up, with summary and report. None: nothing is written.
        progress: Called for every view of every step.

    Raises:
        InputError: The scene is empty, no view shows a surface, or the cameras are not pinholes.
        ConfigError: The memory is insufficient for a coarse mesh.
        MissingDependencyError: Open3D or fast-simplification is needed and not installed.

    Example:
        >>> from vision3d import Cameras, GaussianScene
        >>> from vision3d.stages.mesh import MeshConfig, mesh_scene
        >>> scene, cameras = GaussianScene.load("runs/cup/scene.ply"), Cameras.load("runs/cup/cameras.json")
        >>> result = mesh_scene(MeshConfig(resolution=256, faces=20_000), scene, cameras)
        >>> result.mesh.save("cup.glb")
    """
    device = resolve_device(config.device, backend=config.backend)
    backend = resolve_backend(config.backend, device)
    _check_packages(config)
    if not len(scene):
        raise InputError("scene: got 0 Gaussians, want at least one")
    started = time.monotonic()
    is_given = cameras is not None and len(cameras) > 0
    if not is_given:
        cameras = surrounding_cameras(scene, config.views, config.view_size)
    assert cameras is not None
    sized = _sized(cameras, config).to(device)
    max_bytes = 1e9 * config.max_memory
    quantile = None if config.depth == "expected" else config.quantile
    views = SceneViews(scene.to(device), sized, config.alpha_min, quantile, backend, _FOR_VIEWS * max_bytes, config.stereo)
    with Progress(len(views), "render", progress) as bar:
        extent = find_extent(views, config.background and config.method == "tsdf", bar.update)
    if config.box is not None:
        box = Box(torch.tensor(config.box[:3]), torch.tensor(config.box[3:]))
        extent = Extent(box)
    longest = extent.box.longest
    voxel = longest / config.resolution if config.voxel is None else config.voxel
    if not MIN_RESOLUTION <= longest / voxel <= _MAX_VOXELS:
        want = f"{MIN_RESOLUTION} to {_MAX_VOXELS} along it"
        raise ConfigError("voxel", f"got {voxel:g} m for a box of {longest:.4g} m, want {want}")
    raw, details = _surface(config, views, extent.box, voxel, (1 - _FOR_VIEWS) * max_bytes, progress)
    thin = _THIN * details["voxel"] if config.thin else 0.0
    surface, left_out, filled = _cleaned(config, raw, views, thin)
    if extent.center is not None:
        with Progress(len(views), "background", progress) as bar:
            behind = background(views, extent.box, extent.center, surface, min_views_of(config, len(views)), bar.update)
        surface = surface if behind is None else _joined(config, surface, behind, thin)
    if config.refine and config.texture_size:
        # Bumps of a few edges are below the resolution of the views, so fitting cannot remove them.
        surface = cleanup.smooth(surface, _BEFORE_REFINING, thin)
        # Slivers have become shorter than float32 resolves, and other programs would merge their ends.
        surface = cleanup.manifold(surface, _SLIVER * details["voxel"])
        surface, _ = cleanup.main_parts(surface, 0, config.max_components)
    mesh, texture_size, seen = _colored(config, surface, views, progress)
    summary = {
        "vertices": mesh.num_vertices,
        "faces": mesh.num_faces,
        "is_closed": geometry.is_closed(surface.faces),
        **details,
        "raw_faces": raw.num_faces,
        "parts_left_out": left_out,
        "holes_filled": filled,
        "texture_size": texture_size,
        "seen_share": round(seen, 4),
        "views": len(views),
        "cameras": "given" if is_given else "round the scene",
        "device": str(device),
        "wall_s": round(time.monotonic() - started, 3),
    }
    if not isinstance(run_folder, RunFolder):
        return MeshResult(mesh, summary)
    write_mesh(run_folder.path / "mesh.glb", mesh, scene_up=up_of(cameras) if is_given else up_by_convention(scene))
    return MeshResult(mesh, summary, run_folder.path)


def _check_packages(config: MeshConfig) -> None:
    """Checks all required packages before anything is rendered."""

    open3d()
    if config.faces and importlib.util.find_spec("fast_simplification") is None:
        raise MissingDependencyError("fast-simplification", "mesh", "fewer faces (--faces 0 keeps all)")


def _sized(cameras: Cameras, config: MeshConfig) -> Cameras:
    """The cameras with images of the size of the depth maps."""
    longest = torch.maximum(cameras.width, cameras.height) * config.supersample
    factor = config.supersample * (config.max_view_size / longest).clamp(max=1)
    sizes = [(size * factor).round().long().clamp(min=1) for size in (cameras.width, cameras.height)]
    return cameras.resized(*sizes)


def min_views_of(config: MeshConfig, views: int) -> int:
    """Minimum number of views that must see a surface."""
    if config.min_views is not None:
        return min(config.min_views, views)
    return 3 if views >= _MANY_VIEWS else min(2, views)


def _surface(
    config: MeshConfig, views: SceneViews, box: Box, voxel: float, max_bytes: float, progress: ProgressCallback | None
) -> tuple[Mesh, dict[str, Any]]:
    """The raw surface, and a description of how it was made."""
    if config.method == "poisson":
        with Progress(len(views), "points", progress) as bar:
            raw, voxel = reconstruct(views, box, voxel, trim=config.trim, max_bytes=max_bytes, step=bar.update)
        blocks = {}
    else:
        min_views = min_views_of(config, len(views))
        with Progress(len(views), "plan", progress) as bar:
            grid = plan(
                views, box, voxel, truncation=config.truncation, max_bytes=max_bytes, step=bar.update, min_views=min_views
            )  # fmt: skip
        with Progress(len(views), "fuse", progress) as bar:
            thin = thin_gaussians(views, box, grid.voxel, min_views) if config.thin else None
            if thin is not None and len(thin):
                grid = with_blocks_at(grid, thin, max_bytes)
            raw = fuse(views, grid, truncation=config.truncation, min_views=min_views, step=bar.update, thin=thin)
        voxel, blocks = grid.voxel, {"blocks": len(grid.blocks)}
    corners = [round(value, 5) for value in (*box.low.tolist(), *box.high.tolist())]
    details = {"method": config.method, "voxel": voxel, "resolution": round(box.longest / voxel), "box": corners, **blocks}
    logger.info("surface of %d faces, voxels of %.4g m", raw.num_faces, voxel)
    return raw, details


def _cleaned(config: MeshConfig, raw: Mesh, views: SceneViews, thin: float) -> tuple[Mesh, int, int]:
    """The cleaned surface, and the numbers of removed parts and of filled holes."""
    surface = cleanup.manifold(raw)
    times = cleanup.times_seen(surface, views.cameras)
    surface, left_out = cleanup.main_parts(surface, config.min_component, config.max_components, times)
    filled = 0
    if config.fill_holes:
        surface, filled = cleanup.fill_holes(surface, config.fill_holes)
    surface = cleanup.smooth(surface, config.smooth)
    if config.faces:
        surface = cleanup.decimate(surface, config.faces, thin)
    # Removing faces to leave two at each edge may have detached small pieces.
    surface, crumbs = cleanup.main_parts(cleanup.manifold(surface), config.min_component, config.max_components)
    return surface, left_out + crumbs, filled


def _joined(config: MeshConfig, surface: Mesh, behind: Mesh, thin: float) -> Mesh:
    """The surface joined with its background, which gets a fraction of the faces and replaces the smallest part."""
    if config.faces:
        behind = cleanup.decimate(behind, max(4, round(_FOR_BACKGROUND * config.faces)))
        surface = cleanup.decimate(surface, max(4, config.faces - behind.num_faces), thin)
    surface, _ = cleanup.main_parts(cleanup.manifold(surface), 0, max(1, config.max_components - 1))
    behind, _ = cleanup.main_parts(cleanup.manifold(behind), 0, 1)
    return surface.merge(behind)


def _colored(
    config: MeshConfig, surface: Mesh, views: SceneViews, progress: ProgressCallback | None
) -> tuple[Mesh, int, float]:
    """The surface with normals and colors, the side of its texture, and the fraction of colors visible in views."""
    unwrapped = None
    if config.texture_size:
        largest = max(config.texture_size, MAX_SIZE)
        unwrapped = unwrap_growing(surface, config.texture_size, config.padding, _detail(surface, views.cameras), largest)
        if unwrapped is None:
            logger.warning("the charts do not fit on a texture of %d texels; using vertex colors (reduce --faces)", largest)
        elif unwrapped[1] > config.texture_size:
            logger.warning("using a texture of %d texels, since the charts do not fit on %d", unwrapped[1], config.texture_size)
    with Progress(len(views), "color", progress) as bar:
        step: Callable[[int], None] = bar.update
        if unwrapped is None:
            mesh, seen = baking.color_vertices(replace(surface, normals=normals_of(surface)), views, step)
            return mesh, 0, seen
        mesh, size = unwrapped
        mesh, seen = baking.bake(mesh, views, size, step)
    if config.refine:
        with Progress(config.refine, "refine", progress) as bar:
            mesh = refine(mesh, views, config.refine, lambda n, loss: bar.update(n, loss=loss))
    return mesh, size, seen


def _detail(surface: Mesh, cameras: Cameras) -> torch.Tensor:
    """Median pixels per meter with which cameras see each vertex, relative to that of all vertices."""
    centers = cameras.centers.cpu()
    distance = torch.stack([torch.linalg.vector_norm(surface.vertices - center, dim=-1) for center in centers]).median(0).values
    detail = 1 / distance.clamp(min=1e-9)
    return (detail / detail.median()).clamp(0.1, 10)
