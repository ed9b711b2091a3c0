"""Options of the VAE of planes, and of the diffusion model over its latents."""

from dataclasses import dataclass, field
from typing import Literal

from vision3d.core.errors import ConfigError
from vision3d.core.ranges import check_counts, check_not_negative, check_numbers
from vision3d.stages.edit.config import ObjectTraining

Scheduler = Literal["ddim", "dpm"]


@dataclass(frozen=True)
class VaeConfig:
    """Sizes of the VAE of the color channels of planes."""

    layout: Literal["three", "joint"] = "three"
    """three: a VAE for each plane, as in the paper; joint: one that sees the channels of all planes."""
    latents: int = 8
    """Channels of the latents of a plane."""
    reduce: int = 4
    """Texels of a plane along a side of a cell of the latents."""
    width: int = 64
    """Channels of the layers of each VAE."""
    blocks: int = 2
    """Residual blocks of encoder and decoder."""

    def __post_init__(self) -> None:
        check_counts(self, "latents", "reduce", "width", "blocks")
        if self.layout not in ("three", "joint"):
            raise ConfigError("layout", f"got {self.layout!r}, want three or joint")


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of the denoiser, a UNet2DConditionModel of diffusers."""

    widths: tuple[int, ...] = (64, 96)
    """Channels of the levels."""
    layers: int = 1
    """Residual blocks of a level."""
    heads: int = 4
    """Heads of the attention to the tokens of the text."""
    groups: int = 8
    """Groups of the norms."""

    def __post_init__(self) -> None:
        check_counts(self, "layers", "heads", "groups")
        if len(self.widths) < 2 or any(width < 1 or width % self.groups or width % self.heads for width in self.widths):
            raise ConfigError("widths", f"got {self.widths}, want two or more multiples of groups and heads")


@dataclass(frozen=True)
class VaeTrainConfig(ObjectTraining):
    """Train the VAE of planes."""

    network: VaeConfig = field(default_factory=VaeConfig)
    """The network."""
    planes: str = "edit_planes"
    """Encoder and decoder of the planes: a file, or the name of bundled weights."""
    batch_size: int = 8
    """Planes of objects per step."""
    pool: int = 128
    """Encoded objects that a step draws from; every second step replaces one of them."""
    queries: int = 1024
    """Points per object at which colors are compared."""
    kl: float = 1e-6
    """Weight of the divergence of the latents from a normal distribution."""
    decoded: float = 0.1
    """Weight of the errors of decoded colors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "pool")
        check_not_negative(self, "kl", "decoded")


@dataclass(frozen=True)
class DiffusionTrainConfig(ObjectTraining):
    """Train the diffusion model that edits latents of planes by a text."""

    network: DenoiserConfig = field(default_factory=DenoiserConfig)
    """The denoiser."""
    vae: str = "edit_vae.safetensors"
    """Weights of the VAE, of `edit train-vae`."""
    planes: str = "edit_planes"
    """Encoder and decoder of the planes: a file, or the name of bundled weights."""
    batch_size: int = 16
    """Pairs of an object and an instruction per step."""
    pool: int = 64
    """Encoded objects that a step draws from; each step replaces one of them."""
    each: int = 4
    """Instructions of each of these objects."""
    queries: int = 1024
    """Points per object of which targets are compared."""
    phrases: int = 4096
    """Different instructions."""
    two: float = 0.1
    """Share of instructions with two edits."""
    basic: float = 0.6
    """Share of edits that are basic: of the whole object, without fine colors and patterns in given colors."""
    varied: float = 0.5
    """Share of targets that differ in what the text leaves open."""
    dropped: float = 0.05
    """Share of samples without the text, without the source, and without both, for guidance."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "pool", "each", "phrases")
        check_numbers(self, ("two", "basic", "varied"), lambda value: 0 <= value <= 1, "a share in [0, 1]")
        check_numbers(self, ("dropped",), lambda value: 0 <= value <= 0.3, "a share in [0, 0.3]")


@dataclass(frozen=True)
class Sampling:
    """How latents are drawn."""

    steps: int = 20
    """Steps of the sampler."""
    guidance: float = 1.5
    """Guidance by the text; 1: none."""
    source_guidance: float = 1.0
    """Guidance by the source; 1: none."""
    start: float = 1.0
    """Share of the noise to begin with, added to the latents of the source (SDEdit); 1: pure noise."""
    scheduler: Scheduler = "ddim"
    """ddim, or dpm (DPM-Solver++)."""

    def __post_init__(self) -> None:
        check_counts(self, "steps")
        check_not_negative(self, "guidance", "source_guidance")
        check_numbers(self, ("start",), lambda value: 0 < value <= 1, "a share in (0, 1]")
        if self.scheduler not in ("ddim", "dpm"):
            raise ConfigError("scheduler", f"got {self.scheduler!r}, want ddim or dpm")
