"""The bird's-eye network on the occupied cells of its image and those around them.

The layers and their parameters are those of `BevNet`; other cells count as zero in every convolution (Graham et al. 2018), and
batch norms see the computed cells only.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor, nn
from torch.nn import functional

from vision3d.stages.detect.voxels import Voxels, submanifold_conv, voxel_neighbors


@dataclass(frozen=True, eq=False)
class Cells:
    """Some cells of a batch of images, sorted."""

    keys: Int64[Tensor, " m"]
    """(batch X + x) Y + y."""
    size: tuple[int, int, int]
    """Batch, X, Y."""

    @classmethod
    def of(cls, keys: Int64[Tensor, " n"], size: tuple[int, int, int]) -> "Cells":
        """The different ones of some keys."""
        is_used = torch.zeros(size[0] * size[1] * size[2], dtype=torch.bool, device=keys.device)
        is_used[keys] = True
        return cls(is_used.nonzero()[:, 0], size)

    @property
    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """Batch, x and y of each cell."""
        rows, y = self.keys // self.size[2], self.keys % self.size[2]
        return rows // self.size[1], rows % self.size[1], y

    def dilated(self, by: int) -> "Cells":
        """With all cells at most `by` cells away along x and y."""
        is_used = torch.zeros(self.size, device=self.keys.device)
        is_used.view(-1)[self.keys] = 1
        grown = functional.max_pool2d(is_used, 2 * by + 1, 1, by) if by else is_used
        return Cells(grown.flatten().nonzero()[:, 0], self.size)

    def coarser(self, step: int, size: tuple[int, int]) -> "Cells":
        """The cells of `step` times the edge that contain these, within an image of this size."""
        batch, x, y = self.places
        x, y = x // step, y // step
        inside = (x < size[0]) & (y < size[1])
        return Cells.of(((batch * size[0] + x) * size[1] + y)[inside], (self.size[0], *size))

    def rows(self, batch: Tensor, x: Tensor, y: Tensor) -> Int64[Tensor, "*n"]:
        """The row of the cells at these places; their number for places without a cell."""
        table = self.keys.new_full((self.size[0] * self.size[1] * self.size[2],), len(self.keys))
        table[self.keys] = torch.arange(len(self.keys), device=self.keys.device)
        inside = (x >= 0) & (x < self.size[1]) & (y >= 0) & (y < self.size[2])
        found = table[torch.where(inside, (batch * self.size[1] + x) * self.size[2] + y, 0)]
        return torch.where(inside, found, len(self.keys))

    @cached_property
    def neighbors(self) -> Int32[Tensor, "9 m"]:
        """As `voxel_neighbors` of a 3x3 kernel."""
        coords = torch.stack([*self.places, torch.zeros_like(self.keys)], 1)
        return voxel_neighbors(coords, (self.size[1], self.size[2], 1), (3, 3, 1))


@dataclass(frozen=True, eq=False)
class CellRows:
    """Images that are zero outside of some cells."""

    rows: Float[Tensor, "m c"]
    cells: Cells

    @classmethod
    def of_voxels(cls, voxels: Voxels, dilate: int) -> "CellRows":
        """The occupied cells seen from above, with the features of all heights side by side, and those around them.

        Args:
            voxels: The voxels.
            dilate: Cells around occupied ones, in each direction.
        """
        width, length, height = voxels.grid
        batch, x, y, z = voxels.coords.unbind(1)
        cells = Cells.of((batch * width + x) * length + y, (voxels.batch_size, width, length)).dilated(dilate)
        rows = voxels.features.new_zeros(len(cells.keys) * height, voxels.features.shape[1])
        rows = rows.index_put((cells.rows(batch, x, y) * height + z,), voxels.features)
        return cls(rows.view(len(cells.keys), -1), cells)

    def image(self, background: Float[Tensor, " c"] | None = None) -> Float[Tensor, "b c x y"]:
        """All cells, the others with the features `background`; channels last in memory."""
        batch, width, length = self.cells.size
        shape = batch * width * length, self.rows.shape[1]
        every = self.rows.new_zeros(shape) if background is None else background.expand(shape)
        return every.index_copy(0, self.cells.keys, self.rows).view(batch, width, length, -1).permute(0, 3, 1, 2)


def block_at(layers: nn.Module, rows: Float[Tensor, "m i"], cells: Cells, out: Cells) -> Float[Tensor, "n o"]:
    """Convolution, batch norm and, if the block has one, ReLU, from some cells to `out`."""
    assert isinstance(layers, nn.Sequential)
    layer, norm = layers[0], layers[1]
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    rows = (
        _transposed(layer, rows, cells, out) if isinstance(layer, nn.ConvTranspose2d) else _convolved(layer, rows, cells, out)
    )
    if layer.bias is not None:
        rows = rows + layer.bias
    if isinstance(norm, nn.BatchNorm2d):  # otherwise it is folded into the layer
        rows = _normed(norm, rows)
    return functional.relu(rows, inplace=True) if len(layers) > 2 else rows


def _convolved(layer: nn.Conv2d, features: Float[Tensor, "m i"], cells: Cells, out: Cells) -> Float[Tensor, "n o"]:
    """A convolution at the cells `out`: the same ones, or those of its stride."""
    step, kernel, pad = int(layer.stride[0]), int(layer.kernel_size[0]), int(layer.padding[0])  # type: ignore[arg-type]
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 1)
    if kernel == 1 and step == 1:
        return features @ weight[0]
    if step == 1:
        return submanifold_conv(features, cells.neighbors, weight)
    batch, x, y = out.places
    offsets = torch.arange(kernel, device=features.device) - pad
    dx, dy = torch.meshgrid(offsets, offsets, indexing="ij")
    sources = cells.rows(batch[:, None], x[:, None] * step + dx.flatten(), y[:, None] * step + dy.flatten())
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    return padded[sources].flatten(1) @ weight.flatten(0, 1)


def _transposed(layer: nn.ConvTranspose2d, features: Float[Tensor, "m i"], cells: Cells, out: Cells) -> Float[Tensor, "n o"]:
    """A transposed convolution whose kernel is its stride, at the cells `out`."""
    step = int(layer.stride[0])
    every = torch.einsum("mi,iouv->muvo", features, layer.weight).flatten(0, 2)
    batch, x, y = out.places
    rows = cells.rows(batch, x // step, y // step)
    place = (rows * step + x % step) * step + y % step
    return torch.cat([every, every.new_zeros(step * step, every.shape[1])])[place]


def _normed(norm: nn.BatchNorm2d, rows: Float[Tensor, "m c"]) -> Float[Tensor, "m c"]:
    """A batch norm of rows; fewer than two rows have no variance, so the running averages are used for them."""
    is_training = norm.training and len(rows) > 1
    return functional.batch_norm(
        rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, is_training, norm.momentum or 0.0, norm.eps
    )  # fmt: skip
