#pragma once
#include <cstring>
#include "cuda/kernels/block.h"
#include "vision3d/mpm_args.h"

// Particles, nodes, and the sums over all of them. Particles are sorted by their first node now and then, and those of a block with
// the same one add to the grid together.
namespace vision3d::bodies {

using mpm::Found;
using mpm::Step;

// Sums and maxima over all threads.
struct Totals {
    double work;
    uint64_t speed2, gradient2;  // bits of nonnegative doubles, which have the same order
    int32_t kept, bad;

    V3D_HD_MEMBER Found found() const {
        Found out{work, 0, 0, kept, bad == 0};
        memcpy(&out.speed2, &speed2, sizeof speed2);
        memcpy(&out.gradient2, &gradient2, sizeof gradient2);
        return out;
    }
};

#if defined(__CUDACC__)

using WarpTotals = Totals[MAX_THREADS / 32];

V3D_BODY void keep_most(uint64_t& target, uint64_t value) {
    if (value) atomicMax(reinterpret_cast<unsigned long long*>(&target), static_cast<unsigned long long>(value));
}

// Adds what the threads of a block found: one atomic of each kind for a block, and none for zero.
V3D_BODY void add_found(const Block& block, PerThread<Found>& found, Totals& totals) {
    using Bits = unsigned long long;
    constexpr unsigned ALL = 0xffffffffu;
    V3D_SHARED(WarpTotals, warps);
    Bits most[2] = {Bits(__double_as_longlong(found[0].speed2)), Bits(__double_as_longlong(found[0].gradient2))};
    for (Bits& mine : most)
        for (int step = 16; step > 0; step /= 2) {
            const Bits other = __shfl_xor_sync(ALL, mine, step);
            mine = mine < other ? other : mine;
        }
    double work = found[0].work;
    if (__any_sync(ALL, work != 0))
        for (int step = 16; step > 0; step /= 2) work += __shfl_xor_sync(ALL, work, step);
    const int32_t kept = __popc(__ballot_sync(ALL, found[0].kept != 0));  // one particle a thread
    const int32_t bad = __any_sync(ALL, !found[0].is_finite);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = {work, most[0], most[1], kept, bad};
    block.barrier();
    if (threadIdx.x != 0) return;
    Totals all{};
    _Pragma("unroll 1") for (int warp = 0; warp < block.threads / 32; ++warp) {
        const Totals& part = warps[warp];
        all.work += part.work;
        all.speed2 = all.speed2 < part.speed2 ? part.speed2 : all.speed2;
        all.gradient2 = all.gradient2 < part.gradient2 ? part.gradient2 : all.gradient2;
        all.kept += part.kept;
        all.bad += part.bad;
    }
    keep_most(totals.speed2, all.speed2);
    keep_most(totals.gradient2, all.gradient2);
    if (all.work != 0) atomicAdd(&totals.work, all.work);
    if (all.kept != 0) atomicAdd(&totals.kept, all.kept);
    if (all.bad != 0) atomicAdd(&totals.bad, all.bad);
}

// node += sum, in one instruction where the GPU has it.
template <typename T>
V3D_BODY void add_node(T* node, const T sum[4]) {
#if __CUDA_ARCH__ >= 900 && !defined(V3D_EMULATED)
    if constexpr (sizeof(T) == 4)
        asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(node)), "f"(sum[0]), "f"(sum[1]),
                     "f"(sum[2]), "f"(sum[3])
                     : "memory");
    else
#endif
        for (int a = 0; a < 4; ++a) add(node[a], sum[a], true);
}

#else

V3D_BODY void add_found(const Block& block, PerThread<Found>& found, Totals& totals) {
    Found all = totals.found();
    for (int t = 0; t < block.threads; ++t) all.add(found[t]);
    totals.work = all.work;
    memcpy(&totals.speed2, &all.speed2, sizeof all.speed2);
    memcpy(&totals.gradient2, &all.gradient2, sizeof all.gradient2);
    totals.kept = int32_t(all.kept);
    totals.bad = all.is_finite ? 0 : 1;
}

template <typename T>
V3D_BODY void add_node(T* node, const T sum[4]) {
    for (int a = 0; a < 4; ++a) node[a] += sum[a];
}

#endif

// body(i, found) for i < count, one thread each, and the sum of what they found.
template <typename Body>
V3D_BODY void each_found(const Block& block, int64_t count, Totals& totals, Body body) {
    PerThread<Found> found(block.threads);
    block.each([&](int t) {
        const int64_t i = block.index * block.threads + t;
        found[t] = Found();
        if (i < count) body(i, found[t]);
    });
    add_found(block, found, totals);
}

