"""The SSIM map as an operation: fused native kernels if available, else plain torch."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import InputError, ShapeError
from vision3d.core.op_checks import checked
from vision3d.optim.reference import ssim as reference
from vision3d.optim.reference.ssim import Padding, gaussian_window


def ssim_map(
    a: Float[Tensor, "*batch h w c"],
    b: Float[Tensor, "*batch h w c"],
    *,
    window: int = 11,
    sigma: float = 1.5,
    padding: Padding = "valid",
    data_range: float = 1.0,
) -> Float[Tensor, "*batch h2 w2 c"]:
    """SSIM of every window, (h - window + 1) x (w - window + 1) of them for "valid", one per pixel for "same".

    Without checks; `losses.ssim` is the public function.
    """
    batched = a.ndim == 4
    a, b = (a, b) if batched else (a.unsqueeze(0), b.unsqueeze(0))
    if a.dtype in (torch.float32, torch.float64) and native.is_plain(a, b):
        needs_grad = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
        values, _ = native.direct(_ssim, _SSIM)(a, b, window, sigma, padding == "same", data_range, needs_grad)
    else:
        values = reference.ssim_maps(a, b, window=window, sigma=sigma, padding=padding, data_range=data_range).ssim
    return values if batched else values.squeeze(0)


@native.custom_op("ssim")
@checked("a: float i h w c, b: float i h w c")
def _ssim(
    a: Tensor, b: Tensor, window: int, sigma: float, same: bool, data_range: float, derivatives: bool
) -> tuple[Tensor, Tensor]:
    _check_window(a, window, sigma)
    values, by_means = _empty_maps(a, window, same, derivatives)
    weights, margin = _weights(window, sigma, a.dtype, a.device), window // 2 if same else 0
    if not 0 < data_range < 1e15:
        raise InputError(f"data_range: got {data_range}, want a number > 0, and below 1e15")
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    pair = a.detach().contiguous(), b.detach().contiguous()
    native.require().ssim(*pair, weights, margin, c1, c2, values, by_means, **native.where(a))
    return values, by_means


@native.custom_op("ssim_vjp")
@checked("a: float i h w c, b: float i h w c, v_values: float i y x c, by_means: float 4 i y x c")
def _ssim_vjp(
    a: Tensor, b: Tensor, v_values: Tensor, by_means: Tensor, window: int, sigma: float, same: bool, of_second: bool
) -> Tensor:
    """Gradient of the first image, or of the second: the same with the images and their derivatives swapped."""
    _check_window(a, window, sigma)
    want = _empty_maps(a[:0], window, same, False)[0].shape[1:3]
    if v_values.shape[1:3] != want:
        raise ShapeError("v_values", v_values.shape, (len(a), *want, a.shape[3]))
    weights, margin = _weights(window, sigma, a.dtype, a.device), window // 2 if same else 0
    by_a, by_b, by_squares, by_product = by_means.detach().unbind(0)
    first, second, by_mean = (b, a, by_b) if of_second else (a, b, by_a)
    pair = first.detach().contiguous(), second.detach().contiguous()
    v_image = torch.empty_like(pair[0])
    v_values = v_values.detach().contiguous()
    derivatives = (v_values, by_mean, by_squares, by_product)
    native.require().ssim_vjp(*pair, weights, margin, *derivatives, v_image, **native.where(a))
    return v_image


@functools.lru_cache(maxsize=16)
def _weights(window: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The window, copied to the device once."""
    return gaussian_window(window, sigma).to(device, dtype)


def _check_window(a: Tensor, window: int, sigma: float) -> None:
    side = min(a.shape[1:3])
    if window < 1 or window % 2 == 0 or window > side:
        raise InputError(f"window: got {window}, want an odd number from 1 to {side}, the smaller side of the images")
    if not sigma > 0:
        raise InputError(f"sigma: got {sigma}, want a number > 0")


def _empty_maps(a: Tensor, window: int, same: bool, derivatives: bool) -> tuple[Tensor, Tensor]:
    shrink = 0 if same else window - 1
    shape = (a.shape[0], a.shape[1] - shrink, a.shape[2] - shrink, a.shape[3])
    return a.new_empty(shape), a.new_empty((4 if derivatives else 0, *shape))


def _setup(ctx, inputs, output):
    a, b, window, sigma, same, _, derivatives = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    if derivatives:
        ctx.save_for_backward(a, b, output[1])
    ctx.options = window, sigma, same


def _backward(ctx, v_values, _, vjp=_ssim_vjp):
    grads = [None] * 7
    if v_values is not None:
        a, b, by_means = ctx.saved_tensors
        for i in range(2):
            if ctx.needs_input_grad[i]:
                grads[i] = vjp(a, b, v_values, by_means, *ctx.options, of_second=i == 1)
    return tuple(grads)


@_ssim.register_fake
def _(a, b, window, sigma, same, data_range, derivatives):
    return _empty_maps(a, window, same, derivatives)


@_ssim_vjp.register_fake
def _(a, b, v_values, by_means, window, sigma, same, of_second):
    return torch.empty_like(a, memory_format=torch.contiguous_format)


_ssim.register_autograd(_backward, setup_context=_setup)
_SSIM = native.eager_function(_ssim, _setup, _backward, _ssim_vjp)
