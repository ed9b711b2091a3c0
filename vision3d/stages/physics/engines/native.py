"""The method in C++: particles sorted by blocks of cells, vectors of particles, threads without atomics; or on a GPU.

On a CPU float32; 168 bytes a particle and 16 a node. Results don't depend on the number of threads.
"""

import math
from dataclasses import fields

import torch
from torch import Tensor

from vision3d import native
from vision3d.errors import BackendError, ConfigError, InputError, NumericalError
from vision3d.stages.physics.config import Boundary, Material
from vision3d.stages.physics.engines.base import Engine
from vision3d.stages.physics.particles import Particles
from vision3d.stages.physics.reference.mpm import Energies, potential_energy
from vision3d.stages.physics.world import Advance, World

# As in cuda_ext/include/vision3d/mpm_args.h: the first row of each field, and its shape.
_ROWS: dict[str, tuple[int, tuple[int, ...]]] = {
    "x": (0, (3,)),
    "v": (3, (3,)),
    "C": (6, (3, 3)),
    "F": (15, (3, 3)),
    "F_total": (24, (3, 3)),
    "memory": (33, ()),
    "mass": (34, ()),
    "volume": (35, ()),
}
_NUM_ROWS, _MOST = 36, 64
_LANES = 16  # the loops read as far beyond the last particle
_LAWS = (
    "corotated", "neo_hookean", "hencky", "von_mises", "drucker_prager", "snow", "water", "viscoplastic", "stationary",
)  # fmt: skip
_SHAPES = ("plane", "box", "sphere", "mesh")
_KINDS = ("sticky", "slip", "separate")