template <typename T>
V3D_BODY void find_extremes(const T v[3], const T C[9], Found& found) {
    T speed2(0), gradient2(0);
    for (int k = 0; k < 3; ++k) speed2 += v[k] * v[k];
    for (int k = 0; k < 9; ++k) gradient2 += C[k] * C[k];
    found.is_finite = (speed2 + gradient2) * T(0) == T(0);
    found.speed2 = found.is_finite ? double(speed2) : 0;
    found.gradient2 = found.is_finite ? double(gradient2) : 0;
}

// A node of the grid, for loads of 16 bytes.
template <typename T>
struct alignas(16) Node {
    T values[4];
};

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
V3D_BODY void extremes(const Block& block, const Step<T>& step, Totals& totals) {
    each_found(block, step.count, totals, [&](int64_t p, Found& found) {
        T v[3], C[9];
        load_row(step, mpm::V_ROW, 3, p, v);
        load_row(step, mpm::C_ROW, 9, p, C);
        find_extremes(v, C, found);
    });
}

// What a particle gives to the nodes around it: `first` is the first one, d = node - f in cells, momentum + affine d.
template <typename T>
struct alignas(16) StagedParticle {
    T affine[9], f[3], momentum[3], mass, w[3][3], lacking;
    int64_t first;
};

constexpr int P2G_THREADS = 128;

template <typename T>
struct StagedParticles {
    StagedParticle<T> particles[P2G_THREADS];
    int32_t count, groups[P2G_THREADS];  // first particle of each group, in any order
    uint32_t members[P2G_THREADS];       // of the group of a first particle: lanes of its warp
};

// The deformation and the stress of a particle.
template <typename T>
V3D_BODY void load_particle(const Step<T>& step, int64_t p, StagedParticle<T>& out) {
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

    out.first = particle_nodes(step, x, out.f, out.w);
    out.mass = mass;
    out.lacking = step.lacking ? mass * (T(1) - material.friction) : T(0);
    const T impulse = -step.dt * T(4) / step.spacing * volume;
    for (int k = 0; k < 9; ++k) out.affine[k] = impulse * tau[k] + mass * step.spacing * C[k] / step.dt;
    for (int k = 0; k < 3; ++k) out.momentum[k] = mass * v[k];
}

// A warp takes a group of particles with the same nodes, one node a thread, and adds its sum: with m particles a group, an m-th of
// the atomics of one thread a particle. Groups are in a warp of the threads that load the particles.
template <typename T>
V3D_BODY void particles_to_grid(const Block& block, const Step<T>& step, StagedParticles<T>& staged) {
    const int64_t begin = block.index * block.threads;
    const int used = int(step.count - begin < block.threads ? step.count - begin : block.threads);
    const StagedParticle<T>* const all = staged.particles;
    block.each([&](int t) {
        if (t == 0) staged.count = 0;
        if (t < used) load_particle(step, begin + t, staged.particles[t]);
    });
    PerThread<int64_t> keys(block.threads);
    PerThread<uint32_t> members(block.threads);
    block.each([&](int t) { keys[t] = t < used ? all[t].first : -1; });
    block.match(keys, members);
    block.barrier();
    block.each([&](int t) {
        if (t >= used || (members[t] & ((1u << t % 32) - 1))) return;
        const int32_t place = next_place(staged.count);
        staged.groups[place] = t;
        staged.members[place] = members[t];
    });
    block.barrier();
    block.each([&](int t) {
        const int lane = t % 32, i = lane / 9, j = lane / 3 % 3, k = lane % 3;
        if (lane >= 27) return;
        for (int group = t / 32; group < staged.count; group += block.threads / 32) {
            const int leader = staged.groups[group];
            const int64_t at = all[leader].first + mpm::node_index(step, i, j, k);
            T sum[4] = {T(0), T(0), T(0), T(0)}, lacking(0);
            for (uint32_t left = staged.members[group]; left; left &= left - 1) {
                const StagedParticle<T>& s = all[leader / 32 * 32 + lowest_bit(left)];
                const T weight = s.w[0][i] * s.w[1][j] * s.w[2][k], d[3] = {T(i) - s.f[0], T(j) - s.f[1], T(k) - s.f[2]};
                sum[0] += weight * s.mass;
                for (int a = 0; a < 3; ++a)
                    sum[1 + a] += weight *
                                  (s.momentum[a] + s.affine[3 * a] * d[0] + s.affine[3 * a + 1] * d[1] + s.affine[3 * a + 2] * d[2]);
                lacking += weight * s.lacking;
            }
            add_node(step.grid + 4 * at, sum);
            if (lacking != T(0)) add(step.lacking[at], lacking, true);
        }
    });
}

