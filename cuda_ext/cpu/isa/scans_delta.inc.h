#pragma once
#include <vector>
#include "cpu/isa/scans_attention.inc.h"

// The delta rule reads all keys of a state before it changes any, so a state stays in the first cache instead of registers.
namespace vision3d::V3D_ISA {
namespace {

// Memory of a thread, aligned to a cache line.
float* delta_memory(int64_t count) {
    thread_local std::vector<float> memory;
    if (int64_t(memory.size()) < count + 16) memory.resize(size_t(count + 16));
    return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t(63));
}

// r = v - sum_k k S
V3D_INLINE F error_of(const float* k, const float* S, F v, int64_t keys) {
    F sums[4] = {v, F(0.f), F(0.f), F(0.f)};
    int64_t n = 0;
    for (; n + 4 <= keys; n += 4)
        for (int j = 0; j < 4; ++j) sums[j] = fnma(F(k[n + j]), simd::load(S + (n + j) * LANES), sums[j]);
    for (; n < keys; ++n) sums[0] = fnma(F(k[n]), simd::load(S + n * LANES), sums[0]);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

void delta_values(const DeltaArgs<float>& a, int64_t group, int64_t head, int64_t v0) {
    const Head at(a, group, head, v0);
    const int64_t length = length_of(a.groups, group), chunk = chunk_of(a.steps), first_chunk = kept_chunk(a.groups, group, chunk);
    float* S = delta_memory(a.keys * LANES);
    for (int64_t n = 0; n < a.keys; ++n) simd::store(S + n * LANES, at.part.load(a.first + at.state + n * a.values));
    for (int64_t i = 0; i < length; ++i) {
        const int64_t t = token_of(a.groups, group, i);
        if (a.kept && i % chunk == 0)
            std::memcpy(a.kept + kept_place(a, first_chunk + i / chunk, head, v0, 0), S, size_t(a.keys * LANES) * sizeof(float));
        const float* q = a.q + t * a.heads * a.keys + at.key;
        F out[4] = {F(0.f), F(0.f), F(0.f), F(0.f)};
        for (int64_t j = 0; j < a.steps; ++j) {
            const int64_t row = (t * a.steps + j) * a.heads;
            const float *k = a.k + row * a.keys + at.key, decay = j == 0 ? a.decay[t * a.heads + head] : 1.f;
            const F v = at.part.load(a.v + row * a.values + at.value);
            if (j == 0 && decay != 1.f)
                for (int64_t n = 0; n < a.keys; ++n) simd::store(S + n * LANES, F(decay) * simd::load(S + n * LANES));
            const F e = F(a.beta[row + head]) * error_of(k, S, v, a.keys);
            if (j + 1 < a.steps) {
                for (int64_t n = 0; n < a.keys; ++n) simd::store(S + n * LANES, fma(F(k[n]), e, simd::load(S + n * LANES)));
                continue;
            }
            in_blocks<4>(a.keys, [&](auto size, int64_t first) {
                for (int m = 0; m < size.value; ++m) {
                    const int64_t n = first + m;
                    const F now = fma(F(k[n]), e, simd::load(S + n * LANES));
                    simd::store(S + n * LANES, now);
                    out[m] = fma(F(q[n]), now, out[m]);
                }
            });
        }
        at.part.store(a.o + t * a.heads * a.values + at.value, (out[0] + out[1]) + (out[2] + out[3]));
    }
    for (int64_t n = 0; n < a.keys; ++n) at.part.store(a.last + at.state + n * a.values, simd::load(S + n * LANES));
}

// Per step of a chunk are stored: the state behind it and its error r; and for each token the faded state in front of its first step.
void delta_vjp_values(const DeltaVjpArgs<float>& a, int64_t group, int64_t head, int64_t v0) {
    const Head at(a, group, head, v0);
    const int64_t length = length_of(a.groups, group), chunk_size = chunk_of(a.steps);
    const int64_t first_chunk = kept_chunk(a.groups, group, chunk_size), size = a.keys * LANES, token = (a.steps + 1) * size;
    float* v_S = delta_memory(size + chunk_size * (token + a.steps * LANES));
    float *states = v_S + size, *errors = states + chunk_size * token;
    for (int64_t n = 0; n < a.keys; ++n) simd::store(v_S + n * LANES, at.part.load(a.v_last + at.state + n * a.values));
    for (int64_t chunk = (length + chunk_size - 1) / chunk_size; chunk-- > 0;) {
        const int64_t begin = chunk * chunk_size, count = least(chunk_size, length - begin);
        const float* before = a.kept + kept_place(a, first_chunk + chunk, head, v0, 0);
        for (int64_t i = 0; i < count; ++i) {
            const int64_t t = token_of(a.groups, group, begin + i);
            float* S = states + i * token;
            const F decay(a.decay[t * a.heads + head]);
            for (int64_t n = 0; n < a.keys; ++n) simd::store(S + n * LANES, decay * simd::load(before + n * LANES));
            for (int64_t j = 0; j < a.steps; ++j, S += size) {
                const int64_t row = (t * a.steps + j) * a.heads;
                const float* k = a.k + row * a.keys + at.key;
                const F r = error_of(k, S, at.part.load(a.v + row * a.values + at.value), a.keys), e = F(a.beta[row + head]) * r;
                simd::store(errors + (i * a.steps + j) * LANES, r);
                for (int64_t n = 0; n < a.keys; ++n) simd::store(S + size + n * LANES, fma(F(k[n]), e, simd::load(S + n * LANES)));
            }
            before = S;
        }
        for (int64_t i = count; i-- > 0;) {
            const int64_t t = token_of(a.groups, group, begin + i), keys = t * a.heads * a.keys + at.key;
            const float *S = states + i * token + a.steps * size, *q = a.q + keys;
            const F v_o = at.part.load(a.v_o + t * a.heads * a.values + at.value);
            in_blocks(a.keys, [&](auto block, int64_t first) {
                F by_q[block.value];
                for (int m = 0; m < block.value; ++m) {
                    const int64_t n = first + m;
                    by_q[m] = simd::load(S + n * LANES) * v_o;
                    simd::store(v_S + n * LANES, fma(F(q[n]), v_o, simd::load(v_S + n * LANES)));
                }
                simd::add_sums<block.value>(a.v_q + keys + first, by_q);
            });
            for (int64_t j = a.steps; j-- > 0;) {
                S -= size;
                const int64_t row = (t * a.steps + j) * a.heads;
                const float *k = a.k + row * a.keys + at.key, beta = a.beta[row + head];
                const F r = simd::load(errors + (i * a.steps + j) * LANES), e = F(beta) * r;
                const F v_e = F(0.f) - error_of(k, v_S, F(0.f), a.keys), v_r = F(beta) * v_e;
                a.v_beta[row + head] += sum(v_e * r);
                at.part.store(a.v_v + row * a.values + at.value, v_r);
                in_blocks(a.keys, [&](auto block, int64_t first) {
                    F by_k[block.value];
                    for (int m = 0; m < block.value; ++m) {
                        const int64_t n = first + m;
                        const F g = simd::load(v_S + n * LANES);
                        by_k[m] = fnma(simd::load(S + n * LANES), v_r, g * e);
                        simd::store(v_S + n * LANES, fnma(F(k[n]), v_r, g));
                    }
                    simd::add_sums<block.value>(a.v_k + row * a.keys + at.key + first, by_k);
                });
            }
            const F decay(a.decay[t * a.heads + head]);
            F through(0.f);
            for (int64_t n = 0; n < a.keys; ++n) {
                const F g = simd::load(v_S + n * LANES);
                through = fma(g, simd::load(S + n * LANES), through);
                simd::store(v_S + n * LANES, decay * g);
            }
            a.v_log_decay[t * a.heads + head] += sum(through);
        }
    }
    for (int64_t n = 0; n < a.keys; ++n) at.part.store(a.v_first + at.state + n * a.values, simd::load(v_S + n * LANES));
}

void delta_rule(const DeltaArgs<float>& a, int64_t group, int64_t head) {
    const simd::FlushToZero flush;
    for (int64_t v0 = 0; v0 < a.values; v0 += LANES) delta_values(a, group, head, v0);
}

void delta_rule_vjp(const DeltaVjpArgs<float>& a, int64_t group, int64_t head) {
    const simd::FlushToZero flush;
    for (int64_t v0 = 0; v0 < a.values; v0 += LANES) delta_vjp_values(a, group, head, v0);
}

}  // namespace
}  // namespace vision3d::V3D_ISA
