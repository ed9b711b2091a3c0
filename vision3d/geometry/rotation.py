"""Rotations between matrices, rotation vectors, quaternions and six numbers; distances usable as losses."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ConfigError, nearest_names
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.quaternion import normalize, positive_w
from vision3d.geometry.reference import rotation as reference
from vision3d.geometry.row_ops import RowOp
from vision3d.geometry.smooth import atan2
from vision3d.geometry.vectors import any_orthogonal, axis_vector, length, nan_for_nan, orthogonal_part, unit

Layout6d = Literal["columns", "columns_interleaved", "rows", "symmetric"]


def hat(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Skew matrices with hat(a) b = a x b."""
    check_trailing("vectors", vectors, 3)
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def vee(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """The vectors of skew matrices; of any other matrix, those of its skew part."""
    check_trailing("matrices", matrices, 3, 3)
    skew = (matrices - matrices.mT) / 2
    return torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1)


def so3_exp(rotvecs: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of rotation vectors (axis times angle [rad]); Rodrigues' formula, smooth at zero.

    R = I + (sin t / t) hat(v) + ((1 - cos t) / t^2) hat(v)^2.

    Example:
        >>> so3_exp(torch.tensor([0.0, 0.0, torch.pi / 3])) @ torch.tensor([1.0, 0.0, 0.0])
        tensor([0.5000, 0.8660, 0.0000])
    """
    check_trailing("rotvecs", rotvecs, 3)
    return _so3_exp(rotvecs)


def so3_log(rotmats: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotation vectors (axis times angle [rad], angle in 0 to pi) of rotation matrices; the inverse of `so3_exp`.

    Computed through the quaternion, so it is accurate at zero and at pi alike. At pi itself the axis has either sign.
    """
    check_trailing("rotmats", rotmats, 3, 3)
    return _so3_log(rotmats)


def rotvec_to_rotmat(rotvecs: Float[Tensor, "*batch 3"], degrees: bool = False) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of rotation vectors (axis times angle [rad], or with `degrees` in degrees): `so3_exp`."""
    return so3_exp(rotvecs.deg2rad() if degrees else rotvecs)


def rotmat_to_rotvec(rotmats: Float[Tensor, "*batch 3 3"], degrees: bool = False) -> Float[Tensor, "*batch 3"]:
    """Rotation vectors of rotation matrices, in radians or degrees: `so3_log`."""
    return so3_log(rotmats).rad2deg() if degrees else so3_log(rotmats)


def rotvec_to_quat(rotvecs: Float[Tensor, "*batch 3"], degrees: bool = False) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions (cos t/2, sin t/2 axis) of rotation vectors in radians or degrees, smooth at zero."""
    check_trailing("rotvecs", rotvecs, 3)
    return reference.rotvec_to_quat(rotvecs.deg2rad() if degrees else rotvecs)


def quat_to_rotvec(quats: Float[Tensor, "*batch 4"], degrees: bool = False) -> Float[Tensor, "*batch 3"]:
    """Rotation vectors with angle in 0 to pi (in radians or degrees) of quaternions of any length > 0, smooth at zero."""
    check_trailing("quats", quats, 4)
    rotvecs = reference.quat_to_rotvec(positive_w(normalize(quats)))
    return rotvecs.rad2deg() if degrees else rotvecs


def geodesic_distance(rotmats: Float[Tensor, "*#batch 3 3"], others: Float[Tensor, "*#batch 3 3"]) -> Float[Tensor, "*#batch"]:
    """Angle [rad, 0 to pi] of the rotation between two; the gradient is finite everywhere, zero at equality.

    atan2(|vee(D - D^T)| / 2, (tr D - 1) / 2) with D = R1^T R2, which keeps full precision at 0 and pi, unlike acos.
    """
    check_trailing("rotmats", rotmats, 3, 3)
    check_trailing("others", others, 3, 3)
    between = rotmats.mT @ others
    return atan2(length(vee(between)), (between.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2)


def from_6d(values: Float[Tensor, "*batch 6"], layout: Layout6d = "columns") -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices from six numbers by Gram-Schmidt; Zhou et al. 2019, section 4.2.
    If the two vectors are zero or parallel, the missing direction is an arbitrary orthogonal one, with zero gradient:
    the result is always a rotation.
        the result is always a rotation.

        Args:
            layout: Meaning of the numbers; four conventions are common:
                `columns`: first column, then second column (Zhou et al., roma);
                `columns_interleaved`: the first two columns read row by row (HMR, SPIN, most body and hand networks);
                `rows`: first row, then second row (PyTorch3D);
                `symmetric`: two directions that are moved apart or together by equal angles (manopth).
    """
    check_trailing("values", values, 6)
    _check_layout(layout)
    if layout == "symmetric":
        return _bisect(values[..., :3], values[..., 3:])
    if layout == "columns_interleaved":
        values = values.unflatten(-1, (3, 2)).mT.flatten(-2)
    rotmats = _gram_schmidt(values)
    return rotmats.mT if layout == "rows" else rotmats


def to_6d(rotmats: Float[Tensor, "*batch 3 3"], layout: Layout6d = "columns") -> Float[Tensor, "*batch 6"]:
    """Six numbers of rotation matrices, inverse to `from_6d`; same layouts."""
    check_trailing("rotmats", rotmats, 3, 3)
    _check_layout(layout)
    if layout == "columns_interleaved":
        values = rotmats[..., :2]
    else:
        values = (rotmats if layout == "rows" else rotmats.mT)[..., :2, :]
    return nan_for_nan(values.flatten(-2), rotmats, 2, 1)  # the third direction is part of the rotation


def nearest_rotation(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation (det +1) closest to each matrix in the Frobenius norm; U diag(1, 1, det UV^T) V^T of its SVD.

    The gradient is the closed form, finite also where singular values are equal (plain autograd of the SVD is not).
    """
    check_trailing("matrices", matrices, 3, 3)
    return _nearest_rotation(matrices)


def _bisect(first: Tensor, second: Tensor) -> Tensor:
    first = unit(first, fallback=axis_vector(first, 0, 3))
    second = unit(second, fallback=any_orthogonal(first))
    middle, across = first + second, first - second
    # The sum and the difference of two unit vectors are orthogonal; the longer one is the stable one to start from.
    is_wide = across.square().sum(-1, keepdim=True) > middle.square().sum(-1, keepdim=True)
    safe = unit(torch.where(is_wide, across, middle))
    narrow = torch.where(is_wide, middle, across)
    is_rounding = length(narrow.detach())[..., None] < 8 * torch.finfo(narrow.dtype).eps
    other = orthogonal_part(torch.where(is_rounding, 0, narrow), safe)
    middle, across = torch.where(is_wide, other, safe), torch.where(is_wide, safe, other)
    x_axis, y_axis = unit(middle + across), unit(middle - across)
    return torch.stack([x_axis, y_axis, torch.linalg.cross(x_axis, y_axis)], -1)


def _check_layout(layout: str) -> None:
    valid = get_args(Layout6d)
    if layout not in valid:
        raise ConfigError("layout", f"{layout!r} is not a layout of six numbers; {nearest_names(layout, valid)}")


_so3_exp = RowOp("so3_exp", (3,), (3, 3), reference.so3_exp)
_so3_log = RowOp("so3_log", (3, 3), (3,), reference.so3_log)
_gram_schmidt = RowOp("gram_schmidt", (6,), (3, 3), reference.gram_schmidt)
_nearest_rotation = RowOp(
    "nearest_rotation", (3, 3), (3, 3), reference.nearest_rotation, reference.nearest_rotation_vjp, keeps_output=True
)
