"""Antialiasing of mesh silhouettes, which gives gradients of coverage to the vertices."""

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.render.meshes import checks
from vision3d.render.meshes.api import Fragments, check_fragments


def antialias(
    colors: Float[Tensor, "i h w d"],
    positions: Float[Tensor, "i v 4"],
    faces: Int[Tensor, "f 3"],
    fragments: Fragments,
    *,
    neighbors: Int32[Tensor, "f 3"] | None = None,
    backend: str = "auto",
) -> Float[Tensor, "i h w d"]:
    """Blend neighboring pixels across silhouettes, after the idea of Laine et al. 2020 (section 3.4).

    If a silhouette edge of the nearer face passes between two pixel centers, the pixel that it cuts takes a fraction of the
    other's color: up to half at the center, none at the border of the pixels. Steep edges blend along rows, flat ones along
    columns. An edge is a silhouette if no face behind it covers the other side: it is a border, it folds back, or it is seen
    edge-on. The surface is followed over up to 16 faces between the centers, so faces may be smaller than pixels.
    Gradients flow to `colors` and `positions`; on a CPU they are bit-identical for any number of threads.

    Args:
        colors: Image that already includes the background.
        positions: As given to `rasterize`.
        faces: As given to `rasterize`. Vertices must be shared: an edge between two copies of a vertex counts as a border.
        fragments: Result of `rasterize`.
        neighbors: Result of `edge_neighbors(faces)`, to compute it once for many calls.
        backend: auto, native or reference.

    Raises:
        ShapeError: A tensor has the wrong shape or dtype; the message has its name, got and want.
        InputError: A face or a pixel has an invalid index.
        BackendError: The backend is not available here.
    """
    checks.check_positions(positions)
    triangles = checks.check_faces(faces, positions.shape[1], positions)
    check_fragments(fragments, positions)
    shape = tuple(fragments.face_ids.shape)
    if shape[0] != len(positions):
        raise ShapeError("fragments.face_ids", shape, f"{len(positions)} images as positions")
    if not isinstance(colors, Tensor) or colors.dim() != 4:
        raise ShapeError("colors", getattr(colors, "shape", type(colors).__name__), "(I, H, W, D)")
    checks.check_tensor("colors", colors, (*shape, colors.shape[3]), positions)
    checks.check_face_ids(fragments.face_ids, triangles)
    neighbors = edge_neighbors(faces) if neighbors is None else neighbors
    checks.check_neighbors(neighbors, faces, positions)
    kernels = checks.kernels(backend, positions.device)
    return kernels.antialias(positions, triangles, neighbors, fragments.face_ids, fragments.depths, colors)


def edge_neighbors(faces: Int[Tensor, "f 3"]) -> Int32[Tensor, "f 3"]:
    """The face on the other side of the edge opposite to each corner; -1 unless exactly one exists.

    Example:
        >>> edge_neighbors(torch.tensor([[0, 1, 2], [2, 1, 3]]))
        tensor([[ 1, -1, -1],
                [-1, -1,  0]], dtype=torch.int32)
    """
    own = torch.arange(len(faces), device=faces.device).repeat_interleave(3)
    pairs = torch.stack([faces.roll(-1, 1), faces.roll(-2, 1)], -1).flatten(0, 1).long().sort(-1).values
    base = int(faces.max()) + 1 if faces.numel() else 1
    keys, group, counts = torch.unique(pairs[:, 0] * base + pairs[:, 1], return_inverse=True, return_counts=True)
    # With two faces at an edge, the sum of both minus this one is the other.
    sums = own.new_zeros(len(keys)).index_add(0, group, own)
    return torch.where(counts[group] == 2, sums[group] - own, -1).int().view(-1, 3)
