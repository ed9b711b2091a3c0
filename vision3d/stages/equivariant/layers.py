"""Equivariant convolutions on the plane and a group H of linear maps of it: features f(x, h).

With the action [L_(t,A) f](x, h) = f(A^-1 (x - t), A^-1 h) of the maps x -> A x + t, the layers are

    lift        (k * f)(x, h) = int f(y) k(h^-1 (y - x)) / det h dy
    group       (k * f)(x, h) = int int f(y, g) k(h^-1 (y - x), h^-1 g) / det g dy dmu(g)
    projection  (k * f)(x)    = int int f(y, g) k(g^-1 (y - x)) / det g dy dmu(g)

after Mironenco & Forre 2024 (arXiv 2310.11366). H = so2 makes them layers of SE(2), gl2 of the affine group. The integral over
H is a mean over samples with the weights of the invariant measure (geometry/groups/haar.py). Tensors are (B, C, N, H, W), N
samples.

The authors' released code divides by the determinant of the output's sample, jumps by 2 pi at the identity, has one rotation
twice among its samples and no weights; `Published` in tests/stages/equivariant restores these one by one, and the tests that
pass here fail there.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.errors import ConfigError, ShapeError
from vision3d.geometry.groups.haar import GroupSamples, PlanarGroup, check_group
from vision3d.stages.equivariant.kernel_nets import KernelKind, KernelNet
from vision3d.stages.equivariant.kernels import MaskKind, build_kernel

_NUM_SYM = {"so2": 0, "sl2": 2, "gl2": 3}


def kernel_dims(group: PlanarGroup) -> int:
    """Number of coordinates of a kernel on the plane and the group: x, y, those of Y, cos and sin."""
    return 2 + _NUM_SYM[check_group(group)] + 2


class _Kernel(nn.Module):
    """Base of the layers: a kernel network and its grid."""

    def __init__(
        self, group: PlanarGroup, in_channels: int, out_channels: int, size: int, *, dims: int, kind: KernelKind,
        mask: MaskKind, extent: float, padding: int,
    ) -> None:  # fmt: skip
        super().__init__()
        if size % 2 == 0 or size < 1:
            raise ConfigError("size", f"got {size}, want an odd number of pixels")
        self.group: PlanarGroup = check_group(group)
        self.size, self.extent, self.padding = size, extent, padding
        self.in_channels, self.out_channels = in_channels, out_channels
        self.mask: MaskKind = mask
        self.net = KernelNet(dims, in_channels * out_channels, in_channels * size * size, kind)

    def _build(
        self, at: GroupSamples, of: GroupSamples | None, out_factors: Tensor, in_factors: Tensor
    ) -> Float[Tensor, "c_out n c_in m k k"]:
        return build_kernel(
            self.group, self.net.kind, self.mask, at.inverses(), None if of is None else of.matrices(), out_factors, in_factors,
            self.net.parameters_in_order(), (self.out_channels, self.in_channels), self.size, self.extent,
        )  # fmt: skip

    def _check(self, features: Tensor, samples: GroupSamples | None) -> None:
        want = 4 if samples is None else 5
        counts = () if samples is None else (len(samples),)
        if features.ndim != want or tuple(features.shape[1:-2]) != (self.in_channels, *counts):
            raise ShapeError("features", features.shape, f"(B, {', '.join(map(str, (self.in_channels, *counts)))}, H, W)")
        if samples is not None and samples.group != self.group:
            raise ConfigError("group", f"samples are of {samples.group}, the layer has {self.group}")


class LiftConv(_Kernel):
    """From images (B, C_in, H, W) to features (B, C_out, N, H', W').

    Args:
        group: Linear part: `so2`, `sl2` or `gl2`.
        in_channels: Channels of the images.
        out_channels: Channels of the features.
        size: Kernel size [px], odd.
        kind: Kernel network.
        mask: Support of the kernel.
        extent: Half side length of the grid in units of the kernel's radius: values above 1 leave room for enlarged kernels.
        padding: Zero padding of the image.
    """

    def __init__(
        self, group: PlanarGroup, in_channels: int, out_channels: int, size: int = 5, *, kind: KernelKind = "siren",
        mask: MaskKind = "bump", extent: float = 1.0, padding: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(group, in_channels, out_channels, size, dims=2, kind=kind, mask=mask, extent=extent, padding=padding)

    def forward(self, images: Float[Tensor, "b c_in h w"], samples: GroupSamples) -> Float[Tensor, "b c_out n h2 w2"]:
        self._check(images, None)
        kernel = self._build(samples, None, samples.determinants().reciprocal(), images.new_ones(1))
        out = torch.nn.functional.conv2d(images, kernel.flatten(2, 3).flatten(0, 1), padding=self.padding)
        return out.unflatten(1, (self.out_channels, len(samples)))


class GroupConv(_Kernel):
    """From features (B, C_in, N, H, W) at `inputs` to features (B, C_out, M, H', W') at `outputs`; arguments as `LiftConv`."""

    def __init__(
        self, group: PlanarGroup, in_channels: int, out_channels: int, size: int = 5, *, kind: KernelKind = "siren",
        mask: MaskKind = "bump", extent: float = 1.0, padding: int = 0,
    ) -> None:  # fmt: skip
        dims = kernel_dims(group)
        super().__init__(
            group, in_channels, out_channels, size, dims=dims, kind=kind, mask=mask, extent=extent, padding=padding
        )

    def forward(
        self, features: Float[Tensor, "b c_in n h w"], inputs: GroupSamples, outputs: GroupSamples
    ) -> Float[Tensor, "b c_out m h2 w2"]:
        self._check(features, inputs)
        kernel = self._build(outputs, inputs, features.new_ones(len(outputs)), _in_factors(inputs))
        out = torch.nn.functional.conv2d(features.flatten(1, 2), kernel.flatten(2, 3).flatten(0, 1), padding=self.padding)
        return out.unflatten(1, (self.out_channels, len(outputs)))


class ProjectConv(_Kernel):
    """From features (B, C_in, N, H, W) back to the plane, (B, C_out, H', W'); arguments as `LiftConv`."""

    def __init__(
        self, group: PlanarGroup, in_channels: int, out_channels: int, size: int = 5, *, kind: KernelKind = "siren",
        mask: MaskKind = "bump", extent: float = 1.0, padding: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(group, in_channels, out_channels, size, dims=2, kind=kind, mask=mask, extent=extent, padding=padding)

    def forward(self, features: Float[Tensor, "b c_in n h w"], inputs: GroupSamples) -> Float[Tensor, "b c_out h2 w2"]:
        self._check(features, inputs)
        kernel = self._build(inputs, None, _in_factors(inputs), features.new_ones(1))  # (c_out, n, c_in, 1, k, k)
        kernel = kernel[:, :, :, 0].transpose(1, 2).flatten(1, 2)
        return torch.nn.functional.conv2d(features.flatten(1, 2), kernel, padding=self.padding)


class SeparableGroupConv(nn.Module):
    """A `GroupConv` whose kernel is a product k_H(h^-1 g) k_R(h^-1 p): mixing over channels and samples, then one small
    convolution per channel and sample. C N K^2 + C^2 N^2 products per pixel instead of C^2 N^2 K^2."""

    def __init__(
        self, group: PlanarGroup, in_channels: int, out_channels: int, size: int = 5, *, kind: KernelKind = "siren",
        mask: MaskKind = "bump", extent: float = 1.0, padding: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mix = _Kernel(
            group, in_channels, out_channels, 1, dims=kernel_dims(group), kind=kind, mask=mask, extent=1.0, padding=0
        )
        self.plane = _Kernel(group, 1, out_channels, size, dims=2, kind=kind, mask=mask, extent=extent, padding=padding)

    def forward(
        self, features: Float[Tensor, "b c_in n h w"], inputs: GroupSamples, outputs: GroupSamples
    ) -> Float[Tensor, "b c_out m h2 w2"]:
        self.mix._check(features, inputs)
        ones = features.new_ones(len(outputs))
        mix = self.mix._build(outputs, inputs, ones, _in_factors(inputs))
        plane = self.plane._build(outputs, None, ones, ones[:1])
        mixed = torch.nn.functional.conv2d(features.flatten(1, 2), mix.flatten(2, 3).flatten(0, 1))
        out = torch.nn.functional.conv2d(
            mixed, plane.flatten(2, 3).flatten(0, 1), padding=self.plane.padding, groups=mixed.shape[1]
        )
        return out.unflatten(1, (self.plane.out_channels, len(outputs)))


class SampleNorm(nn.Module):
    """Divides the features of each image by their root mean square over channels, samples and pixels.

    Args:
        centred: Subtract the mean first. Black images then have non-zero features, so zero padding makes an edge whose position
            depends on translation.
    """

    def __init__(self, centred: bool = False) -> None:
        super().__init__()
        self.centred = centred

    def forward(self, features: Float[Tensor, "*batch"], enlarged: float = 1.0) -> Float[Tensor, "*batch"]:
        """Normalized features; `enlarged` is the factor by which a black margin has enlarged the area, which must not count."""
        if self.centred:
            return torch.nn.functional.layer_norm(features, features.shape[1:])
        power = features.flatten(1).square().mean(1) * enlarged
        return features * (power + 1e-6).rsqrt().view(-1, *[1] * (features.ndim - 1))


def _in_factors(inputs: GroupSamples) -> Tensor:
    """Weight of each input sample in the mean over the group: weight / (N det g)."""
    return inputs.weights / inputs.determinants() / len(inputs)
