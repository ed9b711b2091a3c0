"""Options of a mesh."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from vision3d.core.device import BackendName
from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_each

Corners = tuple[float, float, float, float, float, float]

MIN_RESOLUTION = 16


@dataclass(frozen=True)
class MeshConfig:
    """From a scene of Gaussians to a mesh with a texture."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("resolution", "box", "faces", "background", "texture_size"),
        "views and depth": (
            "method",
            "views",
            "view_size",
            "max_view_size",
            "supersample",
            "depth",
            "quantile",
            "stereo",
            "alpha_min",
            "min_views",
            "trim",
        ),
        "volume": ("voxel", "truncation", "max_memory", "device", "backend"),
        "clean-up and texture": ("min_component", "max_components", "thin", "fill_holes", "smooth", "refine", "padding"),
    }

    method: Literal["tsdf", "poisson"] = "tsdf"
    """How depth maps become a surface: truncated signed distances (tsdf), which leave invisible parts open, or Poisson
    reconstruction from the points (poisson), which closes them."""
    resolution: int = 256
    """Voxels along the longest side of the box (of its central part if there is a background); at least 16."""
    voxel: float | None = None
    """Side of a voxel [m], instead of --resolution."""
    box: Corners | None = None
    """Lower corner x y z and upper corner x y z of the meshed region [m] [default: everything the views show]."""
    background: bool = True
    """With cameras around an object, also mesh what lies behind it, in voxels that grow with the distance."""
    depth: Literal["quantile", "expected"] = "quantile"
    """Depth of a ray: where its opacity has reached --quantile (quantile), or the mean over the ray (expected)."""
    quantile: float = 0.2
    """That fraction of the opacity, in (0, 1); 0.5 is the median, which lies behind the surface of most scenes."""
    stereo: bool = True
    """Where the opacity of a ray is spread out, find the depth at which the rendered views agree."""
    alpha_min: float = 0.5
    """Pixels below this opacity have no surface, in (0, 1]."""
    truncation: float = 5.0
    """Truncation distance of the signed distances [voxels]."""
    min_views: int | None = None
    """Minimum number of views that must see a point of the surface (tsdf only) [default: 3 of 24 or more views, 2 of fewer]."""
    trim: float = 4.0
    """Remove what is farther than this from all points [voxels] (poisson only); 0 keeps the closed surface."""
    views: int = 48
    """Number of cameras around the scene if none are given."""
    view_size: int = 512
    """Width and height of the images of these cameras [px]."""
    max_view_size: int = 1024
    """Longest side of the depth maps [px]; larger cameras are scaled down."""
    supersample: float = 1.0
    """Factor on the size of the cameras' images for depth maps."""
    min_component: float = 0.0005
    """Remove parts with less than this fraction of the area of the largest part, in [0, 1]."""
    max_components: int = 20
    """Maximum number of parts, the largest ones; 0 keeps all."""
    thin: bool = True
    """Add rods and stems thinner than the voxels from the Gaussians (tsdf only); do not smooth or decimate thin surfaces."""
    fill_holes: int = 16
    """Close holes with at most this many edges; 0: none."""
    smooth: int = 5
    """Iterations of volume-preserving smoothing before simplification; 0: none."""
    faces: int = 80_000
    """Maximum number of faces; 0 keeps all."""
    texture_size: int = 2048
    """Side of the texture [texels], doubled up to 4096 if the charts do not fit; 0 writes vertex colors instead."""
    padding: int = 4
    """Empty texels around each chart of the texture."""
    refine: int = 600
    """Steps that optimize vertices and texture against the rendered views; 0: none."""
    max_memory: float = 4.0
    """Memory for voxels and cached views [GB]; voxels are enlarged if they would not fit."""
    device: str = "auto"
    """Where views are rendered: auto, cpu or cuda. The rest runs on the CPU."""
    backend: BackendName = "auto"
    """Rasterizer of the Gaussians."""

    def __post_init__(self) -> None:
        if self.box is not None and not all(low < high for low, high in zip(self.box[:3], self.box[3:])):
            raise ConfigError("box", f"got {_numbers(self.box)}, want the lower corner x y z and then the upper one")
        checks = (
            ("resolution", self.resolution >= MIN_RESOLUTION, f"at least {MIN_RESOLUTION}"),
            ("voxel", self.voxel is None or 0 < self.voxel < float("inf"), "a number > 0"),
            ("box", self.box is None or all(abs(value) < float("inf") for value in self.box), "finite numbers"),
            ("quantile", 0 < self.quantile < 1, "a number in (0, 1)"),
            ("alpha_min", 0 < self.alpha_min <= 1, "a number in (0, 1]"),
            ("truncation", 1 <= self.truncation <= 64, "1 to 64 voxels"),
            ("min_views", self.min_views is None or self.min_views >= 1, "1 or more"),
            ("trim", 0 <= self.trim < float("inf"), "a number >= 0"),
            ("views", self.views >= 4, "4 or more"),
            ("view_size", 16 <= self.view_size <= 8192, "16 to 8192"),
            ("max_view_size", 16 <= self.max_view_size <= 8192, "16 to 8192"),
            ("supersample", 0.1 <= self.supersample <= 8, "0.1 to 8"),
            ("min_component", 0 <= self.min_component <= 1, "a number in [0, 1]"),
            ("max_components", self.max_components >= 0, "0 or more"),
            ("fill_holes", self.fill_holes >= 0, "0 or more"),
            ("smooth", self.smooth >= 0, "0 or more"),
            ("faces", self.faces == 0 or self.faces >= 4, "0 or at least 4"),
            ("texture_size", self.texture_size == 0 or 16 <= self.texture_size <= 8192, "0, or 16 to 8192"),
            ("padding", 0 <= self.padding <= 64, "0 to 64"),
            ("refine", self.refine >= 0, "0 or more"),
            ("max_memory", 0 < self.max_memory < float("inf"), "a number > 0"),
        )
        check_each(self, checks)


def _numbers(values: Corners) -> str:
    return " ".join(f"{value:g}" for value in values)
