"""The longest stable time step: neither particles nor sound cross more than part of a cell."""

from collections.abc import Sequence

import torch

from vision3d.core.errors import NumericalError
from vision3d.stages.simulate.config import Material
from vision3d.stages.simulate.world.particles import Particles

VELOCITY_COURANT = 0.5
SOUND_COURANT = 0.4
MAX_STRAIN = 0.5  # change of a deformation gradient in one step


def fastest(particles: Particles) -> tuple[float, float]:
    """Largest speed [m/s] and velocity gradient [1/s] of particles with mass; tracers do not limit the time step."""
    heavy = particles.mass > 0
    if not bool(heavy.any()):
        return 0.0, 0.0
    speeds, gradients = torch.linalg.vector_norm(particles.v, dim=-1), torch.linalg.matrix_norm(particles.C)
    return float(speeds[heavy].max()), float(gradients[heavy].max())


def stable_dt(particles: Particles, materials: Sequence[Material], spacing: float, step: int = 0) -> float:
    """Longest stable time step [s]: 0.5 h / max |v|, 0.4 h / c and 0.5 / max |C| (Frobenius), whichever is shortest.

    The speed of sound c is `Material.wave_speed` of the bodies with particles; infinite when nothing limits it.

    Args:
        particles: Velocities and gradients of these.
        materials: One per body.
        spacing: Spacing h of the grid's nodes [m].
        step: Step number for the error message.

    Raises:
        NumericalError: A velocity is not finite.
    """
    present = particles.body.unique().tolist()
    speed, gradient = fastest(particles)
    if not speed < float("inf") or not gradient < float("inf"):
        raise NumericalError(step, "velocity", "The material is too stiff for the time step, or the input is extreme")
    sound = max(materials[index].wave_speed for index in present)
    limits = ((VELOCITY_COURANT * spacing, speed), (SOUND_COURANT * spacing, sound), (MAX_STRAIN, gradient))
    return min((length / rate for length, rate in limits if rate > 0), default=float("inf"))
