"""Options that the trainings on generated images have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_counts, check_not_negative, check_positive
from vision3d.stages.hand.config import BATCH

RESUMABLE = ("checkpoint_every", "keep", "evaluate_every", "workers", "samples")
"""Keys of a training that may change when it is resumed."""
GROWS = ("steps",)
"""Keys of a training that may be larger when it is resumed."""


@dataclass(frozen=True)
class TrainingOptions:
    """Train on generated images."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("steps", "batch_size", "images", "backgrounds", "furniture"),
        "training": ("init", "lr", "weight_decay", "clip_norm", "ema", "seed", "device"),
        "logs and checkpoints": ("log_every", "checkpoint_every", "evaluate_every", "evaluate_images", "keep"),
    }

    backgrounds: Path | None = None
    """Folder with photographs; without one, backgrounds are gradients and noise."""
    furniture: Path | None = None
    """Folder with the unpacked Debian package sweethome3d-furniture: hands hold its models, and furnished rooms are
    backgrounds."""
    images: int = 100_000
    """Different images, a multiple of 16: made before the training and kept on disk, 10 GB a million at 128 pixels."""
    samples: Path | None = None
    """Folder of the generated images; by default in the cache."""
    init: str | None = None
    """Weights to begin with: a file, or the name of bundled ones."""
    steps: int = 10_000
    """Steps of training."""
    batch_size: int = 32
    """Images per step."""
    lr: float = 2e-3
    """Maximum learning rate of AdamW (one cycle)."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    clip_norm: float = 1.0
    """Maximum norm of the gradient."""
    ema: float = 0.998
    """Decay of the moving averages of the parameters, which are evaluated and saved."""
    workers: int = 1
    """Processes that make images; 0: this one."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 500
    """Steps between checkpoints; 0: only at the end and when interrupted."""
    evaluate_every: int = 0
    """Steps between evaluations, whose best checkpoint is kept as best.pt; 0: only at the end."""
    evaluate_images: int = 960
    """Held-out images of an evaluation, a multiple of 16; 0: none."""
    keep: int = 2
    """Number of checkpoints to keep."""
    seed: int = 0
    """Seed of the parameters and images."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_counts(self, "images", "steps", "batch_size", "log_every", "keep")
        check_positive(self, "lr", "clip_norm")
        check_not_negative(self, "weight_decay", "checkpoint_every", "evaluate_every", "evaluate_images", "seed", "workers")
        if not 0 <= self.ema < 1:
            raise ConfigError("ema", f"got {self.ema}, want a number in [0, 1)")
        for name in ("images", "evaluate_images"):
            if getattr(self, name) % BATCH:
                raise ConfigError(name, f"got {getattr(self, name)}, want a multiple of {BATCH}")
