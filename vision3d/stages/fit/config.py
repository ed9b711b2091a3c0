"""Options of a fit."""

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from vision3d.device import BackendName
from vision3d.errors import ConfigError

Initialization = Literal["auto", "points", "random", "sfm"]

RESUMABLE = ("cache_gb", "checkpoint_every", "eval_every", "keep", "log_every", "tensorboard")
"""Keys that may change when a run is resumed."""
GROWS = ("steps", "minutes")
"""Keys that may become larger when a run is resumed."""


@dataclass(frozen=True)
class RatesConfig:
    """Learning rates of Adam. Lengths are in units of the scene's extent, so they suit scenes of any size."""

    means: float = 1.6e-3
    """Of the centres, at the start."""
    means_final: float = 0.01
    """Factor on the rate of the centres at the end; it falls exponentially."""
    scales: float = 2e-2
    """Of the logarithms of the scales."""
    quats: float = 4e-3
    """Of the rotations."""
    opacities: float = 5e-2
    """Of the opacity logits."""
    sh0: float = 1e-2
    """Of the colours."""
    shN: float = 5e-4
    """Of the harmonics above degree 0."""
    poses: float = 1e-4
    """Of the camera poses (with pose_opt) [rad and extents]; falls to a hundredth at the end."""
    exposures: float = 1e-3
    """Of the exposures (with exposure_opt)."""

    def __post_init__(self) -> None:
        _check_numbers(self, 0)
        for name in ("means_final", "shN"):
            if getattr(self, name) == 0:
                raise ConfigError(name, "got 0, want a number > 0")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms."""

    ssim: float = 0.2
    """Share of 1 - SSIM beside the mean absolute difference, in [0, 1]."""
    opacity: float = 0.01
    """Of the mean opacity (mcmc only): lets Gaussians that are not needed fade."""
    scale: float = 0.01
    """Of the mean scale in scene extents (mcmc only): keeps Gaussians small."""
    distortion: float = 0.01
    """Of the depth distortion (2dgs only): draws the 2D Gaussians of a ray together."""
    distortion_start: float = 0.1
    """Part of the run after which it counts."""
    normal: float = 0.05
    """Of the difference between the normals of 2D Gaussians and of the depth (2dgs only)."""
    normal_start: float = 0.25
    """Part of the run after which it counts."""
    pose: float = 1e-4
    """Of the squared change of the poses (pose_opt only): keeps the world where it is."""
    exposure: float = 1e-2
    """Of the squared change of the exposures (exposure_opt only): keeps the scene's own colours."""
    extra: tuple[str, ...] = ()
    """Losses of other packages, NAME=WEIGHT each (entry points `vision3d.losses`; CONTRIBUTING.md)."""

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
    """The strategy mcmc (Kheradmand et al. 2024): a fixed budget explores, useless Gaussians are moved."""

    refine_every: int = 100
    """Steps between relocations."""
    refine_start: float = 0.02
    """Part of the run after which they begin."""
    refine_stop: float = 0.85
    """Part of the run after which they end."""
    grow_factor: float = 1.15
    """Growth of the number of Gaussians at each, until max_gaussians."""
    min_opacity: float = 0.005
    """Gaussians at or below it are moved."""
    noise: float = 5e5
    """Strength of the noise on the centres, relative to their learning rate."""


@dataclass(frozen=True)
class AdcConfig:
    """The strategy adc (Kerbl et al. 2023): Gaussians that the pictures pull strongly are duplicated or split."""

    refine_every: int = 100
    """Steps between refinements."""
    refine_start: float = 0.02
    """Part of the run after which they begin."""
    refine_stop: float = 0.5
    """Part of the run after which they end."""
    reset_every: float = 0.1
    """Part of the run between two resets of the opacities."""
    grow_grad2d: float = 2e-4
    """Pull above which a Gaussian grows; about four times as much with absgrad."""
    grow_scale: float = 0.01
    """Largest scale, relative to the scene, that is duplicated and not split."""
    prune_opacity: float = 0.005
    """Gaussians below it go."""
    prune_scale: float = 0.1
    """Gaussians larger than this part of the scene go."""
    absgrad: bool = False
    """Take absolute gradients of the pixels (Ye et al. 2024)."""


