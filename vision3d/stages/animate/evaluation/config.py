"""Options of `animate eval`."""

from dataclasses import dataclass
from pathlib import Path

from vision3d.errors import ConfigError

_SMALLEST = 32


@dataclass(frozen=True)
class EvalConfig:
    """Measure rendered videos of moving objects against the true ones."""

    size: int = 512
    """Width and height that pictures are brought to before they are compared [px]."""
    skip_missing: bool = False
    """Measure what there is on both sides, and list the rest, in place of refusing it."""
    lpips_weights: Path | None = None
    """Weights for LPIPS: AlexNet's features and the five linear heads, .safetensors or .pt."""

    def __post_init__(self) -> None:
        if not _SMALLEST <= self.size <= 4096:
            raise ConfigError("size", f"got {self.size}, want {_SMALLEST} to 4096 pixels")
