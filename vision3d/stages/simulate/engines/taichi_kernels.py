# pyright: reportInvalidTypeForm=false
"""The steps of the method as Taichi kernels, float32; see `engines.mpm` for the equations.

Particles are stored in blocks: those whose lowest node was in the same 4^3 nodes when they were sorted, with all blocks of one
color together. Blocks of a color are 8 nodes apart and touch 6 along each axis, so they never write to the same node, even
after particles have moved by up to a cell: no atomic operations are needed, and the summation order is that of the blocks,
independent of the number of threads.
"""

import functools
from types import ModuleType, SimpleNamespace

from vision3d.stages.simulate.engines import taichi_contact, taichi_laws
from vision3d.stages.simulate.engines.mpm import MAX_STRETCH

# Columns of a particle.
X, V, C, F, F_TOTAL, MEMORY, MASS, VOLUME, STATE_COLUMNS = 0, 3, 6, 15, 24, 33, 34, 35, 36
MOTION_SHIFT = 16  # `kind` is the body, and the motion plus one above these bits
COLORS = 8
BLOCK = 4
# Columns of the statistics of a block: maximum |v|^2, |C|^2 and step [cells], number of clamped particles, work of motions,
# and a sum that is finite if everything is.
MAX_V2, MAX_C2, MAX_MOVE, KEPT, WORK, CHECK, METRIC_COLUMNS = 0, 1, 2, 3, 4, 5, 6
MOTION_COLUMNS = 22  # active, displacement of the center [cells], center [cells], rotation - I, velocity, angular velocity