@dataclass(frozen=True)
class FitConfig:
    """From posed photographs to a scene of Gaussians."""

    strategy: Literal["mcmc", "adc"] = "mcmc"
    """How Gaussians are moved and added: a fixed budget that explores (mcmc) or the classic control of density (adc)."""
    mode: Literal["3dgs", "2dgs", "flat"] = "3dgs"
    """Ellipsoids (3dgs), 2D Gaussians with the loss terms of surfaces (2dgs), or ellipsoids without thickness (flat)."""
    steps: int | None = None
    """Steps of the run [default: 7000, or as many as fit in --minutes]."""
    minutes: float | None = None
    """Wall time of the training; all schedules follow the time that has passed. With steps too, what ends first counts."""
    max_gaussians: int = 30_000
    """Most Gaussians; fewer are faster."""
    init: Initialization = "auto"
    """Where Gaussians begin: at the points of the data set (points), triangulated by pycolmap from the training views
    (sfm), anywhere that the cameras see (random), or points where there are some and else random (auto)."""
    init_count: int = 10_000
    """Gaussians of a random start, and the most that are taken from points."""
    init_opacity: float = 0.1
    """Opacity at the start, in (0, 1)."""
    init_scale: float = 0.5
    """Scale at the start, in units of the distance to the nearest neighbours."""
    sh_degree: int = 3
    """Degree of the spherical harmonics that make colour depend on the direction, 0 to 4."""
    sh_every: float = 1 / 30
    """Part of the run after which the next degree joins; 0: all from the start."""
    resolution_start: int = 4
    """Pictures begin this many times smaller: 1, 2, 4 or 8."""
    resolution_doublings: tuple[float, ...] = (0.15, 0.35)
    """Parts of the run after which their resolution doubles."""
    batch_size: int = 1
    """Pictures a step; with torchrun divided among the processes."""
    antialiased: bool = False
    """Compensate the screen-space filter (Mip-Splatting), for scenes looked at from many distances. Not for 2dgs."""
    alpha_max: float = 0.99
    """Largest alpha of one Gaussian."""
    background: Literal["auto", "color", "random"] = "auto"
    """Behind the Gaussians: background_color where pictures have an alpha channel, black where not (auto);
    background_color always (color); another colour each step, behind transparent parts of the picture too (random)."""
    background_color: tuple[float, float, float] | None = None
    """Red, green, blue in [0, 1] [default: what the data set has, white]."""
    masks: bool = True
    """Leave out the pixels that the data set's masks mark as black."""
    pose_opt: bool = False
    """Correct the poses of the training cameras."""
    exposure_opt: bool = False
    """Give each training picture a colour transform of its own (3x4)."""
    rates: RatesConfig = field(default_factory=RatesConfig)
    """Learning rates."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the loss terms."""
    mcmc: McmcConfig = field(default_factory=McmcConfig)
    """The strategy mcmc."""
    adc: AdcConfig = field(default_factory=AdcConfig)
    """The strategy adc."""
    split_every: int = 8
    """Every so many-th view is held out of everything, unless the data set says which; 0: none."""
    downscale: float = 1.0
    """Divides the size of the pictures, >= 1."""
    skip_missing: bool = False
    """Leave out views whose picture is missing or unreadable."""
    sfm: bool = False
    """Find the cameras of plain photographs or of a video with pycolmap."""
    cache_gb: float = 8.0
    """Memory for pictures; those that do not fit are read anew each time."""
    log_every: int = 50
    """Steps between two lines of metrics.jsonl."""
    eval_every: int = 0
    """Steps between two measurements on the held-out views; 0: only at the end."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; 0: only at the end and when interrupted."""
    keep: int = 2
    """How many checkpoints stay."""
    tensorboard: bool = False
    """Write curves for TensorBoard into the run folder too."""
    seed: int = 0
    """Of all random numbers. The same seed gives the same scene on the same CPU with as many threads, unless minutes is
    set."""
    device: str = "auto"
    """auto, cpu or cuda."""
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
        """Steps after which the run ends; None when only the time counts."""
        return 7000 if self.steps is None and self.minutes is None else self.steps


def _check_numbers(config: object, low: float) -> None:
    for entry in fields(config):  # pyright: ignore[reportArgumentType]
        value = getattr(config, entry.name)
        if isinstance(value, int | float) and not (value >= low and value < float("inf")):
            raise ConfigError(entry.name, f"got {value}, want a number >= {low}")
