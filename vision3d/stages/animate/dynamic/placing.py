"""Placement of an unknown camera: as in DreamMesh4D, moved so that the mesh fills the mask."""

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.scene import Cameras, Mesh
from vision3d.stages.animate.dynamic.config import CameraConfig
from vision3d.stages.animate.orbits import AXES

_ROUNDS = 20
_START, _NEAREST = 3.8, 1.2  # distances, relative to half of the longest side


def place_camera(config: CameraConfig, mesh: Mesh, mask: Bool[Tensor, "h w"]) -> Cameras:
    """The camera from which the rest mesh covers the box of the mask, found by adjusting its distance and look-at point.

    Args:
        config: Viewing direction and field of view.
        mesh: Rest pose.
        mask: Mask of the reference frame.

    Raises:
        InputError: The mask is empty.
    """
    if not bool(mask.any()):
        raise InputError("mask: is empty; want the object in the reference frame")
    height, width = mask.shape
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    low = torch.tensor([float(columns[0]), float(rows[0])])
    high = torch.tensor([float(columns[-1]) + 1, float(rows[-1]) + 1])
    vertices = mesh.vertices.detach().float().cpu()
    up, front = (torch.tensor(axis) for axis in AXES[config.up])
    side = torch.linalg.cross(up, front)
    azimuth, elevation = math.radians(config.azimuth), math.radians(config.elevation)
    away = math.cos(elevation) * (math.cos(azimuth) * front + math.sin(azimuth) * side) + math.sin(elevation) * up
    radius = float((vertices.amax(0) - vertices.amin(0)).max()) / 2
    center, distance = (vertices.amax(0) + vertices.amin(0)) / 2, _START * radius
    focal = 0.5 * height / math.tan(math.radians(config.fovy) / 2)
    K = intrinsics(focal, focal, width / 2, height / 2).float()
    for _ in range(_ROUNDS):
        pose = look_at(center + distance * away, center, up)
        camera = Cameras.from_camtoworlds(pose[None], K, width, height)
        points = vertices @ camera.viewmats[0, :3, :3].mT + camera.viewmats[0, :3, 3]
        seen = focal * points[:, :2] / points[:, 2:].clamp(min=1e-6 * radius) + torch.tensor([width / 2, height / 2])
        first, last = seen.amin(0), seen.amax(0)
        # A single scale for both axes: the shapes of the mask and the mesh may differ.
        ratio = float((high - low).prod().sqrt() / (last - first).prod().clamp(min=1e-6).sqrt())
        offset = (first + last - low - high) / 2 * distance / focal
        center = center + pose[:3, 0] * offset[0] + pose[:3, 1] * offset[1]
        distance = max(distance / ratio, _NEAREST * radius)
    pose = look_at(center + distance * away, center, up)
    return Cameras.from_camtoworlds(pose[None], K, width, height).to(mesh.device)
