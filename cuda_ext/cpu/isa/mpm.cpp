// The transfers of the material point method, LANES particles at a time. Compiled once per instruction set.
//
// Particles are sorted by cell, so that most share their 27 nodes with the previous one: sums over the particles of a cell stay
// in registers and are added to the grid when the cell changes. A row of nodes along z is one line of 16 numbers: three nodes of
// mass and momentum (or velocity), and an unused fourth.
#include "cpu/dispatch.h"
#include "cpu/isa/quads.h"
#include "vision3d/mpm_args.h"

namespace vision3d::V3D_ISA {
namespace {

using namespace mpm;
using simd::F;
using simd::M;
using simd::Quads;
constexpr int LANES = simd::LANES;

// Per particle: mass and momentum at its first node, their changes along x, y and z, and the weights along z, x and y.
constexpr int RECORD = 32, AT_X = 4, AT_Y = 8, AT_Z = 12, WEIGHTS_Z = 16, WEIGHTS_X = 20, WEIGHTS_Y = 24;

alignas(64) constexpr float STEPS[16] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0};

struct Places {
    F weights[3][3], f[3];
};

// Positions of particles: their first nodes, and weights along each axis.
V3D_INLINE Places places_of(const Step<float>& step, const F x[3], int32_t* nodes) {
    Places out;
    const F inverse(1.f / step.spacing);
    alignas(64) int32_t bases[3][LANES];
    for (int a = 0; a < 3; ++a) {
        const F scaled = x[a] * inverse, base = simd::floor(scaled - F(0.5f));
        out.f[a] = scaled - base;
        spline_weights(out.f[a], out.weights[a]);
        simd::store_ints(bases[a], base);
    }
    for (int lane = 0; lane < LANES; ++lane) nodes[lane] = int32_t(node_index(step, bases[0][lane], bases[1][lane], bases[2][lane]));
    return out;
}

V3D_INLINE void load_columns(const float* rows, int64_t stride, int64_t i, int count, F* out) {
    for (int k = 0; k < count; ++k) out[k] = simd::load(rows + k * stride + i);
}

// Stores the first `used` lanes.
V3D_INLINE void store_columns(float* rows, int64_t stride, int64_t i, int used, int count, const F* values) {
    for (int k = 0; k < count; ++k) {
        float* p = rows + k * stride + i;
        if (used == LANES) {
            simd::store(p, values[k]);
        } else {
            alignas(64) float all[LANES];
            simd::store(all, values[k]);
            for (int lane = 0; lane < used; ++lane) p[lane] = all[lane];
        }
    }
}

V3D_INLINE void clear(Quads all[9]) {
    for (int n = 0; n < 9; ++n)
        for (int k = 0; k < simd::PARTS; ++k) all[n].part[k] = F(0.f);
}

// Adds the sums gathered for one cell to its nodes.
V3D_INLINE void flush(const Step<float>& step, int32_t node, const Quads sums[9]) {
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) {
            float* p = step.grid + 4 * (node + node_index(step, i, j, 0));
            simd::store_quads(p, simd::load_quads(p) + sums[3 * i + j]);
        }
}

V3D_INLINE void spread(const float* record, Quads sums[9], const Quads& steps) {
    const Quads w = simd::spread_quad(record + WEIGHTS_Z);
    const Quads start = w * fma(steps, simd::repeat_quad(record + AT_Z), simd::repeat_quad(record));
    const Quads along_x = w * simd::repeat_quad(record + AT_X), along_y = w * simd::repeat_quad(record + AT_Y);
    for (int i = 0; i < 3; ++i) {
        const F wx(record[WEIGHTS_X + i]);
        Quads row = wx * (i == 0 ? start : fma(F(float(i)), along_x, start));
        const Quads more = wx * along_y;
        for (int j = 0; j < 3; ++j) {
            sums[3 * i + j] = fma(F(record[WEIGHTS_Y + j]), row, sums[3 * i + j]);
            row = row + more;
        }
    }
}

