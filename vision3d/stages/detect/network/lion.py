"""The backbone of LION: in each block a U-Net of three strides whose layers are sequence operators on groups of voxels."""

import math

import torch
from torch import Tensor, nn

from vision3d.stages.detect.config import LionConfig
from vision3d.stages.detect.operators import make_operator
from vision3d.stages.detect.voxels.convolution import Rulebook, SubmanifoldConv, neighbors
from vision3d.stages.detect.voxels.grid import Shape, Voxels
from vision3d.stages.detect.voxels.resize import expand, generated, merge, merge_rows
from vision3d.stages.detect.voxels.windows import Axis, sequences


class LionLayer(nn.Module):
    """One operator on the voxels in X order, then one in Y order.

    Args:
        channels: Features of a voxel.
        config: Operator, windows, drop path.
        size: Voxels per group.
        height: Height of a window [voxels].
        shifted: Shift the windows by half their size.
    """

    def __init__(self, channels: int, config: LionConfig, size: int, height: int, shifted: bool) -> None:
        super().__init__()
        options = {"bidirectional": config.bidirectional, "drop_path": config.drop_path}
        self.operators = nn.ModuleList(make_operator(config.operator, channels, **options) for _ in range(2))
        self.window, self.size, self.shifted = (*config.window, height), size, shifted

    def forward(self, voxels: Voxels) -> Voxels:
        features = voxels.features
        axes: tuple[Axis, Axis] = ("x", "y")
        for operator, axis in zip(self.operators, axes):
            sequence = sequences(
                voxels.coords, voxels.shape, voxels.num_samples,
                window=self.window, size=self.size, axis=axis, shifted=self.shifted,
            )  # fmt: skip
            changed = operator.forward_ragged(features[sequence.order], sequence.starts)
            features = torch.empty_like(changed).index_copy(0, sequence.order, changed)
        return voxels.with_features(features)


class Position(nn.Module):
    """Features of the position of a voxel in the grid, added to its features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, channels), nn.BatchNorm1d(channels), nn.ReLU(), nn.Linear(channels, channels)
        )  # fmt: skip

    def forward(self, voxels: Voxels) -> Voxels:
        half = voxels.features.new_tensor(voxels.shape) / 2
        place = (voxels.coords[:, 1:].to(half) - half) / (2 * half) * 2 * math.pi
        # An axis of one cell says nothing.
        place = place * voxels.features.new_tensor([float(size > 1) for size in voxels.shape])
        return voxels.with_features(voxels.features + self.layers(place))


class Descriptor(nn.Module):
    """The 3D spatial feature descriptor: submanifold convolution, layer norm, GELU. Without it the features stay."""

    def __init__(self, channels: int, is_used: bool) -> None:
        super().__init__()
        self.convolution = SubmanifoldConv(channels, channels) if is_used else None
        self.norm = nn.LayerNorm(channels) if is_used else None

    def forward(self, voxels: Voxels, rules: Rulebook | None) -> Voxels:
        if self.convolution is None or self.norm is None or rules is None:
            return voxels
        return voxels.with_features(nn.functional.gelu(self.norm(self.convolution(voxels.features, rules))))


class LionBlock(nn.Module):
    """Layers at strides 1, 2, 4 and back at 2, with merging, expanding and skip connections; the result has stride 1.

    Args:
        channels: Features of a voxel.
        config: Operator, windows, descriptor.
        size: Voxels per group.
        height: Height of a window [voxels].
    """

    def __init__(self, channels: int, config: LionConfig, size: int, height: int) -> None:
        super().__init__()
        self.positions = nn.ModuleList(Position(channels) for _ in range(2))
        self.encoders = nn.ModuleList(LionLayer(channels, config, size, height, shifted) for shifted in (False, True))
        self.descriptors = nn.ModuleList(Descriptor(channels, config.descriptor) for _ in range(2))
        self.merge_norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.decoders = nn.ModuleList(LionLayer(channels, config, size, height, shifted) for shifted in (False, True))
        self.expand_norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))

    def forward(self, voxels: Voxels, rules: Rulebook | None) -> Voxels:
        """Voxels of the same cells; `rules` are their neighbors."""
        skips, parents = [], []
        for stride in range(2):
            voxels = self.encoders[stride](self.positions[stride](voxels))
            skips.append(voxels)
            if stride and rules is not None:
                rules = neighbors(voxels.coords, voxels.shape)
            merged = merge(self.descriptors[stride](voxels, rules), (2, 2, 2))
            parents.append(merged.parents)
            voxels = merged.voxels.with_features(self.merge_norms[stride](merged.voxels.features))
        for stride in range(2):
            voxels = self.decoders[stride](voxels)
            fine = skips[-1 - stride]
            voxels = fine.with_features(self.expand_norms[stride](expand(fine, voxels.features, parents[-1 - stride])))
        return voxels


class LionBackbone(nn.Module):
    """Blocks, each followed by the generation of voxels and by merging pairs along the height, and a last layer.

    Args:
        channels: Features of a voxel.
        shape: Cells of the grid.
        config: The blocks.
    """

    def __init__(self, channels: int, shape: Shape, config: LionConfig) -> None:
        super().__init__()
        self.generate = config.generate
        heights = [shape[2]]
        for _ in config.groups:
            heights.append(-(-heights[-1] // 2))
        self.height = heights[-1]
        """Cells along z of the result."""
        self.blocks = nn.ModuleList(
            LionBlock(channels, config, size, height) for size, height in zip(config.groups, heights)
        )  # fmt: skip
        self.descriptors = nn.ModuleList(Descriptor(channels, config.descriptor) for _ in config.groups)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in config.groups)
        self.last = LionLayer(channels, config, config.last_group, heights[-1], True)
        self.has_descriptor = config.descriptor

    def forward(self, voxels: Voxels) -> Voxels:
        for block, descriptor, norm in zip(self.blocks, self.descriptors, self.norms):
            rules = neighbors(voxels.coords, voxels.shape) if self.has_descriptor else None
            voxels = descriptor(block(voxels, rules), rules)
            voxels = lower(voxels, self.generate, norm)
        return self.last(voxels)


def lower(voxels: Voxels, share: float, norm: nn.Module) -> Voxels:
    """Generate voxels and merge pairs along the height."""
    features, coords = generated(voxels, share)
    shape = (voxels.shape[0], voxels.shape[1], -(-voxels.shape[2] // 2))
    merged = merge_rows(features, coords, shape, (1, 1, 2), voxels.num_samples).voxels
    return merged.with_features(norm(merged.features))


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies to a parameter: not to rates of recurrences, norms and biases."""
    return parameter.ndim >= 2 and "log_rates" not in name
