# pyright: reportInvalidTypeForm=false
"""Points as a soft net on Warp: extended position-based dynamics with distance constraints to neighbors, above a floor.

Macklin et al. 2016 (XPBD) with many short steps of one iteration each (Macklin et al. 2019), as our own Warp kernels on its
CPU device, float32, one thread. For stiff or plastic materials use the material point method.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision3d.core.errors import ConfigError, MissingDependencyError
from vision3d.geometry.neighbors import knn
from vision3d.stages.simulate.engines.points import Points

Vector = tuple[float, float, float]


class WarpEngine:
    """A net of links between neighboring points.

    Args:
        gravity: [m/s^2].
        floor: A point of the floor [m]; None: no floor. The floor is perpendicular to gravity.
        friction: Fraction of the floor's pressure that resists sliding.
        compliance: Compliance of links [m/N], 0 is rigid.
        damping: Decay rate of relative motion along links [1/s].
        neighbors: Links of each point to nearby points, in addition to those within its Gaussian.
        braces: Links of each point to random other points, which make hollow shells elastic; 0 for cloth.
        velocity: Initial velocity [m/s].
        step: Maximum time step [s].

    Raises:
        MissingDependencyError: Warp is not installed.
        ConfigError: A number is out of range.
    """

    edge_share = 0.5

    def __init__(
        self,
        *,
        gravity: Vector = (0.0, 0.0, -9.81),
        floor: Vector | None = None,
        friction: float = 0.4,
        compliance: float = 0.0,
        damping: float = 2.0,
        neighbors: int = 16,
        braces: int = 4,
        velocity: Vector = (0.0, 0.0, 0.0),
        step: float = 1e-3,
    ) -> None:
        for name, value, is_right, want in (
            ("friction", friction, friction >= 0, "at least 0"),
            ("compliance", compliance, compliance >= 0, "at least 0"),
            ("damping", damping, damping >= 0, "at least 0"),
            ("neighbors", neighbors, neighbors >= 1, "at least 1"),
            ("braces", braces, braces >= 0, "at least 0"),
            ("step", step, step > 0, "a time > 0"),
        ):
            if not is_right:
                raise ConfigError(name, f"got {value}, want {want}")
        self.wp = _warp()
        self.kernels = _kernels(self.wp)
        self.gravity, self.velocity = gravity, velocity
        pull = np.linalg.norm(gravity)
        self.up = tuple(-g / pull for g in gravity) if pull > 0 else (0.0, 0.0, 1.0)
        self.floor = None if floor is None else float(np.dot(self.up, floor))
        self.friction, self.compliance, self.damping = friction, compliance, damping
        self.neighbors, self.braces, self.step = neighbors, braces, step

    def begin(self, points: Points) -> None:
        wp, count = self.wp, len(points)
        # Coordinates relative to the center: float32 is more precise there.
        self.middle = (points.x.amin(0) + points.x.amax(0)) / 2
        x = points.x - self.middle
        links = _links(x, points.edges, self.neighbors, self.braces)
        lengths = torch.linalg.vector_norm(x[links[:, 0]] - x[links[:, 1]], dim=-1)
        inverse = float(points.masses.mean()) / points.masses
        self.x, self.links = _array(wp, x, wp.vec3), _array(wp, links.int(), wp.vec2i)
        self.start = wp.zeros(count, dtype=wp.vec3, device="cpu")
        self.v = _array(wp, x.new_tensor(self.velocity).expand_as(x), wp.vec3)
        self.lengths, self.inverse_masses = _array(wp, lengths, wp.float32), _array(wp, inverse, wp.float32)
        self.moves = wp.zeros(count, dtype=wp.vec3, device="cpu")
        # Links act simultaneously: each applies its share, equal at both ends to conserve momentum.
        degrees = torch.bincount(links.flatten(), minlength=count)
        self.shares = _array(wp, 1.0 / degrees[links].amax(1), wp.float32)
        self.num_links = len(links)

    def advance(self, duration: float, time: float) -> Tensor:
        wp, k, count = self.wp, self.kernels, len(self.x)
        steps = max(1, int(np.ceil(duration / self.step - 1e-9)))
        dt = duration / steps
        height = -1e30 if self.floor is None else self.floor - float(np.dot(self.up, self.middle.numpy()))
        for _ in range(steps):
            inputs: list[Any] = [self.x, self.start, self.v, self.moves, wp.vec3(*self.gravity), dt]
            wp.launch(k.fall, dim=count, inputs=inputs, device="cpu")
            inputs = [self.x, self.start, self.links, self.lengths, self.shares, self.inverse_masses, self.moves]
            inputs += [self.compliance, self.damping, dt]
            wp.launch(k.pull, dim=self.num_links, inputs=inputs, device="cpu")
            inputs = [self.x, self.start, self.v, self.moves, wp.vec3(*self.up), height, self.friction, dt]
            wp.launch(k.settle, dim=count, inputs=inputs, device="cpu")
        wp.synchronize_device("cpu")
        return torch.from_numpy(self.x.numpy()).double() + self.middle


def _array(wp: Any, values: Tensor, dtype: Any) -> Any:
    kind = np.int32 if values.dtype == torch.int32 else np.float32
    return wp.array(np.ascontiguousarray(values.numpy().astype(kind)), dtype=dtype, device="cpu")


def _links(x: Tensor, edges: Tensor, neighbors: int, braces: int) -> Tensor:
    """Pairs of points, each once: those within Gaussians, the nearest ones, and random ones, deterministic."""
    pairs = [edges]
    count = min(neighbors, len(x) - 1)
    if count > 0:
        _, nearest = knn(x, k=count)
        pairs.append(torch.stack([torch.arange(len(x)).repeat_interleave(count), nearest.flatten()], -1))
    ends = torch.randint(len(x), (len(x) * braces,), generator=torch.Generator().manual_seed(0))
    pairs.append(torch.stack([torch.arange(len(x)).repeat_interleave(braces), ends], -1))
    links = torch.cat(pairs).sort(-1).values.unique(dim=0)
    return links[links[:, 0] != links[:, 1]]


def _warp() -> Any:
    try:
        import warp as wp
    except ImportError:
        raise MissingDependencyError("warp-lang", "warp", "the engine of points on Warp") from None
    wp.config.log_level = wp.LOG_ERROR
    with _silent_stderr():
        wp.init()
    return wp


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Warp's library complains on standard error about a missing NVIDIA driver, even if only the CPU is used."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@functools.cache
def _kernels(wp: Any) -> SimpleNamespace:
    points, numbers = wp.array(dtype=wp.vec3), wp.array(dtype=wp.float32)

    @wp.kernel
    def fall(x: points, start: points, v: points, moves: points, gravity: wp.vec3, dt: wp.float32):
        p = wp.tid()
        start[p] = x[p]
        x[p] = x[p] + dt * (v[p] + dt * gravity)
        moves[p] = wp.vec3(0.0, 0.0, 0.0)

    @wp.kernel
    def pull(
        x: points,
        start: points,
        links: wp.array(dtype=wp.vec2i),
        lengths: numbers,
        shares: numbers,
        inverse_masses: numbers,
        moves: points,
        compliance: wp.float32,
        damping: wp.float32,
        dt: wp.float32,
    ):
        link = wp.tid()
        i, j = links[link][0], links[link][1]
        between = x[i] - x[j]
        length = wp.length(between)
        if length > 0.0:
            along = between / length
            wi, wj = inverse_masses[i], inverse_masses[j]
            soft = compliance / (dt * dt)
            closing = wp.dot(along, (x[i] - start[i]) - (x[j] - start[j]))
            error = length - lengths[link] + wp.min(damping * dt, 1.0) * closing
            change = shares[link] * error / (wi + wj + soft) * along
            wp.atomic_add(moves, i, -wi * change)
            wp.atomic_add(moves, j, wj * change)

    @wp.kernel
    def settle(
        x: points,
        start: points,
        v: points,
        moves: points,
        up: wp.vec3,
        height: wp.float32,
        friction: wp.float32,
        dt: wp.float32,
    ):
        p = wp.tid()
        at = x[p] + moves[p]
        depth = height - wp.dot(up, at)
        if depth > 0.0:
            at = at + depth * up
            slide = at - start[p]
            slide = slide - wp.dot(up, slide) * up
            far = wp.length(slide)
            if far > 0.0:
                at = at - slide * wp.min(friction * depth / far, 1.0)
        x[p] = at
        v[p] = (at - start[p]) / dt

    return SimpleNamespace(fall=fall, pull=pull, settle=settle)
