"""Rejects scenes and options that cannot be simulated: limits of lengths, memory, time steps and speeds."""

import logging
import math

from torch import Tensor

from vision3d.core.errors import ConfigError, InputError
from vision3d.core.machine import free_memory
from vision3d.scene import GaussianScene
from vision3d.stages.simulate.config import SimulateConfig
from vision3d.stages.simulate.engines import Engine
from vision3d.stages.simulate.scene.bodies import BodyParticles, Part
from vision3d.stages.simulate.scene.representations import Movable
from vision3d.stages.simulate.setup.obstacles import start_outside
from vision3d.stages.simulate.setup.prepared import Setup
from vision3d.stages.simulate.world.particles import Grid
from vision3d.stages.simulate.world.time_step import SOUND_COURANT, VELOCITY_COURANT

logger = logging.getLogger("vision3d.physics")

_MAX_UNITS = 1e9  # maximum length; its inverse is the minimum
_MAX_STEPS, _MANY_STEPS = 1e6, 5e3  # maximum per frame, and from where to warn
_MAX_MACH, _MANY_MACH = 100.0, 10.0  # speed over the speed of sound in the softest body


def check_extent(scene: Movable, points: Tensor, longest: float) -> None:
    """Rejects lengths whose squares overflow float32, which would end as values that are not finite in some decomposition.

    Raises:
        InputError: The moving part is too far away, too small or too large.
    """
    reach = float(points.abs().max())
    if reach > _MAX_UNITS or not longest >= 1 / _MAX_UNITS:
        raise InputError(
            f"scene: the moving part reaches {reach:.3g} units from the origin and is {longest:.3g} long; want at most "
            f"{_MAX_UNITS:.0e} and at least {1 / _MAX_UNITS:.0e}: scale the scene"
        )
    if isinstance(scene, GaussianScene):
        count = int((scene.log_scales > math.log(_MAX_UNITS)).any(-1).sum())
        if count:
            raise InputError(
                f"scene: {count} of {len(scene)} Gaussians have a log scale above {math.log(_MAX_UNITS):.3g} "
                f"(the largest {float(scene.log_scales.max()):.3g}, the moving part is {longest:.3g} units long); remove them"
            )


def check_memory(config: SimulateConfig, engine: type[Engine], grid: Grid, num_particles: int, cells: int) -> None:
    """Compares the memory for grid and particles with what is available.

    Raises:
        ConfigError: They need more.
    """
    need = (grid.num_nodes * engine.bytes_a_node + num_particles * engine.bytes_a_particle) / 1e9
    free = free_memory()
    room = config.max_memory if config.max_memory is not None else (math.inf if free is None else 0.9 * free / 1e9)
    if need > room:
        nodes = " x ".join(map(str, grid.shape))
        why = "max_memory is" if config.max_memory is not None else "free are"
        raise ConfigError(
            "cells",
            f"{cells} of them make a grid of {nodes} nodes, which with {num_particles} particles needs {need:.3g} GB, "
            f"{why} {room:.3g}; use fewer cells, less room or fewer particles",
        )


def check_steps(config: SimulateConfig, parts: list[Part], spacing: float) -> None:
    """Sound may cross part of a cell in a time step: an unrealistically stiff body would never reach its next frame.

    Raises:
        ConfigError: A frame would take more than a million steps.
    """
    for part in parts:
        speed = part.body.material.wave_speed
        steps = speed / (SOUND_COURANT * spacing) / config.fps
        text = f"{part.name}: sound of {speed:.3g} m/s crosses cells of {spacing:.3g} m: {steps:.3g} time steps per frame"
        if steps > _MAX_STEPS:
            raise ConfigError("material.youngs_modulus", f"{text}, want at most {_MAX_STEPS:.0e}; use less, or fewer cells")
        if steps > _MANY_STEPS:
            logger.warning("%s; a lower youngs_modulus or fewer cells are faster", text)


def check_speeds(config: SimulateConfig, parts: list[Part], grid: Grid, spacing: float) -> None:
    """At speeds far above that of sound, bodies pass through themselves and cross more cells than there are time steps for.

    Raises:
        ConfigError: A speed is over 100 times that of sound, or crosses too many cells per frame.
    """
    room = spacing * max(grid.shape)
    fall = math.sqrt(2 * abs(config.gravity) * room)
    speeds = {"gravity": (fall, f"got {config.gravity:g} m/s^2, a fall of {room:.3g} m ends at {fall:.3g} m/s")}
    for index, part in enumerate(parts):
        prefix = f"bodies[{index}]." if config.bodies else ""
        given = math.hypot(*part.body.velocity)
        speeds[f"{prefix}velocity"] = given, f"got {given:g} m/s"
        turning = math.hypot(*part.body.angular_velocity) * room / 2
        speeds[f"{prefix}angular_velocity"] = turning, f"got up to {turning:.3g} m/s at the rim"
    for name in ("impulses", "kinematic"):
        for index, one in enumerate(getattr(config, name)):
            given = math.hypot(*one.velocity)
            speeds[f"{name}[{index}].velocity"] = given, f"got {given:g} m/s"
    for index, boundary in enumerate(config.boundaries):
        given = math.hypot(*boundary.velocity) + math.hypot(*boundary.angular_velocity) * room / 2
        speeds[f"boundaries[{index}].velocity"] = given, f"got up to {given:g} m/s"
    sounds = [part.body.material.wave_speed for part in parts if part.body.material.wave_speed > 0]
    sound = min(sounds, default=math.inf)
    for key, (speed, text) in speeds.items():
        cells, times = speed / spacing / config.fps, speed / sound
        if times > _MAX_MACH or cells > _MAX_STEPS * VELOCITY_COURANT:
            raise ConfigError(
                key,
                f"{text}: {times:.3g} times the speed of sound ({sound:.3g} m/s) and {cells:.3g} cells per frame; "
                f"want at most {_MAX_MACH:g} times and {_MAX_STEPS * VELOCITY_COURANT:.0e} cells",
            )
        if times > _MANY_MACH or cells > _MANY_STEPS * VELOCITY_COURANT:
            logger.warning(
                "%s: %s: %.3g times the speed of sound (%.3g m/s), an impact would crush it; %.3g cells per frame",
                key, text, times, sound, cells,
            )  # fmt: skip


def check_apart(setup: Setup, parts: list[Part], bodies: list[BodyParticles]) -> None:
    """Bodies may touch obstacles, but not start inside them.

    Raises:
        InputError: More than half of one starts inside an obstacle.
    """
    first = 0
    for part, body in zip(parts, bodies):
        x = setup.particles.x[first : first + len(body.x)]
        first += len(body.x)
        buried = start_outside(setup.world, x)
        if buried is not None and buried[1] > 0.5 * len(x):
            raise InputError(
                f"{part.name}: {buried[1]} of its {len(x)} particles start inside obstacle {buried[0]}; move one of the two"
            )
