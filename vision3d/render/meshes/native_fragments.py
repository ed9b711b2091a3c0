"""Rasterizing meshes and interpolating attributes as `torch.library` ops on the compiled kernels."""

from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from vision3d.core import native
from vision3d.core.op_checks import check_image_size, check_memory, checked


def rasterize(
    positions: Float[Tensor, "i v 4"], triangles: Int32[Tensor, "f 3"], width: int, height: int, near: float, far: float
) -> tuple[Int32[Tensor, "i h w"], Float[Tensor, "i h w 3"], Float[Tensor, "i h w"]]:
    """Face, barycentrics and depth of every pixel."""
    barycentrics, depths, face_ids = native.direct(_rasterize, _RASTERIZE)(positions, triangles, width, height, near, far)
    return face_ids, barycentrics, depths


def interpolate(
    attributes: Float[Tensor, "s v d"],
    triangles: Int32[Tensor, "f 3"],
    face_ids: Int32[Tensor, "i h w"],
    barycentrics: Float[Tensor, "i h w 3"],
) -> Float[Tensor, "i h w d"]:
    """Sums over corners of barycentric times attribute; one set (s = 1) or one per image."""
    return native.direct(_interpolate, _INTERPOLATE)(attributes, triangles, face_ids, barycentrics)


def _plain(*tensors: Tensor | None) -> list[Tensor | None]:
    """In the format of the kernels: contiguous, detached."""
    return [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros_like(like, memory_format=torch.contiguous_format)


def _empty(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


@native.custom_op("rasterize_mesh")
@checked("positions: float i v 4, triangles: int32 f 3")
def _rasterize(
    positions: Tensor, triangles: Tensor, width: int, height: int, near: float, far: float
) -> tuple[Tensor, Tensor, Tensor]:
    check_image_size(len(positions), width, height)
    check_memory(positions, len(positions) * width * height * 7, "width, height")
    barycentrics, depths, face_ids = _fake_rasterize(positions, triangles, width, height, near, far)
    keys = positions.new_empty(depths.shape, dtype=torch.int64)  # scratch memory of the GPU kernels, like the next one
    queue = positions.new_empty((len(positions), len(triangles) + 1), dtype=torch.int32)
    outputs = (face_ids, barycentrics, depths, keys, queue)
    native.require().rasterize_mesh(*_plain(positions, triangles), near, far, *outputs, **native.where(positions))
    return barycentrics, depths, face_ids


@_rasterize.register_fake
def _fake_rasterize(
    positions: Tensor, triangles: Tensor, width: int, height: int, near: float, far: float
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (positions.shape[0], height, width)
    barycentrics, depths = positions.new_empty((*shape, 3)), positions.new_empty(shape)
    return barycentrics, depths, positions.new_empty(shape, dtype=torch.int32)


@native.custom_op("rasterize_mesh_vjp")
@checked(
    "positions: float i v 4, triangles: int32 f 3, face_ids: int32 i h w, v_barycentrics: float? i h w 3, "
    "v_depths: float? i h w"
)
def _rasterize_vjp(
    positions: Tensor, triangles: Tensor, face_ids: Tensor, v_barycentrics: Tensor | None, v_depths: Tensor | None
) -> Tensor:
    v_positions = _zeros(positions)
    inputs = _plain(positions, triangles, face_ids, v_barycentrics, v_depths)
    native.require().rasterize_mesh_vjp(*inputs, v_positions, **native.where(positions))
    return v_positions


_rasterize_vjp.register_fake(lambda positions, triangles, face_ids, v_barycentrics, v_depths: _empty(positions))


def _keep_rasterize(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:2], output[2])
    ctx.mark_non_differentiable(output[2])


def _rasterize_backward(
    ctx, v_barycentrics: Tensor | None, v_depths: Tensor | None, v_face_ids: Tensor | None, vjp: Any = _rasterize_vjp
) -> tuple[Tensor | None, None, None, None, None, None]:
    if v_barycentrics is None and v_depths is None:
        return None, None, None, None, None, None
    v_positions = vjp(*ctx.saved_tensors, v_barycentrics, v_depths)
    return v_positions, None, None, None, None, None


_rasterize.register_autograd(_rasterize_backward, setup_context=_keep_rasterize)
_RASTERIZE = native.eager_function(_rasterize, _keep_rasterize, _rasterize_backward, _rasterize_vjp)


@native.custom_op("interpolate_mesh")
@checked("attributes: float s v d, triangles: int32 f 3, face_ids: int32 i h w, barycentrics: float i h w 3")
def _interpolate(attributes: Tensor, triangles: Tensor, face_ids: Tensor, barycentrics: Tensor) -> Tensor:
    check_memory(attributes, face_ids.numel() * attributes.shape[2], "attributes")
    values = attributes.new_empty((*face_ids.shape, attributes.shape[2]))
    inputs = _plain(attributes, triangles, face_ids, barycentrics)
    native.require().interpolate_mesh(*inputs, values, **native.where(attributes))
    return values


_interpolate.register_fake(
    lambda attributes, triangles, face_ids, barycentrics: attributes.new_empty((*face_ids.shape, attributes.shape[2]))
)


@native.custom_op("interpolate_mesh_vjp")
@checked(
    "attributes: float s v d, triangles: int32 f 3, face_ids: int32 i h w, barycentrics: float i h w 3, v_values: float i h w d"
)
def _interpolate_vjp(
    attributes: Tensor, triangles: Tensor, face_ids: Tensor, barycentrics: Tensor, v_values: Tensor
) -> tuple[Tensor, Tensor]:
    v_attributes, v_barycentrics = _zeros(attributes), _empty(barycentrics)
    inputs = _plain(attributes, triangles, face_ids, barycentrics, v_values)
    native.require().interpolate_mesh_vjp(*inputs, v_attributes, v_barycentrics, **native.where(attributes))
    return v_attributes, v_barycentrics


_interpolate_vjp.register_fake(
    lambda attributes, triangles, face_ids, barycentrics, v_values: (_empty(attributes), _empty(barycentrics))
)


def _keep_interpolate(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _interpolate_backward(
    ctx, v_values: Tensor | None, vjp: Any = _interpolate_vjp
) -> tuple[Tensor | None, None, None, Tensor | None]:
    if v_values is None:
        return None, None, None, None
    v_attributes, v_barycentrics = vjp(*ctx.saved_tensors, v_values)
    return v_attributes, None, None, v_barycentrics


_interpolate.register_autograd(_interpolate_backward, setup_context=_keep_interpolate)
_INTERPOLATE = native.eager_function(_interpolate, _keep_interpolate, _interpolate_backward, _interpolate_vjp)
