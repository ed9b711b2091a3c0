"""Antialiased images of attributes as one `torch.library` op on the compiled CPU kernels."""

from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from vision3d.core import native
from vision3d.core.op_checks import check_image_size, check_memory, checked


def draw(
    attributes: Float[Tensor, "s v d"],
    positions: Float[Tensor, "i v 4"],
    triangles: Int32[Tensor, "f 3"],
    neighbors: Int32[Tensor, "f 3"],
    width: int,
    height: int,
    near: float,
    far: float,
) -> Float[Tensor, "i h w d"]:
    """Attributes at every pixel, blended at silhouettes; one set (s = 1) or one per image."""
    return native.direct(_draw, _DRAW)(attributes, positions, triangles, neighbors, width, height, near, far)[0]


def _arrays(*tensors: Tensor) -> list[Any]:
    """In the format of the kernels. Half the cost of tensors, whose `__dlpack__` is written in Python."""
    return [to_dlpack(tensor.contiguous()) for tensor in tensors]


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros_like(like, memory_format=torch.contiguous_format)


@native.custom_op("draw_mesh", device_types="cpu")
@checked("attributes: float s v d, positions: float i v 4, triangles: int32 f 3, neighbors: int32 f 3")
def _draw(
    attributes: Tensor,
    positions: Tensor,
    triangles: Tensor,
    neighbors: Tensor,
    width: int,
    height: int,
    near: float,
    far: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The image, faces and depths of the pixels, and the pairs of pixels that blend, as for `antialias_mesh`."""
    check_image_size(len(positions), width, height)
    check_memory(positions, len(positions) * width * height * (attributes.shape[2] + 3), "width, height")
    colors, face_ids, depths, pairs = _outputs(attributes, positions, width, height)
    inputs = _arrays(positions, triangles, neighbors, attributes)
    native.require().draw_mesh(*inputs, near, far, *_arrays(face_ids, depths, pairs, colors))
    return colors, face_ids, depths, pairs


def _outputs(attributes: Tensor, positions: Tensor, width: int, height: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = (positions.shape[0], height, width)
    colors, depths = positions.new_empty((*shape, attributes.shape[2])), positions.new_empty(shape)
    return colors, positions.new_empty(shape, dtype=torch.int32), depths, positions.new_empty(shape, dtype=torch.uint8)


_draw.register_fake(
    lambda attributes, positions, triangles, neighbors, width, height, *_: _outputs(attributes, positions, width, height)
)


@native.custom_op("draw_mesh_vjp", device_types="cpu")
@checked(
    "attributes: float s v d, positions: float i v 4, triangles: int32 f 3, neighbors: int32 f 3, "
    "face_ids: int32 i h w, depths: float i h w, pairs: uint8 i h w, v_colors: float i h w d"
)
def _draw_vjp(
    attributes: Tensor,
    positions: Tensor,
    triangles: Tensor,
    neighbors: Tensor,
    face_ids: Tensor,
    depths: Tensor,
    pairs: Tensor,
    v_colors: Tensor,
) -> tuple[Tensor, Tensor]:
    v_attributes, v_positions = _zeros(attributes), _zeros(positions)
    inputs = _arrays(positions, triangles, neighbors, attributes, face_ids, depths, pairs, v_colors)
    native.require().draw_mesh_vjp(*inputs, *_arrays(v_positions, v_attributes))
    return v_attributes, v_positions


_draw_vjp.register_fake(lambda attributes, positions, *_: (_zeros(attributes), _zeros(positions)))


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:4], *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx, v_colors: Tensor | None, *unused: Any, vjp: Any = _draw_vjp) -> tuple[Tensor | None, ...]:
    if v_colors is None:
        return (None,) * 8
    v_attributes, v_positions = vjp(*ctx.saved_tensors, v_colors)
    return v_attributes, v_positions, None, None, None, None, None, None


_draw.register_autograd(_backward, setup_context=_keep)
_DRAW = native.eager_function(_draw, _keep, _backward, _draw_vjp)
