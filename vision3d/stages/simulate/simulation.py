"""Runs a simulation frame by frame, with impulses in between; its state can be saved and restored."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from vision3d.core.device import resolve_device
from vision3d.core.errors import FileFormatError
from vision3d.scene.selection import hash_points
from vision3d.stages.simulate.config import SimulateConfig
from vision3d.stages.simulate.engines import Engine
from vision3d.stages.simulate.output.frame import Frame
from vision3d.stages.simulate.scene.representations import Points3
from vision3d.stages.simulate.setup.prepared import Setup
from vision3d.stages.simulate.world.particles import Particles
from vision3d.stages.simulate.world.time_step import stable_dt
from vision3d.stages.simulate.world.world import Advance

logger = logging.getLogger("vision3d.physics")


class Stopped(Exception):
    """A simulation was asked to stop within a frame."""


class Simulation:
    """A running simulation.

    Args:
        setup: The scene, ready to simulate.
        config: Options.
    """

    def __init__(self, setup: Setup, config: SimulateConfig) -> None:
        self.setup, self.config = setup, config
        self.device = _device(config, setup.engine)
        self.engine = self._new_engine(setup.particles, 1)
        self.is_stopped: Callable[[], bool] = lambda: False
        """Checked about every fifth of a second; `step` raises `Stopped` if it returns True."""
        self._whole = _moved(setup.particles, torch.device("cpu"))
        self.start = setup.particles.center
        self.next = 0
        """Index of the next frame."""
        self.substeps = self.kept = 0
        self.work = self.seconds = self.cpu_seconds = 0.0
        self.shortest_dt = float("inf")
        self._whole_counts = self._counts()

    def frames(self) -> Iterator[Frame]:
        """The remaining frames, computed one by one."""
        while self.next < self.config.frames:
            yield self.step()

    @torch.no_grad()
    def step(self) -> Frame:
        """Advances to the next frame; the first one is the initial state.

        Raises:
            NumericalError: A value is no longer finite.
            Stopped: `is_stopped` returned True; `state` is that of the last complete frame.
        """
        index, fps = self.next, self.config.fps
        report = Advance(0, 0.0, 0.0, 0)
        if index == 0:
            self._push(0.0)
        else:
            report = self._advance((index - 1) / fps, index / fps)
            if report.num_kept and not self.kept:
                logger.warning(
                    "frame %d: particles reach the border of the grid and are clamped to it; increase the room", index
                )
            self.kept += report.num_kept
        particles = self.particles
        frame = Frame(index, index / fps, self._channels(particles), self._metrics(particles, report))
        # A resumed run starts with particles in this order, so this one does, too.
        self.engine = self._new_engine(particles, index + 1)
        self.next = index + 1
        self._whole = particles
        self._whole_counts = self._counts()
        return frame

    def state(self) -> dict[str, Any]:
        """State after the last complete frame, for `restore`: tensors and plain values."""
        tensors = {field.name: getattr(self._whole, field.name) for field in fields(self._whole)}
        counts = self._whole_counts
        source = hash_points(self.setup.representation.points.float())
        return {"particles": tensors, "engine": self.setup.engine.name, "source": source, **counts}

    def restore(self, state: dict[str, Any]) -> None:
        """Resumes from a state.

        Raises:
            FileFormatError: It belongs to another scene.
        """
        found = state.get("particles", {})
        own = self.setup.particles
        names = [field.name for field in fields(own)]
        is_own = set(names) <= found.keys() and {*_COUNTS, "source", "engine"} <= state.keys()
        is_own = is_own and len(found["x"]) == len(own)
        if not is_own or state["source"] != hash_points(self.setup.representation.points.float()):
            raise FileFormatError("checkpoint", "belongs to a different scene; use that one, or start over with --overwrite")
        if state["engine"] != self.setup.engine.name:
            raise FileFormatError(
                "checkpoint", f"was written by engine {state['engine']}, not {self.setup.engine.name}; use --engine"
            )
        self._whole = Particles(*(found[name] for name in names))
        for name in _COUNTS:
            setattr(self, name, state[name])
        self.engine = self._new_engine(self._whole, max(self.next, 1))
        self._whole_counts = self._counts()

    @property
    def particles(self) -> Particles:
        """The current particles, on the CPU."""
        return _moved(self.engine.particles, torch.device("cpu"))

    def summary(self) -> dict[str, Any]:
        """Metrics of all frames so far."""
        count, rate = int((self.setup.particles.mass > 0).sum()), 0.0
        if self.seconds > 0:
            rate = count * self.substeps / self.seconds / 1e6
        return {
            "frames": self.next,
            "particles": count,
            "particles_inside": self.setup.num_inside,
            "gaussians": len(self.setup.representation.points),
            "moved": len(self.setup.core_rows) + len(self.setup.followers.rows),
            "engine": self.setup.engine.name,
            "device": str(self.device),
            "substeps": self.substeps,
            "shortest_dt_s": self.shortest_dt if self.substeps else 0.0,
            "kept": self.kept,
            "simulation_minutes": self.seconds / 60,
            "simulation_cpu_minutes": self.cpu_seconds / 60,
            "million_particle_substeps_per_s": rate,
        }

    def _new_engine(self, particles: Particles, index: int) -> Engine:
        """An engine that advances to the frame of this index."""
        fps = self.config.fps
        return self.setup.engine(_moved(particles, self.device), self.setup.world.during((index - 1) / fps, index / fps))

    def _advance(self, begin: float, end: float) -> Advance:
        """Advances to the end of a frame, applying impulses in between."""
        reports, now = [], begin
        stops = sorted({push.time for push in self.setup.pushes if begin < push.time < end})
        dt = stable_dt(self._whole, self.setup.world.materials, self.setup.world.grid.spacing)
        for stop in [*stops, end]:
            while stop - now > 1e-9 * (end - begin):
                length = (stop - now) / self._num_slices(stop - now, dt)
                wall, cpu = time.perf_counter(), time.process_time()
                reports.append(self.engine.advance(length, now))
                self.seconds += time.perf_counter() - wall
                self.cpu_seconds += time.process_time() - cpu
                now, dt = now + length, length / reports[-1].steps
                if self.is_stopped():
                    raise Stopped
            now = stop
            self._push(stop)
        self.substeps += sum(report.steps for report in reports)
        self.work += sum(report.work for report in reports)
        shortest = min(report.shortest_dt for report in reports)
        self.shortest_dt = min(self.shortest_dt, shortest)
        kept = sum(report.num_kept for report in reports)
        return Advance(sum(report.steps for report in reports), shortest, reports[-1].last_dt, kept)

    def _num_slices(self, duration: float, dt: float) -> int:
        """Number of engine calls for this duration, each taking about a fifth of a second.

        It depends on the state only, because each call ends with a time step.
        """
        work = len(self._whole) + self.setup.world.grid.num_nodes // 10
        steps = max(1, int(self.engine.particle_steps_a_second / 5 / work))
        return max(1, math.ceil(duration / (steps * dt) - 1e-9))

    def _counts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _COUNTS}

    def _push(self, now: float) -> None:
        for push in self.setup.pushes:
            if push.time == now:
                particles = self.particles
                v = particles.v.clone()
                v[push.rows] += v.new_tensor(push.velocity)
                self.work += float(particles.replace(v=v).kinetic_energy(self.setup.world.grid.spacing))
                self.work -= float(particles.kinetic_energy(self.setup.world.grid.spacing))
                self.engine.update(v=v.to(self.device))

    def _channels(self, particles: Particles) -> dict[str, Tensor]:
        setup = self.setup
        positions, F = setup.followers.positions(particles)
        rows = torch.cat([setup.core_rows, setup.followers.rows])
        x = torch.cat([particles.x[setup.core_particles], positions])
        F = torch.cat([particles.F_total[setup.core_particles], F])
        if setup.corners is None:
            return setup.representation.channels(rows, setup.to_scene(x), F)
        assert isinstance(setup.representation, Points3)
        factors = setup.corners.read(particles.x[: len(setup.corners.means) * (setup.corners.factors.shape[-1] + 1)])[1]
        return setup.representation.channels_of(rows, setup.to_scene(x), F, factors / setup.scale)

    def _metrics(self, particles: Particles, report: Advance) -> dict[str, float]:
        energy = self.engine.energies(report.last_dt)
        up = self.setup.up.to(particles.x)
        return {
            "steps": report.steps,
            "dt_s": report.shortest_dt,
            "kept": report.num_kept,
            "kinetic_J": energy.kinetic,
            "elastic_J": energy.elastic,
            "potential_J": energy.potential,
            "total_J": energy.total,
            "work_J": self.work,
            "height_m": float((particles.center - self.start) @ up),
            "momentum_kg_m_s": float(particles.momentum.norm()),
            "particles": int((particles.mass > 0).sum()),
        }


def _device(config: SimulateConfig, engine: type[Engine]) -> torch.device:
    """Device of the engine's particles."""
    if config.device == "auto" and engine.name != "native":
        return torch.device("cpu")
    return resolve_device(config.device)


def _moved(particles: Particles, device: torch.device) -> Particles:
    if particles.x.device.type == device.type:
        return particles
    return Particles(*(getattr(particles, field.name).to(device) for field in fields(particles)))


_COUNTS = ("next", "substeps", "kept", "work", "seconds", "cpu_seconds", "shortest_dt")
