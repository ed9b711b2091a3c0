"""Random points on triangle meshes."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.mesh import face_areas


def sample_faces(
    vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], count: int, generator: torch.Generator | None = None
) -> tuple[Int64[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Points drawn uniformly by area, for any number and size of faces.

    Args:
        vertices: [m].
        faces: Triangles.
        count: Number of points.
        generator: Random numbers.

    Returns:
        The face of each point, and its barycentric coordinates, float64.

    Raises:
        InputError: No face has an area.

    Example:
        >>> face_ids, barycentric = sample_faces(torch.eye(3), torch.tensor([[0, 1, 2]]), 5)
        >>> bool((barycentric.sum(1) - 1).abs().max() < 1e-9)
        True
    """
    areas = face_areas(vertices.double(), faces).cumsum(0)
    if not len(faces) or not float(areas[-1]) > 0:
        raise InputError(f"sample_faces: got {len(faces)} faces without area, want at least one with area")
    drawn = torch.rand(count, generator=generator, dtype=torch.float64) * areas[-1]
    face_ids = torch.searchsorted(areas, drawn).clamp(max=len(faces) - 1)
    corners = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    corners = torch.where(corners.sum(1, keepdim=True) > 1, 1 - corners, corners)
    return face_ids, torch.cat([1 - corners.sum(1, keepdim=True), corners], 1)
