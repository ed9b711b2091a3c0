"""Features at some points of an upsampled map, of which only the texels at those points are computed."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vision3d.core import native
from vision3d.core.errors import InputError, ShapeError
from vision3d.core.op_checks import check_memory, checked

_PADDING = {torch.float32: 16, torch.float64: 8}
"""The compiled loops take features in multiples of a vector; see cuda_ext/cpu/expansion.h."""


def sampled_expansion(
    features: Float[Tensor, "n h w c"],
    weights: Float[Tensor, "k c d"],
    shift: Float[Tensor, " d"],
    positions: Float[Tensor, "t d"],
    places: Float[Tensor, "n j 2"],
) -> Float[Tensor, "n j d"]:
    """Bilinear samples of ReLU(transposed convolution + shift) + positions, where the convolution's kernel is its stride s.

    Each texel then depends on one cell, so that the four texels of each sample are enough: for 21 points at most 84 of 784. The
    gradients are those of the whole map (`full_expansion`), which is computed if one is required.

    Args:
        features: Of the cells, channels last.
        weights: (s^2, c, d) by the texel's place in its cell: `conv.weight.permute(2, 3, 0, 1).flatten(0, 1)` of a
            `torch.nn.ConvTranspose2d`, with the scale of a batch norm if there is one.
        shift: Added before the ReLU.
        positions: (h s w s, d) added behind it, row by row.
        places: u and v: 0 is the center of the first texel, 1 that of the last one (align_corners). Clamped to [0, 1].

    Raises:
        ShapeError: The shapes do not agree.
        InputError: The map has no cells, or k is not a square.
    """
    _check(features, weights, shift, positions, places)
    tensors = (features, weights, shift, positions, places)
    wants_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if torch.compiler.is_compiling():  # an exported graph has no native operations
        return full_expansion(*tensors)
    if wants_gradient or features.dtype not in _PADDING or not native.is_plain(*tensors):
        return full_expansion(*tensors)
    if torch.jit.is_tracing():  # a graph calls the operation itself
        return _sampled_expansion(*tensors)
    return native.direct(_sampled_expansion, needs_gradient=False)(*tensors)


def full_expansion(
    features: Float[Tensor, "n h w c"],
    weights: Float[Tensor, "k c d"],
    shift: Float[Tensor, " d"],
    positions: Float[Tensor, "t d"],
    places: Float[Tensor, "n j 2"],
) -> Float[Tensor, "n j d"]:
    """As `sampled_expansion`, by the whole map."""
    step = math.isqrt(weights.shape[0])
    kernel = weights.unflatten(0, (step, step)).permute(2, 3, 0, 1)
    image = functional.relu(functional.conv_transpose2d(features.permute(0, 3, 1, 2), kernel, shift, step))
    image = image + positions.T.view(1, -1, *image.shape[2:])
    return sample_map(image, places)


def sample_map(image: Float[Tensor, "n c h w"], uv: Float[Tensor, "n p 2"]) -> Float[Tensor, "n p c"]:
    """A feature map at points, bilinear.

    Args:
        image: Feature map.
        uv: Points (across, down) in [0, 1], where 0 and 1 are the centers of the outermost texels; others are clamped.
            NaN gives NaN.
    """
    grid = (2 * (uv - 0.5)).clamp(-1, 1)
    sampled = functional.grid_sample(image, grid[:, :, None], mode="bilinear", padding_mode="zeros", align_corners=True)
    # grid_sample reads NaN as a point outside.
    return sampled[..., 0].mT + 0 * grid.sum(-1, keepdim=True)


def _check(features: Tensor, weights: Tensor, shift: Tensor, positions: Tensor, places: Tensor) -> None:
    height, width = features.shape[1:3]
    step = math.isqrt(weights.shape[0])
    if step * step != weights.shape[0] or step == 0:
        raise InputError(f"weights: got {weights.shape[0]} places in a cell, want a square")
    if height == 0 or width == 0:
        raise InputError(f"features: got a map of {height} x {width} cells, want at least one")
    texels = height * width * step * step
    if positions.shape[0] != texels:
        raise ShapeError("positions", positions.shape, f"({texels}, d): {step} x {step} texels a cell")


@native.custom_op("sampled_expansion")
@checked("features: float n h w c, weights: float k c d, shift: float d, positions: float t d, places: float n j 2")
def _sampled_expansion(features: Tensor, weights: Tensor, shift: Tensor, positions: Tensor, places: Tensor) -> Tensor:
    _check(features, weights, shift, positions, places)
    columns = shift.shape[0]
    missing = -columns % _PADDING[features.dtype] if features.device.type == "cpu" else 0
    if missing:
        weights, shift, positions = (functional.pad(value, (0, missing)) for value in (weights, shift, positions))
    check_memory(features, places.shape[0] * places.shape[1] * shift.shape[0], "samples")
    out = features.new_empty(*places.shape[:2], shift.shape[0])
    given = [value.detach().contiguous() for value in (features, weights, shift, positions, places)]
    native.require().sampled_expansion(*given, out, **native.where(features))
    return out[..., :columns].contiguous() if missing else out


_sampled_expansion.register_fake(
    lambda features, weights, shift, positions, places: features.new_empty(*places.shape[:2], shift.shape[0])
)
