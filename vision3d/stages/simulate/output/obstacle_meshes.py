"""Obstacles as meshes, for images."""

import functools
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry import shapes
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.scene import Mesh
from vision3d.stages.simulate.config import Boundary
from vision3d.stages.simulate.scene.colliders import FLOOR, SCENE
from vision3d.stages.simulate.setup.prepared import Setup
from vision3d.stages.simulate.world.boundaries import center_at, is_there
from vision3d.stages.simulate.world.fields import load_mesh
from vision3d.stages.simulate.world.world import rotation_by

_COLOR = (0.62, 0.66, 0.72)
_TILES = (0.78, 0.80, 0.83), (0.86, 0.87, 0.89)
_NUM_TILES = 16


def obstacle_meshes(setup: Setup, time: float) -> list[Mesh]:
    """Meshes of obstacles at a time, in the scene; containers and visible parts of the scene are omitted."""
    found = []
    parts = tuple(solid.name for solid in setup.animated)
    last = setup.num_boundaries - 1
    for index, boundary in enumerate(setup.world.boundaries):
        is_seen = index == last and boundary.shape == "plane" and setup.floor_point is None
        is_seen = is_seen or boundary.mesh in (FLOOR, SCENE) or (bool(parts) and boundary.mesh.startswith(parts))
        if not is_there(boundary, time) or boundary.hollow or is_seen:
            continue
        vertices, faces, colors = _shape(boundary, setup)
        turn = rotation_by(boundary.angular_velocity, time - boundary.start)
        if boundary.shape in ("box", "mesh"):
            turn = turn @ quat_to_rotmat(torch.tensor(boundary.quat, dtype=torch.float64))
        placed = vertices @ turn.mT + torch.tensor(center_at(boundary, time), dtype=torch.float64)
        found.append(Mesh(setup.to_scene(placed).float(), faces, vertex_colors=colors))
    for solid in setup.animated:
        mesh = solid.at(time)
        is_plain = mesh.vertex_colors is None and mesh.texture is None
        found.append(replace(mesh, vertex_colors=torch.tensor(_COLOR).repeat(mesh.num_vertices, 1)) if is_plain else mesh)
    return found


def _shape(boundary: Boundary, setup: Setup) -> tuple[Tensor, Tensor, Float[Tensor, "v 3"]]:
    """Shape in the obstacle's own frame [m]."""
    if boundary.shape == "plane":
        return _tiles(boundary, setup)
    if boundary.shape == "sphere":
        vertices, faces = shapes.icosphere(4, boundary.radius, torch.float64)
    elif boundary.shape == "box":
        x, y, z = (2 * length for length in boundary.half_size)
        vertices, faces = shapes.box((x, y, z), dtype=torch.float64)
    else:
        mesh = _loaded(boundary.mesh)
        vertices, faces = mesh.vertices.double() * setup.scale, mesh.faces
        if mesh.vertex_colors is not None:
            return vertices, faces, mesh.vertex_colors[:, :3]
    return vertices, faces, torch.tensor(_COLOR).repeat(len(vertices), 1)


def _tiles(boundary: Boundary, setup: Setup) -> tuple[Tensor, Tensor, Tensor]:
    """A chequered square under the moving objects."""
    low, high = (corner.double() for corner in setup.world.grid.bounds(setup.particles.x))
    side = 1.2 * float((high - low).max())
    points, faces = shapes.plane((side, side), _NUM_TILES, _NUM_TILES, dtype=torch.float64)
    tile = torch.arange(len(faces)) // 2
    dark = (tile // _NUM_TILES + tile % _NUM_TILES) % 2
    vertices = points[faces].flatten(0, 1)  # separate corners, so that colors do not blend between tiles
    colors = torch.tensor(_TILES)[dark].repeat_interleave(3, 0)
    normal = torch.nn.functional.normalize(torch.tensor(boundary.normal, dtype=torch.float64), dim=0)
    helper = torch.eye(3, dtype=torch.float64)[int(normal.abs().argmin())]
    first = torch.nn.functional.normalize(torch.linalg.cross(helper, normal), dim=0)
    frame = torch.stack([first, torch.linalg.cross(normal, first), normal], -1)
    middle = setup.particles.center.double() - torch.tensor(boundary.center, dtype=torch.float64)
    return vertices @ frame.mT + middle - (middle @ normal) * normal, torch.arange(len(vertices)).view(-1, 3), colors


@functools.lru_cache(maxsize=8)
def _loaded(path: str) -> Mesh:
    return load_mesh(path)