class NativeEngine(Engine):
    """`cuda_ext/cpu/mpm.cpp`, or `cuda_ext/cuda/mpm.cu` where the particles are on a GPU.

    Args:
        particles: Of any float type.
        world: What they live in; at most 64 bodies, boundaries, winds and motions each.
        dtype: float32; float64 runs the bodies of the GPU's kernels one particle after the other on a CPU, for tests.
    """

    name = "native"
    bytes_a_node = 17
    bytes_a_particle = 180

    def __init__(self, particles: Particles, world: World, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(particles, world)
        self.check_available()
        for name in ("materials", "boundaries", "winds", "motions"):
            if len(getattr(world, name)) > _MOST:
                raise ConfigError(name, f"got {len(getattr(world, name))}, the native engine takes at most {_MOST}")
        x = particles.x.to(dtype)
        self._count, stride = len(particles), len(particles) + _LANES
        self._origin = torch.tensor(world.grid.origin, dtype=torch.float64, device=x.device)
        self._rows = x.new_zeros(_NUM_ROWS, stride)
        self._rows[[15, 19, 23, 24, 28, 32]] = 1.0
        self._rows[:3] = (torch.tensor(world.grid.shape) / 2 * world.grid.spacing).to(x)[:, None]
        self._ids = torch.zeros(3, stride, dtype=torch.int32, device=x.device)
        nx, ny, nz = world.grid.shape
        self._grid = x.new_zeros(nx, ny, nz + 1, 4)
        self._ids[2, : self._count] = torch.arange(self._count, dtype=torch.int32, device=x.device)
        self._module = native.require()
        self.update(**{field.name: getattr(particles, field.name) for field in fields(Particles)})

    @classmethod
    def check_available(cls) -> None:
        if native.module() is None:
            raise BackendError(
                "engine native: the compiled module is not there; `vision3d doctor` says why, or take another engine"
            )

    def advance(self, duration: float, time: float = 0.0, max_dt: float = math.inf) -> Advance:
        found = self._module.mpm_advance(*self._state(), duration, time, max_dt, **native.where(self._rows))
        steps, kept, shortest, last, work, is_finite = found
        if not is_finite or not bool(self._rows[:, : self._count].isfinite().all()):
            raise NumericalError(steps, "position or deformation", "Look at velocities and stiffness of the input")
        return Advance(steps, shortest, last, kept, work)

    @property
    def particles(self) -> Particles:
        order = torch.empty(self._count, dtype=torch.int64, device=self._rows.device)
        order[self._ids[2, : self._count].long()] = torch.arange(self._count, device=order.device)
        values = {}
        for name, (first, shape) in _ROWS.items():
            values[name] = self._rows[first : first + math.prod(shape), order].mT.reshape(self._count, *shape)
        values["x"] = (values["x"].double() + self._origin).to(self._rows)
        body, motion = self._ids[:2, order].long()
        return Particles(body=body, motion=motion, **values)

    def update(self, **values: Tensor) -> None:
        order = self._ids[2, : self._count].long()
        for name, value in values.items():
            if name in _ROWS:
                first, shape = _ROWS[name]
                moved = self._inside(value.double() - self._origin) if name == "x" else value
                self._rows[first : first + math.prod(shape), : self._count] = moved.reshape(self._count, -1)[order].mT.to(
                    self._rows
                )
            else:
                self._ids[("body", "motion").index(name), : self._count] = value[order].to(torch.int32)
        if "body" in values:
            self._tables = self._describe(set(values["body"].unique().tolist()))

    def _inside(self, x: Tensor) -> Tensor:
        """Positions from the first node, which the loops take on trust; what rounding put outside is put back."""
        grid = self.world.grid
        low, high = 0.5 * grid.spacing, (torch.tensor(grid.shape, device=x.device) - 1.5).double() * grid.spacing
        slack = 1e-3 * grid.spacing
        if not bool(((x > low - slack) & (x < high + slack)).all()):
            raise InputError("Particles.x: some are outside the grid or not finite")
        rounding = 8 * torch.finfo(self._rows.dtype).eps * high.max()
        return torch.minimum(x.clamp(min=low + rounding), high - rounding)

    def energies(self, last_dt: float) -> Energies:
        elastic = self._module.mpm_elastic_energy(*self._state(), last_dt, **native.where(self._rows))
        particles = self.particles
        kinetic = float(particles.kinetic_energy(self.world.grid.spacing))
        return Energies(kinetic, elastic, potential_energy(particles, self.world, last_dt))

    def _state(self) -> tuple:
        return (self._rows, self._ids, self._count, self._grid, *self._tables)

    def _describe(self, present: set[int]) -> tuple[Tensor, ...]:
        """The world as tables of numbers, with positions from the first node of the grid."""
        world = self.world
        names = list(world.fields)
        sizes = [world.fields[name].values.numel() for name in names]
        starts = [sum(sizes[:index]) for index in range(len(names))]
        fields_of = [
            (starts[index], *world.fields[name].values.shape, *world.fields[name].origin, world.fields[name].spacing)
            for index, name in enumerate(names)
        ]
        sound = max(world.materials[index].wave_speed for index in present)
        numbers = (*world.gravity, world.grid.spacing, sound, *world.grid.shape, world.grid.padding)
        winds = [(*w.velocity, w.drag, *self._shifted(w.low), *self._shifted(w.high), w.start, w.end) for w in world.winds]
        flat = [world.fields[name].values.flatten().float() for name in names]
        return (
            _table([_material(material) for material in world.materials], 11),
            _table([self._solid(boundary, names) for boundary in world.boundaries], 28),
            _table(fields_of, 8),
            _table(winds, 12),
            _table([(*m.velocity, *m.angular_velocity, *self._shifted(m.center), m.start, m.end) for m in world.motions], 11),
            torch.cat([*flat, torch.zeros(1)]).to(self._rows.device),
            _table([numbers], 9),
        )

    def _solid(self, b: Boundary, fields: list[str]) -> tuple[float, ...]:
        length = math.hypot(*b.normal)
        return (
            _SHAPES.index(b.shape), _KINDS.index(b.kind), b.hollow and b.shape != "plane", b.friction, b.radius,
            *self._shifted(b.center), *(value / length for value in b.normal), *b.half_size, *b.velocity, *b.angular_velocity,
            *b.quat, b.start, b.end, fields.index(b.mesh) if b.mesh else 0, 0,
        )  # fmt: skip

    def _shifted(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        x, y, z = (value - start for value, start in zip(point, self.world.grid.origin))
        return x, y, z


def _material(m: Material) -> tuple[float, ...]:
    limit = m.yield_stress / (2 * m.mu) * (math.sqrt(2 / 3) if m.law == "viscoplastic" else 1)
    slope = (3 * m.lam + 2 * m.mu) / (2 * m.mu) * m.friction_slope
    return (
        _LAWS.index(m.law), m.mu, m.lam, limit, m.hardening, slope, m.viscosity,
        1 - m.critical_compression, 1 + m.critical_stretch, m.packing, m.max_packing,
    )  # fmt: skip


def _table(rows: list, width: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), width)
