"""Cache folders for what can be rebuilt: compiled kernels, cameras, generated samples."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder `name` in `$VISION3D_CACHE`, else in `vision3d` of `$XDG_CACHE_HOME` or `~/.cache`; it is not created."""
    own = os.environ.get("VISION3D_CACHE")
    if own:
        return Path(own) / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vision3d" / name
