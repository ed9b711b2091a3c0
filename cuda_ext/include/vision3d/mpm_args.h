#pragma once
#include <cstdint>
#include "vision3d/mpm.h"
#include "vision3d/solids.h"

namespace vision3d::mpm {

// Rows of particle data; each row has one value of every particle.
enum Row { X_ROW = 0, V_ROW = 3, C_ROW = 6, F_ROW = 15, TOTAL_ROW = 24, MEMORY_ROW = 33, MASS_ROW = 34, VOLUME_ROW = 35, ROWS = 36 };

// Maximum number of bodies, solids, winds and motions of a world.
constexpr int MOST = 64;

// A prescribed rigid motion of particles, in one time step.
template <typename T>
struct Lead {
    int is_on;
    T center[3], next_center[3], velocity[3], spin[3], turn[9];  // turn: rotation of the step
};

// All inputs of a step, at one time. Positions are relative to the first node of the grid.
template <typename T>
struct Step {
    T* rows;  // (ROWS, stride)
    int64_t stride, count;
    const int32_t* body;    // (count)
    const int32_t* motion;  // (count), or null without kinematic particles
    T* grid;                // (size[0], size[1], line, 4) mass, momentum or velocity
    T* lacking;             // (size[0], size[1], line) mass times (1 - friction factor of its material), or null if all are 1
    int64_t size[3], line;  // nodes along the axes; line = size[2] + 1, so that a row of four nodes ends before the next line
    int padding;
    T spacing, dt, gravity[3], low[3], high[3];  // low, high: bounds of particles
    T skipped;                                   // fraction of dt that the grid advanced without tracers; 0 for particles
    Material<T> materials[MOST];
    Solid<T> solids[MOST];
    Wind<T> winds[MOST];
    Lead<T> leads[MOST];
    int num_solids, num_winds, num_leads;
};

template <typename T>
V3D_HD int64_t node_index(const Step<T>& step, int64_t i, int64_t j, int64_t k) {
    return (i * step.size[1] + j) * step.line + k;
}

// Results of a pass over particles or nodes; partial sums.
struct Found {
    double work = 0;                   // of all except gravity [J]
    double speed2 = 0, gradient2 = 0;  // maximum squares of |v| and |C|
    int64_t kept = 0;                  // particles clamped to the grid
    bool is_finite = true;