template <int LAW>
void particles_to_grid(const Step<float>& step, const Material<float>& material, int64_t begin, int64_t end) {
    const simd::FlushToZero flushing;
    float* const rows = step.rows;
    const int64_t stride = step.stride;
    const F dt(step.dt), h(step.spacing), impulse(-step.dt * 4 / step.spacing);  // times h
    const Quads steps = simd::load_quads(STEPS);
    Quads sums[9];
    clear(sums);
    int32_t current = -1;
    for (int64_t p = begin; p < end; p += LANES) {
        const int used = end - p < LANES ? int(end - p) : LANES;
        F x[3], v[3], C[9], A[9], trial[9], total[9], tau[9], out[RECORD];
        load_columns(rows + X_ROW * stride, stride, p, 3, x);
        load_columns(rows + V_ROW * stride, stride, p, 3, v);
        load_columns(rows + C_ROW * stride, stride, p, 9, C);
        load_columns(rows + F_ROW * stride, stride, p, 9, A);
        for (int k = 0; k < 9; ++k) C[k] = C[k] * dt;
        product(C, A, trial);
        for (int k = 0; k < 9; ++k) trial[k] = trial[k] + A[k];
        load_columns(rows + TOTAL_ROW * stride, stride, p, 9, A);
        product(C, A, total);
        for (int k = 0; k < 9; ++k) total[k] = total[k] + A[k];
        bound_deformation(total);
        F memory = simd::load(rows + MEMORY_ROW * stride + p);
        flow_and_stress<LAW>(material, trial, memory, step.dt, tau);
        store_columns(rows + F_ROW * stride, stride, p, used, 9, trial);
        store_columns(rows + TOTAL_ROW * stride, stride, p, used, 9, total);
        store_columns(rows + MEMORY_ROW * stride, stride, p, used, 1, &memory);

        int32_t nodes[LANES];
        const Places at = places_of(step, x, nodes);
        const F mass = simd::load(rows + MASS_ROW * stride + p), volume = simd::load(rows + VOLUME_ROW * stride + p) * impulse;
        const F inverse_dt = mass * h / dt;  // C is still multiplied by dt
        out[0] = mass;
        out[AT_X] = out[AT_Y] = out[AT_Z] = F(0.f);
        for (int a = 0; a < 3; ++a) {
            F along[3];
            for (int b = 0; b < 3; ++b) along[b] = fma(volume, tau[3 * a + b], inverse_dt * C[3 * a + b]);
            out[1 + a] = fma(mass, v[a], -fma(along[0], at.f[0], fma(along[1], at.f[1], along[2] * at.f[2])));
            out[AT_X + 1 + a] = along[0];
            out[AT_Y + 1 + a] = along[1];
            out[AT_Z + 1 + a] = along[2];
        }
        for (int k = 0; k < 3; ++k) {
            out[WEIGHTS_X + k] = at.weights[0][k];
            out[WEIGHTS_Y + k] = at.weights[1][k];
            out[WEIGHTS_Z + k] = at.weights[2][k];
        }
        out[WEIGHTS_X + 3] = out[WEIGHTS_Y + 3] = out[WEIGHTS_Z + 3] = F(0.f);
        for (int k = WEIGHTS_Y + 4; k < RECORD; ++k) out[k] = F(0.f);
        alignas(64) float records[LANES * RECORD];
        simd::to_records<RECORD>(out, records);
        for (int lane = 0; lane < used; ++lane) {
            if (nodes[lane] != current) {
                if (current >= 0) flush(step, current, sums);
                current = nodes[lane];
                clear(sums);
            }
            spread(records + lane * RECORD, sums, steps);
        }
    }
    if (current >= 0) flush(step, current, sums);
}

// Adds mass times `lacking` to the nodes.
void friction_to_grid(const Step<float>& step, float lacking, int64_t begin, int64_t end) {
    const float* const x = step.rows + X_ROW * step.stride;
    const float* const mass = step.rows + MASS_ROW * step.stride;
    const float inverse = 1.f / step.spacing;
    float sums[9][4];
    int64_t current = -1;
    const auto put = [&] {
        for (int n = 0; n < 9; ++n)
            for (int k = 0; k < 3; ++k) step.lacking[current + node_index(step, n / 3, n % 3, k)] += sums[n][k];
    };
    for (int64_t p = begin; p < end; ++p) {
        int64_t base[3];
        float w[3][4] = {};
        for (int a = 0; a < 3; ++a) {
            const float scaled = x[a * step.stride + p] * inverse;
            base[a] = int64_t(scaled - 0.5f);
            spline_weights(scaled - float(base[a]), w[a]);
        }
        const int64_t node = node_index(step, base[0], base[1], base[2]);
        if (node != current) {
            if (current >= 0) put();
            current = node;
            for (auto& row : sums)
                for (float& value : row) value = 0;
        }
        const float part = lacking * mass[p];
        for (int n = 0; n < 9; ++n) {
            const float along = part * w[0][n / 3] * w[1][n % 3];
            for (int k = 0; k < 4; ++k) sums[n][k] += along * w[2][k];
        }
    }
    if (current >= 0) put();
}

