"""Convolutions on the bird's-eye image: levels of decreasing resolution, brought to one and concatenated (SECOND, Yan et al.
2018)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.stages.detect.config import BevConfig
from vision3d.stages.detect.network.sparse_bev import CellRows, Cells, block_at


class BevNet(nn.Module):
    """(B, C, X, Y) -> (B, levels * up_channels, X / stride, Y / stride).

    Args:
        inputs: Features of the image.
        config: The levels.
    """

    def __init__(self, inputs: int, config: BevConfig) -> None:
        super().__init__()
        self.stride = config.stride
        self.level_strides = config.level_strides
        self.levels, self.ups = nn.ModuleList(), nn.ModuleList()
        before = 1
        for channels, layers, stride in zip(config.channels, config.layers, config.level_strides):
            step = stride // before
            if config.block == "residual":
                blocks = [Residual(inputs, channels, step), *(Residual(channels, channels) for _ in range(layers - 1))]
            else:
                blocks = [block(inputs, channels, step), *(block(channels, channels) for _ in range(layers - 1))]
            self.levels.append(nn.Sequential(*blocks))
            self.ups.append(resampled(channels, config, stride))
            inputs, before = channels, stride
        self.channels = len(config.channels) * config.up_channels

    def forward(self, image: Float[Tensor, "b c x y"]) -> Float[Tensor, "b d u v"]:
        """The features of all levels, at all cells."""
        width, height = image.shape[-2] // self.stride, image.shape[-1] // self.stride
        found = []
        for level, up, stride in zip(self.levels, self.ups, self.level_strides):
            image = level(image)
            resized = up(image)
            assert isinstance(up, nn.Sequential)
            if stride > self.stride and not isinstance(up[0], nn.ConvTranspose2d):
                resized = functional.interpolate(resized, scale_factor=stride // self.stride, mode="nearest")
            # Levels of a grid with an odd number of cells are larger.
            found.append(resized[..., :width, :height])
        return torch.cat(found, 1)

    def at_cells(self, image: CellRows) -> CellRows:
        """The same at some cells; the others are zero in every layer."""
        rows, cells, found, reached = image.rows, image.cells, [], 1
        out = cells.coarser(self.stride, (cells.size[1] // self.stride, cells.size[2] // self.stride))
        for level, up, stride in zip(self.levels, self.ups, self.level_strides):
            step, reached = stride // reached, stride
            here = cells if step == 1 else cells.coarser(step, (-(-cells.size[1] // step), -(-cells.size[2] // step)))
            assert isinstance(level, nn.Sequential)
            for layer in level:
                rows = layer.at(rows, cells, here) if isinstance(layer, Residual) else block_at(layer, rows, cells, here)
                cells = here
            found.append(self._resampled(up, rows, cells, out, stride))
        return CellRows(torch.cat(found, 1), out)

    def _resampled(self, up: nn.Module, rows: Tensor, cells: Cells, out: Cells, stride: int) -> Tensor:
        assert isinstance(up, nn.Sequential)
        if isinstance(up[0], nn.ConvTranspose2d) or stride < self.stride:
            return block_at(up, rows, cells, out)
        rows = block_at(up, rows, cells, cells)
        batch, x, y = out.places
        scale = stride // self.stride
        return rows[cells.rows(batch, x // scale, y // scale)]


def block(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return _normed(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False))


class Residual(nn.Module):
    """Two 3x3 convolutions added to the input (He et al. 2016).

    Args:
        inputs: Features.
        outputs: Features of the result.
        stride: None: the input is added as it is, so `inputs` and `outputs` are equal; else a 1x1 convolution of it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int | None = None) -> None:
        super().__init__()
        self.first = block(inputs, outputs, stride or 1)
        self.second = block(outputs, outputs)[:2]
        self.shortcut = nn.Identity() if stride is None else block(inputs, outputs, stride, 1)[:2]

    def forward(self, image: Float[Tensor, "b c x y"]) -> Float[Tensor, "b d u v"]:
        return functional.relu(self.second(self.first(image)) + self.shortcut(image), inplace=True)

    def at(self, rows: Float[Tensor, "m i"], cells: Cells, out: Cells) -> Float[Tensor, "n o"]:
        """The same at some cells."""
        after = block_at(self.second, block_at(self.first, rows, cells, out), out, out)
        return functional.relu(
            after + (rows if isinstance(self.shortcut, nn.Identity) else block_at(self.shortcut, rows, cells, out))
        )


def resampled(channels: int, config: BevConfig, stride: int) -> nn.Sequential:
    """The layer from a level to the resolution of the output, but for the interpolation."""
    outputs = config.up_channels
    if stride < config.stride:
        step = config.stride // stride
        return _normed(nn.Conv2d(channels, outputs, step, step, bias=False))
    if config.up == "transposed" and stride > config.stride:
        step = stride // config.stride
        return _normed(nn.ConvTranspose2d(channels, outputs, step, step, bias=False))
    return block(channels, outputs, kernel=1)


def _normed(convolution: nn.Module) -> nn.Sequential:
    outputs = convolution.out_channels
    assert isinstance(outputs, int)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03), nn.ReLU(inplace=True))
