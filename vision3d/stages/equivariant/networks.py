"""The classifiers: a plain CNN, the same on canonical images, convolutions on SO(2) of canonical images, and convolutions
on the plane and a group of linear maps. All take images (n, h, w) in any position and return logits (n, 10)."""

import math
from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.core.errors import ConfigError
from vision3d.geometry.groups.haar import GroupSamples, PlanarGroup, sample_group
from vision3d.geometry.smooth import wrapped
from vision3d.stages.equivariant.canonical import canonical_images, canonical_polar
from vision3d.stages.equivariant.config import ModelConfig
from vision3d.stages.equivariant.layers import GroupConv, LiftConv, SampleNorm, SeparableGroupConv

CLASSES = 10
_RADII, _ANGLES, _POOLED = 16, 64, 32


class PlainNet(nn.Module):
    """Two pairs of 3x3 convolutions; with `canonical` on images in canonical position."""

    def __init__(self, channels: int = 16, *, canonical: bool = False) -> None:
        super().__init__()
        self.canonical = canonical
        sizes = [1, channels, channels, 2 * channels, 2 * channels]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm2d(size) for size in sizes[1:])
        self.hidden = nn.Linear(2 * channels * 49, 32)
        self.out = nn.Linear(32, CLASSES)
        self.dropout = nn.Dropout(0.2)

    def forward(self, images: Float[Tensor, "n h w"]) -> Float[Tensor, "n 10"]:
        x = (canonical_images(images) if self.canonical else images)[:, None]
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = functional.relu(norm(conv(x)))
            if i == 1:
                x = functional.max_pool2d(x, 2)
        x = functional.adaptive_max_pool2d(x, 7)
        return self.out(self.dropout(functional.relu(self.hidden(x.flatten(1)))))


