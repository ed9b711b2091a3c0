"""Thumbnails of scene types for notebooks."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import Vision3DError
from vision3d.geometry import shapes
from vision3d.render import path_cameras, render_scene
from vision3d.render.composite import Drawable
from vision3d.scene import (
    Boxes,
    Cameras,
    FrameSequence,
    GaussianScene,
    Mesh,
    MeshGaussians,
    Motion,
    PointCloud,
    Scene,
    SkinnedMesh,
)
from vision3d.scene.checks import html_image

SIZE = (240, 180)
MAX = 3_000_000  # Gaussians or faces; more would block a notebook
_POINTS = 50_000
_BOX_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))


def preview(value: object) -> str:
    """One view of a scene type as an HTML element; empty if it is empty, too large, or has non-finite values."""
    try:
        with torch.no_grad():
            parts = _drawables(value)
            if not parts or sum(map(_size, parts)) > MAX:
                return ""
            for part in parts:
                part.validate()
            cameras = path_cameras(parts, "orbit", num=1, size=SIZE).to(parts[0].device)
            view = next(render_scene(parts, cameras, backgrounds=(1.0, 1.0, 1.0)))
    except (Vision3DError, ValueError, IndexError):
        return ""
    return "" if view.image is None else html_image(view.image)


def _drawables(value: object) -> list[Drawable]:
    """What to render for a value; moving ones in the middle of their time."""
    if isinstance(value, Scene):
        return [part for item in value.objects.values() for part in _drawables(item)]
    if isinstance(value, FrameSequence):
        return _drawables(value.at(sum(value.span) / 2)) if len(value) else []
    if isinstance(value, SkinnedMesh):
        return [value.at(sum(value.span) / 2) if value.clips else value.at_rest()]
    if isinstance(value, GaussianScene | MeshGaussians):
        return [value] if value.num_gaussians else []
    if isinstance(value, Mesh):
        return [value] if value.num_faces else []
    if isinstance(value, PointCloud):
        return _points(value)
    lines = _lines(value)
    return [] if lines is None or not len(lines) else [_sticks(lines)]


def _size(part: Drawable) -> int:
    return part.num_faces if isinstance(part, Mesh) else part.num_gaussians if not isinstance(part, SkinnedMesh) else 0


def _points(cloud: PointCloud) -> list[Drawable]:
    step = -(-len(cloud) // _POINTS) or 1
    points, colors = cloud.points[::step], cloud.colors
    if not len(points):
        return []
    if colors is None:
        height = points[:, 2] - points[:, 2].min()
        colors = (height / height.max().clamp(min=1e-9))[:, None] * points.new_tensor([0.6, 0.3, -0.4]) + 0.4
    else:
        colors = colors[::step]
    return [GaussianScene.from_points(points, colors, opacity=0.9)]


def _lines(value: object) -> Float[Tensor, "l 2 3"] | None:
    """Line segments of cameras, boxes and motions."""
    if isinstance(value, Cameras):
        return _frusta(value)
    if isinstance(value, Boxes):
        return value.corners[:, torch.tensor(_BOX_EDGES)].flatten(0, 1)
    if isinstance(value, Motion):
        positions = value.positions()[len(value) // 2]
        bones = [(parent, joint) for joint, parent in enumerate(value.skeleton.parents) if parent >= 0]
        return positions[torch.tensor(bones, dtype=torch.int64).reshape(-1, 2)]
    return None


def _frusta(cameras: Cameras) -> Float[Tensor, "l 2 3"]:
    """Pyramids whose length is a tenth of the extent of the cameras."""
    extent = float((cameras.centers.amax(0) - cameras.centers.amin(0)).norm()) or 1.0
    size = torch.stack([cameras.width, cameras.height], -1).to(cameras.Ks)
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]).to(cameras.Ks) * size[:, None]
    focal, center = cameras.Ks[:, None, [0, 1], [0, 1]], cameras.Ks[:, None, :2, 2]
    rays = torch.nn.functional.pad((corners - center) / focal, (0, 1), value=1.0) * 0.1 * extent
    matrices = cameras.camtoworlds
    ends = rays @ matrices[:, :3, :3].mT + matrices[:, None, :3, 3]
    starts = cameras.centers[:, None].expand_as(ends)
    return torch.cat([torch.stack([starts, ends], 2), torch.stack([ends, ends.roll(-1, 1)], 2)], 1).flatten(0, 1)


def _sticks(lines: Float[Tensor, "l 2 3"]) -> Mesh:
    """Square prisms along line segments, with a width of 0.6 % of their extent."""
    lines = lines.float()
    extent = float((lines.flatten(0, 1).amax(0) - lines.flatten(0, 1).amin(0)).norm())
    along = lines[:, 1] - lines[:, 0]
    length = along.norm(dim=-1, keepdim=True)
    lines, along, length = lines[length[:, 0] > 0], along[length[:, 0] > 0], length[length[:, 0] > 0]
    vertices, faces = shapes.box()
    scale = torch.cat([torch.full_like(length, 0.006 * extent), torch.full_like(length, 0.006 * extent), length], -1)
    z = along / length
    x = torch.linalg.cross(z, torch.nn.functional.one_hot(z.abs().argmin(-1), 3).to(z))
    x = x / x.norm(dim=-1, keepdim=True)
    rotations = torch.stack([x, torch.linalg.cross(z, x), z], -1)
    placed = (vertices.to(along) * scale[:, None]) @ rotations.mT + lines.mean(1)[:, None]
    shifted = faces.to(along.device) + len(vertices) * torch.arange(len(along), device=along.device)[:, None, None]
    return Mesh(placed.flatten(0, 1), shifted.flatten(0, 1))
