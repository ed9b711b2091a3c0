"""Worlds and particles for comparing the engines of the material point method."""

from dataclasses import fields

import torch

from tests.support.sides import Side
from vision3d.stages.simulate.config import Boundary, Material
from vision3d.stages.simulate.engines.mpm import Energies
from vision3d.stages.simulate.engines.native import NativeEngine
from vision3d.stages.simulate.world.particles import Grid, Particles
from vision3d.stages.simulate.world.world import Advance, DistanceField, Motion, Wind, World

H = 1 / 16
GRID = Grid((0.1, -0.2, 0.3), H, (17, 18, 19))

# No surface passes through a node, where rounding would determine the side.
SOLIDS = {
    "plane": {"shape": "plane", "center": (0.013, 0.02, 0.783), "normal": (0.1, 0.2, 3.0)},
    "box": {"shape": "box", "center": (0.517, 0.211, 0.703), "half_size": (0.1, 0.12, 0.14), "quat": (1.0, 0.2, 0.3, 0.0)},
    "sphere": {"shape": "sphere", "center": (0.617, 0.311, 0.883), "radius": 0.14},
    "hollow box": {"shape": "box", "center": (0.6, 0.3, 0.8), "half_size": (0.11, 0.12, 0.13), "hollow": True},
    "hollow sphere": {"shape": "sphere", "center": (0.6, 0.3, 0.8), "radius": 0.13, "hollow": True},
    "mesh": {"shape": "mesh", "mesh": "egg", "center": (0.617, 0.311, 0.883), "quat": (0.3, 0.2, 0.3, 1.0)},
}


def egg():
    """Approximate distance field of an ellipsoid."""
    axes = [torch.arange(n) * 0.031 - 0.2 for n in (13, 14, 15)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    values = torch.linalg.vector_norm(points / torch.tensor([1.0, 1.2, 1.4]), dim=-1) - 0.11
    return DistanceField(values, (-0.2, -0.2, -0.2), 0.031)


def solid(name, **values):
    return Boundary(**{**SOLIDS[name], **values})


def world(*materials, **values):
    return World(GRID, tuple(materials), **{"fields": {"egg": egg()}, **values})


def material(law):
    values = {"yield_stress": 2e3, "hardening": 0.1, "viscosity": 3.0, "friction_scale": 1.0}
    return Material(law, youngs_modulus=1e5, poisson_ratio=0.3, **values)


def particles(materials, count=300):
    """Deformed particles in the middle of `GRID`, some of them inverted, with internal variables and velocities."""

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    x = torch.rand(count, 3, dtype=torch.float64) * 0.3 + torch.tensor([0.45, 0.15, 0.65], dtype=torch.float64)
    body = torch.randint(len(materials), (count,))
    volume = torch.full((count,), H**3 / 8, dtype=torch.float64)
    found = Particles.at_rest(x, volume, materials, body, v=random(count, 3), C=3 * random(count, 3, 3))
    F = torch.eye(3, dtype=torch.float64) + 0.1 * random(count, 3, 3)
    F[:5] = torch.diag(torch.tensor([1.0, 1.1, -0.5], dtype=torch.float64))
    memory = found.memory.clone()
    for index, one in enumerate(materials):
        if one.law in ("von_mises", "drucker_prager"):
            memory[body == index] = 0.01 * torch.rand(int((body == index).sum()), dtype=torch.float64)
        if one.law == "snow":
            memory[body == index] += 0.02 * random(int((body == index).sum()))
    return found.replace(F=F, F_total=F + 0.1, memory=memory)


def as_type(found, dtype):
    values = {field.name: getattr(found, field.name) for field in fields(Particles)}
    return Particles(**{name: value.to(dtype) if value.is_floating_point() else value for name, value in values.items()})


def assert_same(got, want, tolerance):
    """All values agree within `tolerance` relative to the largest of their kind."""
    for name in ("x", "v", "C", "F", "F_total", "memory"):
        a, b = getattr(got, name).double(), getattr(want, name).double()
        scale = max(float(b.abs().max()), 1e-3)
        assert float((a - b).abs().max()) <= tolerance * scale, name
    for name in ("body", "motion"):
        assert torch.equal(getattr(got, name), getattr(want, name))


class BodiesEngine(NativeEngine):
    """The bodies of the GPU kernels, thread by thread, instead of the vector loops."""

    def advance(self, *args, **named) -> Advance:
        with Side("native", torch.float32, bodies=True).chosen():
            return super().advance(*args, **named)

    def energies(self, last_dt: float) -> Energies:
        with Side("native", torch.float32, bodies=True).chosen():
            return super().energies(last_dt)


MOTIONS = (
    Motion((0.1, 0.2, -0.3), (1.0, 2.0, -1.0), (0.6, 0.3, 0.8)),
    Motion(end=0.5),
    Motion((1.0, 0.0, 0.0), start=0.5),
)
WIND = Wind((1.0, 2.0, 3.0), 2.0, low=(0.5, -1.0, 0.0), high=(0.71, 1.0, 1.0))
