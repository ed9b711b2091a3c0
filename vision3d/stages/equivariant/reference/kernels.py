"""Plain torch version of the fused kernel builder, used to test it."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.groups.planar import polar2, sym2_to_coordinates
from vision3d.stages.equivariant.kernel_nets import KernelKind, evaluate, wave, wave_slope


def grid_points(size: int, extent: float, like: Tensor) -> Float[Tensor, "p 2"]:
    """Centers (x, y) of the cells of a kernel of size x size, row by row, in units of its radius: the grid spans +-extent."""
    along = ((2 * torch.arange(size, dtype=like.dtype, device=like.device) + 1) / size - 1) * extent
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], -1)


def mask_values(kind: str, squares: Tensor) -> Tensor:
    """Mask of a kernel from the squared distance: the unit ball, hard, smooth, or of finite support."""
    if kind == "disk":
        return (squares <= 1).to(squares)
    if kind == "bump":
        return (1 - squares).clamp(min=0).square()
    distance = (squares + torch.finfo(squares.dtype).tiny).sqrt()
    return torch.sigmoid(2 * (1 - distance))


def chart_features(
    group: str, inverses: Float[Tensor, "n 2 2"], elements: Float[Tensor, "m 2 2"]
) -> tuple[Float[Tensor, "n m k"], Float[Tensor, "n m"]]:
    """Kernel coordinates of h^-1 g (those of Y, then cos and sin of the angle), and |Y|^2."""
    log_p, angles = polar2(inverses[:, None] @ elements[None])
    if group == "so2":
        features = angles.new_zeros(*angles.shape, 0)
    else:
        features = sym2_to_coordinates(log_p, traceless=group == "sl2")
    return torch.cat([features, angles.cos()[..., None], angles.sin()[..., None]], -1), features.square().sum(-1)


def inputs_and_factors(
    group: str,
    mask: str,
    inverses: Float[Tensor, "n 2 2"],
    elements: Float[Tensor, "m 2 2"] | None,
    out_factors: Float[Tensor, " n"],
    in_factors: Float[Tensor, " m"],
    size: int,
    extent: float,
) -> tuple[Float[Tensor, "n m p d"], Float[Tensor, "n m p"]]:
    """Inputs of the network for every pair of samples and point, and factors of its outputs."""
    points = torch.einsum("nij,pj->npi", inverses, grid_points(size, extent, inverses))  # h^-1 p
    num_in = 1 if elements is None else len(elements)
    squares = points.square().sum(-1)[:, None]
    inputs = points[:, None].expand(-1, num_in, -1, -1)
    if elements is not None:
        features, lengths = chart_features(group, inverses, elements)
        squares = squares + lengths[..., None]
        inputs = torch.cat([inputs, features[:, :, None].expand(-1, -1, size * size, -1)], -1)
    return inputs, mask_values(mask, squares) * out_factors[:, None, None] * in_factors[None, :, None]


def build_kernel(
    group: str,
    kind: KernelKind,
    mask: str,
    inverses: Float[Tensor, "n 2 2"],
    elements: Float[Tensor, "m 2 2"] | None,
    out_factors: Float[Tensor, " n"],
    in_factors: Float[Tensor, " m"],
    parameters: list[Tensor],
    channels: tuple[int, int],
    size: int,
    extent: float,
) -> Float[Tensor, "c_out n c_in m k k"]:
    inputs, factors = inputs_and_factors(group, mask, inverses, elements, out_factors, in_factors, size, extent)
    values = evaluate(kind, inputs, parameters) * factors[..., None]
    values = values.unflatten(-1, channels).unflatten(2, (size, size))  # (n, m, k, k, c_out, c_in)
    return values.permute(4, 0, 5, 1, 2, 3).contiguous()


def network_vjp(
    kind: KernelKind, x: Float[Tensor, "r d"], parameters: list[Tensor], v_values: Float[Tensor, "r v"]
) -> list[Tensor]:
    """Gradients of the network's parameters; its layers are recomputed."""
    layers, kept = list(zip(parameters[::2], parameters[1::2])), []
    for weight, bias in layers[:-1]:
        z = torch.nn.functional.linear(x, weight, bias)
        kept.append((x, z))
        x = wave(kind, z)
    gradients = [v_values.sum(0), v_values.T @ x]
    v_x = v_values @ layers[-1][0]
    for (weight, _), (x, z) in zip(layers[-2::-1], kept[::-1]):
        v_z = v_x * wave_slope(kind, z)
        gradients += [v_z.sum(0), v_z.T @ x]
        v_x = v_z @ weight
    return gradients[::-1]
