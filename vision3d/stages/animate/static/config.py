"""Options of the static stage."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from vision3d.core.device import BackendName
from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.stages.animate.guidance.config import SdsConfig

RESUMABLE = ("checkpoint_every", "keep", "log_every")
"""Keys that may change when a run is resumed."""
GROWS = ("steps",)
"""Keys that may be larger when a run is resumed."""


@dataclass(frozen=True)
class StaticRates:
    """Learning rates of Adam. DreamMesh4D uses 5e-3, 1e-3, 2e-2 and 1e-3 for scales, rotations, opacities and colors, with
    seven times as many steps."""

    vertices: float = 4.8e-4
    """Vertices, in half of the longest side of the mesh's box."""
    scales: float = 2e-2
    """Logarithms of the two scales."""
    rotations: float = 1e-2
    """In-plane rotations, as complex numbers."""
    opacities: float = 5e-2
    """Opacity logits."""
    sh0: float = 2e-2
    """Colors, if the mesh has some."""
    sh0_bare: float = 5e-2
    """Colors, if the mesh has neither a texture nor vertex colors."""
    shN: float = 5e-4
    """Harmonics above degree 0."""
    final: float = 0.1
    """Factor on all learning rates at the end; they decay exponentially."""


@dataclass(frozen=True)
class StaticLoss:
    """Weights of the loss; each term is a mean and independent of the sizes of images, meshes and the world."""

    ssim: float = 0.2
    """Weight of 1 - SSIM; the mean absolute difference of colors has the rest, in [0, 1]."""
    mask: float = 0.1
    """Squared difference between the opacity of the render and that of the image, if images have one."""
    normals: float = 0.01
    """Mean of 1 - cos between the normals of adjacent faces (vertices only): smooths."""
    laplacian: float = 0.1
    """Squared difference between the displacement of a vertex and the mean displacement of its neighbors, in mean edge lengths
    (vertices only)."""
    keep: float = 0.1
    """Squared change of scales, opacities and colors, divided by the number of training views: with few images the result stays
    closer to the mesh. Colors of a mesh without any are not penalized."""
    guidance: float = 1e-5
    """Score distillation, with --guidance (DreamMesh4D has 0.01, with 1000 for colors)."""


@dataclass(frozen=True)
class ReferenceView:
    """The camera of a single image without a cameras file; the default is that of DreamMesh4D's data."""

    elevation_deg: float = 5.0
    """Elevation above the center of the mesh's box [degrees]."""
    azimuth_deg: float = 0.0
    """Azimuth about the up axis from the mesh's front, counter-clockwise seen from above [degrees]."""
    distance: float = 3.8
    """Distance from the center, in longest sides of the mesh's box."""
    fov_deg: float = 20.0
    """Vertical field of view [degrees]."""
    up: Literal["auto", "y", "z"] = "auto"
    """Up axis of the mesh; its front is +z if y is up and +x if z is up. auto: y for .glb, .gltf and .obj, else z."""


