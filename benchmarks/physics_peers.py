# pyright: reportInvalidTypeForm=false
"""A conventional material point method, for bench_physics.py: plain Taichi and plain Warp, float32, one thread.

Both follow the formulas at the top of `vision3d.stages.simulate.engines.mpm` for corotated jelly above a sticky floor: one
loop over unsorted particles with a singular value decomposition each, atomic additions to a dense grid, a loop over all nodes.
"""

from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor

from vision3d.stages.simulate.config import Material


class Peer(Protocol):
    """Simulates one scene."""

    def steps(self, count: int) -> None:
        """Takes time steps and waits until they are done."""

    def positions(self) -> Tensor:
        """(n, 3) [m]."""


class PlainTaichi:
    """Fields, `ti.svd` and atomic additions."""

    def __init__(self, x: Tensor, v0: Tensor, volume: float, material: Material, nodes: int, dt: float, floor: float) -> None:
        from vision3d.stages.simulate.engines import taichi_runtime

        ti = taichi_runtime.runtime("cpu")
        count, h = len(x), 1 / nodes
        mu, lam, mass = material.mu, material.lam, material.density * volume
        self.x = ti.Vector.field(3, ti.f32, count)
        v = ti.Vector.field(3, ti.f32, count)
        C, F = (ti.Matrix.field(3, 3, ti.f32, count) for _ in range(2))
        grid_v, grid_m = ti.Vector.field(3, ti.f32, (nodes,) * 3), ti.field(ti.f32, (nodes,) * 3)
        self.x.from_numpy(x.float().numpy())
        v.from_numpy(v0.float().numpy())
        F.from_numpy(torch.eye(3).expand(count, 3, 3).numpy())

        @ti.kernel
        def clear():
            for node in ti.grouped(grid_m):
                grid_v[node] = ti.Vector.zero(ti.f32, 3)
                grid_m[node] = 0.0

        @ti.kernel
        def to_grid():
            for p in self.x:
                base = ti.cast(self.x[p] / h - 0.5, ti.i32)
                f = self.x[p] / h - ti.cast(base, ti.f32)
                w = [0.5 * (1.5 - f) ** 2, 0.75 - (f - 1.0) ** 2, 0.5 * (f - 0.5) ** 2]
                F[p] = (ti.Matrix.identity(ti.f32, 3) + dt * C[p]) @ F[p]
                U, _, V = ti.svd(F[p])
                J = F[p].determinant()
                stress = 2.0 * mu * (F[p] - U @ V.transpose()) @ F[p].transpose()
                stress += ti.Matrix.identity(ti.f32, 3) * lam * J * (J - 1.0)
                affine = -dt * volume * 4.0 / h**2 * stress + mass * C[p]
                for i, j, k in ti.static(ti.ndrange(3, 3, 3)):
                    offset = ti.Vector([i, j, k])
                    weight = w[i][0] * w[j][1] * w[k][2]
                    distance = (ti.cast(offset, ti.f32) - f) * h
                    grid_v[base + offset] += weight * (mass * v[p] + affine @ distance)
                    grid_m[base + offset] += weight * mass

        @ti.kernel
        def on_grid():
            for node in ti.grouped(grid_m):
                if grid_m[node] > 0:
                    grid_v[node] /= grid_m[node]
                    grid_v[node][2] -= dt * 9.81
                    if ti.cast(node[2], ti.f32) * h < floor:
                        grid_v[node] = ti.Vector.zero(ti.f32, 3)

        @ti.kernel
        def to_particles():
            for p in self.x:
                base = ti.cast(self.x[p] / h - 0.5, ti.i32)
                f = self.x[p] / h - ti.cast(base, ti.f32)
                w = [0.5 * (1.5 - f) ** 2, 0.75 - (f - 1.0) ** 2, 0.5 * (f - 0.5) ** 2]
                new_v, new_C = ti.Vector.zero(ti.f32, 3), ti.Matrix.zero(ti.f32, 3, 3)
                for i, j, k in ti.static(ti.ndrange(3, 3, 3)):
                    offset = ti.Vector([i, j, k])
                    part = w[i][0] * w[j][1] * w[k][2] * grid_v[base + offset]
                    new_v += part
                    new_C += 4.0 / h * part.outer_product(ti.cast(offset, ti.f32) - f)
                v[p], C[p] = new_v, new_C
                self.x[p] += dt * new_v

        self.sync, self.kernels = ti.sync, (clear, to_grid, on_grid, to_particles)

    def steps(self, count: int) -> None:
        for _ in range(count):
            for kernel in self.kernels:
                kernel()
        self.sync()

    def positions(self) -> Tensor:
        return torch.from_numpy(self.x.to_numpy())


