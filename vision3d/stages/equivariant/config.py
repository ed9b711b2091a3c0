"""Options of the equivariant stage."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_counts, check_not_negative, check_numbers, check_positive

Method = Literal["plain", "canonical", "rotation", "full", "separable"]
GROUPS = ("so2", "se2", "sl2", "gl2", "affine")

RESUMABLE = ("checkpoint_every", "draws", "keep")
"""Keys that may change when a run is resumed."""
GROWS = ("epochs",)
"""Keys that may be larger when a run is resumed."""


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    method: Method = "rotation"
    """plain: a CNN. canonical: the same on images in canonical position. rotation: canonical position and convolutions on
    SO(2). full: convolutions on the plane and a group with kernels of all coordinates. separable: the same with product
    kernels."""
    group: Literal["so2", "se2", "sl2", "gl2", "affine"] = "gl2"
    """Group, for full and separable: rotations (so2 or se2), area-preserving maps (sl2), all orientation-preserving linear maps
    (gl2 or affine). The layers are always equivariant to translations as well."""
    background: Literal["subtract", "black"] = "subtract"
    """subtract: remove background and noise from the images first (docs/equivariant.md). black: use the images unchanged,
    for data sets whose background is exactly black."""
    channels: int = 16
    """Number of features; the deeper layers of plain, canonical and rotation have twice as many."""
    samples: int = 8
    """Group elements sampled in every forward pass (full and separable)."""
    window_deg: float = 60.0
    """Rotations, in both directions, that rotation pools over and that full and separable sample; 180: all, for which 6 and 9
    are the same."""
    drift_deg: float = 20.0
    """In training, rotate all sampled rotations together by up to this in both directions, so that features do not depend on
    the limits of the window (full and separable)."""
    kernel: Literal["siren", "wire"] = "siren"
    """Activation of the kernel networks."""
    mask: Literal["smooth", "disk", "bump"] = "bump"
    """Support of the kernels, at distance r in units of their radius. bump: (1 - r^2)^2 up to r = 1, never cut off by the grid,
    which gives the best equivariance (docs/equivariant.md). smooth: sigmoid(2 (1 - r)). disk: 1 up to r = 1."""
    extent: float = 1.0
    """Half side length of the kernels' grid, in units of their radius."""
    spread: float = 0.158
    """Standard deviation of the coordinates of log P (full and separable); 0.158 covers scales of about 0.7 to 1.4."""
    proposal: Literal["ball", "normal"] = "ball"
    """Distribution of log P."""
    angles: Literal["even", "uniform", "published"] = "even"
    """Sampling of rotations."""
    weighted: bool = True
    """Weight samples by the invariant measure."""
    pooling: Literal["max", "mean"] = "max"
    """Pooling over group and plane at the end of full and separable."""
    last_channels: int = 32
    """Features after the last convolution (full and separable); 0: as many as channels, as published."""
    padded: bool = True
    """Pad the features of every layer with black (full and separable); published: not before the first and last layer."""
    margin: int = 8
    """Black margin around evaluated images for padded networks of full and separable [px], a multiple of 4, so that digits at
    the border are not cut off. Not used in training, where digits are centered."""
    norm: Literal["scale", "layer"] = "scale"
    """Normalization (full and separable). scale: the features of an image are divided by their root mean square and black stays
    0. layer: their mean is subtracted first, as published; black then differs from the padding, and features depend on
    position."""
    head_norm: bool = True
    """Normalize pooled features to mean 0 and standard deviation 1, by running averages over batches, before the last layers of
    full and separable: not in the publication, and learns much faster."""
    stem_pool: int = 2
    """Pooling after the lift of full and separable; 1: none, as published."""

    def __post_init__(self) -> None:
        check_counts(self, "channels", "samples", "stem_pool")
        if self.stem_pool > 2:
            raise ConfigError("stem_pool", f"got {self.stem_pool}, want 1 or 2")
        check_numbers(self, ("extent", "spread"), lambda value: 0 < value < 10, "a number in (0, 10)")
        if self.last_channels < 0:
            raise ConfigError("last_channels", f"got {self.last_channels}, want at least 1, or 0 for as many as channels")
        if self.margin < 0 or self.margin % 4:
            raise ConfigError("margin", f"got {self.margin}, want a multiple of 4, or 0")
        check_numbers(self, ("window_deg", "drift_deg"), lambda value: 0 <= value <= 180, "0 to 180 degrees")
        if self.window_deg == 0 and self.method in ("full", "separable"):
            raise ConfigError("window_deg", f"got 0, want more than 0 degrees for method {self.method}")


@dataclass(frozen=True)
class AffnistConfig:
    """Train a classifier on upright digits and evaluate it on affinely warped ones."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("epochs",),
        "training": ("batch_size", "lr", "kernel_lr", "weight_decay", "label_smoothing", "backgrounds", "seed", "device"),
        "generated test set": ("test_digits", "copies", "warps", "draws"),
        "logs and checkpoints": ("log_every", "checkpoint_every", "keep"),
    }

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    epochs: int = 8
    """Passes over the training digits."""
    batch_size: int = 64
    """Images per step."""
    lr: float = 4e-3
    """Maximum learning rate of AdamW; it increases for a third of training and decays to nearly 0."""
    kernel_lr: float = 0.2
    """Factor on the learning rate of the kernel networks of full and separable, whose activations amplify changes by ten."""
    weight_decay: float = 0.02
    """Weight decay of AdamW."""
    label_smoothing: float = 0.05
    """Fraction of the target spread evenly over all classes."""
    backgrounds: float = 0.5
    """Fraction of the training images that get a random gray background and noise; 0: none, as in the publications."""
    test_digits: int = 2000
    """Number of digits held out from training, if the set has no test part."""
    copies: int = 32
    """Number of warps of each held-out digit."""
    warps: Literal["affine", "homography"] = "affine"
    """Kind of warps: as in affNIST (affine) or homNIST (homography)."""
    draws: int = 1
    """Number of draws of group samples whose logits are averaged (full and separable)."""
    log_every: int = 25
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 125
    """Steps between checkpoints; 0: only at the end and when interrupted."""
    keep: int = 2
    """Number of checkpoints to keep."""
    seed: int = 0
    """Seed of the split, the parameters, the order of the digits and the samples. The warps have their own published
    seeds."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_counts(self, "epochs", "batch_size", "test_digits", "copies", "draws", "log_every", "keep")
        check_positive(self, "lr")
        check_not_negative(self, "kernel_lr", "weight_decay", "label_smoothing", "checkpoint_every", "seed")
        if not 0 <= self.backgrounds <= 1:
            raise ConfigError("backgrounds", f"got {self.backgrounds}, want a number in [0, 1]")
        if self.label_smoothing >= 1:
            raise ConfigError("label_smoothing", f"got {self.label_smoothing}, want a number in [0, 1)")
        if self.seed >= 2**63:
            raise ConfigError("seed", f"got {self.seed}, want less than 2^63")
