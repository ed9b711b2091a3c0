"""Factors of covariances under affine maps: Sigma = E E^T with E (3 x 2) for discs or (3 x 3) for ellipsoids.

E -> A E under an affine map A, so Sigma -> A Sigma A^T exactly. The columns of a disc's factor are the edges of a triangle
at its center (`vision3d.geometry.triangles`), those of an ellipsoid's are three edges of a tetrahedron. Physics moves
factors; this module converts any Gaussian to a factor, and back with sizes that a renderer can use.

Sources: GaMeS (arXiv 2402.01459) for the triangle, GASP (arXiv 2409.05819) for limiting sizes. Both are changed: lengths
are singular values instead of the lengths of the two edges, so the result does not depend on the choice of edges, and shear
is preserved.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.triangles import edges_svd, edges_to_gaussians, flattening_loss, gaussians_to_edges

STRETCH = 1.5
"""Default maximum ratio of a size to its rest size (and of the rest size to a size)."""


def gaussians_to_factors(quats: Float[Tensor, "*batch 4"], scales: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Factors R diag(s) of ellipsoids; exact.

    Args:
        quats: Order wxyz, length > 0.
        scales: Standard deviations [m].
    """
    check_trailing("quats", quats, 4)
    check_trailing("scales", scales, 3)
    return quat_to_rotmat(quats) * scales[..., None, :]


def flatten_gaussians(
    quats: Float[Tensor, "*batch 4"], scales: Float[Tensor, "*batch 3"]
) -> tuple[Float[Tensor, "*batch 3 2"], Float[Tensor, "*batch"]]:
    """Factors of Gaussians without their shortest axis, and the fraction of the trace of Sigma that is lost.

    The error of Sigma is the smallest scale squared; the fraction is 0 (a disc) to 1/3 (a ball).

    Args:
        quats: Order wxyz, length > 0.
        scales: Standard deviations [m], > 0.
    """
    return gaussians_to_edges(quats, scales), flattening_loss(scales)


def factors_to_gaussians(
    factors: Float[Tensor, "*batch 3 k"], thickness: float = 1e-8
) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch 3"]]:
    """Quaternions and scales, descending, of Gaussians with covariance E E^T.

    Uses the singular values of E itself: those of E E^T would lose scales below 1e-4 of the largest in float32. Factors of
    lower rank and mirrored ones give valid frames. The frame of a round Gaussian is arbitrary, so use E E^T in a loss.

    Args:
        factors: Two columns (the flat axis becomes the third) or three.
        thickness: Minimum scale [m].
    """
    if factors.shape[-1] == 2:
        return edges_to_gaussians(factors, thickness)
    axes, lengths, _ = factors_svd(factors)
    mirror = torch.linalg.det(axes.detach()).sign()[..., None, None]
    axes = torch.cat([axes[..., :2], axes[..., 2:] * mirror], -1)
    return rotmat_to_quat(axes), lengths.clamp(min=thickness)


def factors_svd(
    factors: Float[Tensor, "*batch 3 k"],
) -> tuple[Float[Tensor, "*batch 3 k"], Float[Tensor, "*batch k"], Float[Tensor, "*batch k k"]]:
    """U, S, V with E = U diag(S) V^T, S descending and >= 0, for factors of two or three columns.

    Two columns use a closed form and have gradients; three columns have gradients if the singular values differ.
    """
    _check_factors(factors)
    if factors.shape[-1] == 2:
        return edges_svd(factors)
    left, lengths, right = torch.linalg.svd(factors)
    return left, lengths, right.mT


def factors_to_vertices(
    means: Float[Tensor, "*batch 3"], factors: Float[Tensor, "*batch 3 k"]
) -> Float[Tensor, "*batch k_plus_1 3"]:
    """Corners of triangles (k = 2) or tetrahedra (k = 3), one per row: mean, mean + first column, ...

    For engines that only support points; absolute float32 corners lose factors below 1e-6 of their distance from 0.
    """
    check_trailing("means", means, 3)
    _check_factors(factors)
    return means[..., None, :] + torch.nn.functional.pad(factors.mT, (0, 0, 1, 0))