class PlainWarp:
    """Arrays, `wp.svd3` and atomic additions; Warp's CPU device has one thread."""

    def __init__(
        self,
        x: Tensor,
        v: Tensor,
        volume: float,
        material: Material,
        nodes: int,
        dt: float,
        floor: float,
        device: str = "cpu",
    ) -> None:
        import warp as wp

        wp.config.log_level = wp.LOG_ERROR
        wp.init()
        self.wp, self.count, self.nodes = wp, len(x), nodes
        self.kernels = _warp_kernels(wp)
        options: dict[str, Any] = {"device": device}
        self.device = device
        self.x = wp.array(x.float().numpy(), dtype=wp.vec3, **options)
        self.v = wp.array(v.float().numpy(), dtype=wp.vec3, **options)
        self.C = wp.zeros(len(x), dtype=wp.mat33, **options)
        self.F = wp.array(torch.eye(3).repeat(len(x), 1, 1).numpy(), dtype=wp.mat33, **options)
        self.grid_v = wp.zeros((nodes,) * 3, dtype=wp.vec3, **options)
        self.grid_m = wp.zeros((nodes,) * 3, dtype=wp.float32, **options)
        self.numbers = [material.mu, material.lam, volume, material.density * volume]
        self.h, self.dt, self.floor = 1 / nodes, dt, floor

    def steps(self, count: int) -> None:
        wp, k, size = self.wp, self.kernels, (self.nodes,) * 3
        moving = [self.x, self.v, self.C]
        for _ in range(count):
            self.grid_v.zero_()
            self.grid_m.zero_()
            inputs = [*moving, self.F, self.grid_v, self.grid_m, self.h, self.dt, *self.numbers]
            wp.launch(k.to_grid, dim=self.count, inputs=inputs, device=self.device)
            on_nodes = [self.grid_v, self.grid_m, self.h, self.dt, self.floor]
            wp.launch(k.on_grid, dim=size, inputs=on_nodes, device=self.device)
            back = [*moving, self.grid_v, self.h, self.dt]
            wp.launch(k.to_particles, dim=self.count, inputs=back, device=self.device)
        wp.synchronize()

    def positions(self) -> Tensor:
        return torch.from_numpy(self.x.numpy())


def _warp_kernels(wp: Any) -> SimpleNamespace:
    @wp.func
    def weights(f: wp.vec3):
        one = wp.vec3(1.0, 1.0, 1.0)
        a, b, c = 1.5 * one - f, f - one, f - 0.5 * one
        return wp.matrix_from_rows(
            0.5 * wp.cw_mul(a, a), 0.75 * one - wp.cw_mul(b, b), 0.5 * wp.cw_mul(c, c)
        )  # one row per node

    @wp.kernel
    def to_grid(
        x: wp.array(dtype=wp.vec3),
        v: wp.array(dtype=wp.vec3),
        C: wp.array(dtype=wp.mat33),
        F: wp.array(dtype=wp.mat33),
        grid_v: wp.array3d(dtype=wp.vec3),
        grid_m: wp.array3d(dtype=wp.float32),
        h: wp.float32,
        dt: wp.float32,
        mu: wp.float32,
        lam: wp.float32,
        volume: wp.float32,
        mass: wp.float32,
    ):
        p = wp.tid()
        at = x[p] / h
        bx, by, bz = int(at[0] - 0.5), int(at[1] - 0.5), int(at[2] - 0.5)
        f = at - wp.vec3(float(bx), float(by), float(bz))
        w = weights(f)
        deformed = (wp.identity(n=3, dtype=wp.float32) + dt * C[p]) * F[p]
        F[p] = deformed
        U, _sigma, V = wp.svd3(deformed)
        J = wp.determinant(deformed)
        stress = 2.0 * mu * (deformed - U * wp.transpose(V)) * wp.transpose(deformed)
        stress += wp.identity(n=3, dtype=wp.float32) * (lam * J * (J - 1.0))
        affine = (-dt * volume * 4.0 / (h * h)) * stress + mass * C[p]
        for i in range(3):
            for j in range(3):
                for k in range(3):
                    weight = w[i, 0] * w[j, 1] * w[k, 2]
                    distance = (wp.vec3(float(i), float(j), float(k)) - f) * h
                    wp.atomic_add(grid_v, bx + i, by + j, bz + k, weight * (mass * v[p] + affine * distance))
                    wp.atomic_add(grid_m, bx + i, by + j, bz + k, weight * mass)

    @wp.kernel
    def on_grid(
        grid_v: wp.array3d(dtype=wp.vec3),
        grid_m: wp.array3d(dtype=wp.float32),
        h: wp.float32,
        dt: wp.float32,
        floor: wp.float32,
    ):
        i, j, k = wp.tid()
        if grid_m[i, j, k] > 0.0:
            v = grid_v[i, j, k] / grid_m[i, j, k] - wp.vec3(0.0, 0.0, dt * 9.81)
            if float(k) * h < floor:
                v = wp.vec3(0.0, 0.0, 0.0)
            grid_v[i, j, k] = v

    @wp.kernel
    def to_particles(
        x: wp.array(dtype=wp.vec3),
        v: wp.array(dtype=wp.vec3),
        C: wp.array(dtype=wp.mat33),
        grid_v: wp.array3d(dtype=wp.vec3),
        h: wp.float32,
        dt: wp.float32,
    ):
        p = wp.tid()
        at = x[p] / h
        bx, by, bz = int(at[0] - 0.5), int(at[1] - 0.5), int(at[2] - 0.5)
        f = at - wp.vec3(float(bx), float(by), float(bz))
        w = weights(f)
        new_v = wp.vec3(0.0, 0.0, 0.0)
        new_C = wp.mat33(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        for i in range(3):
            for j in range(3):
                for k in range(3):
                    part = (w[i, 0] * w[j, 1] * w[k, 2]) * grid_v[bx + i, by + j, bz + k]
                    new_v += part
                    new_C += wp.outer(part, (wp.vec3(float(i), float(j), float(k)) - f) * (4.0 / h))
        v[p] = new_v
        C[p] = new_C
        x[p] = x[p] + dt * new_v

    return SimpleNamespace(to_grid=to_grid, on_grid=on_grid, to_particles=to_particles)
