"""The records that the rasterizer's operations take and give: from the public functions down to the schemas of the operations.

Shapes: b scenes, c cameras, n Gaussians, i = b * c images; p counts (image, Gaussian) pairs in that order, all of them or the
visible ones alone; m counts (tile, pair) intersections.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor


class Gaussians(NamedTuple):
    """What is projected."""

    means: Float[Tensor, "b n 3"]
    """Centres in the world [m]."""
    quats: Float[Tensor, "b n 4"] | None
    """Rotations, order wxyz, any length > 0; None with `covars`."""
    scales: Float[Tensor, "b n 3"] | None
    """Standard deviations along the axes [m]; None with `covars`."""
    covars: Float[Tensor, "b n 6"] | None
    """Upper triangle xx xy xz yy yz zz, instead of `quats` and `scales` [m^2]."""
    opacities: Float[Tensor, "b n"] | None
    """Decide with ln(255 opacity) how far a Gaussian reaches; None: 3.33 standard deviations. No gradient."""


class Camera(NamedTuple):
    """Where from, and what of it is seen. One size and one model for all cameras of a call."""

    viewmats: Float[Tensor, "b c 4 4"]
    """World to camera, rigid."""
    Ks: Float[Tensor, "b c 3 3"]
    """Intrinsics [px]; the skew is not read. No gradient."""
    width: int
    height: int
    model: str
    """pinhole, ortho, or fisheye (equidistant)."""
    near_plane: float
    """Smallest camera depth of a centre that is seen [m]."""
    far_plane: float
    """Largest camera depth of a centre that is seen [m]."""
    radius_clip: float
    """Gaussians whose two radii are at most this are left out [px]."""


class Visible(NamedTuple):
    """The pairs that are seen, sorted by image."""

    image_ids: Int64[Tensor, " v"]
    """Image, scene * c + camera."""
    gaussian_ids: Int64[Tensor, " v"]


class Projected(NamedTuple):
    """3D Gaussians in images: (b, c, n, *) for every pair, or (p, *)."""

    radii: Int32[Tensor, "*p 2"]
    """Half of the box around a mean [px]; 0 for what is not seen (also everything not finite), where all is 0."""
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
    """The box mean +- radius holds every pixel where alpha reaches 1/255 [px]; 0 for what is not seen, where all is 0."""
    means2d: Float[Tensor, "*p 2"]
    """Centre of the conic of one standard deviation, or the projected centre where it crosses the camera's plane [px]."""
    depths: Float[Tensor, "*p"]
    """Of the centres, along the camera's z [m]."""
    transforms: Float[Tensor, "*p 3 3"]
    """M = K [R s_u t_u, R s_v t_v, p] (Huang et al. 2024, eq. 9)."""
    normals: Float[Tensor, "*p 3"]
    """Unit normals in camera axes, turned to the camera."""

    @property
    def conics(self) -> None:
        """None: the boxes alone decide which tiles are touched."""


class Grid(NamedTuple):
    """The tiles of a call's images."""

    num_images: int
    width: int
    height: int
    tile_size: int


class TileLists(NamedTuple):
    """Which pairs each tile blends, front to back."""

    width: int
    height: int
    tile_size: int
    isect_offsets: Int32[Tensor, "i y x"]
    """Where the list of each tile begins."""
    flatten_ids: Int32[Tensor, " m"]
    """The pair of each intersection."""


class Intersections(NamedTuple):
    """What touches what, sorted by image, tile and depth, ties by index."""

    tiles_per_gauss: Int32[Tensor, " p"]
    isect_ids: Int64[Tensor, " m"]
    """image | tile | 32 bits of the depth."""
    lists: TileLists


class Pixels(NamedTuple):
    """What blending reads at the pixels."""

    backgrounds: Float[Tensor, "i d"] | None = None
    """Colour behind everything; black when None."""
    masks: Bool[Tensor, "i y x"] | None = None
    """Tiles that are False show the background alone."""
    max_depths: Float[Tensor, "i h w"] | None = None
    """A pixel ends before the first Gaussian whose depth is not below. No gradient."""


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
    """In camera axes, weighted like colours."""
    distortions: Float[Tensor, "i h w"]
    """2 sum_{j < i} w_i w_j (z_i - z_j)."""
    medians: Float[Tensor, "i h w"]
    """Depth of the last Gaussian blended while the transmittance before it is above 0.5, else 0."""
    last_ids: Int32[Tensor, "i h w"]
    median_ids: Int32[Tensor, "i h w"]
    """Position in `flatten_ids` of the Gaussian of the median, -1: none."""
