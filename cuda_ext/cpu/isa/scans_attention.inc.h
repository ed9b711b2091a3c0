#pragma once
#include "cpu/isa/scan_rows.h"

namespace vision3d::V3D_ISA {
namespace {

// Places of a head in the rows of a token, and of its state.
struct Head {
    int64_t key, value, decay, state;
    Part part;
    template <typename Args>
    Head(const Args& a, int64_t group, int64_t head, int64_t v0)
        : key(head * a.keys),
          value(head * a.values + v0),
          decay(head),
          state((group * a.heads + head) * a.keys * a.values + v0),
          part(a.values - v0) {}
};

template <typename Args>
V3D_INLINE int64_t kept_place(const Args& a, int64_t chunk, int64_t head, int64_t v0, int64_t k0) {
    return ((chunk * a.heads + head) * padded(a.values) + v0) * a.keys + k0 * LANES;
}

template <int N, bool PER_KEY, bool EXCLUSIVE>
void attention_rows(const AttentionArgs<float>& a, int64_t group, int64_t head, int64_t v0, int64_t k0) {
    const Head at(a, group, head, v0);
    const int64_t length = length_of(a.groups, group), first_chunk = kept_chunk(a.groups, group, CHUNK);
    F S[N];
    for (int n = 0; n < N; ++n) S[n] = at.part.load(a.first + at.state + (k0 + n) * a.values);
    for (int64_t i = 0; i < length; ++i) {
        const int64_t t = token_of(a.groups, group, i);
        if (a.kept && i % CHUNK == 0) {
            float* kept = a.kept + kept_place(a, first_chunk + i / CHUNK, head, v0, k0);
            for (int n = 0; n < N; ++n) simd::store(kept + n * LANES, S[n]);
        }
        const float *q = a.q + t * a.heads * a.keys + at.key + k0, *k = a.k + t * a.heads * a.keys + at.key + k0;
        const float* decay = a.decay + (t * a.heads + head) * a.decays + (PER_KEY ? k0 : 0);
        const F v = at.part.load(a.v + t * a.heads * a.values + at.value);
        float* o = a.o + t * a.heads * a.values + at.value;
        F out[2] = {k0 == 0 ? F(0.f) : at.part.load(o), F(0.f)};
        for (int n = 0; n < N; ++n) {
            if (EXCLUSIVE) out[n % 2] = fma(F(q[n]), S[n], out[n % 2]);
            S[n] = fma(F(decay[PER_KEY ? n : 0]), S[n], F(k[n]) * v);
            if (!EXCLUSIVE) out[n % 2] = fma(F(q[n]), S[n], out[n % 2]);
        }
        at.part.store(o, out[0] + out[1]);
    }
    for (int n = 0; n < N; ++n) at.part.store(a.last + at.state + (k0 + n) * a.values, S[n]);
}

template <int N, bool PER_KEY, bool EXCLUSIVE>
void attention_vjp_rows(const AttentionVjpArgs<float>& a, int64_t group, int64_t head, int64_t v0, int64_t k0) {
    const Head at(a, group, head, v0);
    const int64_t length = length_of(a.groups, group), first_chunk = kept_chunk(a.groups, group, CHUNK);
    alignas(64) float states[CHUNK + 1][N][LANES];
    F v_S[N];
    for (int n = 0; n < N; ++n) v_S[n] = at.part.load(a.v_last + at.state + (k0 + n) * a.values);
    for (int64_t chunk = (length + CHUNK - 1) / CHUNK; chunk-- > 0;) {
        const int64_t begin = chunk * CHUNK, count = least(CHUNK, length - begin);
        const float* kept = a.kept + kept_place(a, first_chunk + chunk, head, v0, k0);
        F S[N];
        for (int n = 0; n < N; ++n) {
            S[n] = simd::load(kept + n * LANES);
            simd::store(states[0][n], S[n]);
        }
        for (int64_t i = 0; i < count; ++i) {
            const int64_t t = token_of(a.groups, group, begin + i);
            const float* k = a.k + t * a.heads * a.keys + at.key + k0;
            const float* decay = a.decay + (t * a.heads + head) * a.decays + (PER_KEY ? k0 : 0);
            const F v = at.part.load(a.v + t * a.heads * a.values + at.value);
            for (int n = 0; n < N; ++n) {
                S[n] = fma(F(decay[PER_KEY ? n : 0]), S[n], F(k[n]) * v);
                simd::store(states[i + 1][n], S[n]);
            }
        }
        for (int64_t i = count; i-- > 0;) {
            const int64_t t = token_of(a.groups, group, begin + i), keys = t * a.heads * a.keys + at.key + k0;
            const int64_t values = t * a.heads * a.values + at.value, decays = (t * a.heads + head) * a.decays + (PER_KEY ? k0 : 0);
            const float *q = a.q + keys, *k = a.k + keys, *decay = a.decay + decays;
            const F v = at.part.load(a.v + values), v_o = at.part.load(a.v_o + values);
            F by_q[N], by_k[N], by_decay[N], v_v[2] = {k0 == 0 ? F(0.f) : at.part.load(a.v_v + values), F(0.f)};
            for (int n = 0; n < N; ++n) {
                by_q[n] = simd::load(states[EXCLUSIVE ? i : i + 1][n]) * v_o;
                const F g = EXCLUSIVE ? v_S[n] : fma(F(q[n]), v_o, v_S[n]);
                by_k[n] = g * v;
                v_v[n % 2] = fma(F(k[n]), g, v_v[n % 2]);
                const F faded = F(decay[PER_KEY ? n : 0]) * g;
                by_decay[n] = faded * simd::load(states[i][n]);
                v_S[n] = EXCLUSIVE ? fma(F(q[n]), v_o, faded) : faded;
            }
            simd::add_sums<N>(a.v_q + keys, by_q);
            simd::add_sums<N>(a.v_k + keys, by_k);
            if (PER_KEY) {
                simd::add_sums<N>(a.v_log_decay + decays, by_decay);
            } else {
                for (int n = 1; n < N; ++n) by_decay[0] = by_decay[0] + by_decay[n];
                a.v_log_decay[decays] += sum(by_decay[0]);
            }
            at.part.store(a.v_v + values, v_v[0] + v_v[1]);
        }
    }
    for (int n = 0; n < N; ++n) at.part.store(a.v_first + at.state + (k0 + n) * a.values, v_S[n]);
}

// visit(size, constant: a decay for each key, constant: exclusive, first value, first key) for all blocks of a head's state.
template <typename Args, typename Visit>
V3D_INLINE void in_state(const Args& a, Visit visit) {
    const simd::FlushToZero flush;
    for (int64_t v0 = 0; v0 < a.values; v0 += LANES)
        in_blocks(a.keys, [&](auto size, int64_t k0) {
            if (a.decays == 1 && !a.exclusive) visit(size, Size<0>{}, Size<0>{}, v0, k0);
            if (a.decays == 1 && a.exclusive) visit(size, Size<0>{}, Size<1>{}, v0, k0);
            if (a.decays != 1 && !a.exclusive) visit(size, Size<1>{}, Size<0>{}, v0, k0);
            if (a.decays != 1 && a.exclusive) visit(size, Size<1>{}, Size<1>{}, v0, k0);
        });
}

void attention(const AttentionArgs<float>& a, int64_t group, int64_t head) {
    in_state(a, [&](auto size, auto per_key, auto exclusive, int64_t v0, int64_t k0) {
        attention_rows<size.value, per_key.value, exclusive.value>(a, group, head, v0, k0);
    });
}

void attention_vjp(const AttentionVjpArgs<float>& a, int64_t group, int64_t head) {
    in_state(a, [&](auto size, auto per_key, auto exclusive, int64_t v0, int64_t k0) {
        attention_vjp_rows<size.value, per_key.value, exclusive.value>(a, group, head, v0, k0);
    });
}

}  // namespace
}  // namespace vision3d::V3D_ISA
