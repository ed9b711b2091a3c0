"""Options of `animate eval`."""

from dataclasses import dataclass
from pathlib import Path

from vision3d.core.errors import ConfigError

_SMALLEST = 32


@dataclass(frozen=True)
class EvalConfig:
    """Measure rendered videos of moving objects against the true ones."""

    size: int = 512
    """Width and height to which images are resized before comparison [px]."""
    skip_missing: bool = False
    """Evaluate what both sides have and list the rest, instead of an error."""
    lpips_weights: Path | None = None
    """Weights for LPIPS: AlexNet's features and the five linear heads, .safetensors or .pt."""

    def __post_init__(self) -> None:
        if not _SMALLEST <= self.size <= 4096:
            raise ConfigError("size", f"got {self.size}, want {_SMALLEST} to 4096 pixels")
