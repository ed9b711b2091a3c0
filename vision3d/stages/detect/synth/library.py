"""Shapes that frames share: made once per process from a seed, on first use."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vision3d.render.lidar.casting import Shape
from vision3d.stages.detect.synth import people, profiles, scenery, vehicles
from vision3d.stages.detect.synth.models import load_models

CARS = tuple(name for name in profiles.PROFILES if name not in (*profiles.VALIDATION, "van"))
_VALIDATION_CARS = tuple(name for name in profiles.VALIDATION if name != "minibus")


def _car(families: tuple[str, ...]) -> Callable[[np.random.Generator], Shape]:
    return lambda rng: vehicles.car(families[int(rng.integers(len(families)))], rng)


_COMMON: dict[str, tuple[Callable[[np.random.Generator], Shape], float]] = {
    "Truck": (vehicles.truck, 0.15),
    "Pedestrian": (people.pedestrian, 1.5),
    "Cyclist": (people.cyclist, 1.0),
    "trailer": (vehicles.trailer, 0.15),
    "motorcycle": (vehicles.motorcycle, 0.1),
    "bicycle": (people.bicycle, 0.15),
    "facade": (scenery.facade, 0.5),
    "tree": (scenery.tree, 0.4),
    "bush": (scenery.bush, 0.3),
    "shrub": (scenery.shrub, 0.4),
    "thicket": (scenery.thicket, 0.15),
    "hedge": (scenery.hedge, 0.15),
    "wall": (scenery.wall, 0.15),
    "fence": (scenery.fence, 0.15),
    "pole": (scenery.pole, 0.4),
    "clutter": (scenery.clutter, 0.6),
}
"""Kind -> (maker, number of shapes as a fraction of the variety)."""


_MODEL_SHARE = 1 / 3


class Library:
    """Shapes by kind. A frame chooses an index; the shape is made at its first use.

    Args:
        split: `train` or `val`: other families of cars and vans, and other shapes of everything else.
        variety: Number of shapes of a class.
        models: Folder of `models.load_models`, from which a third of the shapes of their kinds come then.
    """

    def __init__(self, split: str, variety: int, models: Path | None = None) -> None:
        is_val = split == "val"
        self.split = split
        self.makers = {
            "Car": (_car(_VALIDATION_CARS if is_val else CARS), 1.0),
            "Van": (_car(("minibus",) if is_val else ("van",)), 0.25),
            **_COMMON,
        }
        self.counts = {kind: max(1, round(share * variety)) for kind, (_, share) in self.makers.items()}
        self.made: dict[tuple[str, int], Shape] = {}
        self.models, self.credits = ({}, []) if models is None else load_models(models, split)

    def pick(self, kind: str, rng: np.random.Generator) -> Shape:
        """One of the shapes of a kind."""
        if kind in self.models and rng.random() < _MODEL_SHARE:
            return self.models[kind][int(rng.integers(len(self.models[kind])))]
        index = int(rng.integers(self.counts[kind]))
        if (kind, index) not in self.made:
            key = int.from_bytes(hashlib.sha256(f"{self.split}/{kind}/{index}".encode()).digest()[:8], "little")
            self.made[kind, index] = self.makers[kind][0](np.random.default_rng(key))
        return self.made[kind, index]


@functools.cache
def library(split: str, variety: int, models: Path | None = None) -> Library:
    """The library of this process."""
    return Library(split, variety, models)
