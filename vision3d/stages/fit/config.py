"""Options of a fit."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Literal, get_args

from vision3d.core.device import BackendName
from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups

Initialization = Literal["auto", "points", "random", "sfm"]

RESUMABLE = ("cache_gb", "checkpoint_every", "eval_every", "keep", "log_every", "tensorboard")
"""Keys that may change when a run is resumed."""
GROWS = ("steps", "minutes")
"""Keys that may be larger when a run is resumed."""


@dataclass(frozen=True)
class RatesConfig:
    """Learning rates of Adam. Lengths are in units of the scene's extent, so they suit scenes of any size."""

    means: float = 1.6e-3
    """Means, at the start."""
    means_final: float = 0.01
    """Factor on the learning rate of the means at the end; it decays exponentially."""
    scales: float = 2e-2
    """Logarithms of the scales."""
    quats: float = 4e-3
    """Rotations."""
    opacities: float = 5e-2
    """Opacity logits."""
    sh0: float = 1e-2
    """Colors (harmonics of degree 0)."""
    shN: float = 5e-4
    """Harmonics above degree 0."""
    poses: float = 0.035
    """Camera poses (with --pose-opt): sum of the steps of a view over the run, whatever its length [rad in the image]."""
    exposures: float = 1e-3
    """Exposures (with --exposure-opt)."""

    def __post_init__(self) -> None:
        _check_numbers(self, 0)
        for name in ("means_final", "shN"):
            if getattr(self, name) == 0:
                raise ConfigError(name, "got 0, want a number > 0")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms."""

    ssim: float = 0.2
    """Weight of 1 - SSIM; the mean absolute difference has the rest, in [0, 1]."""
    opacity: float = 0.01
    """Mean opacity (mcmc only): lets unneeded Gaussians fade."""
    scale: float = 0.01
    """Mean scale in scene extents (mcmc only): keeps Gaussians small."""
    distortion: float = 0.01
    """Depth distortion (2dgs only): concentrates the Gaussians along a ray."""
    distortion_start: float = 0.1
    """Fraction of training after which the distortion term is used."""
    normal: float = 0.05
    """Difference between the normals of Gaussians and of the depth (2dgs only)."""
    normal_start: float = 0.25
    """Fraction of training after which the normal term is used."""
    depth: float = 0.0
    """Relative difference from the depth maps of the data set, where it has them, e.g. 0.5; 0 ignores them."""
    pose: float = 1e-4
    """Squared correction of the poses (--pose-opt only): prevents drift of the world."""
    exposure: float = 1e-2
    """Squared correction of the exposures (--exposure-opt only): prevents drift of the colors."""
    extra: tuple[str, ...] = ()
    """Your own losses, MODULE:FUNCTION=WEIGHT each, or NAME=WEIGHT for those of other packages (entry points `vision3d.losses`;
    CONTRIBUTING.md)."""

    def __post_init__(self) -> None:
        _check_numbers(self, 0)
        self.extra_weights()
        for name in ("ssim", "distortion_start", "normal_start"):
            if getattr(self, name) > 1:
                raise ConfigError(name, f"got {getattr(self, name)}, want a number in [0, 1]")

    def extra_weights(self) -> dict[str, float]:
        """The weights of `extra` by name.

        Raises:
            ConfigError: One is not NAME=WEIGHT with a finite number.
        """
        found = {}
        for text in self.extra:
            name, _, weight = text.partition("=")
            try:
                found[name] = float(weight)
            except ValueError:
                found[name] = math.nan
            if not name or not math.isfinite(found[name]):
                raise ConfigError("loss.extra", f"got {text!r}, want NAME=WEIGHT")
        return found


@dataclass(frozen=True)
class McmcConfig:
    """The strategy mcmc (Kheradmand et al. 2024): a fixed budget explores, dead Gaussians are relocated."""

    refine_every: int = 100
    """Steps between relocations."""
    refine_start: float = 0.02
    """Fraction of training after which relocations begin."""
    refine_stop: float = 0.85
    """Fraction of training after which relocations end."""
    grow_factor: float = 1.15
    """Growth of the number of Gaussians at each relocation, up to --max-gaussians."""
    min_opacity: float = 0.005
    """Gaussians at or below this opacity are relocated."""
    noise: float = 5e5
    """Scale of the noise on the means, relative to their learning rate."""


@dataclass(frozen=True)
class AdcConfig:
    """The strategy adc (Kerbl et al. 2023): Gaussians with large image-space gradients are duplicated or split."""

    refine_every: int = 100
    """Steps between refinements."""
    refine_start: float = 0.02
    """Fraction of training after which refinements begin."""
    refine_stop: float = 0.5
    """Fraction of training after which refinements end."""
    reset_every: float = 0.1
    """Fraction of training between resets of the opacities."""
    grow_grad2d: float = 2e-4
    """Image-space gradient above which a Gaussian is duplicated or split; about four times as large with absgrad."""
    grow_scale: float = 0.01
    """Maximum scale, relative to the scene, of Gaussians that are duplicated; larger ones are split."""
    prune_opacity: float = 0.005
    """Gaussians below this opacity are removed."""
    prune_scale: float = 0.1
    """Gaussians larger than this fraction of the scene are removed."""
    absgrad: bool = False
    """Use absolute gradients of the pixels (Ye et al. 2024)."""


@dataclass(frozen=True)
class FitConfig:
    """Fit a scene of Gaussians to posed photos."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("minutes", "max_gaussians", "steps", "sfm", "mode"),
        "initial Gaussians": ("init", "init_count", "init_opacity", "init_scale"),
        "training": (
            "strategy",
            "resolution_start",
            "resolution_doublings",
            "batch_size",
            "sh_degree",
            "sh_every",
            "pose_opt",
            "exposure_opt",
            "seed",
        ),
        "photos": ("masks", "downscale", "split_every", "skip_missing", "cache_gb"),
        "rendering": ("background", "background_color", "antialiased", "alpha_max", "device", "backend"),
        "logs and checkpoints": ("log_every", "eval_every", "checkpoint_every", "keep", "tensorboard"),
    }

    strategy: Literal["mcmc", "adc"] = "mcmc"
    """Densification: a fixed budget of Gaussians that are relocated (mcmc), or classic adaptive density control (adc)."""
    mode: Literal["3dgs", "2dgs", "flat"] = "3dgs"
    """Ellipsoids (3dgs), 2D Gaussians with the loss terms of surfaces (2dgs), or ellipsoids without thickness (flat)."""
    steps: int | None = None
    """Training steps [default: 7000, or as many as fit in --minutes]."""
    minutes: float | None = None
    """Wall time of training; all schedules follow it. With --steps as well, training ends at whichever comes first."""
    max_gaussians: int = 30_000
    """Maximum number of Gaussians; fewer train faster."""
    init: Initialization | Path = "auto"
    """Initial positions: the points of the data set (points), points triangulated by pycolmap from the training views (sfm),
    uniform in the space that the cameras see (random), or points if there are any and otherwise random (auto). Or a file: its
    Gaussians, which are refined, or its points (.ply, .spz, ...)."""
    init_count: int = 10_000
    """Number of Gaussians of a random start, and the maximum taken from points."""
    init_opacity: float = 0.1
    """Initial opacity, in (0, 1)."""
    init_scale: float = 0.5
    """Initial scale, as a multiple of the distance to the nearest neighbors."""
    sh_degree: int = 3
    """Degree of the spherical harmonics of view-dependent color, 0 to 4."""
    sh_every: float = 1 / 30
    """Fraction of training after which the next degree of harmonics is added; 0: all from the start."""
    resolution_start: int = 4
    """Training starts on images this many times smaller: 1, 2, 4 or 8."""
    resolution_doublings: tuple[float, ...] = (0.15, 0.35)
    """Fractions of training at which the resolution doubles."""
    batch_size: int = 1
    """Images per step; torchrun divides them among its processes."""
    antialiased: bool = False
    """Compensate for the screen-space filter (Mip-Splatting), for scenes viewed from very different distances. Not for 2dgs."""
    alpha_max: float = 0.99
    """Maximum alpha of a Gaussian."""
    background: Literal["auto", "color", "random"] = "auto"
    """Color behind the Gaussians: --background-color if images have an alpha channel and black otherwise (auto), always
    --background-color (color), or a new random color at each step, also behind transparent pixels (random)."""
    background_color: tuple[float, float, float] | None = None
    """Red, green, blue in [0, 1] [default: that of the data set, or white]."""
    masks: bool = True
    """Ignore the pixels that the masks of the data set mark black."""
    pose_opt: bool = False
    """Optimize the poses of the training cameras."""
    exposure_opt: bool = False
    """Optimize a color transform (3x4) for each training image."""
    rates: RatesConfig = field(default_factory=RatesConfig)
    """Learning rates."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the loss terms."""
    mcmc: McmcConfig = field(default_factory=McmcConfig)
    """The strategy mcmc."""
    adc: AdcConfig = field(default_factory=AdcConfig)
    """The strategy adc."""
    split_every: int = 8
    """Hold out every N-th view, unless the data set has its own split; 0: none."""
    downscale: float = 1.0
    """Divide the size of the images by this, at least 1."""
    skip_missing: bool = False
    """Skip views whose image is missing or unreadable."""
    sfm: bool = False
    """Find the cameras of plain photos or of a video with pycolmap."""
    cache_gb: float = 8.0
    """Memory for images [GB]; images that do not fit are read again at each use. On a GPU also at most a quarter of its free
    memory; images beyond that are copied at each use."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    eval_every: int = 0
    """Steps between evaluations on the held-out views; 0: only at the end."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; 0: only at the end and when interrupted."""
    keep: int = 2
    """Number of checkpoints to keep."""
    tensorboard: bool = False
    """Also write TensorBoard curves into the run folder."""
    seed: int = 0
    """Seed of all random numbers. The same seed gives the same scene on the same CPU and number of threads, unless --minutes is
    set."""
    device: str = "auto"
    """Where to train: auto, cpu or cuda."""
    backend: BackendName = "auto"
    """Rasterizer: auto, native, reference (slow) or gsplat (CUDA)."""

    def __post_init__(self) -> None:
        for name in ("steps", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(name, f"got {value}, want a number > 0")
        _check_numbers(self, 0)
        if self.seed >= 2**63:
            raise ConfigError("seed", f"got {self.seed}, want less than 2^63")
        for name in ("max_gaussians", "init_count", "batch_size", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(name, f"got {getattr(self, name)}, want at least 1")
        if self.sh_degree > 4:
            raise ConfigError("sh_degree", f"got {self.sh_degree}, want 0 to 4")
        if self.resolution_start not in (1, 2, 4, 8):
            raise ConfigError("resolution_start", f"got {self.resolution_start}, want 1, 2, 4 or 8")
        doublings = self.resolution_doublings
        if list(doublings) != sorted(doublings) or any(not 0 <= at <= 1 for at in doublings):
            raise ConfigError("resolution_doublings", f"got {doublings}, want ascending fractions of training in [0, 1]")
        for name, end in (("alpha_max", 0.9999), ("init_opacity", 1)):  # the first as render.splats.checks.MAX_ALPHA
            if not 0 < getattr(self, name) < end:
                raise ConfigError(name, f"got {getattr(self, name)}, want a number in (0, {end})")
        if isinstance(self.init, Path) and not self.init.suffix:
            names = ", ".join(get_args(Initialization))
            raise ConfigError(
                "init", f"got {str(self.init)!r}, want {names}, or a file of Gaussians or points (.ply, .spz, ...)"
            )
        if self.init_scale == 0:
            raise ConfigError("init_scale", "got 0, want a number > 0")
        if any(not 0 <= value <= 1 for value in self.background_color or ()):
            raise ConfigError("background_color", f"got {self.background_color}, want three numbers in [0, 1]")
        if self.downscale < 1:
            raise ConfigError("downscale", f"got {self.downscale}, want a number >= 1")
        if self.antialiased and self.mode == "2dgs":
            raise ConfigError("antialiased", "is for modes 3dgs and flat, not for 2dgs")
        if self.strategy == "adc" and self.adc.absgrad and self.mode == "2dgs":
            raise ConfigError("adc.absgrad", "is for modes 3dgs and flat, not for 2dgs")

    @property
    def total_steps(self) -> int | None:
        """Steps after which the run ends; None if only the time is limited."""
        return 7000 if self.steps is None and self.minutes is None else self.steps


def _check_numbers(config: object, low: float) -> None:
    for entry in fields(config):  # pyright: ignore[reportArgumentType]
        value = getattr(config, entry.name)
        if isinstance(value, int | float) and not (value >= low and value < float("inf")):
            raise ConfigError(entry.name, f"got {value}, want a number >= {low}")
