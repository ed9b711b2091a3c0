"""Flat Gaussians as triangles, exactly: Sigma = E E^T with the two edge vectors E = [a b] of the triangle.

An affine map A transforms E to A E and Sigma to A Sigma A^T, including shear. Edges are stored instead of absolute
vertices: differences of float32 vertices lose small splats.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import ConfigError
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.vectors import axis_vector, orthogonal_part, unit

_ORTHOGONAL = 8  # in units of rounding of the cosine between two edges


def gaussians_to_edges(
    quats: Float[Tensor, "*batch 4"], scales: Float[Tensor, "*batch 3"], flat_axis: int | None = None
) -> Float[Tensor, "*batch 3 2"]:
    """Edge vectors E = [a b] of Gaussians without their shortest axis: two principal axes times their scales.

    The axes are in cyclic order, so a x b points along the dropped axis.

    Args:
        quats: Order wxyz, length > 0.
        scales: Standard deviations [m], > 0.
        flat_axis: The axis to drop; when None, the one of the smallest scale of each Gaussian.
    """
    check_trailing("quats", quats, 4)
    check_trailing("scales", scales, 3)
    rotmats = quat_to_rotmat(quats)
    if flat_axis is None:
        flat = scales.detach().argmin(-1, keepdim=True)
    else:
        flat = torch.full_like(scales[..., :1], flat_axis, dtype=torch.int64)
    keep = torch.cat([(flat + 1) % 3, (flat + 2) % 3], -1)
    axes = rotmats.gather(-1, keep[..., None, :].expand(*keep.shape[:-1], 3, 2))
    return axes * scales.gather(-1, keep)[..., None, :]


def edges_to_gaussians(
    edges: Float[Tensor, "*batch 3 2"],
    thickness: float = 1e-8,
    flat_axis: int = 2,
    method: Literal["exact", "gram_schmidt"] = "exact",
) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch 3"]]:
    """Quaternions and scales of flat Gaussians with covariance E E^T, the normal along a x b.

    Degenerate triangles give an arbitrary valid frame and scales of at least `thickness`, with finite gradients; the
    frame of a Gaussian that is round in its plane is arbitrary, so use `edges_to_covars` in a loss.

    Args:
        thickness: Scale of the flat axis [m], and the minimum of the others.
        flat_axis: Axis of the normal: 2 as in 2D splats, 0 as in GaMeS.
        method: `exact`, from the closed-form eigenproblem of E^T E; `gram_schmidt`, the published form of GaMeS, which
            preserves |a| and loses shear: it is exact only if a and b are orthogonal.
    """
    check_trailing("edges", edges, 3, 2)
    edge_scale = edges.detach().abs().amax((-2, -1), keepdim=True)  # keeps squares of tiny edges above zero
    edge_scale = torch.where(edge_scale == 0, 1, edge_scale)
    a, b = (edges / edge_scale).unbind(-1)
    if method == "exact":
        first, second, lengths, _ = _principal(a, b)
    elif method == "gram_schmidt":
        first = unit(a, fallback=axis_vector(a, 0, 3))
        second = orthogonal_part(b, first)
        lengths = torch.stack([torch.linalg.vector_norm(a, dim=-1), (b * second).sum(-1)], -1)
    else:
        raise ConfigError("method", f"{method!r}; valid: exact, gram_schmidt")
    axes = [first, second, torch.linalg.cross(first, second)]
    lengths = (lengths * edge_scale[..., 0]).clamp(min=thickness)
    scales = [lengths[..., 0], lengths[..., 1], torch.full_like(lengths[..., 0], thickness)]
    shift = (flat_axis + 1) % 3  # index of the first of the two in-plane axes, so that the order stays cyclic
    axes, scales = axes[3 - shift :] + axes[: 3 - shift], scales[3 - shift :] + scales[: 3 - shift]
    return rotmat_to_quat(torch.stack(axes, -1)), torch.stack(scales, -1)


def edges_to_covars(edges: Float[Tensor, "*batch 3 2"], thickness: float = 0.0) -> Float[Tensor, "*batch 3 3"]:
    """Covariances E E^T + thickness^2 n n^T, n the unit normal; smooth in the edges."""
    check_trailing("edges", edges, 3, 2)
    covars = edges @ edges.mT
    if thickness == 0:
        return covars
    a, b = edges.unbind(-1)
    normals = unit(torch.linalg.cross(unit(a), unit(b)))
    return covars + thickness**2 * normals[..., :, None] * normals[..., None, :]


def edges_to_vertices(means: Float[Tensor, "*batch 3"], edges: Float[Tensor, "*batch 3 2"]) -> Float[Tensor, "*batch 3 3"]:
    """Triangles with one vertex per row: mean, mean + a, mean + b."""
    check_trailing("means", means, 3)
    check_trailing("edges", edges, 3, 2)
    return means[..., None, :] + torch.nn.functional.pad(edges.mT, (0, 0, 1, 0))


def vertices_to_edges(
    vertices: Float[Tensor, "*batch 3 3"],
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3 2"]]:
    """Means and edges of triangles with one vertex per row; the inverse of `edges_to_vertices`."""
    check_trailing("vertices", vertices, 3, 3)
    means = vertices[..., 0, :]
    return means, (vertices[..., 1:, :] - means[..., None, :]).mT


def gaussians_to_triangles(
    means: Float[Tensor, "n 3"], quats: Float[Tensor, "n 4"], scales: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "m 3"], Int64[Tensor, "n 3"]]:
    """A triangle soup of 3 n vertices, and its faces (3 i, 3 i + 1, 3 i + 2)."""
    vertices = edges_to_vertices(means, gaussians_to_edges(quats, scales)).flatten(0, 1)
    return vertices, torch.arange(len(vertices), device=means.device).view(-1, 3)


def triangles_to_gaussians(
    vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "n 3"], thickness: float = 1e-8, flat_axis: int = 2
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 4"], Float[Tensor, "n 3"]]:
    """Means, quaternions and scales of one flat Gaussian per face, the mean at the face's first vertex."""
    means, edges = vertices_to_edges(vertices[faces])
    return means, *edges_to_gaussians(edges, thickness, flat_axis)


