"""Interface and registry of engines for the material point method."""

import importlib
import logging
import math
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from vision3d.core import plugins
from vision3d.core.errors import BackendError, ConfigError, MissingDependencyError
from vision3d.stages.simulate.engines.mpm import Energies, energies
from vision3d.stages.simulate.world.particles import Particles
from vision3d.stages.simulate.world.world import Advance, World

logger = logging.getLogger("vision3d.physics")


class Engine(ABC):
    """Particles in a world, with a method to move them. All engines solve the same equations (`engines.mpm`).

    The state belongs to the engine: the arguments are not modified.

    Args:
        particles: Inside the grid of the world, float32 or float64.
        world: Their environment.
    """

    name: ClassVar[str] = "own"
    bytes_a_node: ClassVar[int] = 0
    """Peak memory, for estimates before a run."""
    bytes_a_particle: ClassVar[int] = 1000
    particle_steps_a_second: ClassVar[float] = 1e6
    """Approximate, on one core."""

    def __init__(self, particles: Particles, world: World) -> None:
        self.world = world

    @classmethod
    def check_available(cls) -> None:
        """Raise an error if the engine does not run here.

        Raises:
            BackendError, MissingDependencyError: The reason.
        """
        return

    @abstractmethod
    def advance(self, duration: float, time: float = 0.0, max_dt: float = math.inf) -> Advance:
        """Advance by `duration` [s] with stable time steps (`time_step.stable_dt`), recomputed for each.

        Args:
            duration: > 0.
            time: Start time, for objects with a time window.
            max_dt: Maximum time step [s].

        Raises:
            NumericalError: A value is no longer finite.
        """

    @property
    @abstractmethod
    def particles(self) -> Particles:
        """The current particles, in their original order. The tensors belong to the caller."""

    @abstractmethod
    def update(self, **values: Tensor) -> None:
        """Set fields of the particles, in their original order: `update(v=...)`."""

    def energies(self, last_dt: float) -> Energies:
        """Energies in the middle of the last step (`engines.mpm.energies`)."""
        return energies(self.particles, self.world, last_dt)


ENGINES: dict[str, str] = {
    "native": "vision3d.stages.simulate.engines.native.NativeEngine",
    "taichi": "vision3d.stages.simulate.engines.taichi_engine.TaichiEngine",
    "reference": "vision3d.stages.simulate.engines.reference.ReferenceEngine",
}
"""Engines by name, best first: auto takes the first one that runs here."""


def choose_engine(name: str) -> type[Engine]:
    """The class of an engine: one of `ENGINES`, of another package (entry points `vision3d.engines`), or yours, `module:Class`.

    All are subclasses of `Engine`. `auto` is the first of `ENGINES` that runs here.

    Raises:
        ConfigError: No engine with this name.
        BackendError, MissingDependencyError: It does not run here.
    """
    if name == "auto":
        for candidate in ENGINES:
            try:
                return choose_engine(candidate)  # the last one always runs
            except (BackendError, MissingDependencyError) as error:
                logger.info("engine %s is not available: %s", candidate, error)
    if name in ENGINES:
        module, _, cls = ENGINES[name].rpartition(".")
        found = getattr(importlib.import_module(module), cls)
    else:
        found = plugins.load("vision3d.engines", name, type)
    if found is None or not issubclass(found, Engine):
        names = ["auto", *ENGINES, *plugins.names("vision3d.engines")]
        raise ConfigError("engine", f"got {name!r}, want one of {', '.join(names)}, or MODULE:CLASS, a subclass of Engine")
    if lacking := getattr(found, "__abstractmethods__", ()):
        raise ConfigError("engine", f"{name} lacks {', '.join(sorted(lacking))} of Engine")
    found.check_available()
    return found


def make_engine(name: str, particles: Particles, world: World) -> Engine:
    """An engine with its particles."""
    return choose_engine(name)(particles, world)
