#pragma once
#include "cpu/isa/scan_rows.h"

namespace vision3d::V3D_ISA {
namespace {

// Rows n0 .. n0 + N of the transposed rates of LANES channels, times log2(e).
template <int N>
V3D_INLINE void load_columns(const float* rows, int64_t stride, int64_t n0, int lanes, float factor, F* out) {
    alignas(64) float columns[N][LANES];
    std::memset(columns, 0, sizeof columns);
    for (int lane = 0; lane < lanes; ++lane)
        for (int n = 0; n < N; ++n) columns[n][lane] = factor * rows[lane * stride + n0 + n];
    for (int n = 0; n < N; ++n) out[n] = simd::load(columns[n]);
}

template <int N>
V3D_INLINE void store_columns(float* rows, int64_t stride, int64_t n0, int lanes, const F* in) {
    alignas(64) float columns[N][LANES];
    for (int n = 0; n < N; ++n) simd::store(columns[n], in[n]);
    for (int lane = 0; lane < lanes; ++lane)
        for (int n = 0; n < N; ++n) rows[lane * stride + n0 + n] = columns[n][lane];
}

template <int N>
void selective_rows(const SelectiveArgs<float>& a, int64_t group, int64_t c0, int64_t n0) {
    const Part part(a.channels - c0);
    const int64_t length = length_of(a.groups, group), state = (group * a.channels + c0) * a.states;
    F rates[N], h[N];
    load_columns<N>(a.A + c0 * a.states, a.states, n0, part.count, LOG2_E, rates);
    load_columns<N>(a.first + state, a.states, n0, part.count, 1.f, h);
    const F skip = part.load(a.skip + c0);
    float* kept = a.kept ? a.kept + kept_chunk(a.groups, group, CHUNK) * padded(a.channels) * a.states : nullptr;
    for (int64_t i = 0; i < length; ++i) {
        const int64_t t = token_of(a.groups, group, i);
        if (kept && i % CHUNK == 0)
            for (int n = 0; n < N; ++n) simd::store(kept + (i / CHUNK * padded(a.channels) + c0) * a.states + (n0 + n) * LANES, h[n]);
        const F x = part.load(a.x + t * a.channels + c0), delta = part.load(a.delta + t * a.channels + c0), u = delta * x;
        const float *B = a.B + t * a.states + n0, *C = a.C + t * a.states + n0;
        F out[2] = {n0 == 0 ? skip * x : part.load(a.y + t * a.channels + c0), F(0.f)};
        for (int n = 0; n < N; ++n) h[n] = step(h[n], decay_of(delta, rates[n]), F(B[n]), u, F(C[n]), out[n % 2]);
        part.store(a.y + t * a.channels + c0, out[0] + out[1]);
    }
    store_columns<N>(a.last + state, a.states, n0, part.count, h);
}

void selective(const SelectiveArgs<float>& a, int64_t group, int64_t block) {
    const simd::FlushToZero flush;
    for (int64_t c0 = block * BLOCK; c0 < least((block + 1) * BLOCK, a.channels); c0 += LANES)
        in_blocks(a.states, [&](auto size, int64_t n0) { selective_rows<decltype(size)::value>(a, group, c0, n0); });
}

template <int N>
void selective_vjp_rows(const SelectiveVjpArgs<float>& a, int64_t group, int64_t block, int64_t c0, int64_t n0) {
    const Part part(a.channels - c0);
    const int64_t length = length_of(a.groups, group), state = (group * a.channels + c0) * a.states;
    F v_h[N];
    alignas(64) float rates[N][LANES], v_rates[N][LANES], decays[CHUNK][N][LANES], states[CHUNK + 1][N][LANES];
    F row[N];
    load_columns<N>(a.A + c0 * a.states, a.states, n0, part.count, LOG2_E, row);
    for (int n = 0; n < N; ++n) simd::store(rates[n], row[n]);
    load_columns<N>(a.v_last + state, a.states, n0, part.count, 1.f, v_h);
    std::memset(v_rates, 0, sizeof v_rates);
    const F skip = part.load(a.skip + c0);
    F v_skip(0.f);
    const float* kept = a.kept + kept_chunk(a.groups, group, CHUNK) * padded(a.channels) * a.states;
    for (int64_t chunk = (length + CHUNK - 1) / CHUNK; chunk-- > 0;) {
        const int64_t begin = chunk * CHUNK, count = least(CHUNK, length - begin);
        F h[N];
        for (int n = 0; n < N; ++n) {
            h[n] = simd::load(kept + (chunk * padded(a.channels) + c0) * a.states + (n0 + n) * LANES);
            simd::store(states[0][n], h[n]);
        }
        for (int64_t i = 0; i < count; ++i) {
            const int64_t t = token_of(a.groups, group, begin + i);
            const F delta = part.load(a.delta + t * a.channels + c0), u = delta * part.load(a.x + t * a.channels + c0);
            const float* B = a.B + t * a.states + n0;
            for (int n = 0; n < N; ++n) {
                const F decay = decay_of(delta, simd::load(rates[n]));
                h[n] = fma(decay, h[n], F(B[n]) * u);
                simd::store(decays[i][n], decay);
                simd::store(states[i + 1][n], h[n]);
            }
        }
        for (int64_t i = count; i-- > 0;) {
            const int64_t t = token_of(a.groups, group, begin + i), at = t * a.channels + c0;
            const F delta = part.load(a.delta + at), x = part.load(a.x + at), v_y = part.load(a.v_y + at), u = delta * x;
            const float *B = a.B + t * a.states + n0, *C = a.C + t * a.states + n0;
            F by_B[N], by_C[N], v_u[2] = {F(0.f), F(0.f)}, v_delta[2] = {F(0.f), F(0.f)};
            for (int n = 0; n < N; ++n) {
                const F g = fma(F(C[n]), v_y, v_h[n]);
                by_C[n] = simd::load(states[i + 1][n]) * v_y;
                by_B[n] = g * u;
                v_u[n % 2] = fma(g, F(B[n]), v_u[n % 2]);
                v_h[n] = g * simd::load(decays[i][n]);
                const F through = v_h[n] * simd::load(states[i][n]);  // by delta A
                v_delta[n % 2] = fma(through, simd::load(rates[n]), v_delta[n % 2]);
                simd::store(v_rates[n], fma(through, delta, simd::load(v_rates[n])));
            }
            const int64_t sums = (block * a.groups.rows + t) * a.states + n0;
            simd::add_sums<N>(a.v_B + sums, by_B);
            simd::add_sums<N>(a.v_C + sums, by_C);
            const F by_u = v_u[0] + v_u[1], by_delta = fma(by_u, x, F(1.f / LOG2_E) * (v_delta[0] + v_delta[1]));
            const F by_x = by_u * delta;
            if (n0 == 0) {
                v_skip = fma(v_y, x, v_skip);
                part.store(a.v_x + at, fma(skip, v_y, by_x));
                part.store(a.v_delta + at, by_delta);
            } else {
                part.store(a.v_x + at, by_x + part.load(a.v_x + at));
                part.store(a.v_delta + at, by_delta + part.load(a.v_delta + at));
            }
        }
    }
    store_columns<N>(a.v_first + state, a.states, n0, part.count, v_h);
    for (int n = 0; n < N; ++n) row[n] = simd::load(v_rates[n]);
    store_columns<N>(a.v_A + state, a.states, n0, part.count, row);
    if (n0 == 0) part.store(a.v_skip + group * a.channels + c0, v_skip);
}

void selective_vjp(const SelectiveVjpArgs<float>& a, int64_t group, int64_t block) {
    const simd::FlushToZero flush;
    for (int64_t c0 = block * BLOCK; c0 < least((block + 1) * BLOCK, a.channels); c0 += LANES)
        in_blocks(a.states, [&](auto size, int64_t n0) { selective_vjp_rows<decltype(size)::value>(a, group, block, c0, n0); });
}

}  // namespace
}  // namespace vision3d::V3D_ISA
