"""The method in C++: particles sorted by blocks of cells, SIMD over particles, threads without atomics; or on a GPU.

float32 on a CPU; 168 bytes per particle and 16 per node, 20 if materials differ in friction; on a GPU 180 more per particle.
Results do not depend on the number of threads.
"""

import math
from collections.abc import Callable
from dataclasses import fields

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import BackendError, ConfigError, InputError, NumericalError
from vision3d.stages.simulate.config import Boundary, Material
from vision3d.stages.simulate.engines.base import Engine
from vision3d.stages.simulate.engines.mpm import Energies, potential_energy
from vision3d.stages.simulate.world.particles import Particles
from vision3d.stages.simulate.world.world import Advance, World

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
_IDS = ("body", "motion")
_NUM_ROWS, _MAX = 36, 64
_PART = 65_536  # particles copied at a time
_LANES = 16  # the loops read this far beyond the last particle
_LAWS = (
    "corotated", "neo_hookean", "hencky", "von_mises", "drucker_prager", "snow", "water", "viscoplastic", "stationary",
)  # fmt: skip
_SHAPES = ("plane", "box", "sphere", "mesh")
_KINDS = ("sticky", "slip", "separate")


class _Rows:
    """Particles in the format of the loops, which change their order.

    Args:
        numbers: Indices of these particles in the engine.
        like: Positions of all, for dtype and device.
    """

    def __init__(self, numbers: Int64[Tensor, " m"], like: Float[Tensor, "n 3"]) -> None:
        self.count = len(numbers)
        self.values = like.new_zeros(_NUM_ROWS, self.count + _LANES)
        self.values[[15, 19, 23, 24, 28, 32]] = 1.0  # identities, also in the lanes beyond the last particle
        self.values[:3] = like.mean(0)[:, None]
        self.ids = torch.zeros(3, self.count + _LANES, dtype=torch.int32, device=like.device)
        self.ids[2, : self.count] = numbers.to(torch.int32)

    @property
    def numbers(self) -> Int64[Tensor, " m"]:
        return self.ids[2, : self.count].long()

    @property
    def state(self) -> tuple[Tensor, Tensor, int]:
        return self.values, self.ids, self.count

    @property
    def total(self) -> Float[Tensor, ""]:
        """Sum of all values."""
        return self.values[:, : self.count].sum()

    def read(self, name: str) -> Float[Tensor, "m k"]:
        first, shape = _ROWS[name]
        return self.values[first : first + math.prod(shape), : self.count].mT

    def write(self, name: str, values: Tensor) -> None:
        """Set from values of all particles, in parts, so that copies do not need more memory than the particles."""
        first, shape = _ROWS[name]
        flat, rows = values.reshape(len(values), -1), self.values[first : first + math.prod(shape)]
        for begin in range(0, self.count, _PART):
            end = min(begin + _PART, self.count)
            rows[:, begin:end] = flat[self.ids[2, begin:end].long()].mT.to(rows)

    def write_positions(self, x: Float[Tensor, "n 3"], place: Callable[[Tensor], Tensor]) -> None:
        """Like `write`, after applying `place`."""
        for begin in range(0, self.count, _PART):
            end = min(begin + _PART, self.count)
            self.values[:3, begin:end] = place(x[self.ids[2, begin:end].long()]).mT.to(self.values)


