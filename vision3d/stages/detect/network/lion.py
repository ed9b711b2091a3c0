"""The backbone of LION: in each block a U-Net of three strides whose layers are sequence operators on groups of voxels."""

import math

from torch import Tensor, nn

from vision3d.stages.detect.config import LionConfig
from vision3d.stages.detect.network.norms import RowNorm
from vision3d.stages.detect.operators import make_operator, read_options
from vision3d.stages.detect.operators.base import Operator
from vision3d.stages.detect.voxels import (
    SubmanifoldConv,
    Voxels,
    apply_ragged,
    equal_groups,
    expand,
    generate,
    merge,
    voxel_neighbors,
    window_order,
)
from vision3d.stages.detect.voxels.orders import Axis
from vision3d.stages.detect.voxels.voxels import Triple


class LionLayer(nn.Module):
    """One operator on the voxels in X order, then one in Y order.

    Args:
        channels: Features of a voxel.
        config: Operator, drop path.
        size: Voxels per group.
        window: Size of the windows along x, y, z [voxels].
        shifted: Shift the windows by half their size.
    """

    def __init__(self, channels: int, config: LionConfig, size: int, window: Triple, shifted: bool) -> None:
        super().__init__()
        options = read_options(config.operator, config.operator_options)
        options |= {"bidirectional": config.bidirectional, "drop_path": config.drop_path}
        self.operators = nn.ModuleList(make_operator(config.operator, channels, **options) for _ in range(2))
        self.window, self.size, self.shifted = window, size, shifted

    def forward(self, voxels: Voxels) -> Voxels:
        features = voxels.features
        axes: tuple[Axis, Axis] = ("x", "y")
        for operator, axis in zip(self.operators, axes):
            order = window_order(voxels.coords, voxels.grid, self.window, axis=axis, shifted=self.shifted)
            groups = equal_groups(order, voxels.counts, self.size)
            assert isinstance(operator, Operator)
            features = apply_ragged(operator.forward_ragged, features, groups)
        return voxels.with_features(features)


class Position(nn.Module):
    """Features of the position of a voxel in the grid, added to its features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, channels), RowNorm(channels), nn.ReLU(), nn.Linear(channels, channels)
        )  # fmt: skip

    def forward(self, voxels: Voxels) -> Voxels:
        half = voxels.features.new_tensor(voxels.grid) / 2
        place = (voxels.coords[:, 1:].to(half) - half) / (2 * half) * 2 * math.pi
        # An axis of one cell says nothing.
        place = place * voxels.features.new_tensor([float(size > 1) for size in voxels.grid])
        return voxels.with_features(voxels.features + self.layers(place))


class Descriptor(nn.Module):
    """The 3D spatial feature descriptor: submanifold convolution, layer norm, GELU. Without it the features stay."""

    def __init__(self, channels: int, is_used: bool) -> None:
        super().__init__()
        self.convolution = SubmanifoldConv(channels, channels) if is_used else None
        self.norm = nn.LayerNorm(channels) if is_used else None

    def forward(self, voxels: Voxels, neighbors: Tensor | None) -> Voxels:
        if self.convolution is None or self.norm is None or neighbors is None:
            return voxels
        return voxels.with_features(nn.functional.gelu(self.norm(self.convolution(voxels.features, neighbors))))


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
        window = *config.window, height
        self.positions = nn.ModuleList(Position(channels) for _ in range(2))
        self.encoders = nn.ModuleList(LionLayer(channels, config, size, window, shifted) for shifted in (False, True))
        self.descriptors = nn.ModuleList(Descriptor(channels, config.descriptor) for _ in range(2))
        self.merge_norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.decoders = nn.ModuleList(LionLayer(channels, config, size, window, shifted) for shifted in (False, True))
        self.expand_norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))

    def forward(self, voxels: Voxels, neighbors: Tensor | None) -> Voxels:
        """Voxels of the same cells; `neighbors` are theirs."""
        skips, segments = [], []
        for stride in range(2):
            voxels = self.encoders[stride](self.positions[stride](voxels))
            skips.append(voxels)
            if stride and neighbors is not None:
                neighbors = voxel_neighbors(voxels.coords, voxels.grid)
            merged = merge(self.descriptors[stride](voxels, neighbors), (2, 2, 2))
            segments.append(merged.segments)
            voxels = merged.voxels.with_features(self.merge_norms[stride](merged.voxels.features))
        for stride in range(2):
            voxels = self.decoders[stride](voxels)
            fine = skips[-1 - stride]
            copied = expand(voxels.features, segments[-1 - stride])
            voxels = fine.with_features(self.expand_norms[stride](fine.features + copied))
        return voxels


class LionBackbone(nn.Module):
    """Blocks, each followed by the generation of voxels and by merging pairs along the height, and a last layer.

    By option, voxels are then merged along the whole height for further layers.

    Args:
        channels: Features of a voxel.
        grid: Cells along x, y, z.
        config: The blocks.
    """

    def __init__(self, channels: int, grid: Triple, config: LionConfig) -> None:
        super().__init__()
        self.share = config.generate
        heights = [grid[2]]
        for _ in config.groups:
            heights.append(-(-heights[-1] // 2))
        last = heights[-1]
        self.height = 1 if config.flat_groups else last
        """Cells along z of the result."""
        self.blocks = nn.ModuleList(
            LionBlock(channels, config, size, height) for size, height in zip(config.groups, heights)
        )  # fmt: skip
        self.descriptors = nn.ModuleList(Descriptor(channels, config.descriptor) for _ in config.groups)
        self.norms = nn.ModuleList(_norm_of_generated(channels) for _ in config.groups)
        self.last = LionLayer(channels, config, config.last_group, (*config.window, last), True)
        self.has_descriptor = config.descriptor
        self.flat = nn.ModuleList(
            LionLayer(channels, config, size, (window, window, 1), True)
            for size, window in zip(config.flat_groups, config.flat_windows)
        )
        if self.flat:
            self.flat_descriptor, self.flat_norm = Descriptor(channels, config.descriptor), _norm_of_generated(channels)

    def forward(self, voxels: Voxels) -> Voxels:
        for block, descriptor, norm in zip(self.blocks, self.descriptors, self.norms):
            neighbors = self._neighbors(voxels)
            voxels = self._lowered(block(voxels, neighbors), neighbors, descriptor, norm, 2)
        voxels = self.last(voxels)
        if self.flat:
            neighbors = self._neighbors(voxels)
            voxels = self._lowered(voxels, neighbors, self.flat_descriptor, self.flat_norm, voxels.grid[2])
            for layer in self.flat:
                voxels = layer(voxels)
        return voxels

    def _neighbors(self, voxels: Voxels) -> Tensor | None:
        return voxel_neighbors(voxels.coords, voxels.grid) if self.has_descriptor else None

    def _lowered(self, voxels: Voxels, neighbors: Tensor | None, descriptor: nn.Module, norm: nn.Module, scale: int) -> Voxels:
        """Voxels of `scale` times the height, with generated ones."""
        lower = generate(descriptor(voxels, neighbors), (1, 1, scale), fraction=self.share).voxels
        return lower.with_features(norm(lower.features))


def _norm_of_generated(channels: int) -> nn.LayerNorm:
    """A norm of voxels of which some are zeros: with a bias of 0 each norm behind it would multiply their gradients by 1e3."""
    norm = nn.LayerNorm(channels)
    nn.init.normal_(norm.bias, std=0.02)
    return norm


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies to a parameter: not to rates of recurrences, norms and biases."""
    return parameter.ndim >= 2 and "log_rates" not in name
