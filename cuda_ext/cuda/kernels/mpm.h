#pragma once
#include "cuda/kernels/block.h"
#include "vision3d/mpm_args.h"

// Work of one GPU thread: one particle, or one node. Particles are unordered and add to the grid with atomics.
namespace vision3d::bodies {

using mpm::Step;

// Sums and maxima over all threads.
struct Totals {
    double work;
    uint64_t speed2, gradient2;  // bits of nonnegative doubles, which have the same order
    int32_t kept, bad;
};

#if defined(__CUDACC__)
V3D_BODY void keep_most(uint64_t& target, double value) {
    atomicMax(reinterpret_cast<unsigned long long*>(&target), static_cast<unsigned long long>(__double_as_longlong(value)));
}
V3D_BODY void count_one(int32_t& target) { atomicAdd(&target, 1); }
#else
V3D_BODY void keep_most(uint64_t& target, double value) {
    double before;
    __builtin_memcpy(&before, &target, sizeof before);
    if (before < value) __builtin_memcpy(&target, &value, sizeof value);
}
V3D_BODY void count_one(int32_t& target) { ++target; }
#endif

// The first of the nodes around a particle, and their weights.
template <typename T>
V3D_BODY int64_t particle_nodes(const Step<T>& step, const T x[3], T f[3], T w[3][3]) {
    int64_t base[3];
    for (int a = 0; a < 3; ++a) {
        const T scaled = x[a] / step.spacing;
        base[a] = int64_t(scaled - T(0.5));
        f[a] = scaled - T(base[a]);
        mpm::spline_weights(f[a], w[a]);
    }
    return mpm::node_index(step, base[0], base[1], base[2]);
}

template <typename T>
V3D_BODY void load_row(const Step<T>& step, int row, int count, int64_t p, T* out) {
    for (int k = 0; k < count; ++k) out[k] = step.rows[(row + k) * step.stride + p];
}

template <typename T>
V3D_BODY void store_row(const Step<T>& step, int row, int count, int64_t p, const T* values) {
    for (int k = 0; k < count; ++k) step.rows[(row + k) * step.stride + p] = values[k];
}

template <typename T>
V3D_BODY void particle_to_grid(const Step<T>& step, int64_t p) {
    T x[3], v[3], C[9], before[9], F[9], total[9], tau[9], memory, mass, volume;
    load_row(step, mpm::X_ROW, 3, p, x);
    load_row(step, mpm::V_ROW, 3, p, v);
    load_row(step, mpm::C_ROW, 9, p, C);
    load_row(step, mpm::F_ROW, 9, p, before);
    for (int k = 0; k < 9; ++k) C[k] = C[k] * step.dt;
    mpm::product(C, before, F);
    for (int k = 0; k < 9; ++k) F[k] += before[k];
    load_row(step, mpm::TOTAL_ROW, 9, p, before);
    mpm::product(C, before, total);
    for (int k = 0; k < 9; ++k) total[k] += before[k];
    mpm::bound_deformation(total);
    load_row(step, mpm::MEMORY_ROW, 1, p, &memory);
    load_row(step, mpm::MASS_ROW, 1, p, &mass);
    load_row(step, mpm::VOLUME_ROW, 1, p, &volume);
    const mpm::Material<T>& material = step.materials[step.body[p]];
    mpm::with_law(material.law, [&](auto tag) { mpm::flow_and_stress<decltype(tag)::value>(material, F, memory, step.dt, tau); });
    store_row(step, mpm::F_ROW, 9, p, F);
    store_row(step, mpm::TOTAL_ROW, 9, p, total);
    store_row(step, mpm::MEMORY_ROW, 1, p, &memory);

    T f[3], w[3][3], affine[9];
    const int64_t first = particle_nodes(step, x, f, w);
    const T lacking = step.lacking ? mass * (T(1) - material.friction) : T(0);
    const T impulse = -step.dt * T(4) / step.spacing * volume;
    for (int k = 0; k < 9; ++k) affine[k] = impulse * tau[k] + mass * step.spacing * C[k] / step.dt;
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            for (int k = 0; k < 3; ++k) {
                const T weight = w[0][i] * w[1][j] * w[2][k], d[3] = {T(i) - f[0], T(j) - f[1], T(k) - f[2]};
                T* node = step.grid + 4 * (first + mpm::node_index(step, i, j, k));
                add(node[0], weight * mass, true);
                if (lacking != T(0)) add(step.lacking[first + mpm::node_index(step, i, j, k)], weight * lacking, true);
                for (int a = 0; a < 3; ++a)
                    add(node[1 + a], weight * (mass * v[a] + affine[3 * a] * d[0] + affine[3 * a + 1] * d[1] + affine[3 * a + 2] * d[2]),
                        true);
            }
}

template <typename T>
V3D_BODY void node_of(const Step<T>& step, int64_t n, int64_t at[3]) {
    at[0] = n / (step.size[1] * step.size[2]);
    at[1] = n / step.size[2] % step.size[1];
    at[2] = n % step.size[2];
}

template <typename T>
V3D_BODY void grid_node(const Step<T>& step, int64_t n, Totals& totals) {
    int64_t at[3];
    node_of(step, n, at);
    const T work = mpm::step_node(step, at[0], at[1], at[2], step.grid + 4 * mpm::node_index(step, at[0], at[1], at[2]));
    if (work != T(0)) add(totals.work, double(work), true);
}

template <typename T>
V3D_BODY void contact_node(const Step<T>& step, int64_t n, int solid, int way, Totals& totals) {
    int64_t at[3];
    node_of(step, n, at);
    const T work = mpm::meet_node(step, step.solids[solid], way, at[0], at[1], at[2]);
    if (work != T(0)) add(totals.work, double(work), true);
}

template <typename T>
V3D_BODY void side_node(const Step<T>& step, int64_t n, Totals& totals) {
    int64_t at[3];
    node_of(step, n, at);
    const T work = mpm::side_node(step, at[0], at[1], at[2]);
    if (work != T(0)) add(totals.work, double(work), true);
}

template <typename T>
V3D_BODY void grid_to_particle(const Step<T>& step, int64_t p, Totals& totals) {
    T x[3], before[3], ahead[3], f[3], w[3][3], v[3] = {T(0), T(0), T(0)}, C[9], free[3], mass;
    load_row(step, mpm::X_ROW, 3, p, x);
    load_row(step, mpm::V_ROW, 3, p, before);
    load_row(step, mpm::MASS_ROW, 1, p, &mass);
    for (int a = 0; a < 3; ++a) ahead[a] = min(max(x[a] + step.skipped * before[a], step.low[a]), step.high[a]);
    for (int k = 0; k < 9; ++k) C[k] = T(0);
    const int64_t first = particle_nodes(step, ahead, f, w);
    if (step.materials[step.body[p]].law != mpm::STATIONARY)
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j)
                for (int k = 0; k < 3; ++k) {
                    const T weight = w[0][i] * w[1][j] * w[2][k], d[3] = {T(i) - f[0], T(j) - f[1], T(k) - f[2]};
                    const T* node = step.grid + 4 * (first + mpm::node_index(step, i, j, k));
                    for (int a = 0; a < 3; ++a) {
                        v[a] += weight * node[1 + a];
                        for (int b = 0; b < 3; ++b) C[3 * a + b] += T(4) / step.spacing * weight * node[1 + a] * d[b];
                    }
                }
    for (int a = 0; a < 3; ++a) free[a] = x[a] + step.dt * v[a] + step.skipped / 2 * (before[a] - v[a]);
    if (step.num_leads && step.motion[p] >= 0 && step.motion[p] < step.num_leads && step.leads[step.motion[p]].is_on) {
        const T work = mpm::lead(step, step.leads[step.motion[p]], x, v, C, free, mass);
        add(totals.work, double(work), true);
    }
    double speed2 = 0, gradient2 = 0;
    for (int a = 0; a < 3; ++a) speed2 += double(v[a]) * double(v[a]);
    for (int k = 0; k < 9; ++k) gradient2 += double(C[k]) * double(C[k]);
    if (speed2 + gradient2 < 1e300) {
        keep_most(totals.speed2, speed2);
        keep_most(totals.gradient2, gradient2);
    } else {
        count_one(totals.bad);
    }
    bool is_off = false;
    for (int a = 0; a < 3; ++a) {
        const T inside = min(max(free[a], step.low[a]), step.high[a]);
        is_off = is_off || inside != free[a];
        free[a] = inside;
    }
    if (is_off) count_one(totals.kept);
    store_row(step, mpm::X_ROW, 3, p, free);
    store_row(step, mpm::V_ROW, 3, p, v);
    store_row(step, mpm::C_ROW, 9, p, C);
}

