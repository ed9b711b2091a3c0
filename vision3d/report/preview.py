"""Thumbnails of scene types for notebooks."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import Vision3DError
from vision3d.geometry import shapes
from vision3d.geometry.vectors import any_orthogonal
from vision3d.render import path_cameras, render_scene
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
    Selection,
    SkinnedMesh,
)  # fmt: skip
from vision3d.scene.checks import html_image
from vision3d.scene.lines import bone_lines, box_lines, frustum_depth, frustum_lines, region_lines

Part = GaussianScene | Mesh | MeshGaussians

SIZE = (240, 180)
MAX = 3_000_000  # Gaussians or faces; more would block a notebook
_POINTS = 50_000


def preview(value: object) -> str:
    """One view of a scene type as an HTML element; empty if it is empty, too large, or has non-finite values."""
    try:
        with torch.no_grad():
            parts = _parts(value)
            if not parts or sum(len(part.faces) if isinstance(part, Mesh) else part.num_gaussians for part in parts) > MAX:
                return ""
            for part in parts:
                part.validate()
            cameras = path_cameras(parts, "orbit", num=1, size=SIZE).to(parts[0].device)
            view = next(render_scene(parts, cameras, backgrounds=(1.0, 1.0, 1.0)))
    except Vision3DError:
        return ""
    return "" if view.image is None else html_image(view.image)


def _parts(value: object) -> list[Part]:
    """What to render for a value, moving ones in the middle of their time; nothing for empty ones."""
    if isinstance(value, Scene):
        return [part for item in value.objects.values() for part in _parts(item)]
    if isinstance(value, FrameSequence):
        return _parts(value.at(sum(value.span) / 2)) if len(value) else []
    if isinstance(value, SkinnedMesh):
        return _parts(value.at(sum(value.span) / 2) if value.clips else value.at_rest())
    if isinstance(value, GaussianScene | MeshGaussians):
        return [value] if value.num_gaussians else []
    if isinstance(value, Mesh):
        return [value] if value.num_faces else []
    if isinstance(value, PointCloud):
        return [_gaussians(value)] if len(value) else []
    lines = _lines(value)
    return [_sticks(lines)] if len(lines) else []


def _gaussians(cloud: PointCloud) -> GaussianScene:
    """Some of the points, colored by height if they have no colors."""
    cloud = cloud[:: -(-len(cloud) // _POINTS)]
    colors = cloud.colors
    if colors is None:
        height = cloud.points[:, 2] - cloud.points[:, 2].min()
        colors = (height / height.max().clamp(min=1e-9))[:, None] * height.new_tensor([0.6, 0.3, -0.4]) + 0.4
    return GaussianScene.from_points(cloud.points, colors, opacity=0.9)


def _lines(value: object) -> Float[Tensor, "n 2 3"]:
    """Line segments of objects without surfaces."""
    if isinstance(value, Cameras) and len(value):
        radius = float((value.centers - value.centers.mean(0)).norm(dim=-1).max()) or 1.0
        return frustum_lines(value, frustum_depth(value, 2 * radius)).flatten(0, 1)
    if isinstance(value, Boxes):
        return box_lines(value).flatten(0, 1)
    if isinstance(value, Motion) and len(value):
        return bone_lines(value.positions()[len(value) // 2], value.skeleton.parents)[0]
    if isinstance(value, Selection) and value.regions:
        return torch.cat([region_lines(region) for region in value.regions])
    return torch.zeros(0, 2, 3)


def _sticks(lines: Float[Tensor, "n 2 3"]) -> Mesh:
    """Square prisms along line segments, with a width of 0.6 % of their extent."""
    along = lines[:, 1] - lines[:, 0]
    lengths = torch.linalg.vector_norm(along, dim=-1, keepdim=True)
    z = along / lengths.clamp(min=1e-30)
    x = any_orthogonal(z)
    ends = lines.flatten(0, 1)
    width = torch.full_like(lengths, 0.006 * float(torch.linalg.vector_norm(ends.amax(0) - ends.amin(0))))
    axes = torch.stack([x * width, torch.linalg.cross(z, x) * width, z * lengths], 1)
    vertices, faces = shapes.box()
    placed = vertices.to(lines) @ axes + lines.mean(1)[:, None]
    shifted = faces.to(lines.device) + len(vertices) * torch.arange(len(lines), device=lines.device)[:, None, None]
    return Mesh(placed.flatten(0, 1), shifted.flatten(0, 1))