// The total deformation after dt of the velocity gradients.
void deform(const Step<float>& step, int64_t begin, int64_t end) {
    const simd::FlushToZero flushing;
    float* const rows = step.rows;
    const int64_t stride = step.stride;
    for (int64_t p = begin; p < end; p += LANES) {
        F C[9], before[9], total[9];
        load_columns(rows + C_ROW * stride, stride, p, 9, C);
        load_columns(rows + TOTAL_ROW * stride, stride, p, 9, before);
        for (int k = 0; k < 9; ++k) C[k] = C[k] * F(step.dt);
        product(C, before, total);
        for (int k = 0; k < 9; ++k) total[k] = total[k] + before[k];
        bound_deformation(total);
        store_columns(rows + TOTAL_ROW * stride, stride, p, end - p < LANES ? int(end - p) : LANES, 9, total);
    }
}

// Velocity and its first moments along x, y and z from the nodes: four quads.
V3D_INLINE Quads gather(const Quads nodes[9], const float wx[3], const float wy[3], const Quads& wz, const Quads& steps_wz) {
    Quads all, along_x, along_y;
    for (int i = 0; i < 3; ++i) {
        const Quads middle = F(wy[1]) * nodes[3 * i + 1], last = F(wy[2]) * nodes[3 * i + 2];
        const Quads sum = fma(F(wy[0]), nodes[3 * i], middle + last), moment = fma(F(2.f), last, middle);
        all = i == 0 ? F(wx[0]) * sum : fma(F(wx[i]), sum, all);
        along_y = i == 0 ? F(wx[0]) * moment : fma(F(wx[i]), moment, along_y);
        if (i == 1) along_x = F(wx[1]) * sum;
        if (i == 2) along_x = fma(F(2 * wx[2]), sum, along_x);
    }
    return simd::sum_quads(wz * all, wz * along_x, wz * along_y, steps_wz * all);
}

void grid_to_particles(const Step<float>& step, bool rests, int64_t begin, int64_t end, Found& found) {
    const simd::FlushToZero flushing;
    float* const rows = step.rows;
    const int64_t stride = step.stride;
    const F dt(step.dt), scale(4 / step.spacing), skipped(step.skipped), half_skipped(step.skipped / 2);
    const Quads steps = simd::load_quads(STEPS);
    Quads nodes[9];
    clear(nodes);
    int32_t current = -1;
    F speed2(0.f), gradient2(0.f);
    for (int64_t p = begin; p < end; p += LANES) {
        const int used = end - p < LANES ? int(end - p) : LANES;
        F x[3], v[3], C[9], moved[3], columns[16];
        load_columns(rows + X_ROW * stride, stride, p, 3, x);
        F before[3] = {F(0.f), F(0.f), F(0.f)}, ahead[3] = {x[0], x[1], x[2]};
        if (step.skipped > 0) {
            load_columns(rows + V_ROW * stride, stride, p, 3, before);
            for (int a = 0; a < 3; ++a) ahead[a] = min(max(fma(skipped, before[a], x[a]), F(step.low[a])), F(step.high[a]));
        }
        int32_t first[LANES];
        const Places at = places_of(step, ahead, first);
        F weights[16];
        for (int a = 0; a < 3; ++a) {
            for (int k = 0; k < 3; ++k) weights[4 * a + k] = at.weights[a][k];
            weights[4 * a + 3] = F(0.f);
        }
        for (int k = 12; k < 16; ++k) weights[k] = F(0.f);
        alignas(64) float records[LANES * 16];
        simd::to_records<16>(weights, records);
        for (int lane = 0; lane < used; ++lane) {
            if (first[lane] != current) {
                current = first[lane];
                for (int i = 0; i < 3; ++i)
                    for (int j = 0; j < 3; ++j) nodes[3 * i + j] = simd::load_quads(step.grid + 4 * (current + node_index(step, i, j, 0)));
            }
            float* record = records + lane * 16;
            const Quads wz = simd::spread_quad(record + 8);
            simd::store_quads(record, gather(nodes, record, record + 4, wz, steps * wz));
        }
        simd::from_records<16>(records, columns);
        F v2(0.f), c2(0.f);
        for (int a = 0; a < 3; ++a) v[a] = rests ? F(0.f) : columns[1 + a];
        for (int a = 0; a < 3; ++a)
            for (int b = 0; b < 3; ++b) C[3 * a + b] = rests ? F(0.f) : scale * fnma(at.f[b], v[a], columns[5 + 4 * b + a]);
        for (int a = 0; a < 3; ++a) moved[a] = fma(half_skipped, before[a] - v[a], fma(dt, v[a], x[a]));
        if (step.num_leads)
            for (int lane = 0; lane < used; ++lane) {
                const int32_t which = step.motion[p + lane];
                if (which < 0 || which >= step.num_leads || !step.leads[which].is_on) continue;
                float at_x[3], its_v[3], its_C[9], its_place[3];
                alignas(64) float all[18][LANES];
                for (int k = 0; k < 3; ++k) {
                    simd::store(all[k], x[k]);
                    simd::store(all[3 + k], v[k]);
                    simd::store(all[6 + k], moved[k]);
                }
                for (int k = 0; k < 9; ++k) simd::store(all[9 + k], C[k]);
                for (int k = 0; k < 3; ++k) {
                    at_x[k] = all[k][lane];
                    its_v[k] = all[3 + k][lane];
                }
                for (int k = 0; k < 9; ++k) its_C[k] = all[9 + k][lane];
                found.work += lead(step, step.leads[which], at_x, its_v, its_C, its_place, rows[MASS_ROW * stride + p + lane]);
                for (int k = 0; k < 3; ++k) {
                    all[3 + k][lane] = its_v[k];
                    all[6 + k][lane] = its_place[k];
                    v[k] = simd::load(all[3 + k]);
                    moved[k] = simd::load(all[6 + k]);
                }
                for (int k = 0; k < 9; ++k) {
                    all[9 + k][lane] = its_C[k];
                    C[k] = simd::load(all[9 + k]);
                }
            }
        for (int a = 0; a < 3; ++a) v2 = fma(v[a], v[a], v2);
        for (int k = 0; k < 9; ++k) c2 = fma(C[k], C[k], c2);
        const uint32_t lanes = used == LANES ? ~uint32_t(0) >> (32 - LANES) : (uint32_t(1) << used) - 1;
        const M is_finite = (v2 < F(3e38f)) & (c2 < F(3e38f));
        if ((simd::bits(is_finite) & lanes) != lanes) found.is_finite = false;
        if (used == LANES) {
            speed2 = max(speed2, v2);
            gradient2 = max(gradient2, c2);
        } else {
            alignas(64) float all[2][LANES];
            simd::store(all[0], v2);
            simd::store(all[1], c2);
            for (int lane = 0; lane < used; ++lane) {
                speed2 = max(speed2, F(all[0][lane]));
                gradient2 = max(gradient2, F(all[1][lane]));
            }
        }
        F off(0.f);
        for (int a = 0; a < 3; ++a) {
            const F inside = min(max(moved[a], F(step.low[a])), F(step.high[a]));
            off = max(off, abs(inside - moved[a]));
            moved[a] = inside;
        }
        if (const uint32_t kept = simd::bits(F(0.f) < off) & lanes) found.kept += __builtin_popcount(kept);
        store_columns(rows + X_ROW * stride, stride, p, used, 3, moved);
        store_columns(rows + V_ROW * stride, stride, p, used, 3, v);
        store_columns(rows + C_ROW * stride, stride, p, used, 9, C);
    }
    alignas(64) float all[2][LANES];
    simd::store(all[0], speed2);
    simd::store(all[1], gradient2);
    for (int lane = 0; lane < LANES; ++lane) {
        if (all[0][lane] > found.speed2) found.speed2 = all[0][lane];
        if (all[1][lane] > found.gradient2) found.gradient2 = all[1][lane];
    }
}

