# pyright: reportInvalidTypeForm=false
"""Contact, wind and the borders of the grid as Taichi functions, and their parameter tables.

Inside tests of solids use float64 and the same numbers as `boundaries`: a floor on a layer of nodes is then inside or
outside consistently in all engines.
"""

import math
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

from vision3d.geometry.reference.quaternion import quat_to_rotmat  # the other one imports torch's compiler, 1 s
from vision3d.stages.simulate.config import Boundary
from vision3d.stages.simulate.world.boundaries import center_at, is_there, ways_out
from vision3d.stages.simulate.world.world import World, rotation_by

SHAPES = ("plane", "box", "sphere", "mesh")
KINDS = ("sticky", "slip", "separate")
_PLANE, _BOX, _SPHERE, _MESH = range(len(SHAPES))
_STICKY, _SLIP, _SEPARATE = range(len(KINDS))
BOUNDARY_COLUMNS = 37
WIND_COLUMNS = 10
_EQUAL = 1e-3  # as in `boundaries`
FAR = 1e30  # instead of infinity, which fast math does not support


class ContactTables:
    """The rows of the solids and winds that are active at a time, in the order of the world."""

    def __init__(self, world: World, device: torch.device) -> None:
        self.world, self.device = world, device
        self.fields = torch.zeros(1, dtype=torch.float64)
        self._places: dict[str, int] = {}
        values = []
        for name, field in world.fields.items():
            self._places[name] = sum(map(len, values))
            values.append(field.values.detach().double().cpu().flatten())
        if values:
            self.fields = torch.cat(values)
        self.fields = self.fields.to(device)
        self._boundaries: tuple[object, Tensor] = (None, torch.zeros(0))
        self._winds: tuple[object, Tensor] = (None, torch.zeros(0))

    def boundaries(self, time: float) -> tuple[Tensor, int]:
        """The table (at least one row, float64), and the number of valid rows."""
        there = [boundary for boundary in self.world.boundaries if is_there(boundary, time)]
        moves = any(any(boundary.velocity) or any(boundary.angular_velocity) for boundary in there)
        key = (tuple(map(id, there)), time if moves else None)
        if self._boundaries[0] != key:
            rows = [self._boundary_row(boundary, time) for boundary in there] or [[0.0] * BOUNDARY_COLUMNS]
            self._boundaries = key, torch.tensor(rows, dtype=torch.float64, device=self.device)
        return self._boundaries[1], len(there)

    def ways(self) -> list[tuple[int, int]]:
        """Pairs of a row of the latest table and an exit direction (`boundaries.ways_out`) that its nodes may have."""
        found = []
        for row, (shape, normal) in enumerate(zip(self._boundaries[1][:, 0].tolist(), self._boundaries[1][:, 22:25])):
            ways = [int(ways_out(normal[None]))] if shape == _PLANE else range(6)
            found += [(row, way) for way in ways]
        return found

    def winds(self, time: float, dt: float) -> tuple[Tensor, int]:
        """The table (at least one row, float64), and the number of valid rows."""
        there = [wind for wind in self.world.winds if wind.start <= time < wind.end]
        key = (tuple(map(id, there)), dt if there else None)
        if self._winds[0] != key:
            rows = [
                [*wind.velocity, -math.expm1(-wind.drag * dt)] + [max(-FAR, min(FAR, side)) for side in (*wind.low, *wind.high)]
                for wind in there
            ] or [[0.0] * WIND_COLUMNS]
            self._winds = key, torch.tensor(rows, dtype=torch.float64, device=self.device)
        return self._winds[1], len(there)

    def _boundary_row(self, boundary: Boundary, time: float) -> list[float]:
        turn = rotation_by(boundary.angular_velocity, time - boundary.start)
        normal = turn @ torch.nn.functional.normalize(torch.tensor(boundary.normal, dtype=torch.float64), dim=0)
        rotmat = turn @ quat_to_rotmat(torch.tensor(boundary.quat, dtype=torch.float64))
        row = [float(SHAPES.index(boundary.shape)), float(KINDS.index(boundary.kind))]
        row += [-1.0 if boundary.hollow and boundary.shape != "plane" else 1.0, boundary.friction]
        row += [*center_at(boundary, time), *boundary.velocity, *boundary.angular_velocity]
        row += [*rotmat.flatten().tolist(), *normal.tolist(), *boundary.half_size, boundary.radius]
        if boundary.shape != "mesh":
            return row + [0.0] * 8
        field = self.world.fields[boundary.mesh]
        row += [float(self._places[boundary.mesh]), *map(float, field.values.shape)]
        return [*row, *field.origin, field.spacing]


