"""Options that all trainings of networks have in common."""

from dataclasses import dataclass

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_counts, check_not_negative, check_positive

RESUMABLE = ("checkpoint_every", "keep", "evaluate_every", "workers", "samples")
"""Keys that may change when a training is resumed."""
GROWS = ("steps",)
"""Keys that may be larger when a training is resumed."""


@dataclass(frozen=True)
class NetworkTraining:
    """Train a network in one cycle of AdamW."""

    steps: int = 10_000
    """Steps of training."""
    batch_size: int = 32
    """Samples per step."""
    lr: float = 2e-3
    """Maximum learning rate of AdamW (one cycle)."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    clip_norm: float = 1.0
    """Maximum norm of the gradient."""
    ema: float = 0.998
    """Decay of the moving averages of the parameters, which are evaluated and saved."""
    workers: int = 1
    """Processes that make samples; 0: this one."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 500
    """Steps between checkpoints; 0: only at the end and when interrupted."""
    evaluate_every: int = 0
    """Steps between evaluations, whose best checkpoint is kept as best.pt; 0: only at the end."""
    keep: int = 2
    """Number of checkpoints to keep."""
    seed: int = 0
    """Seed of the parameters and samples."""
    device: str = "auto"
    """auto, cpu or cuda."""
    init: str | None = None
    """Weights to begin with: a file, or the name of bundled ones."""

    def __post_init__(self) -> None:
        check_counts(self, "steps", "batch_size", "log_every", "keep")
        check_positive(self, "lr", "clip_norm")
        check_not_negative(self, "weight_decay", "checkpoint_every", "evaluate_every", "seed", "workers")
        if not 0 <= self.ema < 1:
            raise ConfigError("ema", f"got {self.ema}, want a number in [0, 1)")


def training_groups(main: tuple[str, ...], *evaluation: str) -> HelpGroups:
    """Groups of the help of a training.

    Args:
        main: The main options.
        evaluation: Further options of evaluations.
    """
    return {
        "main options": main,
        "training": ("init", "lr", "weight_decay", "clip_norm", "ema", "seed", "device"),
        "logs and checkpoints": ("log_every", "checkpoint_every", "evaluate_every", *evaluation, "keep"),
    }