// Moves and deforms a tracer with the grid.
template <typename T>
V3D_BODY void trace_particle(const Step<T>& step, int64_t p, Totals& totals) {
    T C[9], before[9], total[9];
    grid_to_particle(step, p, totals);
    load_row(step, mpm::C_ROW, 9, p, C);
    load_row(step, mpm::TOTAL_ROW, 9, p, before);
    for (int k = 0; k < 9; ++k) C[k] = C[k] * step.dt;
    mpm::product(C, before, total);
    for (int k = 0; k < 9; ++k) total[k] += before[k];
    mpm::bound_deformation(total);
    store_row(step, mpm::TOTAL_ROW, 9, p, total);
}

// Elastic energy of one particle in the middle of the last step of length dt.
template <typename T>
V3D_BODY void particle_energy(const Step<T>& step, int64_t p, double& sum) {
    T C[9], now[9], next[9], tau[9], memory, volume;
    load_row(step, mpm::C_ROW, 9, p, C);
    load_row(step, mpm::F_ROW, 9, p, now);
    load_row(step, mpm::MEMORY_ROW, 1, p, &memory);
    load_row(step, mpm::VOLUME_ROW, 1, p, &volume);
    const mpm::Material<T>& material = step.materials[step.body[p]];
    mpm::with_law(material.law, [&](auto tag) {
        constexpr int LAW = decltype(tag)::value;
        T energy = mpm::energy_density<LAW>(material, now, memory);
        for (int k = 0; k < 9; ++k) C[k] = C[k] * step.dt;
        mpm::product(C, now, next);
        for (int k = 0; k < 9; ++k) next[k] += now[k];
        mpm::flow_and_stress<LAW>(material, next, memory, step.dt, tau);
        energy += mpm::energy_density<LAW>(material, next, memory);
        add(sum, double(T(0.5) * volume * energy), true);
    });
}

}  // namespace vision3d::bodies