@dataclass(frozen=True)
class StaticConfig:
    """Bind Gaussians to the faces of a mesh and refine them on images."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("steps", "per_face", "shape"),
        "Gaussians": ("vertices", "sh_degree", "opacity"),
        "training": ("batch_size", "coarse", "coarse_steps", "cells", "seed", "device", "backend"),
        "photos": ("parts", "masks", "max_size", "split_every", "skip_missing", "background_color"),
        "logs and checkpoints": ("log_every", "checkpoint_every", "keep"),
    }

    per_face: Literal[1, 3, 4, 6] = 6
    """Gaussians per face."""
    steps: int = 300
    """Training steps; 0 only binds Gaussians to the faces."""
    batch_size: int = 2
    """Images per step."""
    vertices: bool = True
    """Optimize the vertices; coincident ones move together."""
    sh_degree: int = 0
    """Degree of the spherical harmonics of view-dependent color, 0 to 4. They do not rotate with a moving mesh."""
    shape: Literal["round", "stretched"] = "stretched"
    """Initial shape of the Gaussians: round (DreamMesh4D), or stretched along long faces."""
    opacity: float = 0.9
    """Initial opacity, in (0, 1)."""
    parts: Literal["all", "largest"] = "all"
    """Connected parts of the mesh to use: all, or the one with the largest area."""
    masks: Literal["valid", "object", "none"] = "valid"
    """Meaning of the masks of the data set: the valid pixels (valid), the object, so that the rest is background and opacity
    is trained on them (object), or ignored (none)."""
    max_size: int = 512
    """Longest side of the images [px]; larger ones are downscaled. 0 keeps their size."""
    coarse: int = 2
    """Training starts on images this many times smaller: 1, 2, 4 or 8."""
    coarse_steps: float = 0.3
    """Fraction of training on the smaller images."""
    split_every: int = 8
    """Hold out every N-th view, unless the data set has its own split; 0: none."""
    skip_missing: bool = False
    """Skip views whose image is missing or unreadable."""
    background_color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Red, green, blue in [0, 1] behind images with an alpha channel and outside object masks."""
    view: ReferenceView = field(default_factory=ReferenceView)
    """The camera of --image."""
    rates: StaticRates = field(default_factory=StaticRates)
    """Learning rates."""
    loss: StaticLoss = field(default_factory=StaticLoss)
    """Weights of the loss terms."""
    sds: SdsConfig = field(default_factory=lambda: SdsConfig(scale=3.5, t_max=0.2))
    """Score distillation, with --guidance."""
    cells: int = 40
    """Grid cells along the longest side of the first shape, if there is an image and no mesh."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 100
    """Steps between checkpoints; 0: only at the end and when interrupted."""
    keep: int = 2
    """Number of checkpoints to keep."""
    seed: int = 0
    """Seed of all random numbers. The same seed gives the same Gaussians on the same CPU and number of threads."""
    device: str = "auto"
    """Where to train: auto, cpu or cuda."""
    backend: BackendName = "auto"
    """Rasterizer: auto, native, reference (slow) or gsplat (CUDA)."""

    def __post_init__(self) -> None:
        numbers = {f"rates.{name}": value for name, value in vars(self.rates).items()}
        numbers |= {f"loss.{name}": value for name, value in vars(self.loss).items()}
        for name, value in numbers.items():
            if not 0 <= value < float("inf"):
                raise ConfigError(name, f"got {value}, want a number >= 0")
        view = self.view
        for name, value, is_right, want in (
            ("per_face", self.per_face, self.per_face in (1, 3, 4, 6), "1, 3, 4 or 6"),
            ("steps", self.steps, self.steps >= 0, "0 or more"),
            ("batch_size", self.batch_size, self.batch_size >= 1, "1 or more"),
            ("sh_degree", self.sh_degree, 0 <= self.sh_degree <= 4, "0 to 4"),
            ("opacity", self.opacity, 0 < self.opacity < 1, "a number in (0, 1)"),
            ("max_size", self.max_size, self.max_size == 0 or 16 <= self.max_size <= 8192, "0, or 16 to 8192"),
            ("coarse", self.coarse, self.coarse in (1, 2, 4, 8), "1, 2, 4 or 8"),
            ("coarse_steps", self.coarse_steps, 0 <= self.coarse_steps <= 1, "a number in [0, 1]"),
            ("split_every", self.split_every, self.split_every >= 0, "0 or more"),
            ("cells", self.cells, 8 <= self.cells <= 256, "8 to 256"),
            ("log_every", self.log_every, self.log_every >= 1, "1 or more"),
            ("checkpoint_every", self.checkpoint_every, self.checkpoint_every >= 0, "0 or more"),
            ("keep", self.keep, self.keep >= 1, "1 or more"),
            ("seed", self.seed, 0 <= self.seed < 2**63, "0 or more, less than 2^63"),
            ("loss.ssim", self.loss.ssim, self.loss.ssim <= 1, "a number in [0, 1]"),
            ("rates.final", self.rates.final, 0 < self.rates.final <= 1, "a number in (0, 1]"),
            ("view.elevation_deg", view.elevation_deg, abs(view.elevation_deg) <= 90, "-90 to 90"),
            ("view.azimuth_deg", view.azimuth_deg, abs(view.azimuth_deg) <= 360, "-360 to 360"),
            ("view.distance", view.distance, 0.5 < view.distance < float("inf"), "more than half a side of the box"),
            ("view.fov_deg", view.fov_deg, 0 < view.fov_deg < 180, "more than 0 and less than 180"),
        ):
            if not is_right:
                raise ConfigError(name, f"got {value}, want {want}")
        if any(not 0 <= value <= 1 for value in self.background_color):
            raise ConfigError("background_color", f"got {self.background_color}, want three numbers in [0, 1]")