    V3D_HD_MEMBER void add(const Found& other) {
        work += other.work;
        speed2 = speed2 < other.speed2 ? other.speed2 : speed2;
        gradient2 = gradient2 < other.gradient2 ? other.gradient2 : gradient2;
        kept += other.kept;
        is_finite = is_finite && other.is_finite;
    }
};

// Converts the momentum of one node to its velocity after gravity and wind; returns the work of wind: its impulse times the
// velocity after it. Solids come next (`meet_node`), then the grid's sides (`side_node`).
template <typename T>
V3D_HD T step_node(const Step<T>& step, int64_t i, int64_t j, int64_t k, T* node) {
    const T mass = node[0];
    if (!(mass > T(0))) return T(0);
    const T point[3] = {T(i) * step.spacing, T(j) * step.spacing, T(k) * step.spacing};
    T v[3], before[3], work(0);
    for (int a = 0; a < 3; ++a) {
        // Gravity is added as momentum: added to velocities, which are multiples of their last bit, it would be rounded the same way in
        // every step.
        v[a] = fma(mass, step.dt * step.gravity[a], node[1 + a]) / mass;
        before[a] = v[a];
    }
    for (int n = 0; n < step.num_winds; ++n) blow(step.winds[n], point, v);
    for (int a = 0; a < 3; ++a) {
        work += v[a] * (v[a] - before[a]);
        node[1 + a] = v[a];
    }
    return mass * work;
}

// The way out of a solid (`way_out`) for a node inside it, -1 for others.
template <typename T>
V3D_HD int way_out_at(const Step<T>& step, const Solid<T>& solid, int64_t i, int64_t j, int64_t k) {
    if (!(step.grid[4 * node_index(step, i, j, k)] > T(0))) return -1;
    const T point[3] = {T(i) * step.spacing, T(j) * step.spacing, T(k) * step.spacing};
    T normal[3];
    return solid_distance(solid, point, normal) < T(0) ? way_out(normal) : -1;
}

// Factor of the friction of solids at a node: the mass-weighted mean over materials.
template <typename T>
V3D_HD T friction_at(const Step<T>& step, const T* node) {
    return step.lacking ? max(T(1) - step.lacking[(node - step.grid) / 4] / node[0], T(0)) : T(1);
}

// Mass, up to a factor, that a node has of a half-space of material up to `height` cells above it: layers of particles half a cell
// apart, the first a quarter of a cell inside.
template <typename T>
V3D_HD T half_space(T height) {
    T sum(0);
    for (int layer = 0; layer < 6; ++layer) {
        const T far = abs(height + T(0.25f) + T(0.5f) * T(layer)), left = T(1.5f) - far;
        sum += far < T(0.5f) ? T(0.75f) - far * far : left > T(0) ? T(0.5f) * left * left : T(0);
    }
    return sum;
}

// Whether material has reached a surface `height` cells above a node: then the masses of the node and of the next one outwards
// have the ratio of a half-space that ends there, or a larger one. Nodes get mass from farther away than that.
template <typename T>
V3D_HD bool touches(T mass, T next_mass, T height) {
    return !(mass * half_space(height - T(1)) < next_mass * half_space(height));
}

// Contact of a node inside a solid whose way out is `way`. If the next node on the way is outside, the velocity interpolated
// at the surface is constrained, and the change is an impulse on both nodes by their weights, so that the position of the
// surface between the nodes matters. No two nodes with the same way share one. Returns the work.
template <typename T>
V3D_HD T meet_node(const Step<T>& step, const Solid<T>& solid, int way, int64_t i, int64_t j, int64_t k) {
    T* const node = step.grid + 4 * node_index(step, i, j, k);
    if (!(node[0] > T(0))) return T(0);
    T point[3] = {T(i) * step.spacing, T(j) * step.spacing, T(k) * step.spacing}, normal[3], ignored[3], v[3];
    const T depth = solid_distance(solid, point, normal);
    if (!(depth < T(0)) || way_out(normal) != way) return T(0);
    const int axis = way / 2, sign = 1 - 2 * (way % 2);
    int64_t at[3] = {i, j, k};
    at[axis] += sign;
    T* next = node;
    T share(0), cells = depth / (-abs(normal[axis]) * step.spacing), next_mass(0);
    if (at[axis] >= 0 && at[axis] < step.size[axis]) {
        T* const other = step.grid + 4 * node_index(step, at[0], at[1], at[2]);
        const T beyond[3] = {T(at[0]) * step.spacing, T(at[1]) * step.spacing, T(at[2]) * step.spacing};
        const T height = solid_distance(solid, beyond, ignored);
        if (height >= T(0) && other[0] > T(0)) {
            next = other;
            share = depth / (depth - height);
            cells = share;
            point[axis] += share * step.spacing * T(sign);
        }
        next_mass = other[0];
    }
    if (solid.contact == SEPARATE && !touches(node[0], next_mass, cells)) return T(0);
    const T rest = T(1) - share;
    const T friction = rest * friction_at(step, node) + share * friction_at(step, next);
    T before[3], work(0);
    for (int a = 0; a < 3; ++a) v[a] = before[a] = rest * node[1 + a] + share * next[1 + a];
    meet(solid, friction, point, normal, v);
    const T mass = T(1) / (rest * rest / node[0] + share * share / next[0]);
    for (int a = 0; a < 3; ++a) {
        const T impulse = mass * (v[a] - before[a]);
        node[1 + a] += rest / node[0] * impulse;
        if (share > T(0)) next[1 + a] += share / next[0] * impulse;
        work += impulse * v[a];
    }
    return work;
}

// The grid's outer layers block outward velocities. Returns the work.
template <typename T>
V3D_HD T side_node(const Step<T>& step, int64_t i, int64_t j, int64_t k) {
    T* const node = step.grid + 4 * node_index(step, i, j, k);
    const int64_t at[3] = {i, j, k};
    T work(0);
    for (int a = 0; a < 3; ++a) {
        const T before = node[1 + a];
        T v = before;
        if (at[a] < step.padding && v < T(0)) v = T(0);
        if (at[a] > step.size[a] - 1 - step.padding && v > T(0)) v = T(0);
        work += v * (v - before);
        node[1 + a] = v;
    }
    return node[0] * work;
}

// The first and the last way out that nodes of a solid may have.
template <typename T>
V3D_HD void ways_of(const Solid<T>& solid, int& first, int& last) {
    first = solid.shape == PLANE ? way_out(solid.axes) : 0;
    last = solid.shape == PLANE ? first : 5;
}

// Replaces the grid velocity of a particle by that of its prescribed motion. Returns the work.
template <typename T>
V3D_HD T lead(const Step<T>& step, const Lead<T>& led, const T x[3], T v[3], T C[9], T free[3], T mass) {
    const T inner = step.spacing * step.spacing * T(0.25f);
    T work(0), arm[3], turned[3];
    const T before[3] = {v[0], v[1], v[2]};
    for (int k = 0; k < 3; ++k) arm[k] = x[k] - led.center[k];
    for (int k = 0; k < 3; ++k) {
        turned[k] = led.turn[3 * k] * arm[0] + led.turn[3 * k + 1] * arm[1] + led.turn[3 * k + 2] * arm[2];
        free[k] = led.next_center[k] + turned[k];
    }
    const T* w = led.spin;
    v[0] = led.velocity[0] + w[1] * turned[2] - w[2] * turned[1];
    v[1] = led.velocity[1] + w[2] * turned[0] - w[0] * turned[2];
    v[2] = led.velocity[2] + w[0] * turned[1] - w[1] * turned[0];
    const T spin[9] = {T(0), -w[2], w[1], w[2], T(0), -w[0], -w[1], w[0], T(0)};
    for (int k = 0; k < 3; ++k) work += v[k] * (v[k] - before[k]);
    for (int k = 0; k < 9; ++k) {
        work += inner * spin[k] * (spin[k] - C[k]);
        C[k] = spin[k];
    }
    return mass * work;
}

}  // namespace vision3d::mpm