def vertices_to_factors(
    vertices: Float[Tensor, "*batch k_plus_1 3"],
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3 k"]]:
    """Means and factors of triangles or tetrahedra with one corner per row; the inverse of `factors_to_vertices`."""
    if vertices.ndim < 2 or vertices.shape[-1] != 3 or vertices.shape[-2] not in (3, 4):
        raise ShapeError("vertices", vertices.shape, "(..., 3 or 4, 3)")
    means = vertices[..., 0, :]
    return means, (vertices[..., 1:, :] - means[..., None, :]).mT


def clamp_factors(
    factors: Float[Tensor, "*batch 3 k"],
    rest_lengths: Float[Tensor, "*batch k"],
    stretch: float = STRETCH,
    max_length: float | None = None,
) -> Float[Tensor, "*batch 3 k"]:
    """Factors whose k-th longest axis is clamped to rest / stretch ... rest * stretch; axes keep their directions.

    A map whose singular values are within 1 / stretch ... stretch changes no axis by more than that, so its result is never
    clamped: sigma_min(A) sigma_k(E) <= sigma_k(A E) <= sigma_max(A) sigma_k(E). Intended for what is rendered or exported; the
    state of a simulation is not changed (GASP overwrites it).

    Args:
        factors: Deformed factors.
        rest_lengths: Singular values in the rest state [m], descending (`factors_svd`).
        stretch: At least 1; 1 gives all axes their rest lengths.
        max_length: Maximum length of an axis [m], e.g. a fraction of the scene's extent.

    Raises:
        InputError: stretch < 1 or max_length <= 0.
    """
    _check_sizes(stretch, max_length)
    axes, lengths, turns = factors_svd(factors)
    clamped = torch.minimum(torch.maximum(lengths, rest_lengths / stretch), rest_lengths * stretch)
    if max_length is not None:
        clamped = clamped.clamp(max=max_length)
    new = (axes * clamped[..., None, :]) @ turns.mT
    # Values inside the range stay bit-identical.
    return torch.where((clamped == lengths).all(-1)[..., None, None], factors, new)


def split_long(
    means: Float[Tensor, "n 3"],
    factors: Float[Tensor, "n 3 k"],
    opacities: Float[Tensor, " n"],
    rest_lengths: Float[Tensor, "n k"],
    stretch: float = STRETCH,
) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m 3 k"], Float[Tensor, " m"], Int64[Tensor, " m"]]:
    """Replace each Gaussian whose longest axis is over 2 * stretch times its rest length by two of half that axis.

    The two centers are offset by half the old axis to either side, the other axes stay, and the two together are as opaque
    as the original: 1 - (1 - o')^2 = o. The center of mass stays; the spread along the axis becomes 1/sqrt(2) of the old one.
    One pass: lengths over 4 * stretch still need `clamp_factors` or another pass. Counts change: only for single frames.

    Returns:
        Means, factors, opacities, and the source row of each. Rows keep their positions; second halves are appended.

    Raises:
        InputError: stretch < 1.
    """
    _check_sizes(stretch, None)
    axes, lengths, turns = factors_svd(factors)
    is_long = lengths[:, 0] > 2 * stretch * rest_lengths[:, 0]
    shift = torch.where(is_long[:, None], axes[..., 0] * lengths[:, :1] / 2, 0)
    halves = torch.cat([lengths[:, :1] / 2, lengths[:, 1:]], -1)
    factors = torch.where(is_long[:, None, None], (axes * halves[:, None, :]) @ turns.mT, factors)
    # o / (1 + sqrt(1 - o)) is 1 - sqrt(1 - o) without cancellation.
    opacities = torch.where(is_long, opacities / (1 + (1 - opacities).sqrt()), opacities)
    which = is_long.nonzero()[:, 0]
    rows = torch.cat([torch.arange(len(means), device=means.device), which])
    return torch.cat([means - shift, (means + shift)[which]]), factors[rows], opacities[rows], rows


def _check_factors(factors: Tensor) -> None:
    if factors.ndim < 2 or factors.shape[-2] != 3 or factors.shape[-1] not in (2, 3):
        raise ShapeError("factors", factors.shape, "(..., 3, 2 or 3)")
    check_trailing("factors", factors, *factors.shape[-2:])


def _check_sizes(stretch: float, max_length: float | None) -> None:
    if not 1 <= stretch < float("inf"):
        raise InputError(f"stretch: got {stretch}, want a number of at least 1")
    if max_length is not None and not max_length > 0:
        raise InputError(f"max_length: got {max_length}, want a length > 0")