// Elastic energy now, and after another `ahead` seconds of deformation.
template <int LAW>
double elastic_energy(const Step<float>& step, const Material<float>& material, int64_t begin, int64_t end, float ahead) {
    float* const rows = step.rows;
    const int64_t stride = step.stride;
    double sum = 0;
    for (int64_t p = begin; p < end; p += LANES) {
        const int used = end - p < LANES ? int(end - p) : LANES;
        F C[9], now[9], next[9], tau[9];
        load_columns(rows + C_ROW * stride, stride, p, 9, C);
        load_columns(rows + F_ROW * stride, stride, p, 9, now);
        F memory = simd::load(rows + MEMORY_ROW * stride + p);
        F energy = energy_density<LAW>(material, now, memory);
        for (int k = 0; k < 9; ++k) C[k] = C[k] * F(ahead);
        product(C, now, next);
        for (int k = 0; k < 9; ++k) next[k] = next[k] + now[k];
        flow_and_stress<LAW>(material, next, memory, ahead, tau);
        energy = F(0.5f) * (energy + energy_density<LAW>(material, next, memory)) * simd::load(rows + VOLUME_ROW * stride + p);
        alignas(64) float all[LANES];
        simd::store(all, energy);
        for (int lane = 0; lane < used; ++lane) sum += all[lane];
    }
    return sum;
}

}  // namespace

const mpm::Loops& mpm_table() {
    static const mpm::Loops loops = [] {
        mpm::Loops out{};
        for (int law = 0; law < mpm::LAWS; ++law)
            mpm::with_law(law, [&](auto tag) {
                out.particles_to_grid[law] = particles_to_grid<decltype(tag)::value>;
                out.elastic_energy[law] = elastic_energy<decltype(tag)::value>;
            });
        out.friction_to_grid = friction_to_grid;
        out.deform = deform;
        out.grid_to_particles = grid_to_particles;
        return out;
    }();
    return loops;
}

}  // namespace vision3d::V3D_ISA
