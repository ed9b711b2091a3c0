"""Initial view: center, up direction and camera position."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry import paths, se3
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.geometry.mesh import face_areas
from vision3d.geometry.vectors import any_orthogonal, orthogonal_part, unit
from vision3d.render.camera_paths import DEFAULT_FOV_DEG, bulk_of, bulk_of_points
from vision3d.scene import Boxes, Cameras, GaussianScene, Mesh, PointCloud, PosedImages, Selection
from vision3d.scene.upright import axis_vector, up_by_convention

if TYPE_CHECKING:
    from vision3d.viewer.layers import Layer

_ROOM = 1.15  # margin around the framed sphere
_ELEVATION, _AZIMUTH = math.radians(20), math.radians(30)
_LOOSE = {"edge": 0.02, "share": 0.98}  # frames whole shapes except for stray points
_UP_ORDER = ("boxes", "mesh", "points", "gaussians")
"""Kinds whose up axis is that of the world, the first that is shown."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """A sphere in the world that contains most of the content."""

    center: Float[Tensor, "3"]
    """[m]."""
    radius: float
    """[m], > 0."""


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """A viewer's camera with an orbit center."""

    position: Float[Tensor, "3"]
    """[m]."""
    target: Float[Tensor, "3"]
    """The point that it looks at and orbits about [m]."""
    up: Float[Tensor, "3"]
    """Up direction in the image, a unit vector."""
    fov_deg: float = DEFAULT_FOV_DEG
    """Vertical field of view [degrees]."""

    @classmethod
    def of_camera(cls, cameras: Cameras, index: int, bounds: Bounds) -> "Viewpoint":
        """The view of a photo; its pivot is as far away as the center of the scene."""
        pose = cameras.camtoworlds[index]
        depth = float(((bounds.center.to(pose) - pose[:3, 3]) * pose[:3, 2]).sum())
        depth = depth if depth > 0.1 * bounds.radius else bounds.radius
        fov = DEFAULT_FOV_DEG
        if cameras.model == "pinhole":
            fov = math.degrees(2 * math.atan(0.5 * float(cameras.height[index] / cameras.Ks[index, 1, 1])))
        return cls(pose[:3, 3], pose[:3, 3] + depth * pose[:3, 2], -pose[:3, 1], min(fov, 150.0))

    @classmethod
    def framing(cls, bounds: Bounds, up: Float[Tensor, "3"], front: Float[Tensor, "3"] | None = None) -> "Viewpoint":
        """Frames the sphere, slightly from above and from the side of `front`.

        Args:
            bounds: Bounds to frame.
            up: Up direction.
            front: Direction from the center to the front; one perpendicular to `up` when None.
        """
        up = unit(up)
        first = any_orthogonal(up) if front is None else orthogonal_part(front, up)
        second = torch.linalg.cross(up, first)
        across = math.cos(_AZIMUTH) * first + math.sin(_AZIMUTH) * second
        direction = math.cos(_ELEVATION) * across + math.sin(_ELEVATION) * up
        distance = _ROOM * bounds.radius / math.sin(math.radians(DEFAULT_FOV_DEG) / 2)
        return cls(bounds.center + distance * direction, bounds.center, up)

    def camera(self, width: int, height: int) -> Cameras:
        """The same view as a pinhole camera for images of this size [px]."""
        focal = 0.5 * height / math.tan(math.radians(self.fov_deg) / 2)
        pose = look_at(self.position, self.target, self.up)
        return Cameras.from_camtoworlds(pose[None], intrinsics(focal, focal, width / 2, height / 2), width, height)


def bounds_of(parts: Iterable[tuple[Any, Float[Tensor, "4 4"]]]) -> Bounds:
    """Bounding sphere of all values with their transforms; cameras and selections count only if nothing else does."""
    parts = list(parts)
    things = [(value, matrix) for value, matrix in parts if not isinstance(value, Cameras | PosedImages | Selection)]
    balls = [ball for value, matrix in things or parts if (ball := _ball(value, matrix)) is not None]
    if not balls:
        return Bounds(torch.zeros(3), 1.0)
    low = torch.stack([center - radius for center, radius in balls]).amin(0)
    high = torch.stack([center + radius for center, radius in balls]).amax(0)
    middle = (low + high) / 2
    return Bounds(middle, max(float(torch.linalg.vector_norm(center - middle)) + radius for center, radius in balls))


def guess_up(layers: Iterable["Layer"]) -> Float[Tensor, "3"]:
    """Up direction of the cameras; without any, of the first of these kinds: boxes, meshes, points, splats."""
    layers = list(layers)
    poses = [cameras.camtoworlds.cpu() for layer in layers if (cameras := layer.cameras) is not None and len(cameras)]
    if poses:
        return paths.mean_up(torch.cat(poses))
    for kind in _UP_ORDER:
        for layer in layers:
            if layer.kind == kind:
                return up_of_layer(layer)
    return torch.tensor([0.0, 0.0, 1.0])


