"""The records passed to and returned by the rasterizer's operations, from the public functions down to the op schemas.

Shapes: b scenes, c cameras, n Gaussians, i = b * c images; p counts (image, Gaussian) pairs in that order, all of them or
only the visible ones; m counts (tile, pair) intersections.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

TOO_MANY = "{} tile intersections, want less than 2^31: the Gaussians are too large"


class Gaussians(NamedTuple):
    """Gaussians to project."""

    means: Float[Tensor, "b n 3"]
    """Centers in the world [m]."""
    quats: Float[Tensor, "b n 4"] | None
    """Rotations, order wxyz, any length > 0; None with `covars`."""
    scales: Float[Tensor, "b n 3"] | None
    """Standard deviations along the axes [m]; None with `covars`."""
    covars: Float[Tensor, "b n 6"] | None
    """Upper triangle xx xy xz yy yz zz, instead of `quats` and `scales` [m^2]."""
    opacities: Float[Tensor, "b n"] | None
    """Used to limit the extent by ln(255 opacity); None: 3.33 standard deviations. No gradient."""


class Camera(NamedTuple):
    """Cameras and clipping. One size and one model for all cameras of a call."""

    viewmats: Float[Tensor, "b c 4 4"]
    """World to camera, rigid."""
    Ks: Float[Tensor, "b c 3 3"]
    """Intrinsics [px]; the skew is ignored. No gradient."""
    width: int
    height: int
    model: str
    """pinhole, ortho, or fisheye (equidistant)."""
    near_plane: float
    """Minimum camera depth of a center [m]."""
    far_plane: float
    """Maximum camera depth of a center [m]."""
    radius_clip: float
    """Gaussians whose two radii are at most this are skipped [px]."""


class Visible(NamedTuple):
    """The visible pairs, sorted by image."""

    image_ids: Int64[Tensor, " v"]
    """Image, scene * c + camera."""
    gaussian_ids: Int64[Tensor, " v"]


class Projected(NamedTuple):
    """3D Gaussians in images: (b, c, n, *) for every pair, or (p, *)."""

    radii: Int32[Tensor, "*p 2"]
    """Half of the box around a mean [px]; 0 for invisible Gaussians (including non-finite ones), whose other values are 0."""
    means2d: Float[Tensor, "*p 2"]
    """[px]."""
    depths: Float[Tensor, "*p"]
    """Along the camera's z [m]."""
    conics: Float[Tensor, "*p 3"]
    """(a, b, c) of the exponent q = 0.5 (a dx^2 + c dy^2) + b dx dy."""
    compensations: Float[Tensor, "*p"]
    """sqrt(det(S - eps2d I) / det S), at least 0.005."""


class Projected2dgs(NamedTuple):
    """2D Gaussians in images: (b, c, n, *) for every pair, or (p, *)."""

    radii: Int32[Tensor, "*p 2"]
    """The box mean +- radius contains every pixel with alpha >= 1/255 [px]; 0 for invisible ones, whose other values are 0."""
    means2d: Float[Tensor, "*p 2"]
    """Center of the conic of one standard deviation, or the projected center if it crosses the camera's plane [px]."""
    depths: Float[Tensor, "*p"]
    """Depths of the centers, along the camera's z [m]."""
    transforms: Float[Tensor, "*p 3 3"]
    """M = K [R s_u t_u, R s_v t_v, p] (Huang et al. 2024, eq. 9)."""
    normals: Float[Tensor, "*p 3"]
    """Unit normals in camera axes, facing the camera."""

    @property
    def conics(self) -> None:
        """None: tiles are determined by the boxes only."""


class Grid(NamedTuple):
    """The tiles of a call's images."""

    num_images: int
    width: int
    height: int
    tile_size: int


class TileLists(NamedTuple):
    """The pairs that each tile blends, front to back."""

    width: int
    height: int
    tile_size: int
    isect_offsets: Int32[Tensor, "i y x"]
    """Start of the list of each tile."""
    flatten_ids: Int32[Tensor, " m"]
    """The pair of each intersection."""


class Intersections(NamedTuple):
    """Intersections, sorted by image, tile and depth, ties by index."""

    tiles_per_gauss: Int32[Tensor, " p"]
    isect_ids: Int64[Tensor, " m"]
    """image | tile | 32 bits of the depth."""
    lists: TileLists


class Pixels(NamedTuple):
    """Per-pixel inputs of blending."""

    backgrounds: Float[Tensor, "i d"] | None = None
    """Background color; black when None."""
    masks: Bool[Tensor, "i y x"] | None = None
    """Tiles that are False show only the background."""
    max_depths: Float[Tensor, "i h w"] | None = None
    """A pixel stops before the first Gaussian whose depth is not below. No gradient."""


class Blended(NamedTuple):
    """Images of 3D Gaussians."""

    colors: Float[Tensor, "i h w d"]
    transmittances: Float[Tensor, "i h w"]
    last_ids: Int32[Tensor, "i h w"]
    """Position in `flatten_ids` of the last Gaussian blended, -1: none."""


class Blended2dgs(NamedTuple):
    """Images of 2D Gaussians."""

    colors: Float[Tensor, "i h w d"]
    transmittances: Float[Tensor, "i h w"]
    normals: Float[Tensor, "i h w 3"]
    """In camera axes, weighted like colors."""
    distortions: Float[Tensor, "i h w"]
    """2 sum_{j < i} w_i w_j (z_i - z_j)."""
    medians: Float[Tensor, "i h w"]
    """Depth of the last Gaussian blended while the transmittance before it is above 0.5, else 0."""
    last_ids: Int32[Tensor, "i h w"]
    median_ids: Int32[Tensor, "i h w"]
    """Position in `flatten_ids` of the Gaussian of the median, -1: none."""