class NativeEngine(Engine):
    """`cuda_ext/cpu/mpm.cpp`, or `cuda_ext/cuda/mpm.cu` if the particles are on a GPU.

    Args:
        particles: Of any float type. Particles without mass are tracers, which move with the grid every eighth time step.
        world: Their environment; at most 64 bodies, boundaries, winds and motions each.
        dtype: float32; float64 runs the GPU kernel bodies sequentially on a CPU, for tests.
    """

    name = "native"
    bytes_a_node = 21
    bytes_a_particle = 180
    particle_steps_a_second = 2e7

    def __init__(self, particles: Particles, world: World, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(particles, world)
        self.check_available()
        for name in ("materials", "boundaries", "winds", "motions"):
            if len(getattr(world, name)) > _MAX:
                raise ConfigError(name, f"got {len(getattr(world, name))}, the native engine takes at most {_MAX}")
        x = particles.x.to(dtype)
        self._origin = torch.tensor(world.grid.origin, dtype=torch.float64, device=x.device)
        self._count, self._is_tracer = len(particles), particles.mass == 0
        self._heavy, self._tracers = (_Rows(which.nonzero()[:, 0], x) for which in (~self._is_tracer, self._is_tracer))
        nx, ny, nz = world.grid.shape
        self._grid = x.new_zeros(nx, ny, nz + 1, 4)
        # Memory of the kernels, kept between calls; none on a CPU.
        size = native.require().mpm_scratch(self._heavy.values, self._heavy.count, **native.where(self._grid))
        self._scratch = self._grid.new_empty(size, dtype=torch.uint8)
        scales = {material.contact_friction for material in world.materials}
        # Different frictions are averaged at the nodes; a common factor is multiplied into the obstacles' coefficients.
        self._friction_scale = scales.pop() if len(scales) == 1 else None
        self._lacking = x.new_zeros(nx, ny, nz + 1) if self._friction_scale is None else None
        self.update(**{field.name: getattr(particles, field.name) for field in fields(Particles)})

    @classmethod
    def check_available(cls) -> None:
        if native.module() is None:
            raise BackendError("engine native: the compiled module is missing; run `vision3d doctor`, or use another engine")

    def advance(self, duration: float, time: float = 0.0, max_dt: float = math.inf) -> Advance:
        state = (*self._heavy.state, *self._tracers.state, self._grid, self._lacking, *self._tables)
        found = native.require().mpm_advance(*state, duration, time, max_dt, self._scratch, **native.where(self._grid))
        steps, kept, shortest, last, work, is_finite = found
        # A sum is finite if all terms are, since they are far from overflow; five times faster than checking each.
        if not is_finite or not math.isfinite(float(self._heavy.total + self._tracers.total)):
            raise NumericalError(steps, "position or deformation", "Check velocities and stiffness of the input")
        return Advance(steps, shortest, last, kept, work)

    @property
    def particles(self) -> Particles:
        values = {}
        for name, (_, shape) in _ROWS.items():
            value = self._grid.new_empty(self._count, math.prod(shape))
            for rows in (self._heavy, self._tracers):
                value[rows.numbers] = rows.read(name)
            values[name] = value.reshape(self._count, *shape)
        values["x"] = (values["x"].double() + self._origin).to(self._grid)
        for index, name in enumerate(_IDS):
            values[name] = torch.empty(self._count, dtype=torch.int64, device=self._grid.device)
            for rows in (self._heavy, self._tracers):
                values[name][rows.numbers] = rows.ids[index, : rows.count].long()
        return Particles(**values)

    def update(self, **values: Tensor) -> None:
        if "mass" in values and not torch.equal(values["mass"] == 0, self._is_tracer):
            raise InputError("Particles.mass: which particles have no mass cannot change")
        for name, value in values.items():
            for rows in (self._heavy, self._tracers):
                if name == "x":
                    rows.write_positions(value, self._inside)
                elif name in _ROWS:
                    rows.write(name, value)
                else:
                    rows.ids[_IDS.index(name), : rows.count] = value[rows.numbers].to(torch.int32)
        if "body" in values:
            self._tables = self._describe(set(torch.bincount(values["body"]).nonzero()[:, 0].tolist()))

    def _inside(self, x: Tensor) -> Tensor:
        """Positions relative to the first node, not checked by the loops; positions rounded to the outside are clamped."""
        grid, x = self.world.grid, x.double() - self._origin
        low, high = 0.5 * grid.spacing, (torch.tensor(grid.shape, device=x.device) - 1.5).double() * grid.spacing
        slack = 1e-3 * grid.spacing
        if not bool(((x > low - slack) & (x < high + slack)).all()):
            raise InputError("Particles.x: some are outside the grid or not finite")
        rounding = 8 * torch.finfo(self._grid.dtype).eps * high.max()
        return torch.minimum(x.clamp(min=low + rounding), high - rounding)

    def energies(self, last_dt: float) -> Energies:
        state = (*self._heavy.state, self._grid, *self._tables)
        elastic = native.require().mpm_elastic_energy(*state, last_dt, self._scratch, **native.where(self._grid))
        particles = self.particles
        kinetic = float(particles.kinetic_energy(self.world.grid.spacing))
        return Energies(kinetic, elastic, potential_energy(particles, self.world, last_dt))

    def _describe(self, present: set[int]) -> tuple[Tensor, ...]:
        """The world as tables of numbers, with positions relative to the first node of the grid."""
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
            _table([_material(material) for material in world.materials], 12),
            _table([self._solid(boundary, names) for boundary in world.boundaries], 28),
            _table(fields_of, 8),
            _table(winds, 12),
            _table([(*m.velocity, *m.angular_velocity, *self._shifted(m.center), m.start, m.end) for m in world.motions], 11),
            torch.cat([*flat, torch.zeros(1)]).to(self._grid.device),
            _table([numbers], 9),
        )

    def _solid(self, b: Boundary, fields: list[str]) -> tuple[float, ...]:
        length = math.hypot(*b.normal)
        friction = b.friction * (1.0 if self._friction_scale is None else self._friction_scale)
        return (
            _SHAPES.index(b.shape), _KINDS.index(b.kind), b.hollow and b.shape != "plane", friction, b.radius,
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
        1 - m.critical_compression, 1 + m.critical_stretch, m.packing, m.max_packing, m.contact_friction,
    )  # fmt: skip


def _table(rows: list, width: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), width)
