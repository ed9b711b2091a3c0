"""Obstacles from the scene itself: the visible part of a floor, and everything static, as signed distances."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.mesh import drop_unused_vertices
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.geometry.vectors import unit
from vision3d.scene import Mesh
from vision3d.stages.simulate.config import SimulateConfig
from vision3d.stages.simulate.scene.bodies import without_floaters
from vision3d.stages.simulate.scene.filling import Surface, occupied_space
from vision3d.stages.simulate.scene.mesh_floors import closed_faces, floor_faces
from vision3d.stages.simulate.scene.representations import FDrive, MeshVertices, Representation
from vision3d.stages.simulate.scene.upright import Floor
from vision3d.stages.simulate.world.fields import load_mesh, mesh_field
from vision3d.stages.simulate.world.particles import Grid
from vision3d.stages.simulate.world.world import DistanceField

logger = logging.getLogger("vision3d.physics")

FLOOR, SCENE = "the detected floor", "the scene"
"""Names of their fields among those of meshes."""
_REACH = 2.0  # extent of a floor's splats in standard deviations
_MAX_NODES = 384  # maximum nodes along the longest side of a floor
_THICKNESS = 4  # cells
_CLOSING = 3  # cells of a footprint within which a gap between its Gaussians is closed


def floor_frame(normal: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    """Axes of a floor as columns, the last one its normal."""
    helper = torch.eye(3, dtype=torch.float64)[int(normal.abs().argmin())]
    first = unit(torch.linalg.cross(helper, normal))
    return torch.stack([first, torch.linalg.cross(normal, first), normal], -1)


def floor_field(
    surface: Surface,
    frame: Float[Tensor, "3 3"],
    foot: Float[Tensor, " 3"],
    spacing: float,
    space: tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]],
) -> DistanceField | None:
    """Signed distances of a slab with the footprint of a floor's splats, its top at height 0 of the frame; None: no footprint.

    Holes are closed, since objects on a floor occlude it.

    Args:
        surface: The splats of the floor [m].
        frame: Axes of the slab as columns, up last.
        foot: Origin of the slab's frame [m], a point at the height of its top.
        spacing: Spacing of the grid [m].
        space: Lower and upper corner of the relevant space [m].
    """
    from scipy import ndimage

    if not len(surface.means):  # everything at the height of the floor is moving
        return None
    corners = torch.cartesian_prod(*torch.stack(space).double().T)
    corners = (corners - foot) @ frame[:, :2]
    reach = _REACH * surface.scales.double().amax(-1)
    flat = (surface.means.double() - foot) @ frame[:, :2]
    low = torch.maximum(corners.amin(0), (flat - reach[:, None]).amin(0))
    high = torch.minimum(corners.amax(0), (flat + reach[:, None]).amax(0))
    if not bool((low < high).all()):
        return None
    border = _CLOSING + 3  # cells without a floor around it
    step = max(spacing, float((high - low).max()) / (_MAX_NODES - 2 * border - 2))
    low = low - (border + 0.5) * step
    counts = (((high - low) / step).floor().long() + border + 2).tolist()
    mask = np.zeros(counts, bool)
    for points in _spread(surface, frame, flat, step):
        cells = ((points - low) / step).floor().long()
        inside = ((cells >= border) & (cells < torch.tensor(counts) - border)).all(-1)
        mask[cells[inside, 0].numpy(), cells[inside, 1].numpy()] = True
    disc: Any = ndimage.generate_binary_structure(2, 1)
    mask = ndimage.binary_fill_holes(ndimage.binary_closing(mask, disc, iterations=_CLOSING))
    found: Any = ndimage.label(mask)
    labels, count = found
    if not count:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    mask = np.isin(labels, 1 + np.flatnonzero(sizes >= 0.01 * sizes.sum()))  # without small objects at its height
    across = torch.from_numpy(_signed(mask, step))
    thickness = _THICKNESS * step
    heights = torch.arange(_THICKNESS + 5, dtype=torch.float64) * step - thickness - 2 * step
    beyond = (heights + thickness / 2).abs() - thickness / 2
    a, b = torch.broadcast_tensors(across[:, :, None], beyond)
    values = torch.hypot(a.clamp(min=0), b.clamp(min=0)) + torch.maximum(a, b).clamp(max=0)
    x, y = (low + 0.5 * step).tolist()
    return DistanceField(values, (x, y, float(heights[0])), step)


def _spread(
    surface: Surface, frame: Float[Tensor, "3 3"], flat: Float[Tensor, "n 2"], step: float
) -> Iterator[Float[Tensor, "m 2"]]:
    """Points of splats along a floor, out to two standard deviations and at most two cells apart, for any splat size."""
    axes = quat_to_rotmat(surface.quats.double()) * surface.scales.double()[:, None]
    order = surface.scales.argsort(-1, descending=True)[:, None, :2].expand(-1, 3, -1)
    across = (axes.gather(-1, order).mT @ frame[:, :2]).mT  # the two longest axes, seen from above
    wanted = 2 * _REACH * torch.linalg.vector_norm(across, dim=1).amax(-1) / (2 * step)
    count, done = 1, 0.0
    while done < 1 << 10:
        last = count >= 1 << 8
        rows = ((wanted > done) & ((wanted <= count) | last)).nonzero()[:, 0] if done else (wanted <= 1).nonzero()[:, 0]
        line = ((torch.arange(count, dtype=torch.float64) + 0.5) / count * 2 - 1) * _REACH
        places = torch.cartesian_prod(line, line)
        places = places[places.norm(dim=-1) <= _REACH]
        for some in rows.split(max(1, 2_000_000 // len(places))):
            yield (flat[some, None] + places @ across[some].mT).flatten(0, 1)
        if last:
            return
        done, count = float(count), 2 * count


def scene_field(
    surface: Surface, moving: Float[Tensor, "m 3"], grid: Grid, spacing: float
) -> tuple[DistanceField, float] | None:
    """Signed distances of what static splats cover or enclose, except where something is moving; None if it is empty.

    Also the solid volume [m^3].
    """
    from scipy import ndimage

    low, high = (corner.double() for corner in grid.bounds(surface.means))
    near = ((surface.means >= low - spacing) & (surface.means <= high + spacing)).all(-1)
    if not bool(near.any()):
        return None
    solid, origin, step = occupied_space(surface.rows(near), spacing)
    cells = ((moving - origin) / step).floor().long()
    cells = cells[((cells >= 0) & (cells < torch.tensor(solid.shape))).all(-1)].numpy()
    taken = np.zeros(solid.shape, bool)
    taken[cells[:, 0], cells[:, 1], cells[:, 2]] = True
    solid = solid & np.logical_not(ndimage.binary_dilation(taken, iterations=1))
    if not solid.any():
        return None
    values = ndimage.gaussian_filter(_signed(solid, step), 1.0, mode="nearest")
    x, y, z = (origin + 0.5 * step).tolist()
    return DistanceField(torch.from_numpy(values), (x, y, z), step), float(solid.sum()) * step**3


def _signed(mask: np.ndarray, step: float) -> np.ndarray:
    """Distances of cell centers from the border of a mask, negative inside."""
    from scipy import ndimage

    if mask.all():
        return np.full(mask.shape, -step * max(mask.shape))
    outside: Any = ndimage.distance_transform_edt(~mask)
    inside: Any = ndimage.distance_transform_edt(mask)
    return step * (np.maximum(outside - 0.5, 0) - np.maximum(inside - 0.5, 0))


def seen_floor(
    config: SimulateConfig,
    representation: Representation,
    floor: Floor | None,
    moving: Bool[Tensor, " n"],
    x: Float[Tensor, "n 3"],
    scale: float,
    foot: Float[Tensor, " 3"],
    spacing: float,
    space: tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]],
) -> DistanceField | None:
    """The visible part of the floor of a scene, or the faces of a mesh floor; None if it is endless."""
    if floor is None or config.floor_extent == "endless":
        return None
    if isinstance(representation, MeshVertices):
        still = representation.triangles[~moving[representation.triangles].any(1)]
        height, thickness = float(foot @ floor.normal), floor.thickness * scale
        surface = floor_faces(x, still, floor.normal, height, thickness, spacing, space)
        return floor_field(surface, floor_frame(floor.normal), foot, spacing, space)
    assert isinstance(representation, FDrive)
    heights = representation.points @ floor.normal - floor.height
    rows = (~moving & (heights.abs() < floor.thickness) & (representation.opacities >= config.min_opacity)).nonzero()[:, 0]
    return floor_field(_surface(representation, rows, x, scale), floor_frame(floor.normal), foot, spacing, space)


def collider_field(
    config: SimulateConfig,
    representation: Representation,
    moving: Bool[Tensor, " n"],
    x: Float[Tensor, "n 3"],
    particles: Float[Tensor, "p 3"],
    scale: float,
    grid: Grid,
    is_chosen: bool,
) -> tuple[str, DistanceField, bool] | None:
    """The collider of the options: its name, its distances, and whether they are in the simulation's frame (else in that of
    a mesh with the scene's origin). `is_chosen`: whether there is a selection.

    Raises:
        InputError: A mesh cannot be read, or is not closed.
    """
    is_auto = config.collider == "auto"
    if config.collider == "none" or (is_auto and not (is_chosen and isinstance(representation, MeshVertices))):
        return None
    if config.collider not in ("auto", "scene"):
        return config.collider, mesh_field(load_mesh(config.collider), scale, grid.spacing), False
    if isinstance(representation, MeshVertices):
        faces = representation.triangles[~moving[representation.triangles].any(1)]
        if is_auto:
            return _closed_field(faces, x, grid)
        if not len(faces):
            logger.warning("collider scene: every face of the mesh moves; simulating without a collider")
            return None
        vertices, faces, _ = drop_unused_vertices(x.float(), faces)
        return SCENE, mesh_field(Mesh(vertices, faces), 1.0, grid.spacing), True
    assert isinstance(representation, FDrive)
    still = ~moving & (representation.opacities >= config.min_opacity)
    if bool(still.any()):
        still = without_floaters(representation.points, still, config, "collider scene")
    found = scene_field(_surface(representation, still.nonzero()[:, 0], x, scale), particles, grid, grid.spacing)
    if found is None:
        logger.warning("collider scene: everything near the moving parts moves too; simulating without a collider")
        return None
    logger.info("collider scene: %.3g m^3 of the static scene are solid", found[1])
    return SCENE, found[0], True


def _closed_field(faces: Tensor, x: Tensor, grid: Grid) -> tuple[str, DistanceField, bool] | None:
    """Distances of the closed parts among the static faces; open parts have no inside."""
    closed = closed_faces(faces) if len(faces) else faces
    field = None
    if len(closed):
        with contextlib.suppress(InputError):  # too thin for the lattice
            vertices, kept, _ = drop_unused_vertices(x.float(), closed)
            field = mesh_field(Mesh(vertices, kept), 1.0, grid.spacing)
    if field is None:
        return None
    logger.info("%d static faces of the mesh are an obstacle (disable with --collider none)", len(closed))
    return SCENE, field, True


def _surface(representation: FDrive, rows: Tensor, x: Tensor, scale: float) -> Surface:
    scene = representation.scene
    scales = scene.scales.detach().cpu()[rows].double() * scale
    return Surface(x[rows].double(), scene.quats.detach().cpu()[rows], scales, representation.opacities[rows])
