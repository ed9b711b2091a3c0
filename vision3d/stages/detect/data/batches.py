"""Batches of training sectors, prepared by worker processes; each depends only on the seed and its step."""

from collections import OrderedDict
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch

from vision3d.core.errors import InputError
from vision3d.stages.detect.config import GROUND, AugmentConfig, GridConfig
from vision3d.stages.detect.data.augment import augmented, cropped
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.data.sources import Source
from vision3d.stages.detect.data.sweeps import LabelledSweep
from vision3d.stages.detect.data.targets import Targets, make_targets
from vision3d.stages.detect.ground import levelled

_MIXED = 16  # sweeps whose sectors are mixed, so that neighboring steps see different streets


@dataclass(frozen=True)
class Recipe:
    """All that batches depend on."""

    source: Source
    augment: AugmentConfig
    grid: GridConfig
    num_classes: int
    batch_size: int
    min_points: int
    seed: int
    share: range
    """The samples of a batch that belong to this process."""
    sectors: int = 4
    """Sectors taken from a sweep before the next."""
    cells: tuple[int, int] | None = None
    """Cells along x and y of the image that the head sees; None: those of the grid."""


class Batches:
    """The batch of a step, prepared some steps ahead.

    Args:
        recipe: What they depend on.
        workers: Processes; 0: this one.
    """

    def __init__(self, recipe: Recipe, workers: int = 1) -> None:
        self._pool = None
        if workers:
            self._pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start, initargs=(recipe,))
        self._ahead = 4 * workers
        self._next: OrderedDict[int, Future] = OrderedDict()
        self._maker = _Maker(recipe)

    def __call__(self, step: int) -> tuple[PointBatch, Targets]:
        """Points and targets of a step."""
        if self._pool is None:
            return self._maker(step)
        for ahead in range(step, step + self._ahead + 1):
            if ahead not in self._next:
                self._next[ahead] = self._pool.submit(_made, ahead)
        return self._next.pop(step).result()

    def check(self, count: int = 4) -> None:
        """Raise an InputError if no point of the first steps is in the grid."""
        if any(len(self._maker(step)[0].points) for step in range(count)):
            return
        grid = self._maker.recipe.grid
        ranges = ", ".join(f"{axis} {low:g} to {high:g}" for axis, low, high in zip("xyz", grid.low, grid.high))
        raise InputError(
            f"model.grid: no point of the first {count} batches is in it ({ranges} m, horizontal ground at {GROUND} m)"
        )

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


class _Maker:
    """Makes batches, and remembers the last sweeps, which are expensive to generate or read."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._sweeps: OrderedDict[tuple[int, int], LabelledSweep] = OrderedDict()

    def __call__(self, step: int) -> tuple[PointBatch, Targets]:
        recipe, sectors = self.recipe, []
        for place in recipe.share:
            number = step * recipe.batch_size + place
            rng = np.random.default_rng((recipe.seed, number))
            changed = augmented(self._sweep(number), recipe.augment, rng)
            sectors.append(cropped(changed, recipe.grid, recipe.min_points))
        targets = make_targets(sectors, recipe.grid, recipe.num_classes, recipe.cells)
        return PointBatch.of([sector.points for sector in sectors]), targets

    def _sweep(self, number: int) -> LabelledSweep:
        """The sweep of a sample: blocks of some sweeps, each seen several times within its block."""
        mixed = min(_MIXED, len(self.recipe.source))
        block, at = divmod(number, mixed * self.recipe.sectors)
        epoch, index = divmod(block * mixed + at % mixed, len(self.recipe.source))
        index = int(np.random.default_rng((self.recipe.seed, 1, epoch)).permutation(len(self.recipe.source))[index])
        if (epoch, index) not in self._sweeps:
            self._sweeps[epoch, index] = levelled(self.recipe.source.sweep(index, epoch))
            if len(self._sweeps) > 2 * _MIXED:
                self._sweeps.popitem(last=False)
        return self._sweeps[epoch, index]


_maker: _Maker | None = None
"""Of a worker process."""


def _start(recipe: Recipe) -> None:
    global _maker
    torch.set_num_threads(1)
    _maker = _Maker(recipe)


def _made(step: int) -> tuple[PointBatch, Targets]:
    assert _maker is not None
    return _maker(step)
