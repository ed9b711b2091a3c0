"""Options that the trainings on generated images have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_counts, check_not_negative
from vision3d.stages.hand.config import BATCH
from vision3d.training.options import NetworkTraining, training_groups


@dataclass(frozen=True)
class TrainingOptions(NetworkTraining):
    """Train on generated images."""

    HELP_GROUPS: ClassVar[HelpGroups] = training_groups(
        ("steps", "batch_size", "images", "backgrounds", "furniture"), "evaluate_images"
    )

    backgrounds: Path | None = None
    """Folder with photographs; without one, backgrounds are gradients and noise."""
    furniture: Path | None = None
    """Folder with the unpacked Debian package sweethome3d-furniture: hands hold its models, and furnished rooms are
    backgrounds."""
    images: int = 100_000
    """Different images, a multiple of 16: made before the training and kept on disk, 10 GB a million at 128 pixels."""
    samples: Path | None = None
    """Folder of the generated images; by default in the cache."""
    evaluate_images: int = 960
    """Held-out images of an evaluation, a multiple of 16; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "images")
        check_not_negative(self, "evaluate_images")
        for name in ("images", "evaluate_images"):
            if getattr(self, name) % BATCH:
                raise ConfigError(name, f"got {getattr(self, name)}, want a multiple of {BATCH}")
