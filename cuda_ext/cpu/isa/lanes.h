#pragma once
// Parts of rows that are shorter than a vector, and sums along several vectors at once.
#include <cstring>
#include <initializer_list>
#include "cpu/isa/simd.h"

namespace vision3d::V3D_ISA::simd {

// The first `count` lanes; the others are zero when loaded, and not stored.
struct Part {
    int count;
#if defined(__AVX512F__)
    __mmask16 mask;
    explicit Part(int64_t left) : count(left < LANES ? int(left) : LANES), mask(__mmask16((1u << count) - 1)) {}
    F load(const float* p) const { return _mm512_maskz_loadu_ps(mask, p); }
    void store(float* p, F a) const { _mm512_mask_storeu_ps(p, mask, a.v); }
#else
    explicit Part(int64_t left) : count(left < LANES ? int(left) : LANES) {}
    F load(const float* p) const {
        if (count == LANES) return simd::load(p);
        alignas(64) float row[LANES] = {};
        std::memcpy(row, p, size_t(count) * sizeof(float));
        return simd::load(row);
    }
    void store(float* p, F a) const {
        if (count == LANES) return simd::store(p, a);
        alignas(64) float row[LANES];
        simd::store(row, a);
        std::memcpy(p, row, size_t(count) * sizeof(float));
    }
#endif
};

#if defined(__AVX512F__)
// Sums of four vectors over each 128 bits: (a, b, c, d) four times.
V3D_INLINE __m512 quad_sums(const F* r) {
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(r[0].v, r[1].v), _mm512_unpackhi_ps(r[0].v, r[1].v));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(r[2].v, r[3].v), _mm512_unpackhi_ps(r[2].v, r[3].v));
    const __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}
V3D_INLINE __m512 pair_sums(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
#elif defined(__AVX2__)
V3D_INLINE __m256 quad_sums(const F* r) { return _mm256_hadd_ps(_mm256_hadd_ps(r[0].v, r[1].v), _mm256_hadd_ps(r[2].v, r[3].v)); }
#endif

// target[i] += the sum of the lanes of rows[i].
template <int COUNT>
V3D_INLINE void add_sums(float* target, const F* rows) {
#if defined(__AVX512F__)
    if constexpr (COUNT >= 4) {
        const __m512 zero = _mm512_setzero_ps();
        const __m512 q0 = quad_sums(rows), q1 = COUNT > 4 ? quad_sums(rows + (COUNT > 4 ? 4 : 0)) : zero;
        const __m512 low = pair_sums(q0, q1);
        const __m512 high = COUNT > 8 ? pair_sums(quad_sums(rows + (COUNT > 8 ? 8 : 0)), quad_sums(rows + (COUNT > 8 ? 12 : 0))) : zero;
        const __mmask16 mask = __mmask16((1u << COUNT) - 1);
        _mm512_mask_storeu_ps(target, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, target), pair_sums(low, high)));
        return;
    }
#elif defined(__AVX2__)
    if constexpr (COUNT >= 4) {
        for (int i = 0; i < COUNT; i += 4) {
            const __m256 sums = quad_sums(rows + i);
            const __m128 all = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
            _mm_storeu_ps(target + i, _mm_add_ps(_mm_loadu_ps(target + i), all));
        }
        return;
    }
#endif
    for (int i = 0; i < COUNT; ++i) target[i] += sum(rows[i]);
}

}  // namespace vision3d::V3D_ISA::simd
