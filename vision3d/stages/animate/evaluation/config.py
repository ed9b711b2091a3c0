"""Options of `animate eval`."""

from dataclasses import dataclass
from pathlib import Path

from vision3d.core.errors import ConfigError

_SMALLEST = 32


@dataclass(frozen=True)
class EvalConfig:
    """Compare rendered videos of moving objects with the ground truth."""

    size: int = 512
    """Width and height to which images are resized before comparison [px]."""
    skip_missing: bool = False
    """Evaluate what exists on both sides and list the rest, instead of raising an error."""
    lpips_weights: Path | None = None
    """Weights for LPIPS: AlexNet's features and the five linear heads, .safetensors or .pt."""

    def __post_init__(self) -> None:
        if not _SMALLEST <= self.size <= 4096:
            raise ConfigError("size", f"got {self.size}, want {_SMALLEST} to 4096 pixels")
