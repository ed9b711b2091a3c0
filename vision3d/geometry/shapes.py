"""Simple triangle meshes; closed ones have outward faces: (vertices (V, 3), faces (F, 3) int64)."""

import math

import torch
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.mesh import unique_edges, weld_vertices

Mesh = tuple[Tensor, Tensor]


def icosphere(subdivisions: int = 3, radius: float = 1.0, dtype: torch.dtype = torch.float32) -> Mesh:
    """A sphere of 20 * 4^subdivisions nearly equal faces, its vertices on the sphere."""
    if subdivisions < 0:
        raise InputError(f"subdivisions: got {subdivisions}, want 0 or more")
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0.0, s, t * golden) for s in (-1, 1) for t in (-1, 1)]
    points = [corner[-k:] + corner[:-k] for k in range(3) for corner in corners]
    vertices = torch.tensor(points, dtype=torch.float64)
    # The faces are the triples at mutual distance 2, oriented outwards.
    is_near = (torch.cdist(vertices, vertices) - 2).abs() < 1e-6
    triples = torch.combinations(torch.arange(12), 3)
    faces = triples[is_near[triples, triples.roll(1, 1)].all(1)]
    is_inward = torch.linalg.det(vertices[faces]) < 0
    faces = torch.where(is_inward[:, None], faces.flip(1), faces)
    for _ in range(subdivisions):
        edges, face_edges = unique_edges(faces)
        a, b, c = faces.T
        ab, bc, ca = (face_edges + len(vertices)).T
        vertices = torch.cat([vertices, vertices[edges].mean(1)])
        vertices = vertices / vertices.norm(dim=-1, keepdim=True)
        quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        faces = torch.stack([torch.stack(corner, -1) for corner in quarters], 1).flatten(0, 1)
    return (radius * vertices / vertices.norm(dim=-1, keepdim=True)).to(dtype), faces


def torus(
    major: float = 1.0, minor: float = 0.25, around: int = 48, across: int = 24, dtype: torch.dtype = torch.float32
) -> Mesh:
    """A ring about the z axis: a tube of radius `minor` whose center line has radius `major`."""
    _check_counts(around=(around, 3), across=(across, 3))
    u = torch.arange(around, dtype=torch.float64)[:, None] * (2 * math.pi / around)
    v = torch.arange(across, dtype=torch.float64)[None] * (2 * math.pi / across)
    distance = major + minor * v.cos()
    vertices = torch.stack([distance * u.cos(), distance * u.sin(), (minor * v.sin()).expand(around, across)], -1)
    return vertices.flatten(0, 1).to(dtype), _grid_faces(around, across, wrap_rows=True, wrap_columns=True)


def box(size: tuple[float, float, float] = (1.0, 1.0, 1.0), divisions: int = 1, dtype: torch.dtype = torch.float32) -> Mesh:
    """A box centered at the origin, 2 * divisions^2 faces per side."""
    _check_counts(divisions=(divisions, 1))
    side, side_faces = plane((1.0, 1.0), divisions, divisions, dtype=torch.float64)
    side = side + torch.tensor([0.0, 0.0, 0.5])
    flipped = side * torch.tensor([1.0, -1.0, -1.0])
    vertices = torch.cat([points.roll(k, 1) for k in range(3) for points in (side, flipped)])
    faces = torch.cat([side_faces + i * len(side) for i in range(6)])
    vertices, faces, _ = weld_vertices(vertices, faces, 1e-9)
    return (vertices * torch.tensor(size, dtype=torch.float64)).to(dtype), faces


def cylinder(
    radius: float = 0.5, height: float = 1.0, segments: int = 32, caps: bool = True, dtype: torch.dtype = torch.float32
) -> Mesh:
    """A cylinder about the z axis, centered at the origin; open at both ends without `caps`."""
    _check_counts(segments=(segments, 3))
    angle = torch.arange(segments, dtype=torch.float64) * (2 * math.pi / segments)
    ring = torch.stack([radius * angle.cos(), radius * angle.sin(), torch.full_like(angle, -height / 2)], -1)
    vertices = torch.stack([ring, ring * torch.tensor([1.0, 1.0, -1.0])], 1).flatten(0, 1)
    faces = _grid_faces(segments, 2, wrap_rows=True, wrap_columns=False)
    if caps:
        ends = torch.tensor([[0.0, 0.0, -height / 2], [0.0, 0.0, height / 2]], dtype=torch.float64)
        low = 2 * torch.arange(segments)
        following = low.roll(-1)
        bottom = torch.stack([torch.full_like(low, len(vertices)), following, low], -1)
        top = torch.stack([torch.full_like(low, len(vertices) + 1), low + 1, following + 1], -1)
        vertices, faces = torch.cat([vertices, ends]), torch.cat([faces, bottom, top])
    return vertices.to(dtype), faces


def plane(size: tuple[float, float] = (1.0, 1.0), columns: int = 1, rows: int = 1, dtype: torch.dtype = torch.float32) -> Mesh:
    """A rectangle in the plane z = 0 centered at the origin, facing +z, of columns x rows cells along x and y."""
    _check_counts(columns=(columns, 1), rows=(rows, 1))
    x = torch.linspace(-0.5, 0.5, columns + 1, dtype=torch.float64) * size[0]
    y = torch.linspace(-0.5, 0.5, rows + 1, dtype=torch.float64) * size[1]
    grid = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1).flatten(0, 1)
    vertices = torch.nn.functional.pad(grid, (0, 1))
    return vertices.to(dtype), _grid_faces(columns + 1, rows + 1, wrap_rows=False, wrap_columns=False)


def _grid_faces(rows: int, columns: int, wrap_rows: bool, wrap_columns: bool) -> Tensor:
    # Two faces per cell, counter-clockwise when rows run along x and columns along y.
    index = torch.arange(rows * columns).view(rows, columns)
    down, right = index.roll(-1, 0), index.roll(-1, 1)
    diagonal = down.roll(-1, 1)
    cells = torch.stack([index, down, diagonal, index, diagonal, right], -1)
    cells = cells[: rows if wrap_rows else rows - 1, : columns if wrap_columns else columns - 1]
    return cells.reshape(-1, 3)


def _check_counts(**counts: tuple[int, int]) -> None:
    for name, (count, least) in counts.items():
        if count < least:
            raise InputError(f"{name}: got {count}, want {least} or more")
