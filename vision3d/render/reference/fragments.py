"""Mesh rasterization and attribute interpolation in plain torch; see `cuda_ext/include/vision3d/mesh.h` for the formulas."""

import torch
from jaxtyping import Float, Int32
from torch import Tensor

_CHUNK = 1 << 20  # (face, pixel) pairs processed together


def rasterize(
    positions: Float[Tensor, "i v 4"], triangles: Int32[Tensor, "f 3"], width: int, height: int, near: float, far: float
) -> tuple[Int32[Tensor, "i h w"], Float[Tensor, "i h w 3"], Float[Tensor, "i h w"]]:
    """Face, barycentrics and depth of every pixel."""
    corners = positions.detach().double()[:, triangles.long()]  # (i, f, 3, 4)
    found = torch.stack([_nearest_faces(image, width, height, near, far) for image in corners]) if len(corners) else None
    face_ids = positions.new_zeros((0, height, width), dtype=torch.int32) if found is None else found
    barycentrics, depths = fragments_of(positions, triangles, face_ids)
    return face_ids, barycentrics, depths


def fragments_of(
    positions: Float[Tensor, "i v 4"], triangles: Int32[Tensor, "f 3"], face_ids: Int32[Tensor, "i h w"]
) -> tuple[Float[Tensor, "i h w 3"], Float[Tensor, "i h w"]]:
    """Barycentrics and depths of pixels with known faces; the differentiable part."""
    image, y, x = (face_ids >= 0).nonzero(as_tuple=True)
    corners = positions.double()[image[:, None], triangles[face_ids[image, y, x].long()].long()]
    edges = edge_functions(corners, x + 0.5, y + 0.5)
    weights = edges / edges.sum(-1, keepdim=True)
    depth = (weights * corners[..., 2]).sum(-1)
    barycentrics, depths = positions.new_zeros((*face_ids.shape, 3)), positions.new_zeros(face_ids.shape)
    at = (image, y, x)
    return barycentrics.index_put(at, weights.to(positions.dtype)), depths.index_put(at, depth.to(positions.dtype))


def edge_functions(corners: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Edge functions (..., 3) of corners (..., 3, 4) at pixel centers (...)."""
    dx, dy = corners[..., 0] - x[..., None] * corners[..., 3], corners[..., 1] - y[..., None] * corners[..., 3]
    return dx.roll(-1, -1) * dy.roll(-2, -1) - dy.roll(-1, -1) * dx.roll(-2, -1)


def interpolate(
    attributes: Float[Tensor, "s v d"],
    triangles: Int32[Tensor, "f 3"],
    face_ids: Int32[Tensor, "i h w"],
    barycentrics: Float[Tensor, "i h w 3"],
) -> Float[Tensor, "i h w d"]:
    """Sums over corners of barycentric times attribute; one set (s = 1) or one per image."""
    image, y, x = (face_ids >= 0).nonzero(as_tuple=True)
    sets = torch.zeros_like(image) if len(attributes) == 1 else image
    corners = attributes[sets[:, None], triangles[face_ids[image, y, x].long()].long()]
    values = (barycentrics[image, y, x][..., None] * corners).sum(-2)
    return attributes.new_zeros((*face_ids.shape, attributes.shape[-1])).index_put((image, y, x), values)


def _nearest_faces(corners: Tensor, width: int, height: int, near: float, far: float) -> Tensor:
    """(h, w) int32 from the corners (f, 3, 4) of one image."""
    y, x = torch.meshgrid(*(torch.arange(n, device=corners.device) + 0.5 for n in (height, width)), indexing="ij")
    x, y = x.flatten(), y.flatten()
    best = torch.full_like(x, torch.inf, dtype=torch.float32)
    faces = torch.full_like(best, -1, dtype=torch.int32)
    step = max(1, _CHUNK // len(x))
    for start in range(0, len(corners), step):
        part = corners[start : start + step, None]
        depths = torch.where(*_cover(part, x, y, near, far), torch.inf).float()
        depth = depths.amin(0)
        face = (depths == depth).byte().argmax(0)  # the lowest index at equal depth
        closer = depth < best
        best = torch.where(closer, depth, best)
        faces = torch.where(closer, (start + face).int(), faces)
    return faces.view(height, width)


def _cover(corners: Tensor, x: Tensor, y: Tensor, near: float, far: float) -> tuple[Tensor, Tensor]:
    """Whether each face covers each pixel center, and the depth there."""
    edges = edge_functions(corners, x, y)
    total = edges.sum(-1)
    sign = total.sign()
    inside = ((edges >= 0).all(-1) | (edges <= 0).all(-1)) & (total != 0)
    in_front = sign * (edges * corners[..., 3]).sum(-1) > 0
    following, last = corners.roll(-1, -2), corners.roll(-2, -2)
    a = following[..., 1] * last[..., 3] - following[..., 3] * last[..., 1]
    b = following[..., 3] * last[..., 0] - following[..., 0] * last[..., 3]
    a, b = sign[..., None] * a, sign[..., None] * b
    owned = ((edges != 0) | (a > 0) | ((a == 0) & (b > 0))).all(-1)
    depth = (edges * corners[..., 2]).sum(-1) / total
    return inside & in_front & owned & (depth >= near) & (depth <= far), depth