def up_of_layer(layer: "Layer") -> Float[Tensor, "3"]:
    """Up direction in the world by the convention of the file of a layer (`up_by_convention`)."""
    return unit(layer.transform[:3, :3].cpu() @ axis_vector(up_by_convention(layer.value, layer.source.suffix)))


def differing_ups(layers: Iterable["Layer"]) -> str:
    """A note if layers without cameras have different up axes by convention, since all share one world; else empty."""
    layers = list(layers)
    if any((cameras := layer.cameras) is not None and len(cameras) for layer in layers):
        return ""
    ups = {layer.name: up_of_layer(layer) for layer in layers if layer.kind in _UP_ORDER}
    chosen = guess_up(layers)
    if not any(float(up @ chosen) < 0.99 for up in ups.values()):
        return ""
    listed = ", ".join(f"{name} {_worded(up)}" for name, up in ups.items())
    chosen_up = _worded(chosen)
    return f"up axes differ by the conventions of the files: {listed}; all are shown with {chosen_up} up (--up sets another)"


def _worded(up: Float[Tensor, "3"]) -> str:
    axis = int(up.abs().argmax())
    return f"{'-' if up[axis] < 0 else ''}{'xyz'[axis]}"


def start_viewpoint(layers: Iterable["Layer"], bounds: Bounds, up: Float[Tensor, "3"]) -> Viewpoint:
    """The view of the first camera; without cameras, or if there are only cameras, one that frames the bounds."""
    layers = list(layers)
    has_things = any(layer.kind not in ("cameras", "selection") for layer in layers)
    for layer in layers if has_things else []:
        if (cameras := layer.cameras) is not None and len(cameras):
            return Viewpoint.of_camera(cameras.to("cpu"), 0, bounds)
    return Viewpoint.framing(bounds, up, _front(layers, up))


def _front(layers: list["Layer"], up: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
    """Direction of the front: glTF objects face +z, COLMAP worlds are seen along +z, LiDAR sensors face +x."""
    y, z = float(up[1]), float(up[2])
    if abs(z) > abs(y):
        is_lidar = any(layer.kind == "boxes" or layer.source.suffix == ".bin" for layer in layers)
        front = (-1.0, 0.0, 0.0) if is_lidar else (0.0, -1.0, 0.0)
    else:
        front = (0.0, 0.0, 1.0 if y > 0 else -1.0)
    direction = torch.tensor(front).to(up)
    return any_orthogonal(unit(up)) if float((direction * unit(up)).sum().abs()) > 0.99 else direction


def _ball(value: Any, matrix: Float[Tensor, "4 4"]) -> tuple[Float[Tensor, "3"], float] | None:
    """Center and radius of one value in the world, or None if it is empty."""
    if isinstance(value, GaussianScene):
        center, radius = bulk_of(value)
    elif isinstance(value, PosedImages | Cameras):
        cameras = value.cameras if isinstance(value, PosedImages) else value
        if not len(cameras):
            return None
        center, radius = bulk_of_points(cameras.centers, torch.ones(len(cameras)), share=1.0)
    elif isinstance(value, Selection):
        solid = [region for region in value.regions if region.kind != "plane"]
        if not solid:
            return None
        sizes = [region.size[:1] if region.kind == "sphere" else region.size for region in solid]
        balls = [(region.center, float(torch.linalg.vector_norm(size))) for region, size in zip(solid, sizes)]
        center = torch.stack([middle for middle, _ in balls]).mean(0)
        radius = max(float(torch.linalg.vector_norm(middle - center)) + size for middle, size in balls)
    else:
        points, weights = _points_of(value)
        if not len(points):
            return None
        center, radius = bulk_of_points(points, weights, **_LOOSE)
    scale = float(torch.linalg.det(matrix[:3, :3].double()).abs() ** (1 / 3))
    center = se3.transform_points(matrix.to(center), center[None])[0]
    return center.detach().to("cpu", torch.float32), max(scale * radius, 1e-12)


def _points_of(value: Mesh | PointCloud | Boxes) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    if isinstance(value, PointCloud):
        return value.points.detach(), torch.ones_like(value.points[:, 0])
    if isinstance(value, Boxes):
        corners = value.corners.reshape(-1, 3)
        return corners, torch.ones_like(corners[:, 0])
    areas = face_areas(value.vertices.detach(), value.faces)
    return value.vertices.detach()[value.faces].reshape(-1, 3), areas.clamp(min=1e-30).repeat_interleave(3)
