"""Checked arguments of `rasterize` and `rasterize_2dgs`."""

from typing import Any, NamedTuple

from torch import Tensor

from vision3d.render.splats.checks import Sizes
from vision3d.render.splats.records import Camera, Gaussians

Images = tuple[Tensor, Tensor, dict[str, Any]]
Maps = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, dict[str, Any]]


class Call(NamedTuple):
    """Arguments as given by the caller: tensors with batch dimensions, covariances as (3, 3)."""

    sizes: Sizes
    gaussians: Gaussians
    camera: Camera
    colors: Tensor
    sh_degree: int | None
    eps2d: float
    packed: bool
    tile_size: int
    backgrounds: Tensor | None
    render_mode: str
    sparse_grad: bool
    absgrad: bool
    alpha_max: float
    masks: Tensor | None
    max_depths: Tensor | None
    options: dict[str, Any]
    """Arguments of only one of the two functions, by name."""

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles in an image."""
        return -(-self.camera.height // self.tile_size), -(-self.camera.width // self.tile_size)

    @property
    def image_shape(self) -> tuple[int, ...]:
        return (*self.sizes.batch, self.sizes.num_cameras, self.camera.height, self.camera.width)
