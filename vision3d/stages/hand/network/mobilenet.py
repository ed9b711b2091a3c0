"""MobileNetV3-small (Howard et al. 2019, arXiv 1905.02244, table 2) in torch, with the parameter names of timm."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["relu", "hardswish", ""]

# Kernel, hidden features, output features, squeeze-and-excitation, activation, stride; grouped as in timm's names.
_BLOCKS: tuple[tuple[tuple[int, int, int, bool, Activation, int], ...], ...] = (
    ((3, 72, 24, False, "relu", 2), (3, 88, 24, False, "relu", 1)),
    (
        (5, 96, 40, True, "hardswish", 2),
        (5, 240, 40, True, "hardswish", 1),
        (5, 240, 40, True, "hardswish", 1),
    ),
    ((5, 120, 48, True, "hardswish", 1), (5, 144, 48, True, "hardswish", 1)),
    (
        (5, 288, 96, True, "hardswish", 2),
        (5, 576, 96, True, "hardswish", 1),
        (5, 576, 96, True, "hardswish", 1),
    ),
)


_LEVELS = (1, 3, 5)  # groups of blocks behind which the stride is 8, 16, and 32


class MobileNetV3Small(nn.Module):
    """Images to features of stride 32; parameter names and results are those of timm's `mobilenetv3_small_100`.

    The layers behind the last block (head and classifier) are left out.
    """

    channels = 576
    level_channels = (24, 48, 576)
    """Of `levels`."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.bn1 = NormAct(16, "hardswish")
        groups: list[nn.Module] = [nn.Sequential(_Separable())]
        inputs = 16
        for rows in _BLOCKS:
            blocks = []
            for kernel, hidden, outputs, squeezes, activation, stride in rows:
                blocks.append(_InvertedResidual(inputs, hidden, outputs, kernel, stride, squeezes, activation))
                inputs = outputs
            groups.append(nn.Sequential(*blocks))
        groups.append(nn.Sequential(_ConvNormAct(inputs, self.channels)))
        self.blocks = nn.Sequential(*groups)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 576 u v"]:
        """Features of normalized images."""
        return self.blocks(self.bn1(self.conv_stem(images)))

    def levels(self, images: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """Features of strides 8, 16 and 32 of normalized images (N, C, h, w)."""
        x, found = self.bn1(self.conv_stem(images)), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _LEVELS:
                found.append(x)
        return found


class NormAct(nn.BatchNorm2d):
    """Batch norm and an activation."""

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__(channels)
        self.activation: Activation = activation

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return activated(super().forward(input), self.activation)


def activated(image: Tensor, activation: Activation) -> Tensor:
    """The activation of this name; none for an empty one."""
    if activation == "relu":
        return functional.relu(image, inplace=True)
    return functional.hardswish(image, inplace=True) if activation == "hardswish" else image


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        # A quarter, rounded to a multiple of 8 but by no more than a tenth down.
        reduced = max(8, int(channels / 4 + 4) // 8 * 8)
        reduced += 8 if reduced < 0.9 * channels / 4 else 0
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        gate = functional.relu(self.conv_reduce(image.mean((2, 3), keepdim=True)))
        return image * functional.hardsigmoid(self.conv_expand(gate))


class _Separable(nn.Module):
    """The first block: depthwise and pointwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(16, 16, 3, 2, 1, groups=16, bias=False)
        self.bn1 = NormAct(16, "relu")
        self.se = _SqueezeExcite(16)
        self.conv_pw = nn.Conv2d(16, 16, 1, bias=False)
        self.bn2 = NormAct(16, "")

    def forward(self, image: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(self.se(self.bn1(self.conv_dw(image)))))


class _InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, stride: int, squeezes: bool, activation: Activation
    ) -> None:
        super().__init__()
        self.adds = stride == 1 and inputs == outputs
        self.conv_pw = nn.Conv2d(inputs, hidden, 1, bias=False)
        self.bn1 = NormAct(hidden, activation)
        self.conv_dw = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self.bn2 = NormAct(hidden, activation)
        self.se = _SqueezeExcite(hidden) if squeezes else nn.Identity()
        self.conv_pwl = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn3 = NormAct(outputs, "")

    def forward(self, image: Tensor) -> Tensor:
        inner = self.bn2(self.conv_dw(self.bn1(self.conv_pw(image))))
        inner = self.bn3(self.conv_pwl(self.se(inner)))
        return image + inner if self.adds else inner


class _ConvNormAct(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn1 = NormAct(outputs, "hardswish")

    def forward(self, image: Tensor) -> Tensor:
        return self.bn1(self.conv(image))


class _Activated(nn.Module):
    """What is left of `NormAct` when its norm is part of the convolution."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation: Activation = activation

    def forward(self, image: Tensor) -> Tensor:
        return activated(image, self.activation)


def _activation_of(norm: nn.Module) -> nn.Module | None:
    """What is left of a norm with an activation, ours or timm's, without the norm; None for other modules."""
    if isinstance(norm, NormAct):
        return _Activated(norm.activation)
    act = getattr(norm, "act", None)
    return act if type(norm).__name__ == "BatchNormAct2d" and isinstance(act, nn.Module) else None


def fold_norms(network: nn.Module) -> None:
    """Make the norms of a network in evaluation mode parts of the convolutions in front of them, in place.

    Args:
        network: `MobileNetV3Small`, or a model of timm made of the same blocks; in other modules every `NormAct` must be
            registered behind its convolution.
    """
    for module in list(network.modules()):
        before: tuple[str, nn.Conv2d] | None = None
        for name, child in list(module.named_children()):
            rest = _activation_of(child)
            if isinstance(child, nn.BatchNorm2d) and rest is not None and before is not None:
                setattr(module, before[0], torch.nn.utils.fusion.fuse_conv_bn_eval(before[1], child))
                setattr(module, name, rest)
            before = (name, child) if isinstance(child, nn.Conv2d) else None
