"""Interactive CPU rendering: surfaces, points and lines by depth, Gaussians blended over them."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.render.meshes import Fragments, antialias, rasterize as rasterize_faces, screen_positions, shading
from vision3d.render.meshes.veils import Layers
from vision3d.render.splats import kernels, rasterize_2dgs
from vision3d.render.splats.records import Camera, Gaussians, Grid, Pixels, TileLists
from vision3d.scene import Cameras
from vision3d.viewer.models import Dots, Lines, Model, Splats, Surface
from vision3d.viewer.overlays import draw_dots, draw_lines

_TILE = 16
_STRIP_ROWS = 12  # rows of tiles blended between two checks for an outdated request
_NEAR, _FAR = 0.01, 1e10
Color = tuple[float, float, float]


class Stale(Exception):
    """The request is outdated."""


class Quality(NamedTuple):
    """Quality settings of an image."""

    scale: float = 1.0
    """Fraction of the full width and height."""
    share: float = 1.0
    """Fraction of the Gaussians and points; the remaining ones are enlarged to cover the same area."""
    degree: int | None = None
    """Maximum degree of the harmonics; None: all."""


class Render(NamedTuple):
    """A rendered image with depth."""

    image: Float[Tensor, "h w 3"]
    """Colors in [0, 1]."""
    depth: Float[Tensor, "h w"]
    """Along z [m]; infinite if empty."""


def draw(
    models: Sequence[Model],
    camera: Cameras,
    background: Color = (0.0, 0.0, 0.0),
    quality: Quality = Quality(),  # noqa: B008 - a tuple
    is_stale: Callable[[], bool] = lambda: False,
) -> Render:
    """Renders all models at `quality.scale` times the camera's size.

    Surfaces, points and lines occlude each other by depth and are seen through the Gaussians before them; lines that are on top
    are fully visible.

    Args:
        models: The models.
        camera: A pinhole camera (a batch of one) on the CPU.
        background: Background color.
        quality: Quality of the image.
        is_stale: Checked from time to time.

    Raises:
        Stale: `is_stale` returned True.
    """
    with torch.inference_mode():
        camera = scaled_camera(camera, quality.scale)
        width, height = int(camera.width), int(camera.height)
        image = torch.tensor(background).expand(height, width, 3).contiguous()
        depth = torch.full((height, width), torch.inf)
        whole = [model for model in models if isinstance(model, Surface)]
        surfaces = [solid for surface in whole if (solid := surface.solid if surface.veils else surface) is not None]
        outlines = [_draw_surface(image, depth, surface, camera, is_stale) for surface in surfaces]
        if quality.scale == 1:
            for surface, (positions, fragments) in zip(surfaces, outlines):
                _smooth_outline(image, depth, surface, positions, fragments)
        _draw_veils(image, depth, whole, camera)
        _check(is_stale)
        for model in models:
            if isinstance(model, Dots):
                draw_dots(image, depth, model, camera, quality.share)
            elif isinstance(model, Lines) and not model.is_on_top:
                draw_lines(image, depth, model, camera)
        _check(is_stale)
        limits = any(not isinstance(model, Splats) for model in models if not (isinstance(model, Lines) and model.is_on_top))
        for splats in models:
            if isinstance(splats, Splats) and len(splats):
                _draw_splats(image, depth, splats, camera, quality, is_stale, limits)
                limits = True  # kinds of Gaussians are composited one after the other
        above = torch.full_like(depth, torch.inf)  # tested among themselves only
        for model in models:
            if isinstance(model, Lines) and model.is_on_top:
                draw_lines(image, above, model, camera)
        return Render(image, depth)


def to_bytes(image: Float[Tensor, "h w 3"]) -> np.ndarray:
    """Converts colors to bytes (H, W, 3)."""
    return (image.clamp(0, 1) * 255).round_().to(torch.uint8).numpy()


def resized_bytes(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes an image of bytes bilinearly."""
    if pixels.shape[:2] == (height, width):
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def scaled_camera(camera: Cameras, scale: float) -> Cameras:
    """The camera for an image of `scale` times the size, at least one pixel."""
    if scale == 1:
        return camera
    size = [max(1, round(float(side) * scale)) for side in (camera.width, camera.height)]
    return camera.resized(*size)


def _draw_surface(
    image: Tensor, depth: Tensor, surface: Surface, camera: Cameras, is_stale: Callable[[], bool]
) -> tuple[Float[Tensor, "1 w 4"], Fragments]:
    """Draws the surface with a depth test; returns its positions and fragments for the outline."""
    _check(is_stale)
    height, width = depth.shape
    positions = screen_positions(surface.corners, camera.viewmats, camera.Ks)
    fragments = rasterize_faces(positions, surface.faces, width, height, near_plane=_NEAR)
    shown = (fragments.face_ids[0] >= 0) & (fragments.depths[0] < depth)
    if bool(shown.any()):
        places = screen_positions(surface.shaded.mesh.vertices, camera.viewmats, camera.Ks)
        style: Literal["smooth", "none"] = "smooth" if surface.is_lit else "none"
        colors, _ = shading.shade(surface.shaded, places, fragments, camera.viewmats, shading=style)
        torch.where(shown[..., None], colors[0], image, out=image)
        torch.where(shown, fragments.depths[0], depth, out=depth)
    return positions, fragments


