#pragma once
#include "vision3d/scalar.h"

// Boundary conditions of grid nodes: solids with friction, and wind. As in vision3d/stages/simulate/world/boundaries.py.
namespace vision3d::mpm {

enum Shape { PLANE, BOX, BALL, FIELD };
enum Contact { STICKY, SLIP, SEPARATE };

// Signed distances at the nodes of a box, z fastest.
template <typename T>
struct DistanceField {
    const float* values;
    int64_t size[3];
    T origin[3], inverse_spacing;
};

// A solid at one time.
template <typename T>
struct Solid {
    int shape, contact, hollow;
    T center[3], velocity[3], spin[3];
    T axes[9];  // columns: own axes in the world; for a plane the first row is its normal
    T half_size[3], radius, friction;
    DistanceField<T> field;
};

template <typename T>
struct Wind {
    T velocity[3], low[3], high[3], share;  // share = 1 - exp(-drag dt)
};

template <typename T>
V3D_HD T norm3(const T a[3]) {
    return sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2]);
}

// Distance in the frame of the box, and the normal there.
template <typename T>
V3D_HD T box_distance(const T p[3], const T half_size[3], T normal[3]) {
    T outside[3], depth(0);
    int axis = 0;
    for (int k = 0; k < 3; ++k) {
        const T beyond = abs(p[k]) - half_size[k];
        outside[k] = max(beyond, T(0));
        if (k == 0 || beyond > depth) {
            depth = beyond;
            axis = k;
        }
    }
    const T far = norm3(outside);
    for (int k = 0; k < 3; ++k) {
        const T direction = far > T(0) ? outside[k] / far : T(k == axis ? 1 : 0);
        normal[k] = p[k] < T(0) ? -direction : direction;
    }
    return far > T(0) ? far : depth;
}

// Trilinear distance in the frame of the field and the direction of its gradient, at the nearest point of the box; points
// outside the box are far away.
template <typename T>
V3D_HD T field_distance(const T p[3], const DistanceField<T>& field, T normal[3]) {
    int64_t cell[3];
    T f[3];
    bool is_beyond = false;
    for (int k = 0; k < 3; ++k) {
        const T last = T(field.size[k] - 1), free = (p[k] - field.origin[k]) * field.inverse_spacing;
        const T scaled = min(max(free, T(0)), last);
        is_beyond = is_beyond || scaled != free;
        cell[k] = scaled > T(0) ? int64_t(scaled) : 0;  // NaN too
        if (cell[k] > field.size[k] - 2) cell[k] = field.size[k] - 2;
        f[k] = scaled - T(cell[k]);
    }
    T value(0), slope[3] = {T(0), T(0), T(0)};
    for (int corner = 0; corner < 8; ++corner) {
        const int side[3] = {corner >> 2, corner >> 1 & 1, corner & 1};
        T w[3], d[3];
        for (int k = 0; k < 3; ++k) {
            w[k] = side[k] ? f[k] : T(1) - f[k];
            d[k] = side[k] ? T(1) : T(-1);
        }
        const T at = T(field.values[((cell[0] + side[0]) * field.size[1] + cell[1] + side[1]) * field.size[2] + cell[2] + side[2]]);
        value += at * w[0] * w[1] * w[2];
        slope[0] += at * d[0] * w[1] * w[2];
        slope[1] += at * w[0] * d[1] * w[2];
        slope[2] += at * w[0] * w[1] * d[2];
    }
    const T length = norm3(slope);
    for (int k = 0; k < 3; ++k) normal[k] = length > T(0) ? slope[k] / length : T(k == 2 ? 1 : 0);
    return is_beyond ? T(1e30) : value;
}

// A lower bound of the distance to a solid of shape FIELD.
template <typename T>
V3D_HD T field_bound(const Solid<T>& solid, const T point[3]) {
    if (solid.hollow) return T(0);
    const DistanceField<T>& field = solid.field;
    const T arm[3] = {point[0] - solid.center[0], point[1] - solid.center[1], point[2] - solid.center[2]};
    T own[3], beyond[3], ignored[3];
    for (int k = 0; k < 3; ++k) {
        own[k] = arm[0] * solid.axes[k] + arm[1] * solid.axes[3 + k] + arm[2] * solid.axes[6 + k];
        const T last = field.origin[k] + T(field.size[k] - 1) / field.inverse_spacing;
        beyond[k] = max(max(field.origin[k] - own[k], own[k] - last), T(0));
    }
    const T far = norm3(beyond);
    // Trilinear distances have a slope of up to 2 where the gradients of two cells differ.
    return far > T(0) ? far : field_distance(own, field, ignored) / T(2);
}

