"""Blending at silhouettes as a `torch.library` op on the compiled kernels."""

from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from vision3d.core import native
from vision3d.core.op_checks import checked


def antialias(
    positions: Float[Tensor, "i v 4"],
    triangles: Int32[Tensor, "f 3"],
    neighbors: Int32[Tensor, "f 3"],
    face_ids: Int32[Tensor, "i h w"],
    depths: Float[Tensor, "i h w"],
    colors: Float[Tensor, "i h w d"],
) -> Float[Tensor, "i h w d"]:
    """Colors blended where a silhouette edge passes between two pixel centers."""
    return native.direct(_antialias, _ANTIALIAS)(positions, triangles, neighbors, face_ids, depths.detach(), colors)[0]


def _plain(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().contiguous() for tensor in tensors]


def _empty(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


@native.custom_op("antialias_mesh")
@checked(
    "positions: float i v 4, triangles: int32 f 3, neighbors: int32 f 3, face_ids: int32 i h w, depths: float i h w, "
    "colors: float i h w d"
)
def _antialias(
    positions: Tensor, triangles: Tensor, neighbors: Tensor, face_ids: Tensor, depths: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor]:
    """The image, and which pairs of pixels blend: bit 0 with the one to the right, bit 1 with the one below."""
    out, pairs = _fake(positions, triangles, neighbors, face_ids, depths, colors)
    inputs = _plain(positions, triangles, neighbors, face_ids, depths, colors)
    native.require().antialias_mesh(*inputs, pairs, out, **native.where(colors))
    return out, pairs


@_antialias.register_fake
def _fake(
    positions: Tensor, triangles: Tensor, neighbors: Tensor, face_ids: Tensor, depths: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor]:
    return _empty(colors), face_ids.new_empty(face_ids.shape, dtype=torch.uint8)


@native.custom_op("antialias_mesh_vjp")
@checked(
    "positions: float i v 4, triangles: int32 f 3, neighbors: int32 f 3, face_ids: int32 i h w, depths: float i h w, "
    "colors: float i h w d, pairs: uint8 i h w, v_out: float i h w d"
)
def _antialias_vjp(
    positions: Tensor,
    triangles: Tensor,
    neighbors: Tensor,
    face_ids: Tensor,
    depths: Tensor,
    colors: Tensor,
    pairs: Tensor,
    v_out: Tensor,
) -> tuple[Tensor, Tensor]:
    v_colors = _empty(colors)
    v_positions = torch.zeros_like(positions, memory_format=torch.contiguous_format)
    inputs = _plain(positions, triangles, neighbors, face_ids, depths, colors, pairs, v_out)
    native.require().antialias_mesh_vjp(*inputs, v_colors, v_positions, **native.where(colors))
    return v_positions, v_colors


_antialias_vjp.register_fake(
    lambda positions, triangles, neighbors, face_ids, depths, colors, pairs, v_out: (_empty(positions), _empty(colors))
)


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, v_out: Tensor | None, v_pairs: Tensor | None, vjp: Any = _antialias_vjp) -> tuple[Tensor | None, ...]:
    if v_out is None:
        return (None,) * 6
    v_positions, v_colors = vjp(*ctx.saved_tensors, v_out)
    return v_positions, None, None, None, None, v_colors


_antialias.register_autograd(_backward, setup_context=_keep)
_ANTIALIAS = native.eager_function(_antialias, _keep, _backward, _antialias_vjp)
