"""Shape checks with one-line errors, for the entry points of the geometry functions."""

import torch
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.core.op_checks import check_dense


def check_trailing(name: str, tensor: Tensor, *sizes: int) -> None:
    """Raise ShapeError unless the tensor is dense and floating point and its last axes have these sizes."""
    if tuple(tensor.shape[-len(sizes) :]) != sizes:
        raise ShapeError(name, tensor.shape, f"(..., {', '.join(map(str, sizes))})")
    if not tensor.is_floating_point():
        raise ShapeError(name, tensor.dtype, "torch.float32 or torch.float64")
    check_dense(name, tensor)


def check_rotmats(name: str, rotmats: Tensor, tolerance: float = 1e-4) -> None:
    """Raise InputError unless all matrices (..., n, n) are rotations: R^T R = I and det R > 0, within `tolerance`.

    The message has the distance of the worst matrix from the nearest rotation, in the Frobenius norm.
    """
    if rotmats.numel() == 0:
        return
    values = rotmats.detach().double()
    if not bool(values.isfinite().all()):
        raise InputError(f"{name}: contains values that are not finite; want rotation matrices")
    singular = torch.linalg.svdvals(values)
    mirrors = torch.linalg.det(values) < 0
    # From U diag(s) V^T to the nearest rotation: the last singular value has the sign of the determinant.
    offsets = torch.cat([singular[..., :-1], torch.where(mirrors, -1, 1)[..., None] * singular[..., -1:]], -1) - 1
    distances = torch.linalg.vector_norm(offsets, dim=-1).flatten()
    worst = int(distances.argmax())
    if float(distances[worst]) <= tolerance:
        return
    what = ", a reflection," if bool(mirrors.flatten()[worst]) else ""
    place = f"matrix {worst} of {len(distances)}{what}" if rotmats.ndim > 2 else f"the matrix{what}"
    raise InputError(
        f"{name}: {place} is not a rotation, its distance from SO({rotmats.shape[-1]}) is {float(distances[worst]):.3g}, want "
        f"at most {tolerance:g}; project it (`nearest_rotation`, `project=True`) or check its source"
    )
