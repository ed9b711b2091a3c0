"""Texture sampling as a `torch.library` op on the compiled kernels."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core import native
from vision3d.core.op_checks import check_memory, checked


def texture(
    texels: Float[Tensor, "s t d"],
    sizes: list[tuple[int, int]],
    uvs: Float[Tensor, "i h w 2"],
    lods: Float[Tensor, "i h w"] | None,
    masks: Bool[Tensor, "i h w"] | None,
    repeat: bool,
) -> Float[Tensor, "i h w d"]:
    """Samples at `uvs` of one texture (s = 1) or one per image, whose levels are stored one after another in `texels`."""
    return native.direct(_texture, _TEXTURE)(texels, torch.tensor(sizes, device=texels.device), uvs, lods, masks, repeat)


def _plain(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]


def _empty(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


@native.custom_op("texture_mesh")
@checked("texels: float s t d, sizes: int64 l 2, uvs: float i h w 2, lods: float? i h w, masks: bool? i h w")
def _texture(texels: Tensor, sizes: Tensor, uvs: Tensor, lods: Tensor | None, masks: Tensor | None, repeat: bool) -> Tensor:
    check_memory(texels, uvs.numel() // 2 * texels.shape[2], "uvs")
    values = texels.new_empty((*uvs.shape[:3], texels.shape[2]))
    native.require().texture_mesh(*_plain(texels, sizes, uvs, lods, masks), repeat, values, **native.where(texels))
    return values


_texture.register_fake(lambda texels, sizes, uvs, lods, masks, repeat: texels.new_empty((*uvs.shape[:3], texels.shape[2])))


@native.custom_op("texture_mesh_vjp")
@checked(
    "texels: float s t d, sizes: int64 l 2, uvs: float i h w 2, lods: float? i h w, masks: bool? i h w, repeat, "
    "v_values: float i h w d"
)
def _texture_vjp(
    texels: Tensor, sizes: Tensor, uvs: Tensor, lods: Tensor | None, masks: Tensor | None, repeat: bool, v_values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    v_texels = torch.zeros_like(texels, memory_format=torch.contiguous_format)
    v_uvs = _empty(uvs)
    v_lods = None if lods is None else _empty(lods)
    inputs = _plain(texels, sizes, uvs, lods, masks)
    (v_plain,) = _plain(v_values)
    native.require().texture_mesh_vjp(*inputs, repeat, v_plain, v_texels, v_uvs, v_lods, **native.where(texels))
    return v_texels, v_uvs, uvs.new_empty(0) if v_lods is None else v_lods


@_texture_vjp.register_fake
def _fake_texture_vjp(
    texels: Tensor, sizes: Tensor, uvs: Tensor, lods: Tensor | None, masks: Tensor | None, repeat: bool, v_values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(texels), _empty(uvs), uvs.new_empty(0) if lods is None else _empty(lods)


def _keep(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.repeat = inputs[5]


def _backward(ctx, v_values: Tensor | None, vjp: Any = _texture_vjp) -> tuple[Tensor | None, ...]:
    if v_values is None:
        return (None,) * 6
    v_texels, v_uvs, v_lods = vjp(*ctx.saved_tensors, ctx.repeat, v_values)
    return v_texels, None, v_uvs, None if ctx.saved_tensors[3] is None else v_lods, None, None


_texture.register_autograd(_backward, setup_context=_keep)
_TEXTURE = native.eager_function(_texture, _keep, _backward, _texture_vjp)
