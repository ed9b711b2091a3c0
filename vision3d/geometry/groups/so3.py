"""Rotations in 3D; the tangent is the rotation vector [rad]. Formulas: Sola et al. 2018, appendix B."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.checks import check_trailing
from vision3d.geometry.rotation import hat, so3_exp as exp, so3_log as log, vee
from vision3d.geometry.smooth import one_minus_cos_over, one_minus_half_cot_over, x_minus_sin_over

__all__ = [
    "ad", "adjoint", "exp", "hat", "left_jacobian", "left_jacobian_inverse", "log", "right_jacobian", "right_jacobian_inverse",
    "vee",
]  # fmt: skip

ad = hat


def adjoint(rotmats: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """R itself: R exp(v) R^T = exp(R v)."""
    check_trailing("rotmats", rotmats, 3, 3)
    return rotmats.clone()


def left_jacobian(rotvecs: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """I + (1 - cos t) / t^2 hat(v) + (t - sin t) / t^3 hat(v)^2; smooth at zero."""
    squares, skew, eye = _parts(rotvecs)
    return eye + one_minus_cos_over(squares) * skew + x_minus_sin_over(squares) * (skew @ skew)


def left_jacobian_inverse(rotvecs: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """I - hat(v) / 2 + (1 - (t/2) cot(t/2)) / t^2 hat(v)^2, for angles t < 2 pi: at 2 pi the Jacobian is singular."""
    squares, skew, eye = _parts(rotvecs)
    return eye - skew / 2 + one_minus_half_cot_over(squares) * (skew @ skew)


def right_jacobian(rotvecs: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The left Jacobian of -v."""
    return left_jacobian(-rotvecs)


def right_jacobian_inverse(rotvecs: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The inverse of the left Jacobian of -v."""
    return left_jacobian_inverse(-rotvecs)


def _parts(rotvecs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    check_trailing("rotvecs", rotvecs, 3)
    eye = torch.eye(3, dtype=rotvecs.dtype, device=rotvecs.device)
    return rotvecs.square().sum(-1)[..., None, None], hat(rotvecs), eye
