"""Compares meshes drawn by the rasterizer with ray casting of other libraries, and classifies differing pixels."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vision3d import Mesh
from vision3d.geometry import se3
from vision3d.geometry.cameras import intrinsics, look_at, pixel_grid
from vision3d.render.meshes import rasterize, screen_positions

EDGE_PX = 1e-3  # pixel centers closer to an edge may belong to either face
TIE = 1e-5  # relative depth difference below which two surfaces coincide


@dataclass(frozen=True)
class Drawn:
    """One view of a mesh in float64: the faces of the pixels, and the ray of each with depth as its parameter."""

    positions: Tensor
    faces: Tensor
    face_ids: Tensor
    depths: Tensor
    origins: Tensor
    directions: Tensor


def draw_view(mesh: Mesh, index: int, size: int) -> Drawn:
    """View `index` of a spiral around a mesh, `size` pixels wide and high."""
    low, high = mesh.vertices.amin(0).double(), mesh.vertices.amax(0).double()
    center, radius = (low + high) / 2, float((high - low).norm() / 2)
    turn, rise = 2.4 * index, 0.9 * math.sin(1.7 * index)
    away = torch.tensor([math.cos(turn) * math.cos(rise), math.sin(rise), math.sin(turn) * math.cos(rise)]).double()
    pose = look_at(center + 3 * radius * away, center, torch.tensor([0.0, 1.0, 0.0]).double())
    K = intrinsics(1.4 * size, 1.4 * size, size / 2 + 0.37, size / 2 - 0.21).double()
    positions = screen_positions(mesh.vertices.double(), se3.inverse(pose)[None], K[None])
    fragments = rasterize(positions, mesh.faces, size, size)
    pixels = pixel_grid(size, size, torch.float64)
    plane = torch.cat([(pixels - K[:2, 2]) / K[[0, 1], [0, 1]], torch.ones(size, size, 1).double()], -1)
    directions = plane @ pose[:3, :3].mT
    origins = pose[:3, 3].expand_as(directions)
    return Drawn(positions[0], mesh.faces, fragments.face_ids[0].long(), fragments.depths[0], origins, directions)


@dataclass
class Agreement:
    """Pixel counts by kind of agreement."""

    pixels: int = 0
    seen: int = 0
    """Pixels that show a face."""
    differ: int = 0
    edges: int = 0
    """Differing pixels at an edge of one of the two faces, within `EDGE_PX`."""
    ties: int = 0
    """Differing pixels with surfaces at the same depth, within `TIE`."""
    depth_error: float = 0.0
    """Maximum relative depth error where both show the same face."""

    @property
    def share(self) -> float:
        """Fraction of the pixels with the same face."""
        return 1 - self.differ / self.pixels

    def add(self, drawn: Drawn, face_ids: Tensor, depths: Tensor) -> None:
        """Counts the pixels of an image (or some of its pixels) from the other program."""
        same = drawn.face_ids == face_ids
        hit = same & (face_ids >= 0)
        self.pixels += same.numel()
        self.seen += int((drawn.face_ids >= 0).sum())
        self.differ += int((~same).sum())
        error = ((depths[hit] - drawn.depths[hit]) / drawn.depths[hit]).abs()
        self.depth_error = max([self.depth_error, *error.tolist()])
        for y, x in (~same).nonzero().tolist():
            places = [_place(drawn, int(ids[y, x]), x + 0.5, y + 0.5) for ids in (drawn.face_ids, face_ids) if ids[y, x] >= 0]
            if min(distance for distance, _ in places) < EDGE_PX:
                self.edges += 1
            elif len(places) == 2 and abs(places[0][1] / places[1][1] - 1) < TIE:
                self.ties += 1


def _place(drawn: Drawn, face: int, x: float, y: float) -> tuple[float, float]:
    """Distance of a pixel center from the nearest edge of a face [px], and the depth of the face's plane there."""
    corners = drawn.positions[drawn.faces[face]]
    pixels = corners[:, :2] / corners[:, 3:]
    point = torch.tensor([x, y], dtype=torch.float64)
    from_, to = pixels.roll(-1, 0), pixels.roll(-2, 0)
    along, off = to - from_, point - from_
    distances = (along[:, 0] * off[:, 1] - along[:, 1] * off[:, 0]).abs() / along.norm(dim=1)
    weights = torch.linalg.solve((corners[:, [0, 1, 3]] / corners[:, 3:]).T, torch.tensor([x, y, 1.0]).double())
    return float(distances.min()), 1 / float((weights / corners[:, 3]).sum())