def _smooth_outline(image: Tensor, depth: Tensor, surface: Surface, positions: Tensor, fragments: Fragments) -> None:
    """Antialiases the outline by blending its pixels with their neighbors, except where something nearer is in front."""
    covered = fragments.face_ids[0] >= 0
    shown = covered & (fragments.depths[0] <= depth)
    near = torch.nn.functional.max_pool2d(shown[None].float(), 3, 1, 1)[0] > 0
    near &= ~(covered & ~shown)
    if bool(shown.any()):
        blended = antialias(image[None], positions, surface.faces, fragments, neighbors=surface.neighbors)[0]
        torch.where(near[..., None], blended, image, out=image)


def _draw_veils(image: Tensor, depth: Tensor, surfaces: Sequence[Surface], camera: Cameras) -> None:
    """Draws the transparent faces over the image; updates depth where they hide more than half."""
    veils = [veil for surface in surfaces for veil in surface.veils]
    if not veils:
        return
    hit, (height, width) = depth.isfinite()[None], depth.shape
    drawn = Layers(image[None], torch.zeros_like(image[None]), torch.zeros_like(depth[None]), depth.where(hit[0], 0)[None])
    style = {"shading": "smooth", "backend": "auto"}
    drawn = drawn.under(veils, hit, camera.viewmats, camera.Ks, (width, height), "pinhole", _NEAR, **style)
    image.copy_(drawn.color[0])
    places = drawn.depth / torch.where(hit, 1, drawn.alpha.clamp(min=1e-10))
    torch.where(drawn.alpha[0] > 0.5, places[0], depth, out=depth)


def _draw_splats(
    image: Tensor, depth: Tensor, splats: Splats, camera: Cameras, quality: Quality, is_stale: Callable[[], bool], limits: bool
) -> None:
    colors, own, alpha = _blend(splats, camera, quality, is_stale, depth if limits else None)
    image.mul_(1 - alpha[..., None]).add_(colors)
    torch.where(alpha > 0.5, own, depth, out=depth)


def _blend(
    splats: Splats, camera: Cameras, quality: Quality, is_stale: Callable[[], bool], limits: Float[Tensor, "h w"] | None
) -> tuple[Float[Tensor, "h w 3"], Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Colors weighted by alpha, expected depth, alpha."""
    width, height = int(camera.width), int(camera.height)
    count = max(1, round(quality.share * len(splats)))
    means, quats, opacities = splats.means[:count], splats.quats[:count], splats.opacities[:count]
    # Each of 1 / k of the Gaussians covers k times the area, so that surfaces stay closed.
    scales = splats.scales[:count] * (len(splats) / count) ** 0.5
    degree = splats.degree if quality.degree is None else min(splats.degree, quality.degree)
    sh = splats.sh if degree else None
    viewmats, Ks = camera.viewmats, camera.Ks
    backend = kernels.resolve("auto", means.device)
    if splats.mode == "2dgs" or backend == "gsplat":
        features = splats.colors[:count] if sh is None else sh[:count]
        out, alpha, *_ = rasterize_2dgs(
            means, quats, scales, opacities, features, viewmats, Ks, width, height, near_plane=_NEAR,
            sh_degree=None if sh is None else degree, render_mode="RGB+ED", max_depths=None if limits is None else limits[None],
        )  # fmt: skip
        return out[0, ..., :3], out[0, ..., 3], alpha[0, ..., 0]
    operations = kernels.kernels(backend)
    cloud = Gaussians(means[None], quats[None], scales[None], None, opacities[None])
    view = Camera(viewmats[None], Ks[None], width, height, "pinhole", _NEAR, _FAR, 0.0)
    (images, gaussians), projected = operations.project(cloud, view, eps2d=0.3, antialiased=splats.antialiased, packed=True)
    _check(is_stale)
    opacity = opacities[gaussians]
    if splats.antialiased:
        opacity = opacity * projected.compensations
    *_, offsets, flatten_ids = operations.intersect(projected, opacity, images, Grid(1, width, height, _TILE)).lists
    _check(is_stale)
    if sh is None:
        colors = splats.colors[gaussians]
    else:
        zeros = torch.zeros_like(gaussians)
        colors = operations.sh_colors(means[None], sh[None, :count], viewmats[None], zeros, zeros, gaussians, degree)
    features = torch.cat([colors, projected.depths[:, None]], -1)
    strips = []
    for first in range(0, offsets.shape[1], _STRIP_ROWS):
        _check(is_stale)
        rows = offsets[:, first : first + _STRIP_ROWS]
        below = offsets[0, first + _STRIP_ROWS :].flatten()
        ids = flatten_ids if not len(below) else flatten_ids[: int(below[0])]
        top = _TILE * first
        bottom = min(height, top + _TILE * _STRIP_ROWS)
        farthest = None if limits is None else limits[None, top:bottom]
        moved = projected._replace(means2d=projected.means2d - features.new_tensor([0.0, top]))
        lists = TileLists(width, bottom - top, _TILE, rows.contiguous(), ids)
        strips.append(operations.blend(moved, features, opacity, lists, Pixels(max_depths=farthest), alpha_max=0.99)[:2])
    out, left = (torch.cat([strip[i][0] for strip in strips]) for i in (0, 1))
    alpha = 1 - left
    return out[..., :3], out[..., 3] / alpha.clamp(min=1e-10), alpha


def _check(is_stale: Callable[[], bool]) -> None:
    if is_stale():
        raise Stale
