"""Where things are kept that can be made again: compiled kernels, cameras, generated samples."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder of this name in `$VISION3D_CACHE`, else in `vision3d` of `$XDG_CACHE_HOME` or `~/.cache`; not made."""
    own = os.environ.get("VISION3D_CACHE")
    if own:
        return Path(own) / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vision3d" / name
