"""Skinning: vertices that follow the weighted motion of joints, linearly, with dual quaternions, or a mixture.

A joint j has its center at g_j, a symmetric stretch S_j, then a rotation R_j about the center, and a translation T_j:
A_j(v) = R_j S_j (v - g_j) + g_j + T_j. Joints can be bones of a rig or nodes of a deformation graph.

- "lbs": v' = sum_j w_j A_j(v). Any affine map, but twists shrink: by |cos(angle / 2)| half-way between two joints.
- "dqs": the dual quaternions of the rigid parts are summed and normalized (Kavan et al. 2008), after the summed stretch. Twists
  preserve the radius and the distance from a common fixed point; bending bulges.
- "hybrid": eta lbs + (1 - eta) dqs with eta = sum_j w_j eta_j. For a single joint all three are equal.

q and -q are the same rotation: the one closer to the joint with the largest weight is used.
"""

from typing import Any, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import InputError
from vision3d.core.op_checks import checked
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.choices import SkinningMethod
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.reference import skinning as reference
from vision3d.geometry.reference.skinning import DUAL, LINEAR, STRETCH
from vision3d.geometry.rotation import so3_exp, so3_log
from vision3d.geometry.row_ops import RowOp

Method = SkinningMethod
_IDENTITY_STRETCH = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
_MODES = {"lbs": LINEAR, "dqs": DUAL, "hybrid": LINEAR | DUAL}


def skin(
    vertices: Float[Tensor, "v 3"],
    weights: Float[Tensor, "v k"],
    indices: Int64[Tensor, "v k"],
    quats: Float[Tensor, "*batch j 4"],
    translations: Float[Tensor, "*#batch j 3"],
    *,
    centers: Float[Tensor, "*#batch j 3"] | None = None,
    stretches: Float[Tensor, "*#batch j 6"] | None = None,
    blends: Float[Tensor, "*#batch j"] | None = None,
    method: Method = "hybrid",
) -> Float[Tensor, "*batch v 3"]:
    """Vertices in each pose of the joints, differentiable once in all floats.

    Args:
        vertices: Rest pose [m].
        weights: Weights of the k joints that move a vertex; rows sum to 1.
        indices: Indices of these joints.
        quats: Rotation of each joint about its center; wxyz, length > 0.
        translations: Translation of each joint [m].
        centers: Joint positions in the rest pose [m]; the origin when None.
        stretches: Symmetric matrices xx, yy, zz, xy, xz, yz; none when None.
        blends: eta of each joint, 1 is linear and 0 dual quaternions; required by "hybrid" only.
        method: "lbs", "dqs" or "hybrid".

    Raises:
        InputError: The method is unknown, "hybrid" has no blends, or a joint index is out of range.
        ShapeError: A shape is wrong.

    Example:
        >>> turned = torch.tensor([[1.0, 0, 0, 0], [0.0, 0, 0, 1]])  # the second joint by 180 degrees about z
        >>> point, half = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.5, 0.5]])
        >>> skin(point, half, torch.tensor([[0, 1]]), turned, torch.zeros(2, 3), method="lbs").round(decimals=3)
        tensor([[0., 0., 0.]])
        >>> skin(point, half, torch.tensor([[0, 1]]), turned, torch.zeros(2, 3), method="dqs").round(decimals=3)
        tensor([[0., 1., 0.]])
    """
    if method not in get_args(Method):
        raise InputError(f"method: got {method!r}, want {', '.join(get_args(Method))}")
    if method == "hybrid" and blends is None:
        raise InputError("blends: got None, want one number a joint for the method hybrid (or the method lbs or dqs)")
    count = quats.shape[-2]
    check_trailing("quats", quats, 4)
    shape = quats.shape[:-1]
    parts = [quats, _or_default("translations", translations, shape, 3, quats, (0.0,) * 3)]
    parts.append(_or_default("centers", centers, shape, 3, quats, (0.0,) * 3))
    parts.append(_or_default("stretches", stretches, shape, 6, quats, _IDENTITY_STRETCH))
    parts.append(_or_default("blends", None if blends is None else blends[..., None], shape, 1, quats, (0.0,)))
    rows = _joint_rows(torch.cat(parts, -1))
    mode = _MODES[method] | (STRETCH if stretches is not None and method != "lbs" else 0)
    placed = _skinned(vertices, weights, indices, rows.reshape(-1, count, 32), mode)
    return placed.view(*quats.shape[:-2], len(vertices), 3)


def linear_blend(
    vertices: Float[Tensor, "v 3"],
    weights: Float[Tensor, "v k"],
    indices: Int64[Tensor, "v k"],
    matrices: Float[Tensor, "*batch j rows 4"],
) -> Float[Tensor, "*batch v 3"]:
    """Linear blend skinning with arbitrary affine maps, as in glTF and most engines: v' = sum_j w_j (A_j v + t_j).

    Args:
        vertices: Rest pose [m].
        weights: Weights of the k joints that move a vertex.
        indices: Indices of these joints.
        matrices: Rest to posed, [A | t] of 3 rows, or 4 x 4 whose last row is ignored.

    Raises:
        InputError: A joint index is out of range.
        ShapeError: A shape is wrong.
    """
    check_trailing("matrices", matrices, 4 if matrices.shape[-2] == 4 else 3, 4)
    count = matrices.shape[-3]
    rows = torch.nn.functional.pad(matrices[..., :3, :].reshape(-1, count, 12), (8, 12))
    placed = _skinned(vertices, weights, indices, rows, LINEAR)
    return placed.view(*matrices.shape[:-3], len(vertices), 3)