def build(ti: ModuleType) -> SimpleNamespace:
    """The functions, for the initialized runtime.

    Returns:
        measure(table, fields, row, position): distance and normal; way_out(normal); meet(table, row, friction, position,
        normal, v): velocity after contact; touches(table, row, mass, next_mass, height); blow(table, row, position, v):
        velocity in the wind. All float64.
    """
    vec3 = ti.types.vector(3, ti.f64)
    any_array = ti.template()

    @ti.func
    def entry(table: any_array, row, column):
        return vec3(table[row, column], table[row, column + 1], table[row, column + 2])

    @ti.func
    def box_distance(point, half_size):
        beyond = ti.abs(point) - half_size
        outside = ti.max(beyond, 0.0)
        distance, normal = outside.norm(), outside
        if distance > 0:
            normal = outside / distance
        else:  # inside, the nearest face
            axis = 0
            distance = beyond[0]
            for i in ti.static((1, 2)):
                if beyond[i] > distance:
                    distance, axis = beyond[i], i
            for i in ti.static(range(3)):
                normal[i] = 1.0 if i == axis else 0.0
        for i in ti.static(range(3)):
            normal[i] = -normal[i] if point[i] < 0 else normal[i]
        return distance, normal

    @ti.func
    def sampled_distance(point, table: any_array, row, fields: any_array):
        """Trilinear distance and the direction of its gradient; far away outside the box, where everything is free."""
        first, shape = int(table[row, 29]), ti.cast(entry(table, row, 30), ti.i32)
        scaled = (point - entry(table, row, 33)) / table[row, 36]
        clamped = ti.min(ti.max(scaled, 0.0), ti.cast(shape - 1, ti.f64))
        cell = ti.min(ti.cast(ti.floor(clamped), ti.i32), shape - 2)
        f = clamped - ti.cast(cell, ti.f64)
        distance, normal = ti.cast(0.0, ti.f64), vec3(0.0, 0.0, 0.0)
        for i, j, k in ti.ndrange(2, 2, 2):
            value = fields[first + ((cell[0] + i) * shape[1] + cell[1] + j) * shape[2] + cell[2] + k]
            wx, wy, wz = (f[0] if i else 1.0 - f[0]), (f[1] if j else 1.0 - f[1]), (f[2] if k else 1.0 - f[2])
            distance += wx * wy * wz * value
            normal += value * vec3((2.0 * i - 1.0) * wy * wz, (2.0 * j - 1.0) * wx * wz, (2.0 * k - 1.0) * wx * wy)
        if (clamped != scaled).any():
            distance = FAR
        length = normal.norm()
        return distance, normal / length if length > 0 else vec3(0.0, 0.0, 1.0)

    @ti.func
    def measure(table: any_array, fields: any_array, row, position):
        """Signed distance of a position from a solid, and the unit normal towards the free side."""
        shape = int(table[row, 0])
        arm = position - entry(table, row, 4)
        distance, normal = arm.dot(entry(table, row, 22)), entry(table, row, 22)
        if shape == _SPHERE:
            length = arm.norm()
            distance = length - table[row, 28]
            normal = arm / length if length > 0 else vec3(0.0, 0.0, 1.0)
        elif shape != _PLANE:
            x, y, z = entry(table, row, 13), entry(table, row, 16), entry(table, row, 19)
            own = arm[0] * x + arm[1] * y + arm[2] * z  # rotmat^T arm
            local = normal
            if shape == _BOX:
                distance, local = box_distance(own, entry(table, row, 25))
            else:
                distance, local = sampled_distance(own, table, row, fields)
            normal = vec3(x.dot(local), y.dot(local), z.dot(local))
        side = table[row, 2]
        return side * distance, side * normal

    @ti.func
    def way_out(normal):
        """As `boundaries.ways_out`."""
        axis, longest = 0, ti.abs(normal[0])
        for i in ti.static((1, 2)):
            if ti.abs(normal[i]) > longest + _EQUAL:
                axis, longest = i, ti.abs(normal[i])
        is_negative = 0
        for i in ti.static(range(3)):
            if i == axis and normal[i] < 0:
                is_negative = 1
        return 2 * axis + is_negative

    @ti.func
    def meet(table: any_array, row, friction, position, normal, v):
        """Velocity of material at a point of the surface after contact; `friction` is the material's factor on the friction."""
        arm = position - entry(table, row, 4)
        kind = int(table[row, 1])
        own_velocity = entry(table, row, 7) + entry(table, row, 10).cross(arm)
        relative = v - own_velocity
        inward = relative.dot(normal)
        after = vec3(0.0, 0.0, 0.0)
        if kind != _STICKY:
            along = relative - inward * normal
            speed = along.norm()
            kept = ti.cast(1.0, ti.f64)
            if speed > 0:
                kept = ti.max(1.0 - friction * table[row, 3] * ti.max(-inward, 0.0) / speed, 0.0)
            after = kept * along
            if kind == _SEPARATE and inward >= 0:
                after = relative
        return after + own_velocity

    @ti.func
    def half_space(height):
        """As in `boundaries`."""
        total = ti.cast(0.0, ti.f64)
        for layer in ti.static(range(6)):
            far = ti.abs(height + 0.25 + 0.5 * layer)
            if far < 0.5:
                total += 0.75 - far * far
            elif far < 1.5:
                total += 0.5 * (1.5 - far) ** 2
        return total

    @ti.func
    def touches(table: any_array, row, mass, next_mass, height):
        """Like `boundaries.touches`; only for kinds that stop nearby material."""
        is_held = int(table[row, 1]) != _SEPARATE
        return is_held or mass * half_space(height - 1.0) >= next_mass * half_space(height)

    @ti.func
    def blow(table: any_array, row, position, v):
        low, high = entry(table, row, 4), entry(table, row, 7)
        out = v
        if (position >= low).all() and (position <= high).all():
            out = v + table[row, 3] * (entry(table, row, 0) - v)
        return out

    return SimpleNamespace(measure=measure, way_out=way_out, meet=meet, touches=touches, blow=blow)
