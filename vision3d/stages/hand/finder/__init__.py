"""Finder of hands in whole images."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.hand.finder.model import HandFinder, load_finder
    from vision3d.stages.hand.finder.train import train_finder

__all__ = ["HandFinder", "load_finder", "train_finder"]

__getattr__ = lazy_names(__name__, {"HandFinder": ".model", "load_finder": ".model", "train_finder": ".train"})
