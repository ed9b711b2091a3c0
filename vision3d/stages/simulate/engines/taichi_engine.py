"""The method on Taichi: float32, blocks of particles in colors instead of atomic operations, one launch per stage."""

import math
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError, NumericalError
from vision3d.stages.simulate.engines import taichi_kernels as columns, taichi_laws, taichi_runtime
from vision3d.stages.simulate.engines.base import Engine
from vision3d.stages.simulate.engines.taichi_contact import ContactTables
from vision3d.stages.simulate.world.particles import Particles
from vision3d.stages.simulate.world.time_step import MAX_STRAIN, SOUND_COURANT, VELOCITY_COURANT, fastest
from vision3d.stages.simulate.world.world import Advance, World, check_finite, next_dt, rotation_by

_CONSTANTS = ("mass", "volume", "body", "motion")
_SLACK = 1.0 - 1e-4  # cells that particles may move before they are sorted again
_CHUNK = 64  # particles per block if they are not sorted
_GATHERED = 6  # columns sorted at a time, to limit memory


class TaichiEngine(Engine):
    """Compiled by Taichi for this CPU, in float32; the first step with a new combination of materials takes seconds.

    Args:
        particles: Inside the grid of the world, float32 or float64.
        world: Their environment.
        transfer: Particle-to-grid method. `colored`: in sorted blocks, without atomic operations, bit-identical for any number
            of threads; `atomic`: unsorted, for comparisons and for GPUs; None selects the one for the device.

    Raises:
        MissingDependencyError: Neither taichi nor quadrants is installed.
        BackendError: Taichi runs on another device in this process.
    """

    name = "taichi"
    bytes_a_node: ClassVar[int] = 22
    bytes_a_particle: ClassVar[int] = 200
    particle_steps_a_second = 5e6

    def __init__(self, particles: Particles, world: World, transfer: Literal["colored", "atomic"] | None = None) -> None:
        super().__init__(particles, world)
        if transfer not in ("colored", "atomic", None):
            raise ConfigError("transfer", f"got {transfer!r}, want colored or atomic")
        device = particles.x.device
        self._kernels = columns.build(taichi_runtime.runtime(device.type))
        self._is_atomic = transfer == "atomic" or (transfer is None and device.type != "cpu")
        # A single thread processes the colors in order anyway.
        self._is_serial = device.type == "cpu" and taichi_runtime.num_threads() == 1
        grid = world.grid
        self._grid = torch.zeros(grid.num_nodes, 4, device=device)
        self._size_yz = (grid.shape[1], grid.shape[2])
        self._laws = taichi_laws.law_mask(world.materials)
        rows = [taichi_laws.table_row(material) for material in world.materials]
        self._materials = torch.tensor(rows, dtype=torch.float32, device=device)
        scales = {material.contact_friction for material in world.materials}
        self._frictions_differ = len(scales) > 1
        self._friction_scale = 1.0 if self._frictions_differ else scales.pop()
        self._lacking = torch.zeros(grid.num_nodes if self._frictions_differ else 1, device=device)
        self._contact = ContactTables(world, device)
        self._bounds = _bounds(grid.shape).to(device)
        self._place = torch.tensor([*grid.origin, grid.spacing], dtype=torch.float64, device=device)
        self._load(particles)

    @classmethod
    def check_available(cls) -> None:
        taichi_runtime.require()

    def advance(self, duration: float, time: float = 0.0, max_dt: float = math.inf) -> Advance:
        done, steps, kept, work, shortest, dt = 0.0, 0, 0, 0.0, math.inf, 0.0
        self._exported = None
        while duration - done > 1e-9 * duration:
            dt = next_dt(duration - done, min(self._stable_dt(steps), max_dt))
            was_kept, given = self._step(dt, time + done)
            done, steps, kept, work = done + dt, steps + 1, kept + was_kept, work + given
            shortest = min(shortest, dt)
        check_finite(steps, torch.stack(self._state.aminmax()))  # NaN propagates to both
        return Advance(steps, shortest, dt, kept, work)

    @property
    def particles(self) -> Particles:
        if self._exported is None:
            self._exported = self._export()
        return self._exported

    def update(self, **values: Tensor) -> None:
        self._load(self.particles.replace(**values))

    def _load(self, particles: Particles) -> None:
        grid, x = self.world.grid, particles.x
        low, high = grid.bounds(x.double())
        if not bool(((x >= low) & (x < high)).all()):
            raise InputError("Particles.x: some are outside the grid or not finite")
        self._exported: Particles | None = particles
        # The other input tensors may be freed when their owner releases them.
        self._dtype, self._constants = x.dtype, {name: getattr(particles, name) for name in _CONSTANTS}
        scaled = ((x.double() - x.new_tensor(grid.origin, dtype=torch.float64)) / grid.spacing).float()
        state = torch.empty(len(x), columns.STATE_COLUMNS, device=x.device)
        state[:, :3] = torch.minimum(scaled.clamp(min=0.5), self._bounds[1:])
        state[:, columns.V : columns.C] = particles.v
        for column, values in ((columns.C, particles.C), (columns.F, particles.F), (columns.F_TOTAL, particles.F_total)):
            state[:, column : column + 9] = values.flatten(1)
        scalars = (particles.memory, particles.mass, particles.volume)
        for column, values in zip((columns.MEMORY, columns.MASS, columns.VOLUME), scalars):
            state[:, column] = values
        self._state = state
        self._kind = (particles.body + ((particles.motion + 1) << columns.MOTION_SHIFT)).int()
        self._ids = torch.arange(len(x), dtype=torch.int32, device=x.device)
        present = particles.body.unique().tolist()
        self._sound = max(self.world.materials[index].wave_speed for index in present)
        self._fastest = fastest(particles)
        self._moved = math.inf  # cells since the last sort

    def _export(self) -> Particles:
        grid, rows = self.world.grid, self._ids.long()

        def field(first: int, *shape: int, dtype: torch.dtype = self._dtype) -> Tensor:
            part = self._state[:, first : first + math.prod(shape)]
            return torch.empty_like(part).index_copy_(0, rows, part).view(-1, *shape).to(dtype)

        x = field(columns.X, 3, dtype=torch.float64) * grid.spacing
        x += x.new_tensor(grid.origin)
        return Particles(
            x=x.to(self._dtype),
            v=field(columns.V, 3),
            C=field(columns.C, 3, 3),
            F=field(columns.F, 3, 3),
            F_total=field(columns.F_TOTAL, 3, 3),
            memory=field(columns.MEMORY),
            **self._constants,
        )

    def _stable_dt(self, step: int) -> float:
        speed, gradient = self._fastest
        if not speed < math.inf or not gradient < math.inf:
            raise NumericalError(step, "velocity", "The material is too stiff for the time step, or the input is extreme")
        spacing = self.world.grid.spacing
        limits = ((VELOCITY_COURANT * spacing, speed), (SOUND_COURANT * spacing, self._sound), (MAX_STRAIN, gradient))
        return min((length / rate for length, rate in limits if rate > 0), default=math.inf)

    def _step(self, dt: float, time: float) -> tuple[int, float]:
        """One time step: the number of clamped particles, and the work."""
        if self._moved > _SLACK:
            self._sort()
        grid, h = self.world.grid, self.world.grid.spacing
        (x0, y0, z0), (x1, y1, z1) = self._box
        self._grid.view(*grid.shape, 4)[x0:x1, y0:y1, z0:z1] = 0
        if self._frictions_differ:
            self._lacking.view(*grid.shape)[x0:x1, y0:y1, z0:z1] = 0
        state, kind, materials = self._state, self._kind, self._materials
        for first, last in self._launches:
            self._kernels.scatter(
                state, kind, materials, self._starts, self._grid, self._lacking, first, last, *self._size_yz, h, dt, self._laws,
                self._is_atomic, self._frictions_differ,
            )  # fmt: skip
        boundaries, num_boundaries = self._contact.boundaries(time)
        winds, num_winds = self._contact.winds(time, dt)
        pull = (dt * component for component in self.world.gravity)
        self._kernels.step_grid(
            self._grid, self._work, winds, num_winds, self._box_row, self._place, *pull,
        )  # fmt: skip
        for boundary, way in self._contact.ways() if num_boundaries else ():
            self._kernels.meet_solid(
                self._grid, self._lacking, self._work, boundaries, self._contact.fields, boundary, way, self._box_row,
                self._place, self._friction_scale, self._frictions_differ,
            )  # fmt: skip
        self._kernels.close_sides(self._grid, self._work, self._box_row, grid.padding)
        self._kernels.gather(
            state, kind, materials, self._motions(dt, time), self._starts, self._grid, self._metrics, *self._size_yz, h, dt,
            self._bounds,
        )  # fmt: skip
        metrics = self._metrics
        largest = metrics[:, : columns.KEPT].amax(0).tolist()
        kept, work, check = metrics[:, columns.KEPT :].double().sum(0).tolist()
        is_finite = math.isfinite(check)  # a maximum may ignore NaN
        self._fastest = (
            (math.sqrt(largest[columns.MAX_V2]), math.sqrt(largest[columns.MAX_C2])) if is_finite else (math.nan, math.nan)
        )
        self._moved += largest[columns.MAX_MOVE] if is_finite else math.inf
        return int(kept), work + float(self._work.sum(dtype=torch.float64))

    def _sort(self) -> None:
        """Sort the particles by blocks, and find the box of nodes that they can reach before they are sorted again."""
        count, device, shape = len(self._state), self._state.device, self.world.grid.shape
        if not bool(self._state[:, :3].isfinite().all()):
            raise NumericalError(0, "position", "Check velocities and stiffness of the input")
        if self._is_atomic:
            chunk = _CHUNK if device.type == "cpu" else 1
            self._starts = torch.arange(0, count + chunk, chunk, dtype=torch.int32, device=device).clamp(max=count)
            self._launches = [(0, len(self._starts) - 1)]
        else:
            self._sort_blocks(count, device, shape)
        base = (self._state[:, :3] - 0.5).floor().int()
        low, high = base.amin(0).tolist(), base.amax(0).tolist()
        self._box = (
            [max(lowest - 1, 0) for lowest in low],
            [min(highest + 4, nodes) for highest, nodes in zip(high, shape)],
        )
        self._box_row = torch.tensor([*self._box[0], *self._box[1], *shape], dtype=torch.int32, device=device)
        sides = [b - a for a, b in zip(*self._box)]
        self._metrics = torch.zeros(len(self._starts) - 1, columns.METRIC_COLUMNS, device=device)
        self._work = torch.zeros(sides[0] * sides[1], 1, device=device)
        self._moved = 0.0

    def _sort_blocks(self, count: int, device: torch.device, shape: tuple[int, int, int]) -> None:
        halves = [(nodes - 1) // columns.BLOCK // 2 + 1 for nodes in shape]
        half_count = math.prod(halves)
        keys = torch.empty(count, dtype=torch.int32, device=device)
        counts = torch.zeros(columns.COLORS * half_count, dtype=torch.int32, device=device)
        self._kernels.count(self._state, keys, counts, halves[1], halves[2], half_count)
        filled = counts.nonzero()[:, 0]
        ends = counts.cumsum(0, dtype=torch.int32)
        self._starts = torch.nn.functional.pad(ends[filled], (1, 0))
        order = torch.empty(count, dtype=torch.int32, device=device)
        self._kernels.place(keys, ends, order)
        del keys, ends, counts
        for first in range(0, columns.STATE_COLUMNS, _GATHERED):
            part = self._state[:, first : first + _GATHERED]
            part.copy_(part.index_select(0, order))
        self._kind, self._ids = self._kind.index_select(0, order), self._ids.index_select(0, order)
        borders = torch.searchsorted(filled, torch.arange(columns.COLORS + 1, device=device) * half_count).tolist()
        colors = [(first, last) for first, last in pairwise(borders) if last > first]
        self._launches = [(0, len(filled))] if self._is_serial else colors

    def _motions(self, dt: float, time: float) -> Tensor:
        """Prescribed motions of this step, in cells; a row of zeros for inactive ones."""
        motions, grid = self.world.motions, self.world.grid
        if not motions:
            return self._materials.new_zeros(1, columns.MOTION_COLUMNS)
        rows = []
        for motion in motions:
            if not motion.is_on(time):
                rows.append([0.0] * columns.MOTION_COLUMNS)
                continue
            turn = rotation_by(motion.angular_velocity, dt) - torch.eye(3, dtype=torch.float64)
            center = [(c - o) / grid.spacing for c, o in zip(motion.center_at(time), grid.origin)]
            move = [v * dt / grid.spacing for v in motion.velocity]
            rows.append([1.0, *move, *center, *turn.flatten().tolist(), *motion.velocity, *motion.angular_velocity])
        return torch.tensor(rows, dtype=torch.float32, device=self._state.device)


def _bounds(shape: tuple[int, int, int]) -> Tensor:
    """Bounds of particle positions, in cells, inclusive: the lowest of each axis, and the highest of each."""
    highest = torch.nextafter(torch.tensor(shape) - 1.5, torch.zeros(3))
    return torch.cat([torch.tensor([0.5]), highest])
