"""The SSIM map as an operation: fused native kernel on the CPU, plain torch elsewhere."""

from jaxtyping import Float
from torch import Tensor

from vision3d.optim.reference import ssim as reference
from vision3d.optim.reference.ssim import Padding


def ssim_map(
    a: Float[Tensor, "*batch h w c"],
    b: Float[Tensor, "*batch h w c"],
    *,
    window: int,
    sigma: float,
    padding: Padding,
    data_range: float,
) -> Float[Tensor, "*batch h2 w2 c"]:
    """SSIM of every window, (h - window + 1) x (w - window + 1) of them for "valid", one a pixel for "same"."""
    batched = a.ndim == 4
    a, b = (a, b) if batched else (a.unsqueeze(0), b.unsqueeze(0))
    values = reference.ssim_maps(a, b, window=window, sigma=sigma, padding=padding, data_range=data_range).ssim
    return values if batched else values.squeeze(0)