// Signed distance of a point, negative in the solid, and the unit normal towards the free side.
template <typename T>
V3D_HD T solid_distance(const Solid<T>& solid, const T point[3], T normal[3]) {
    const T arm[3] = {point[0] - solid.center[0], point[1] - solid.center[1], point[2] - solid.center[2]};
    if (solid.shape == PLANE) {
        for (int k = 0; k < 3; ++k) normal[k] = solid.axes[k];
        return arm[0] * normal[0] + arm[1] * normal[1] + arm[2] * normal[2];
    }
    T distance;
    if (solid.shape == BALL) {
        const T length = norm3(arm);
        for (int k = 0; k < 3; ++k) normal[k] = length > T(0) ? arm[k] / length : T(k == 2 ? 1 : 0);
        distance = length - solid.radius;
    } else {
        T own[3], direction[3];
        for (int k = 0; k < 3; ++k) own[k] = arm[0] * solid.axes[k] + arm[1] * solid.axes[3 + k] + arm[2] * solid.axes[6 + k];
        distance = solid.shape == BOX ? box_distance(own, solid.half_size, direction) : field_distance(own, solid.field, direction);
        for (int k = 0; k < 3; ++k)
            normal[k] = solid.axes[3 * k] * direction[0] + solid.axes[3 * k + 1] * direction[1] + solid.axes[3 * k + 2] * direction[2];
    }
    if (!solid.hollow) return distance;
    for (int k = 0; k < 3; ++k) normal[k] = -normal[k];
    return -distance;
}

// Direction of the shortest way out of a solid along a grid axis: twice the axis, plus 1 towards its negative end. Near ties go
// to the first, so that rounding does not decide.
template <typename T>
V3D_HD int way_out(const T normal[3]) {
    int axis = 0;
    for (int k = 1; k < 3; ++k)
        if (abs(normal[k]) > abs(normal[axis]) + T(1e-3)) axis = k;
    return 2 * axis + int(normal[axis] < T(0));
}

// The velocity after contact of material at a point of the surface; `friction` is its factor of the solid's friction.
template <typename T>
V3D_HD void meet(const Solid<T>& solid, T friction, const T point[3], const T normal[3], T v[3]) {
    const T arm[3] = {point[0] - solid.center[0], point[1] - solid.center[1], point[2] - solid.center[2]};
    const T* w = solid.spin;
    const T own[3] = {solid.velocity[0] + w[1] * arm[2] - w[2] * arm[1], solid.velocity[1] + w[2] * arm[0] - w[0] * arm[2],
                      solid.velocity[2] + w[0] * arm[1] - w[1] * arm[0]};
    T relative[3], along[3];
    for (int k = 0; k < 3; ++k) relative[k] = v[k] - own[k];
    const T inward = relative[0] * normal[0] + relative[1] * normal[1] + relative[2] * normal[2];
    if (solid.contact == SEPARATE && !(inward < T(0))) return;
    for (int k = 0; k < 3; ++k) along[k] = relative[k] - inward * normal[k];
    const T speed = norm3(along), pressed = inward < T(0) ? -inward : T(0);
    T kept = T(1) - friction * solid.friction * pressed / (speed > T(0) ? speed : T(1));
    kept = solid.contact == STICKY || !(kept > T(0)) ? T(0) : kept;
    for (int k = 0; k < 3; ++k) v[k] = kept * along[k] + own[k];
}

template <typename T>
V3D_HD void blow(const Wind<T>& wind, const T point[3], T v[3]) {
    for (int k = 0; k < 3; ++k)
        if (point[k] < wind.low[k] || point[k] > wind.high[k]) return;
    for (int k = 0; k < 3; ++k) v[k] += wind.share * (wind.velocity[k] - v[k]);
}

}  // namespace vision3d::mpm