def blend_rotations(quats: Float[Tensor, "*#batch k 4"], weights: Float[Tensor, "*#batch k"]) -> Float[Tensor, "*#batch 4"]:
    """Exp(sum_k w_k Log q_k): rotations of vertices and of Gaussians on faces in DreamMesh4D.

    Exact if all rotations are equal or share their axis; discontinuous where one passes 180 degrees.

    Args:
        quats: Order wxyz, length > 0.
        weights: Rows that sum to 1.
    """
    check_trailing("quats", quats, weights.shape[-1], 4)
    vectors = so3_log(quat_to_rotmat(quats))
    return rotmat_to_quat(so3_exp((weights[..., None] * vectors).sum(-2)))


def keep_largest(weights: Float[Tensor, "v j"], count: int) -> tuple[Float[Tensor, "v k"], Int64[Tensor, "v k"]]:
    """The `count` largest weights of each vertex, normalized to sum 1, and the indices of their joints.

    Raises:
        InputError: A vertex has no positive weight, or a weight is not finite.
    """
    if not bool(weights.isfinite().all()):
        bad = int((~weights.isfinite()).any(-1).nonzero()[0])
        raise InputError(f"weights: those of vertex {bad} are not finite")
    kept, indices = weights.clamp(min=0).topk(min(count, weights.shape[-1]), -1)
    sums = kept.sum(-1, keepdim=True)
    if bool((sums <= 0).any()):
        bad = int((sums[:, 0] <= 0).nonzero()[0])
        raise InputError(f"weights: vertex {bad} has no positive weight; want at least one per vertex")
    return kept / sums, indices


def _or_default(
    name: str, value: Tensor | None, shape: torch.Size, width: int, like: Tensor, default: tuple[float, ...]
) -> Tensor:
    if value is None:
        return like.new_tensor(default).expand(*shape, width)
    check_trailing(name, value, shape[-1], width)
    return value.to(like).expand(*shape, width)


def _skinned(vertices: Tensor, weights: Tensor, indices: Tensor, rows: Tensor, mode: int) -> Tensor:
    check_trailing("vertices", vertices, 3)
    check_trailing("weights", weights, len(vertices), weights.shape[-1])
    joints = rows.shape[1]
    if indices.numel() and vertices.device.type == "cpu":
        low, high = indices.aminmax()
        if int(low) < 0 or int(high) >= joints:
            bad = int(((indices < 0) | (indices >= joints)).any(-1).nonzero()[0])
            raise InputError(f"indices: vertex {bad} names joints {indices[bad].tolist()}, but there are {joints}")
    vertices, weights = vertices.to(rows.dtype), weights.to(rows.dtype)
    if rows.dtype in (torch.float32, torch.float64) and native.is_plain(rows, vertices, weights):
        return native.direct(_skin, _SKIN)(vertices, weights, indices, rows, mode)
    return reference.skin(vertices, weights, indices, rows, mode)


@native.custom_op("skin")
@checked("vertices: float v 3, weights: float v k, indices: int64 v k, rows: float b j 32")
def _skin(vertices: Tensor, weights: Tensor, indices: Tensor, rows: Tensor, mode: int) -> Tensor:
    placed = _empty(vertices, rows)
    native.require().skin(*_plain(vertices, weights, indices, rows), mode, placed, **native.where(rows))
    return placed


@native.custom_op("skin_vjp")
@checked("vertices: float v 3, weights: float v k, indices: int64 v k, rows: float b j 32, mode, v_placed: float b v 3")
def _skin_vjp(
    vertices: Tensor, weights: Tensor, indices: Tensor, rows: Tensor, mode: int, v_placed: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    values = _plain(vertices, weights, indices, rows)
    grads = _empty_grads(vertices, weights, rows)
    native.require().skin_vjp(*values, mode, v_placed.detach().contiguous(), *grads, **native.where(rows))
    return grads


def _plain(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().contiguous() for tensor in tensors]


def _empty(vertices: Tensor, rows: Tensor) -> Tensor:
    return vertices.new_empty((rows.shape[0], vertices.shape[0], 3))


def _empty_grads(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors)
    return first, second, third


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.mode = inputs[4]


def _backward(ctx: Any, v_placed: Tensor | None, vjp: Any = _skin_vjp) -> tuple[Tensor | None, ...]:
    if v_placed is None:
        return (None,) * 5
    v_vertices, v_weights, v_rows = vjp(*ctx.saved_tensors, ctx.mode, v_placed)
    return v_vertices, v_weights, None, v_rows, None


_skin.register_fake(lambda vertices, weights, indices, rows, mode: _empty(vertices, rows))
_skin_vjp.register_fake(lambda vertices, weights, indices, rows, mode, v_placed: _empty_grads(vertices, weights, rows))
_skin.register_autograd(_backward, setup_context=_keep)
_SKIN = native.eager_function(_skin, _keep, _backward, _skin_vjp)
_joint_rows = RowOp("skin_joint", (17,), (32,), reference.skin_joint)