// The sort key of a particle.
template <typename T>
V3D_BODY uint32_t first_node(const Step<T>& step, int64_t p) {
    T x[3], f[3], w[3][3];
    load_row(step, mpm::X_ROW, 3, p, x);
    return uint32_t(particle_nodes(step, x, f, w));
}

// visit(i, j, k) -> work for the nodes with mass, one thread each.
template <typename T, typename Visit>
V3D_BODY void each_node(const Block& block, const Step<T>& step, Totals& totals, Visit visit) {
    each_found(block, step.size[0] * step.size[1] * step.line, totals, [&](int64_t n, Found& found) {
        if (!(step.grid[4 * n] > T(0))) return;
        const int64_t row = n / step.line, i = row / step.size[1];
        found.work = double(visit(i, row - i * step.size[1], n - row * step.line));
    });
}

template <typename T>
V3D_BODY void grid_nodes(const Block& block, const Step<T>& step, Totals& totals) {
    each_node(block, step, totals, [&](int64_t i, int64_t j, int64_t k) {
        return mpm::step_node(step, i, j, k, step.grid + 4 * mpm::node_index(step, i, j, k));
    });
}

template <typename T>
V3D_BODY void contact_nodes(const Block& block, const Step<T>& step, int solid, int way, Totals& totals) {
    each_node(block, step, totals, [&](int64_t i, int64_t j, int64_t k) { return mpm::meet_node(step, step.solids[solid], way, i, j, k); });
}

template <typename T>
V3D_BODY void side_nodes(const Block& block, const Step<T>& step, Totals& totals) {
    each_node(block, step, totals, [&](int64_t i, int64_t j, int64_t k) { return mpm::side_node(step, i, j, k); });
}

template <typename T>
V3D_BODY void grid_to_particle(const Step<T>& step, int64_t p, Found& found) {
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
                    const Node<T> node = reinterpret_cast<const Node<T>*>(step.grid)[first + mpm::node_index(step, i, j, k)];
                    for (int a = 0; a < 3; ++a) {
                        v[a] += weight * node.values[1 + a];
                        for (int b = 0; b < 3; ++b) C[3 * a + b] += T(4) / step.spacing * weight * node.values[1 + a] * d[b];
                    }
                }
    for (int a = 0; a < 3; ++a) free[a] = x[a] + step.dt * v[a] + step.skipped / 2 * (before[a] - v[a]);
    if (step.num_leads && step.motion[p] >= 0 && step.motion[p] < step.num_leads && step.leads[step.motion[p]].is_on) {
        found.work = double(mpm::lead(step, step.leads[step.motion[p]], x, v, C, free, mass));
    }
    find_extremes(v, C, found);
    bool is_off = false;
    for (int a = 0; a < 3; ++a) {
        const T inside = min(max(free[a], step.low[a]), step.high[a]);
        is_off = is_off || inside != free[a];
        free[a] = inside;
    }
    found.kept = is_off;
    store_row(step, mpm::X_ROW, 3, p, free);
    store_row(step, mpm::V_ROW, 3, p, v);
    store_row(step, mpm::C_ROW, 9, p, C);
}

template <typename T>
V3D_BODY void grid_to_particles(const Block& block, const Step<T>& step, Totals& totals) {
    each_found(block, step.count, totals, [&](int64_t p, Found& found) { grid_to_particle(step, p, found); });
}

// Moves and deforms tracers with the grid.
template <typename T>
V3D_BODY void trace_particles(const Block& block, const Step<T>& step, Totals& totals) {
    each_found(block, step.count, totals, [&](int64_t p, Found& found) {
        T C[9], before[9], total[9];
        grid_to_particle(step, p, found);
        load_row(step, mpm::C_ROW, 9, p, C);
        load_row(step, mpm::TOTAL_ROW, 9, p, before);
        for (int k = 0; k < 9; ++k) C[k] = C[k] * step.dt;
        mpm::product(C, before, total);
        for (int k = 0; k < 9; ++k) total[k] += before[k];
        mpm::bound_deformation(total);
        store_row(step, mpm::TOTAL_ROW, 9, p, total);
    });
}

// Elastic energy of the particles in the middle of the last step of length dt, as totals.work.
template <typename T>
V3D_BODY void elastic_energy(const Block& block, const Step<T>& step, Totals& totals) {
    each_found(block, step.count, totals, [&](int64_t p, Found& found) {
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
            found.work = double(T(0.5) * volume * energy);
        });
    });
}

}  // namespace vision3d::bodies