@functools.cache
def build(ti: ModuleType) -> SimpleNamespace:
    """The kernels, for the initialized runtime.

    Returns:
        count, place: two passes of a counting sort. scatter: particles to grid. step_grid: gravity, wind. meet_solid,
        close_sides: contact. gather: grid to particles.
    """
    vec3, vec4 = ti.types.vector(3, ti.f32), ti.types.vector(4, ti.f32)
    dvec3 = ti.types.vector(3, ti.f64)
    floats, integers = ti.types.ndarray(dtype=ti.f32, ndim=2), ti.types.ndarray(dtype=ti.i32, ndim=1)
    doubles = ti.types.ndarray(dtype=ti.f64, ndim=2)
    nodes = ti.types.ndarray(dtype=vec4, ndim=1)
    any_array = ti.template()  # argument type of functions
    # On a CPU a block is a task; on a GPU it is a single particle, and a thread.
    blocks_at_once = 128 if ti.lang.impl.current_cfg().arch == ti.cuda else 1
    laws_of, contact = taichi_laws.build(ti), taichi_contact.build(ti)

    @ti.func
    def vector_at(state: any_array, p, column: ti.template()):
        return vec3(state[p, column], state[p, column + 1], state[p, column + 2])

    @ti.func
    def matrix_at(state: any_array, p, column: ti.template()):
        m = ti.Matrix.zero(ti.f32, 3, 3)
        for i, j in ti.static(ti.ndrange(3, 3)):
            m[i, j] = state[p, column + 3 * i + j]
        return m

    @ti.func
    def put(state: any_array, p, column: ti.template(), m):
        for i, j in ti.static(ti.ndrange(3, 3)):
            state[p, column + 3 * i + j] = m[i, j]

    @ti.func
    def stencil(x):
        base = ti.cast(ti.floor(x - 0.5), ti.i32)
        f = x - ti.cast(base, ti.f32)
        w = (0.5 * (1.5 - f) ** 2, 0.75 - (f - 1.0) ** 2, 0.5 * (f - 0.5) ** 2)
        return base, f, w[0], w[1], w[2]

    @ti.kernel
    def count(state: floats, keys: integers, counts: integers, half_y: ti.i32, half_z: ti.i32, half_count: ti.i32):
        """Block of each particle, numbered with the color first, and the number of particles per block."""
        for p in range(keys.shape[0]):
            block = ti.cast(ti.floor(vector_at(state, p, X) - 0.5), ti.i32) // BLOCK
            color = (block[0] & 1) * 4 + (block[1] & 1) * 2 + (block[2] & 1)
            keys[p] = color * half_count + ((block[0] >> 1) * half_y + (block[1] >> 1)) * half_z + (block[2] >> 1)
        ti.loop_config(serialize=True)
        for p in range(keys.shape[0]):
            counts[keys[p]] += 1

    @ti.kernel
    def place(keys: integers, ends: integers, order: integers):
        """Sorted order of the particles; those of a block keep their order. `ends` become the starts."""
        ti.loop_config(serialize=True)
        for i in range(keys.shape[0]):
            p = keys.shape[0] - 1 - i
            ends[keys[p]] -= 1
            order[ends[keys[p]]] = p

    @ti.kernel
    def scatter(
        state: floats,
        kind: integers,
        materials: floats,
        starts: integers,
        grid: nodes,
        lacking: ti.types.ndarray(dtype=ti.f32, ndim=1),
        first: ti.i32,
        last: ti.i32,
        size_y: ti.i32,
        size_z: ti.i32,
        h: ti.f32,
        dt: ti.f32,
        laws: ti.template(),
        is_atomic: ti.template(),
        frictions_differ: ti.template(),
    ):
        """Mass and momentum to the nodes; to `lacking`, if frictions differ, mass times (1 - friction factor)."""
        ti.loop_config(block_dim=blocks_at_once)
        for block in range(first, last):
            for p in range(starts[block], starts[block + 1]):
                v, c = vector_at(state, p, V), matrix_at(state, p, C)
                step = ti.Matrix.identity(ti.f32, 3) + dt * c
                total = step @ matrix_at(state, p, F_TOTAL)
                most = 0.0
                for i, j in ti.static(ti.ndrange(3, 3)):
                    most = ti.max(most, ti.abs(total[i, j]))
                put(state, p, F_TOTAL, ti.min(1.0, MAX_STRETCH / ti.max(most, 1e-30)) * total)
                if state[p, MASS] > 0:  # tracers have no effect
                    trial = step @ matrix_at(state, p, F)
                    body = kind[p] & ((1 << MOTION_SHIFT) - 1)
                    elastic, memory, tau = laws_of.respond(trial, state[p, MEMORY], body, materials, dt, laws)
                    put(state, p, F, elastic)
                    state[p, MEMORY] = memory
                    mass = state[p, MASS]
                    affine = h * mass * c - (dt * 4.0 / h * state[p, VOLUME]) * tau  # for offsets in cells
                    base, f, w0, w1, w2 = stencil(vector_at(state, p, X))
                    momentum = mass * v - affine @ f
                    value = vec4(momentum[0], momentum[1], momentum[2], mass)
                    dx = vec4(affine[0, 0], affine[1, 0], affine[2, 0], 0.0)
                    dy = vec4(affine[0, 1], affine[1, 1], affine[2, 1], 0.0)
                    dz = vec4(affine[0, 2], affine[1, 2], affine[2, 2], 0.0)
                    corner = (base[0] * size_y + base[1]) * size_z + base[2]
                    w = ti.static((w0, w1, w2))
                    for i in ti.static(range(3)):
                        for j in ti.static(range(3)):
                            weight = w[i][0] * w[j][1]
                            row = corner + (i * size_y + j) * size_z
                            at = value + float(i) * dx + float(j) * dy
                            for k in ti.static(range(3)):
                                part = (weight * w[k][2]) * (at + float(k) * dz)
                                if ti.static(is_atomic):
                                    ti.atomic_add(grid[row + k], part)
                                else:
                                    grid[row + k] = grid[row + k] + part
                                if ti.static(frictions_differ):
                                    lack = (1.0 - materials[body, taichi_laws.FRICTION]) * part[3]
                                    if ti.static(is_atomic):
                                        ti.atomic_add(lacking[row + k], lack)
                                    else:
                                        lacking[row + k] = lacking[row + k] + lack

    @ti.kernel
    def step_grid(
        grid: nodes,
        work: floats,
        winds: doubles,
        num_winds: ti.i32,
        box: integers,
        place_of_grid: ti.types.ndarray(dtype=ti.f64, ndim=1),
        pull_x: ti.f32,
        pull_y: ti.f32,
        pull_z: ti.f32,
    ):
        """Velocities of the nodes in a box: its lowest node, the one beyond its highest, and the grid's size.

        `work` has one row per column along z; `place_of_grid` is the first node's position and the spacing.
        """
        for row in range((box[3] - box[0]) * (box[4] - box[1])):
            i, j = box[0] + row // (box[4] - box[1]), box[1] + row % (box[4] - box[1])
            size = ti.Vector([box[6], box[7], box[8]])
            given = 0.0
            for k in range(box[2], box[5]):
                index = (i * size[1] + j) * size[2] + k
                mass = grid[index][3]
                if mass > 0:
                    v = vec3(grid[index][0], grid[index][1], grid[index][2]) / mass + vec3(pull_x, pull_y, pull_z)
                    before = v
                    if num_winds > 0:
                        origin = dvec3(place_of_grid[0], place_of_grid[1], place_of_grid[2])
                        at = ti.cast(ti.Vector([i, j, k]), ti.f64) * place_of_grid[3] + origin
                        u = ti.cast(v, ti.f64)
                        for wind in range(num_winds):
                            u = contact.blow(winds, wind, at, u)
                        v = ti.cast(u, ti.f32)
                        given += mass * (v - before).dot(v)
                    grid[index] = vec4(v[0], v[1], v[2], mass)
            work[row, 0] = given

    @ti.func
    def friction_at(grid: any_array, lacking: any_array, node):
        """Factor on the friction of solids of the material at a node, averaged by mass."""
        return ti.max(1.0 - ti.cast(lacking[node] / grid[node][3], ti.f64), 0.0)

    @ti.kernel
    def meet_solid(
        grid: nodes,
        lacking: ti.types.ndarray(dtype=ti.f32, ndim=1),
        work: floats,
        boundaries: doubles,
        fields: ti.types.ndarray(dtype=ti.f64, ndim=1),
        boundary: ti.i32,
        way: ti.i32,
        box: integers,
        place_of_grid: ti.types.ndarray(dtype=ti.f64, ndim=1),
        friction_scale: ti.f64,
        frictions_differ: ti.template(),
    ):
        """Contact with a solid of the nodes inside it whose exit direction is `way`, and of the next nodes in that direction:
        these pairs do not overlap."""
        for row in range((box[3] - box[0]) * (box[4] - box[1])):
            i, j = box[0] + row // (box[4] - box[1]), box[1] + row % (box[4] - box[1])
            size = ti.Vector([box[6], box[7], box[8]])
            origin = dvec3(place_of_grid[0], place_of_grid[1], place_of_grid[2])
            sign = 1 - 2 * (way % 2)
            onward = ti.Vector([0, 0, 0])
            for axis in ti.static(range(3)):
                if axis == way // 2:
                    onward[axis] = sign
            given = 0.0
            for k in range(box[2], box[5]):
                node = ti.Vector([i, j, k])
                index = (i * size[1] + j) * size[2] + k
                if grid[index][3] > 0:
                    at = ti.cast(node, ti.f64) * place_of_grid[3] + origin
                    depth, normal = contact.measure(boundaries, fields, boundary, at)
                    if depth < 0 and contact.way_out(normal) == way:
                        after = node + onward
                        other, share, next_mass = index, ti.cast(0.0, ti.f64), ti.cast(0.0, ti.f64)
                        cells = -depth / (ti.abs(normal[way // 2]) * place_of_grid[3])
                        if (after >= 0).all() and (after < size).all():
                            number = (after[0] * size[1] + after[1]) * size[2] + after[2]
                            beyond = ti.cast(after, ti.f64) * place_of_grid[3] + origin
                            height, _ = contact.measure(boundaries, fields, boundary, beyond)
                            next_mass = ti.cast(grid[number][3], ti.f64)
                            if height >= 0 and next_mass > 0:
                                other, share = number, depth / (depth - height)
                                cells = share
                                at += share * place_of_grid[3] * ti.cast(onward, ti.f64)
                        mass = ti.cast(grid[index][3], ti.f64)
                        if contact.touches(boundaries, boundary, mass, next_mass, cells):
                            other_mass = ti.cast(grid[other][3], ti.f64)
                            inner = dvec3(grid[index][0], grid[index][1], grid[index][2])
                            outer = dvec3(grid[other][0], grid[other][1], grid[other][2])
                            before = (1.0 - share) * inner + share * outer
                            friction = friction_scale
                            if ti.static(frictions_differ):
                                friction = (1.0 - share) * friction_at(grid, lacking, index)
                                friction += share * friction_at(grid, lacking, other)
                            v = contact.meet(boundaries, boundary, friction, at, normal, before)
                            impulse = (v - before) / ((1.0 - share) ** 2 / mass + share**2 / other_mass)
                            given += ti.cast(impulse.dot(v), ti.f32)
                            if share > 0:
                                outer += share / other_mass * impulse
                                grid[other] = vec4(outer[0], outer[1], outer[2], other_mass)
                            inner += (1.0 - share) / mass * impulse
                            grid[index] = vec4(inner[0], inner[1], inner[2], mass)
            work[row, 0] += given

    @ti.kernel
    def close_sides(grid: nodes, work: floats, box: integers, padding: ti.i32):
        """The outer layers of the grid let nothing out."""
        for row in range((box[3] - box[0]) * (box[4] - box[1])):
            i, j = box[0] + row // (box[4] - box[1]), box[1] + row % (box[4] - box[1])
            size = ti.Vector([box[6], box[7], box[8]])
            given = 0.0
            for k in range(box[2], box[5]):
                node = ti.Vector([i, j, k])
                if (node < padding).any() or (node > size - 1 - padding).any():
                    index = (i * size[1] + j) * size[2] + k
                    before = vec3(grid[index][0], grid[index][1], grid[index][2])
                    v, mass = before, grid[index][3]
                    for axis in ti.static(range(3)):
                        if node[axis] < padding:
                            v[axis] = ti.max(v[axis], 0.0)
                        if node[axis] > size[axis] - 1 - padding:
                            v[axis] = ti.min(v[axis], 0.0)
                    given += mass * (v - before).dot(v)
                    grid[index] = vec4(v[0], v[1], v[2], mass)
            work[row, 0] += given

    @ti.func
    def kinematic(motions: any_array, m, x, v, c, mass, h, metrics: any_array, block):
        """Position, velocity and gradient of a particle with prescribed motion."""
        arm = x - vector_at(motions, m, 4)
        turn = matrix_at(motions, m, 7)
        move = vector_at(motions, m, 1) + turn @ arm
        spin = vector_at(motions, m, 19)
        new_v = vector_at(motions, m, 16) + h * spin.cross(arm + turn @ arm)
        new_c = ti.Matrix([[0.0, -spin[2], spin[1]], [spin[2], 0.0, -spin[0]], [-spin[1], spin[0], 0.0]])
        inner = 0.25 * h * h
        metrics[block, WORK] += mass * (new_v.dot(new_v - v) + inner * (new_c * (new_c - c)).sum())
        return x + move, new_v, new_c

    @ti.kernel
    def gather(
        state: floats,
        kind: integers,
        materials: floats,
        motions: floats,
        starts: integers,
        grid: nodes,
        metrics: floats,
        size_y: ti.i32,
        size_z: ti.i32,
        h: ti.f32,
        dt: ti.f32,
        bounds: ti.types.ndarray(dtype=ti.f32, ndim=1),
    ):
        ti.loop_config(block_dim=blocks_at_once)
        for block in range(metrics.shape[0]):
            max_v2, max_c2, max_move, kept, check = 0.0, 0.0, 0.0, 0.0, 0.0
            metrics[block, WORK] = 0.0
            for p in range(starts[block], starts[block + 1]):
                x = vector_at(state, p, X)
                base, f, w0, w1, w2 = stencil(x)
                d0, d1, d2 = -f * w0, (1.0 - f) * w1, (2.0 - f) * w2
                w = ti.static((w0, w1, w2))
                corner = (base[0] * size_y + base[1]) * size_z + base[2]
                d = ti.static((d0, d1, d2))
                zero = vec3(0.0, 0.0, 0.0)
                sums, by_x, by_y, by_z = zero, zero, zero, zero  # sums of w v_i, and of w v_i (x_i - x_p) along each axis
                for i in ti.static(range(3)):
                    plane, plane_y, plane_z = zero, zero, zero
                    for j in ti.static(range(3)):
                        row = corner + (i * size_y + j) * size_z
                        line, line_z = zero, zero
                        for k in ti.static(range(3)):
                            node = vec3(grid[row + k][0], grid[row + k][1], grid[row + k][2])
                            line += w[k][2] * node
                            line_z += d[k][2] * node
                        plane += w[j][1] * line
                        plane_y += d[j][1] * line
                        plane_z += w[j][1] * line_z
                    sums += w[i][0] * plane
                    by_x += d[i][0] * plane
                    by_y += w[i][0] * plane_y
                    by_z += w[i][0] * plane_z
                v = vec3(sums[0], sums[1], sums[2])
                c = ti.Matrix.zero(ti.f32, 3, 3)
                for i in ti.static(range(3)):
                    c[i, 0], c[i, 1], c[i, 2] = 4.0 / h * by_x[i], 4.0 / h * by_y[i], 4.0 / h * by_z[i]
                which = kind[p]
                if int(materials[which & ((1 << MOTION_SHIFT) - 1), 0]) == taichi_laws.STATIONARY:
                    v, c = vec3(0.0, 0.0, 0.0), ti.Matrix.zero(ti.f32, 3, 3)
                free = x + (dt / h) * v
                motion = (which >> MOTION_SHIFT) - 1
                if motion >= 0 and motions[motion, 0] > 0:
                    free, v, c = kinematic(motions, motion, x, v, c, state[p, MASS], h, metrics, block)
                at = ti.min(ti.max(free, bounds[0]), vec3(bounds[1], bounds[2], bounds[3]))
                if (at != free).any():
                    kept += 1.0
                move = ti.abs(at - x)
                max_move = ti.max(max_move, ti.max(move[0], ti.max(move[1], move[2])))
                v2, c2 = v.norm_sqr(), c.norm_sqr()
                if state[p, MASS] > 0:
                    max_v2, max_c2 = ti.max(max_v2, v2), ti.max(max_c2, c2)
                check += v2 + c2 + at.sum()
                for i in ti.static(range(3)):
                    state[p, X + i] = at[i]
                    state[p, V + i] = v[i]
                put(state, p, C, c)
            metrics[block, MAX_V2] = max_v2
            metrics[block, MAX_C2] = max_c2
            metrics[block, MAX_MOVE] = max_move
            metrics[block, KEPT] = kept
            metrics[block, CHECK] = check

    return SimpleNamespace(
        count=count, place=place, scatter=scatter, step_grid=step_grid, meet_solid=meet_solid, close_sides=close_sides,
        gather=gather,
    )  # fmt: skip