class CircularConv(nn.Module):
    """A group convolution on SO(2): images (n, c, radii, angles) are convolved around the circle and along the radius."""

    def __init__(self, in_channels: int, out_channels: int, radii: int, angles: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, (radii, angles), padding=(radii // 2, 0), bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.wrap = angles // 2

    def forward(self, x: Float[Tensor, "n c r t"]) -> Float[Tensor, "n d r t"]:
        return functional.relu(self.norm(self.conv(functional.pad(x, (self.wrap, self.wrap, 0, 0), mode="circular"))))


class RotationNet(nn.Module):
    """Canonical position removes the translation and the symmetric part of an affine map; convolutions on SO(2) see the rest.

    The last convolution spans the entire circle: it gives logits for each of 32 angles at which the image may have been
    upright. They are pooled over the angles within `window` of 0: all 180 degrees make the network invariant to every
    rotation, but then 6 and 9 are the same; others make it invariant to rotations that keep the upright angle in the window.
    """

    def __init__(self, channels: int = 16, hidden: int = 64, window_deg: float = 60.0) -> None:
        super().__init__()
        self.window_deg = window_deg
        c = channels
        self.layers = nn.ModuleList(
            [CircularConv(3, c, 3, 5), CircularConv(c, c, 3, 5), CircularConv(c, 2 * c, 3, 3), CircularConv(2 * c, 2 * c, 3, 3)]
        )
        self.whole = nn.Conv2d(2 * c, hidden, (4, _POOLED), bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.dropout = nn.Dropout2d(0.2)
        self.out = nn.Conv2d(hidden, CLASSES, 1)
        radius = (torch.arange(_RADII) + 0.5) / _RADII
        self.register_buffer("radius", torch.stack([radius, radius.square()])[None, :, :, None], persistent=False)

    def features(self, polar: Float[Tensor, "n r t"]) -> list[Float[Tensor, "n c r2 t2"]]:
        """Features of an image on circles after each layer."""
        radius = self.radius.to(polar).expand(len(polar), -1, -1, polar.shape[-1])  # pyright: ignore[reportCallIssue]
        x = torch.cat([polar[:, None], radius], 1)
        found = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            found.append(x)
            if i == 1:
                x = functional.max_pool2d(x, 2)
        return [*found, functional.max_pool2d(x, (2, 1))]

    def orbit_logits(self, images: Float[Tensor, "n h w"]) -> Float[Tensor, "n 10 t"]:
        """Logits if the image's upright position is at angle 2 pi t / 32."""
        x = self.features(canonical_polar(images, _RADII, _ANGLES))[-1]
        x = torch.cat([x, x[..., :-1]], -1)  # around the circle: every angle sees all others once
        return self.out(self.dropout(functional.relu(self.norm(self.whole(x)))))[:, :, 0]

    def forward(self, images: Float[Tensor, "n h w"]) -> Float[Tensor, "n 10"]:
        logits = self.orbit_logits(images)
        reach = round(self.window_deg / 360 * _POOLED)
        if reach < _POOLED // 2:
            logits = torch.cat([logits[..., : reach + 1], logits[..., _POOLED - reach :]], -1)
        return torch.logsumexp(logits, -1) - math.log(logits.shape[-1])


class RunningNorm(nn.Module):
    """Normalizes features to about mean 0 and standard deviation 1 by running averages, in training as well as afterwards.

    Not by the statistics of the batch: all images of a batch share one draw of group samples, whose common shift would be
    removed, and a rotated image looks like another draw. A network that never saw such shifts is not invariant.
    """

    def __init__(self, features: int, momentum: float = 0.05) -> None:
        super().__init__()
        self.momentum = momentum
        self.mean: Tensor
        self.square: Tensor
        self.weight: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("square", torch.zeros(features))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(x.mean(0), self.momentum)
                self.square.lerp_(x.square().mean(0), self.momentum)
                self.weight.lerp_(torch.ones_like(self.weight), self.momentum)
        weight = self.weight.clamp(min=self.momentum)  # the averages are initialized to 0
        mean = self.mean / weight
        return (x - mean) / (self.square / weight - mean.square()).clamp(min=1e-4).sqrt()


class PlanarNet(nn.Module):
    """Lift, a residual block of two group convolutions, one more, maximum over group and plane, two linear layers.

    The network of Mironenco & Forre 2024 with the changes in `ModelConfig`. Samples are drawn again in every forward pass, in
    training and afterwards, from the generator of `seed_samples`; the number and the seed can be changed at any time.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.num_samples = config, config.samples
        group, c, last = planar_group(config.group), config.channels, config.last_channels or config.channels
        self.group: PlanarGroup = group
        conv = SeparableGroupConv if config.method == "separable" else GroupConv
        options = {"kind": config.kernel, "mask": config.mask, "extent": config.extent}
        border = 2 if config.padded else 0
        self.lift = LiftConv(group, 1, c, 5, padding=border, **options)
        self.first, self.second = (conv(group, c, c, 5, padding=2, **options) for _ in range(2))
        self.last = conv(group, c, last, 5, padding=border, **options)
        self.norm = SampleNorm(centred=config.norm == "layer")
        self.head_norm = RunningNorm(last) if config.head_norm else nn.Identity()
        self.head = nn.Sequential(
            nn.Linear(last, 256, bias=False), nn.LayerNorm(256), nn.GELU(), nn.Dropout(0.3), nn.Linear(256, CLASSES)
        )
        self._generator: torch.Generator | None = None

    def seed_samples(self, seed: int | None) -> None:
        """Draw group samples from a separate generator from now on; None: from torch's."""
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def draw(self) -> GroupSamples:
        """New samples of the group."""
        c = self.config
        samples = sample_group(
            self.group, self.num_samples, spread=c.spread, proposal=c.proposal, angles=c.angles, weighted=c.weighted,
            window=math.radians(c.window_deg), generator=self._generator,
        )  # fmt: skip
        if not (self.training and c.drift_deg and c.window_deg < 180):
            return samples
        drift = math.radians(c.drift_deg) * (2 * torch.rand(1, generator=self._generator) - 1)
        return replace(samples, angles=wrapped(samples.angles + drift))

    def features(self, images: Float[Tensor, "n h w"], samples: GroupSamples) -> list[Float[Tensor, "n c s h2 w2"]]:
        """Features over the group after the lift, the block and the last convolution."""
        margin = 0 if self.training or not self.config.padded else self.config.margin
        enlarged = (1 + 2 * margin / images.shape[-2]) * (1 + 2 * margin / images.shape[-1])
        # Black stays 0: a background of -1, as published, interacts with the border and shifts features by a random amount.
        lifted = functional.gelu(self.norm(self.lift(functional.pad(images[:, None], (margin,) * 4), samples), enlarged))
        if self.config.stem_pool > 1:
            lifted = _pooled(lifted, self.config.stem_pool)
        y = functional.gelu(self.norm(self.first(lifted, samples, samples), enlarged))
        y = functional.gelu(self.norm(self.second(y, samples, samples), enlarged))
        block = functional.gelu(lifted + y)
        y = functional.gelu(_pooled(self.norm(block, enlarged), 2))
        return [lifted, block, functional.gelu(self.norm(self.last(y, samples, samples), enlarged))]

    def forward(self, images: Float[Tensor, "n h w"], samples: GroupSamples | None = None) -> Float[Tensor, "n 10"]:
        samples = (self.draw() if samples is None else samples).to(images)
        last = self.features(images, samples)[-1]
        pooled = last.amax((-3, -2, -1)) if self.config.pooling == "max" else last.mean((-3, -2, -1))
        return self.head(self.head_norm(pooled))


_LINEAR_PARTS: dict[str, PlanarGroup] = {"so2": "so2", "se2": "so2", "sl2": "sl2", "gl2": "gl2", "affine": "gl2"}


def planar_group(name: str) -> PlanarGroup:
    """The linear part of a group of planar maps: rotations for `se2`, all maps with positive determinant for `affine`."""
    if name not in _LINEAR_PARTS:
        raise ConfigError("group", f"got {name!r}, want {', '.join(_LINEAR_PARTS)}")
    return _LINEAR_PARTS[name]


def make_network(config: ModelConfig) -> nn.Module:
    """The network for a configuration, with new parameters."""
    if config.method in ("plain", "canonical"):
        return PlainNet(config.channels, canonical=config.method == "canonical")
    if config.method == "rotation":
        return RotationNet(config.channels, window_deg=config.window_deg)
    return PlanarNet(config)


def _pooled(features: Tensor, factor: int) -> Tensor:
    """Max pooling over factor x factor pixels."""
    flat = features.flatten(1, 2)
    if factor == 2 and not torch.is_grad_enabled() and flat.shape[-1] % 2 == flat.shape[-2] % 2 == 0:
        rows = torch.maximum(flat[..., ::2, :], flat[..., 1::2, :])  # 14 times faster than max_pool2d on a CPU
        pooled = torch.maximum(rows[..., ::2], rows[..., 1::2])
    else:
        # With channels last this takes half the time, including gradients.
        pooled = functional.max_pool2d(flat.contiguous(memory_format=torch.channels_last), factor).contiguous()
    return pooled.unflatten(1, features.shape[1:3])
