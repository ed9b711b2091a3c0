"""Arguments of `rasterize` and `rasterize_2dgs` as one record, and the checks of both functions."""

from typing import Any, NamedTuple

from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.core.op_checks import check_image_size
from vision3d.render.splats import checks
from vision3d.render.splats.records import Camera, Gaussians

TILE_SIZE = 16
"""Default size of tiles [px]."""

Images = tuple[Tensor, Tensor, dict[str, Any]]
Maps = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor, dict[str, Any]]


class Call(NamedTuple):
    """Arguments as given by the caller: tensors with batch dimensions, covariances as (3, 3)."""

    gaussians: Gaussians
    camera: Camera
    colors: Tensor | None
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

    def with_colors(self) -> "Call":
        """The same call with a channel of zeros as colors, if it has none and draws only depths."""
        means = self.gaussians.means
        if self.colors is not None or self.render_mode not in checks.DEPTH_MODES or not isinstance(means, Tensor):
            return self
        return self._replace(colors=means.new_zeros(*means.shape[:-1], 1), sh_degree=None)

    def check(self, channel_chunk: int = 1) -> None:
        """Check all arguments that both functions have.

        Raises:
            ShapeError: A tensor has the wrong shape or dtype.
            DeviceError: A tensor is on another device than the means.
            InputError: A number or name is out of range.
            BackendError: The mode is one of gsplat's for distances along rays.
        """
        means, quats, scales, covars, opacities = self.gaussians
        camera, tile_size = self.camera, self.tile_size
        checks.check_gaussians(
            means, quats, scales, opacities, self.colors, camera.viewmats, camera.Ks, self.backgrounds, covars, self.sh_degree,
            self.render_mode,
        )  # fmt: skip
        size, planes = self.sizes, (camera.near_plane, camera.far_plane)
        checks.check_planes(*planes, camera.model)
        checks.check_numbers(camera.width, camera.height, tile_size, self.eps2d, self.alpha_max, channel_chunk)
        check_image_size(size.num_images, camera.width, camera.height, tile_size)
        checks.check_pixels(self.masks, self.max_depths, size, camera.height, camera.width, tile_size, means)
        if self.sparse_grad and (not self.packed or size.batch):
            raise InputError("sparse_grad: needs packed=True and no batch dimensions")

    @property
    def sizes(self) -> checks.Sizes:
        """Sizes of arguments that passed `check`."""
        shape = self.gaussians.means.shape
        return checks.Sizes(tuple(shape[:-2]), shape[:-2].numel(), self.camera.viewmats.shape[-3], shape[-2])

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles in an image."""
        return -(-self.camera.height // self.tile_size), -(-self.camera.width // self.tile_size)