def edges_svd(
    edges: Float[Tensor, "*batch 3 2"],
) -> tuple[Float[Tensor, "*batch 3 2"], Float[Tensor, "*batch 2"], Float[Tensor, "*batch 2 2"]]:
    """U, S, V with E = U diag(S) V^T in closed form: U orthonormal, S descending and >= 0, V a rotation.

    Full relative precision of both lengths for slivers; an axis of zero length is an arbitrary orthogonal one.
    """
    check_trailing("edges", edges, 3, 2)
    edge_scale = edges.detach().abs().amax((-2, -1), keepdim=True)  # keeps squares of tiny edges above zero
    edge_scale = torch.where(edge_scale == 0, 1, edge_scale)
    first, second, lengths, (cosine, sine) = _principal(*(edges / edge_scale).unbind(-1))
    turns = torch.stack([torch.cat([cosine, sine], -1), torch.cat([-sine, cosine], -1)], -1)
    return torch.stack([first, second], -1), lengths * edge_scale[..., 0], turns


def flattening_loss(scales: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
    """Fraction of the trace of the covariance that a triangle loses: the smallest scale squared over the sum."""
    squares = unit(scales).square()
    return squares.amin(-1)


def _principal(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    # E^T E = [[p, q], [q, r]]; its eigenvector is at half the angle of (p - r, 2 q).
    half = (a.square().sum(-1) - b.square().sum(-1)) / 2
    shear = (a * b).sum(-1)
    mean = (a.square().sum(-1) + b.square().sum(-1)) / 2
    # Edges that are orthogonal up to rounding are the axes: for a nearly round disc rounding would rotate them by degrees.
    limit = _ORTHOGONAL * torch.finfo(a.dtype).eps * torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    shear = torch.where(shear.abs() <= limit, shear - shear.detach(), shear)
    is_round = (half == 0) & (shear == 0)
    half = torch.where(is_round, 1, half)
    spread = torch.where(is_round, 0, (half.square() + shear.square()).clamp(min=torch.finfo(a.dtype).tiny).sqrt())
    angle = torch.atan2(shear, half) / 2
    cosine, sine = angle.cos()[..., None], angle.sin()[..., None]
    longest = a * cosine + b * sine
    area = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=-1)
    long = (mean + spread).clamp(min=torch.finfo(a.dtype).tiny).sqrt()
    long = torch.where(mean == 0, 0, long)
    # area / long has full precision for slivers, where the difference mean - spread has none.
    short = area / torch.where(mean == 0, 1, long)
    first = unit(longest, fallback=axis_vector(a, 0, 3))
    second = orthogonal_part(b * cosine - a * sine, first)
    return first, second, torch.stack([long, short], -1), (cosine, sine)
