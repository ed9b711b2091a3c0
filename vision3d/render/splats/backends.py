"""The backends of the rasterizer: native kernels, plain torch, and gsplat."""

from typing import Any, Protocol, runtime_checkable

import torch

from vision3d.render.splats import checks, kernels, tiled_2dgs, tiled_3dgs
from vision3d.render.splats.calls import Call, Images, Maps
from vision3d.render.splats.native_support import NATIVE_TILE_SIZES


@runtime_checkable
class Backend(Protocol):
    """Executes complete calls."""

    def rasterize(self, call: Call) -> Images:
        """Same result as `rasterize`."""
        ...

    def rasterize_2dgs(self, call: Call) -> Maps:
        """Same result as `rasterize_2dgs`."""
        ...


class Tiled:
    """Rasterizes with tile lists, using the operations of `kernels`.

    Args:
        operations: The operations.
        tile_sizes: The sizes that they support; the nearest is used, unless there are masks of tiles. Empty: any.
    """

    def __init__(self, operations: kernels.Kernels, tile_sizes: tuple[int, ...] = ()) -> None:
        self.kernels, self.tile_sizes = operations, tile_sizes

    def rasterize(self, call: Call) -> Images:
        return tiled_3dgs.rasterize(self.kernels, self._with_tiles(call))

    def rasterize_2dgs(self, call: Call) -> Maps:
        return tiled_2dgs.rasterize(self.kernels, self._with_tiles(call))

    def _with_tiles(self, call: Call) -> Call:
        if not self.tile_sizes or call.masks is not None or call.tile_size in self.tile_sizes:
            return call
        return call._replace(tile_size=min(self.tile_sizes, key=lambda size: abs(size - call.tile_size)))


class Gsplat:
    """Rasterizes with the package gsplat, on CUDA."""

    def rasterize(self, call: Call) -> Images:
        checks.refuse_for_gsplat("gsplat.rasterization", masks=call.masks, max_depths=call.max_depths)
        import gsplat

        options = {name: value for name, value in call.options.items() if value is not None}
        return gsplat.rasterization(**_shared(call), **options, covars=call.gaussians.covars, camera_model=call.camera.model)

    def rasterize_2dgs(self, call: Call) -> Maps:
        checks.refuse_for_gsplat("gsplat.rasterization_2dgs", masks=call.masks, max_depths=call.max_depths)
        import gsplat

        return gsplat.rasterization_2dgs(**_shared(call), **call.options)


def backend(name: str, device: torch.device) -> Backend:
    """The backend for a requested name on this device.

    Raises:
        BackendError: It is unknown, not installed or does not run on this device.
    """
    chosen = kernels.resolve(name, device)
    if chosen == "gsplat":
        return Gsplat()
    return Tiled(kernels.kernels(chosen), NATIVE_TILE_SIZES if chosen == "native" else ())


def _shared(call: Call) -> dict[str, Any]:
    """The arguments shared by both functions of gsplat, with its names."""
    gaussians, camera = call.gaussians, call.camera
    return {
        "means": gaussians.means, "quats": gaussians.quats, "scales": gaussians.scales, "opacities": gaussians.opacities,
        "colors": call.colors, "viewmats": camera.viewmats, "Ks": camera.Ks, "width": camera.width, "height": camera.height,
        "near_plane": camera.near_plane, "far_plane": camera.far_plane, "radius_clip": camera.radius_clip,
        "eps2d": call.eps2d, "sh_degree": call.sh_degree, "packed": call.packed, "tile_size": call.tile_size,
        "backgrounds": call.backgrounds, "render_mode": call.render_mode, "sparse_grad": call.sparse_grad,
        "absgrad": call.absgrad,
    }  # fmt: skip
