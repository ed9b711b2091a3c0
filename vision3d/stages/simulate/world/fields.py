"""Meshes as obstacles: sampled distance fields."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.solids import surface_distances, winding_numbers
from vision3d.io.glb import in_scene_axes
from vision3d.scene import Mesh
from vision3d.stages.simulate.world.world import DistanceField

_MAX_NODES = 96  # along the longest side


def load_mesh(path: Path | str) -> Mesh:
    """Reads the mesh of an obstacle; a .glb of `vision3d mesh` has the axes of its scene.

    Raises:
        InputError: The file has other content, cannot be read, or has no faces.
    """
    mesh = in_scene_axes(path, Mesh.load(path).validate())
    if not mesh.num_faces:
        raise InputError(f"{path}: has no faces, want a mesh")
    return mesh


def mesh_field(mesh: Mesh, scale: float, spacing: float) -> DistanceField:
    """Signed distance field of a mesh, in its own frame times `scale`; inside is where the winding number is over 0.5.

    Args:
        mesh: Closed where it should be solid; small holes do no harm.
        scale: Meters per unit of the mesh.
        spacing: Spacing of the grid [m]; the field has half of it, or 96 nodes along the longest side.

    Raises:
        InputError: Nothing is inside: the mesh is open, or too thin for the field's spacing.
    """
    vertices = mesh.vertices.detach().cpu().double() * scale
    low, high = vertices.amin(0), vertices.amax(0)
    step = max(spacing / 2, float((high - low).max()) / (_MAX_NODES - 5))
    counts = (((high - low) / step).ceil().long() + 5).tolist()
    origin = low - 2 * step
    places = torch.cartesian_prod(*(torch.arange(count, dtype=torch.float64) for count in counts))
    points = origin + step * places
    distances = surface_distances(vertices, mesh.faces.cpu(), points, exact_within=4 * step)
    inside = _inside(vertices, mesh.faces.cpu(), points, distances, counts, step)
    if not bool((inside & (distances > step / 2)).any()):  # next to a sheet the winding number is about a half
        raise InputError(f"{mesh!r}: encloses nothing at a spacing of {step:.3g} m; want a closed mesh, or a finer grid")
    values = torch.where(inside, -distances, distances).view(*counts)
    x, y, z = origin.tolist()
    return DistanceField(values, (x, y, z), step)


def _inside(vertices: Tensor, faces: Tensor, points: Tensor, distances: Tensor, counts: list[int], step: float) -> Tensor:
    """Winding numbers, exact near the surface; elsewhere one per connected component of constant sign."""
    from scipy import ndimage

    far = (distances > step).view(*counts).numpy()
    found: Any = ndimage.label(far)
    labels, count = found[0].ravel(), found[1]
    _, first = np.unique(labels, return_index=True)
    near = torch.from_numpy(np.flatnonzero(labels == 0))
    inside = torch.zeros(len(points), dtype=torch.bool)
    inside[near] = winding_numbers(vertices, faces, points[near]) > 0.5
    if count:
        parts = torch.from_numpy(first[-count:])
        is_in = winding_numbers(vertices, faces, points[parts]) > 0.5
        table = torch.cat([torch.zeros(1, dtype=torch.bool), is_in])
        inside |= table[torch.from_numpy(labels.astype(np.int64))]
    return inside
