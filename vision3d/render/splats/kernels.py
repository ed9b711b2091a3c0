"""The operations of the rasterizer as a protocol, and the modules that implement it: `native` and `reference`."""

import importlib
from typing import Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vision3d.core.device import resolve_backend
from vision3d.core.errors import BackendError
from vision3d.render.splats.records import (
    Blended,
    Blended2dgs,
    Camera,
    Gaussians,
    Grid,
    Intersections,
    Pixels,
    Projected,
    Projected2dgs,
    TileLists,
    Visible,
)

_Any = TypeVar("_Any", Projected, Projected2dgs)
_MODULES = {"reference": "vision3d.render.reference.splats", "native": "vision3d.render.splats.native_ops"}


@runtime_checkable
class Kernels(Protocol):
    """Operations of an implementation. All but `intersect` are differentiable."""

    def project(
        self, gaussians: Gaussians, camera: Camera, *, eps2d: float, antialiased: bool = False, packed: bool = False
    ) -> tuple[Visible, Projected]:
        """Project 3D Gaussians into every camera: S = J W Sigma W^T J^T + eps2d I (Zwicker et al. 2002; Kerbl et al. 2023).

        Args:
            eps2d: Variance added to both image axes [px^2].
            antialiased: Multiply the opacity that determines the extent by the compensation.
            packed: Return only the visible pairs, (p, *), instead of all, (b, c, n, *).
        """
        ...

    def project_2dgs(self, gaussians: Gaussians, camera: Camera, *, packed: bool = False) -> tuple[Visible, Projected2dgs]:
        """Project 2D Gaussians, of quats and scales, into every pinhole camera (Huang et al. 2024, eq. 9)."""
        ...

    def sh_colors(
        self,
        means: Float[Tensor, "b n 3"],
        sh: Float[Tensor, "b n k 3"] | Float[Tensor, "b c n k 3"],
        viewmats: Float[Tensor, "b c 4 4"],
        batch_ids: Int[Tensor, " p"],
        camera_ids: Int[Tensor, " p"],
        gaussian_ids: Int[Tensor, " p"],
        degree: int,
    ) -> Float[Tensor, "p 3"]:
        """max(SH + 0.5, 0) in the direction from the camera center -R^T t to the Gaussian.

        Pairs are sorted by scene, then camera. Gradients flow to `means` and `viewmats` through the direction. `degree` is the
        active one, (degree + 1)^2 <= k.
        """
        ...

    def intersect(
        self,
        projected: Projected | Projected2dgs,
        opacities: Float[Tensor, " p"],
        image_ids: Int[Tensor, " p"],
        grid: Grid,
    ) -> Intersections:
        """Pairs that intersect each tile.

        A tile of the box mean +- radius is listed only if the smallest exponent over the rectangle of its pixel centers is at
        most ln(255 opacity); without conics only the box is used.

        Args:
            projected: (p, *), sorted by image.
        """
        ...

    def blend(
        self,
        projected: Projected,
        colors: Float[Tensor, "p d"],
        opacities: Float[Tensor, " p"],
        lists: TileLists,
        pixels: Pixels = ...,
        *,
        alpha_max: float,
        absgrad: Float[Tensor, "p 2"] | None = None,
    ) -> Blended:
        """Blend the tile lists front to back: C = sum_i T_i alpha_i c_i + T background, T_i = prod_{j < i} (1 - alpha_j).

        alpha = min(alpha_max, opacity exp(-q)), used if q <= ln(255 opacity); clamped alphas pass no gradient. A pixel
        stops before the Gaussian that would reduce its transmittance to 1e-4 or below.

        Args:
            projected: (p, *); its means and conics get gradients.
            absgrad: Each backward pass adds to it the sum over pixels of |d loss / d means2d| (Ye et al. 2024, AbsGS).
        """
        ...

    def blend_2dgs(
        self,
        projected: Projected2dgs,
        colors: Float[Tensor, "p d"],
        opacities: Float[Tensor, " p"],
        lists: TileLists,
        pixels: Pixels = ...,
        *,
        alpha_max: float,
        distloss: bool,
        densify: Float[Tensor, "p 2"] | None = None,
    ) -> Blended2dgs:
        """Blend 2D Gaussians front to back with q = 0.5 min(u^2 + v^2, 2 |d|^2), otherwise like `blend`.

        (u, v) is the intersection of the pixel's ray with the plane of the Gaussian in front of the camera, in standard
        deviations; d is the distance to `means2d` [px]. Behind the camera only the second term is used.

        Args:
            projected: (p, *); its means, transforms and normals get gradients.
            colors: The last channel is the depth used for distortion, median and `max_depths`.
            distloss: Compute the distortion; otherwise it is zero.
            densify: Zeros whose gradient becomes that of the projected centers through the rays, M33 dL/d(M13, M23).
        """
        ...


def available(device: torch.device) -> list[str]:
    """Names of the kernels that run on the device."""
    return [name for name in _MODULES if name == "reference" or resolve_backend("auto", device) == name]


def resolve(name: str, device: torch.device) -> Literal["native", "reference", "gsplat"]:
    """The backend for a requested name on this device.

    Raises:
        BackendError: It is unknown, not built or does not run on this device.
    """
    if name == "reference":
        return name
    chosen = resolve_backend(name, device)
    if chosen == "gsplat" or chosen in _MODULES:
        return chosen
    if name == "auto":
        return "reference"
    raise BackendError(f"backend {name}: has no rasterizer in this build; use backend='reference'")


def kernels(name: str) -> Kernels:
    """The operations of `native` or `reference`."""
    return cast(Kernels, importlib.import_module(_MODULES[name]))


def visible_pairs(radii: Int[Tensor, "b c n 2"]) -> Visible:
    """The pairs whose radii are not zero."""
    visible = radii[..., 0].flatten().nonzero()[:, 0]
    count = max(radii.shape[2], 1)
    images = torch.div(visible, count, rounding_mode="floor")
    return Visible(images, visible - images * count)


def of_visible(projected: _Any, packed: bool) -> tuple[Visible, _Any]:
    """The visible pairs of (b, c, n, *) outputs, and the outputs, reduced to the visible pairs if `packed`."""
    visible = visible_pairs(projected.radii)
    return visible, rows_of(projected, visible) if packed else projected


def rows_of(projected: _Any, visible: Visible) -> _Any:
    """The rows of the visible pairs, (p, *), of (b, c, n, *) outputs."""
    rows = visible.gaussian_ids
    if projected.radii.shape[0] * projected.radii.shape[1] != 1:
        rows = visible.image_ids * projected.radii.shape[2] + rows
    return projected._make(value.flatten(0, 2).index_select(0, rows) for value in projected)
