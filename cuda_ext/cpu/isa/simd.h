#pragma once
// One float vector F and its mask M per instruction set. Everything is in the set's own namespace, so that nothing compiled
// for a wide set can be linked into a narrow one. The portable set uses GCC/Clang vectors (SSE2, NEON).
#include <cstdint>
#include <cstring>
#include "vision3d/scalar.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define V3D_INLINE [[maybe_unused]] static inline __attribute__((always_inline))

namespace vision3d::V3D_ISA::simd {

#if defined(__AVX512F__)

constexpr int LANES = 16, BLOCK_W = 4, BLOCK_H = 4;
struct F {
    __m512 v;
    F() = default;
    F(__m512 v) : v(v) {}
    F(float x) : v(_mm512_set1_ps(x)) {}
};
struct M {
    __mmask16 m;
};
V3D_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
V3D_INLINE void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
V3D_INLINE F operator+(F a, F b) { return _mm512_add_ps(a.v, b.v); }
V3D_INLINE F operator-(F a, F b) { return _mm512_sub_ps(a.v, b.v); }
V3D_INLINE F operator*(F a, F b) { return _mm512_mul_ps(a.v, b.v); }
V3D_INLINE F operator/(F a, F b) { return _mm512_div_ps(a.v, b.v); }
V3D_INLINE F operator-(F a) { return _mm512_xor_ps(a.v, _mm512_set1_ps(-0.f)); }
V3D_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }    // a b + c
V3D_INLINE F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }  // c - a b
V3D_INLINE F min(F a, F b) { return _mm512_min_ps(a.v, b.v); }
V3D_INLINE F max(F a, F b) { return _mm512_max_ps(a.v, b.v); }
V3D_INLINE F abs(F a) { return _mm512_abs_ps(a.v); }
V3D_INLINE F sqrt(F a) { return _mm512_sqrt_ps(a.v); }
V3D_INLINE F floor(F a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
V3D_INLINE void store_ints(int32_t* p, F a) { _mm512_storeu_si512(p, _mm512_cvttps_epi32(a.v)); }
V3D_INLINE F exponent(F a, F& mantissa) {  // a = mantissa 2^exponent, mantissa in [0.75, 1.5), of a > 0
    mantissa = _mm512_getmant_ps(a.v, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
    return _mm512_getexp_ps(_mm512_div_ps(a.v, mantissa.v));
}
V3D_INLINE F rsqrt(F a) { return F(1.f) / sqrt(a); }
V3D_INLINE F rcp(F a) {  // one Newton step on the 14-bit estimate: 2^-27 relative, half the cost of a division
    const F r = _mm512_rcp14_ps(a.v);
    return _mm512_fmadd_ps(r.v, _mm512_fnmadd_ps(a.v, r.v, _mm512_set1_ps(1.f)), r.v);
}
V3D_INLINE M operator<(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
V3D_INLINE M operator<=(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
V3D_INLINE M operator&(M a, M b) { return {__mmask16(a.m & b.m)}; }
V3D_INLINE M operator|(M a, M b) { return {__mmask16(a.m | b.m)}; }
V3D_INLINE M andnot(M a, M b) { return {__mmask16(~a.m & b.m)}; }  // !a && b
V3D_INLINE M all_true() { return {0xffff}; }
V3D_INLINE bool any(M a) { return a.m != 0; }
V3D_INLINE uint32_t bits(M a) { return a.m; }
V3D_INLINE F select(M m, F a, F b) { return _mm512_mask_blend_ps(m.m, b.v, a.v); }
V3D_INLINE F keep(M m, F a) { return _mm512_maskz_mov_ps(m.m, a.v); }  // a where m, else 0
V3D_INLINE F add_where(M m, F a, F b) { return _mm512_mask_add_ps(a.v, m.m, a.v, b.v); }
V3D_INLINE F fma_where(M m, F a, F b, F c) { return _mm512_mask3_fmadd_ps(a.v, b.v, c.v, m.m); }  // c + a b where m
V3D_INLINE float sum(F a) { return _mm512_reduce_add_ps(a.v); }
// 2^x for |x| < 126: degree-5 minimax polynomial with value 1 at 0, 1.8e-7 relative.
V3D_INLINE F exp2(F x) {
    const __m512 n = _mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const F f = _mm512_sub_ps(x.v, n);
    F p = fma(F(1.325460267e-3f), f, F(9.671999142e-3f));
    p = fma(p, f, F(5.550779402e-2f));
    p = fma(p, f, F(2.402223200e-1f));
    p = fma(p, f, F(6.931469440e-1f));
    p = fma(p, f, F(1.f));
    return _mm512_scalef_ps(p.v, n);
}

#elif defined(__AVX2__)

constexpr int LANES = 8, BLOCK_W = 4, BLOCK_H = 2;
struct F {
    __m256 v;
    F() = default;
    F(__m256 v) : v(v) {}
    F(float x) : v(_mm256_set1_ps(x)) {}
};
struct M {
    __m256 m;
};
V3D_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
V3D_INLINE void store(float* p, F a) { _mm256_storeu_ps(p, a.v); }
V3D_INLINE F operator+(F a, F b) { return _mm256_add_ps(a.v, b.v); }
V3D_INLINE F operator-(F a, F b) { return _mm256_sub_ps(a.v, b.v); }
V3D_INLINE F operator*(F a, F b) { return _mm256_mul_ps(a.v, b.v); }
V3D_INLINE F operator/(F a, F b) { return _mm256_div_ps(a.v, b.v); }
V3D_INLINE F operator-(F a) { return _mm256_xor_ps(a.v, _mm256_set1_ps(-0.f)); }
V3D_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
V3D_INLINE F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a.v, b.v, c.v); }
V3D_INLINE F min(F a, F b) { return _mm256_min_ps(a.v, b.v); }
V3D_INLINE F max(F a, F b) { return _mm256_max_ps(a.v, b.v); }
V3D_INLINE F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), a.v); }
V3D_INLINE F floor(F a) { return _mm256_floor_ps(a.v); }
V3D_INLINE void store_ints(int32_t* p, F a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_cvttps_epi32(a.v)); }
V3D_INLINE F exponent(F a, F& mantissa) {  // a = mantissa 2^exponent, mantissa in [0.75, 1.5), of a > 0
    const __m256i bits = _mm256_castps_si256(a.v);
    const __m256i power = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(0x3f400000)), 23);
    mantissa = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(power, 23)));
    return _mm256_cvtepi32_ps(power);
}
V3D_INLINE F sqrt(F a) { return _mm256_sqrt_ps(a.v); }
V3D_INLINE F rsqrt(F a) { return F(1.f) / sqrt(a); }
V3D_INLINE F rcp(F a) { return F(1.f) / a; }
V3D_INLINE M operator<(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
V3D_INLINE M operator<=(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
V3D_INLINE M operator&(M a, M b) { return {_mm256_and_ps(a.m, b.m)}; }
V3D_INLINE M operator|(M a, M b) { return {_mm256_or_ps(a.m, b.m)}; }
V3D_INLINE M andnot(M a, M b) { return {_mm256_andnot_ps(a.m, b.m)}; }
V3D_INLINE M all_true() { return {_mm256_castsi256_ps(_mm256_set1_epi32(-1))}; }
V3D_INLINE uint32_t bits(M a) { return uint32_t(_mm256_movemask_ps(a.m)); }
V3D_INLINE bool any(M a) { return bits(a) != 0; }
V3D_INLINE F select(M m, F a, F b) { return _mm256_blendv_ps(b.v, a.v, m.m); }
V3D_INLINE F keep(M m, F a) { return _mm256_and_ps(m.m, a.v); }
V3D_INLINE F add_where(M m, F a, F b) { return a + keep(m, b); }
V3D_INLINE F fma_where(M m, F a, F b, F c) { return fma(keep(m, a), b, c); }
V3D_INLINE float sum(F a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
V3D_INLINE F exp2(F x) {
    const __m256 n = _mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const F f = _mm256_sub_ps(x.v, n);
    F p = fma(F(1.325460267e-3f), f, F(9.671999142e-3f));
    p = fma(p, f, F(5.550779402e-2f));
    p = fma(p, f, F(2.402223200e-1f));
    p = fma(p, f, F(6.931469440e-1f));
    p = fma(p, f, F(1.f));
    const __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.v), power));
}

#else

constexpr int LANES = 4, BLOCK_W = 2, BLOCK_H = 2;
typedef float vec __attribute__((vector_size(16)));
typedef int32_t ivec __attribute__((vector_size(16)));
struct F {
    vec v;
    F() = default;
    F(vec v) : v(v) {}
    F(float x) : v(vec{x, x, x, x}) {}
};
struct M {
    ivec m;
};
V3D_INLINE F load(const float* p) {
    F a;
    std::memcpy(&a.v, p, sizeof a.v);
    return a;
}
V3D_INLINE void store(float* p, F a) { std::memcpy(p, &a.v, sizeof a.v); }
V3D_INLINE F operator+(F a, F b) { return a.v + b.v; }
V3D_INLINE F operator-(F a, F b) { return a.v - b.v; }
V3D_INLINE F operator*(F a, F b) { return a.v * b.v; }
V3D_INLINE F operator/(F a, F b) { return a.v / b.v; }
V3D_INLINE F operator-(F a) { return -a.v; }
V3D_INLINE F fma(F a, F b, F c) { return a.v * b.v + c.v; }
V3D_INLINE F fnma(F a, F b, F c) { return c.v - a.v * b.v; }
V3D_INLINE F keep(M m, F a) { return vec(m.m & ivec(a.v)); }
V3D_INLINE F select(M m, F a, F b) { return vec((m.m & ivec(a.v)) | (~m.m & ivec(b.v))); }
V3D_INLINE F min(F a, F b) { return select(M{a.v < b.v}, a, b); }
V3D_INLINE F max(F a, F b) { return select(M{b.v < a.v}, a, b); }
V3D_INLINE F abs(F a) { return vec(ivec(a.v) & 0x7fffffff); }
V3D_INLINE F floor(F a) {
    const vec whole = __builtin_convertvector(__builtin_convertvector(a.v, ivec), vec);
    return whole - vec(ivec(whole > a.v) & ivec(F(1.f).v));
}
V3D_INLINE void store_ints(int32_t* p, F a) {
    const ivec whole = __builtin_convertvector(a.v, ivec);
    std::memcpy(p, &whole, sizeof whole);
}
V3D_INLINE F exponent(F a, F& mantissa) {  // a = mantissa 2^exponent, mantissa in [0.75, 1.5), of a > 0
    const ivec power = (ivec(a.v) - 0x3f400000) >> 23;
    mantissa = vec(ivec(a.v) - (power << 23));
    return __builtin_convertvector(power, vec);
}
V3D_INLINE F sqrt(F a) { return vec{__builtin_sqrtf(a.v[0]), __builtin_sqrtf(a.v[1]), __builtin_sqrtf(a.v[2]), __builtin_sqrtf(a.v[3])}; }
V3D_INLINE F rsqrt(F a) { return F(1.f) / sqrt(a); }
V3D_INLINE F rcp(F a) { return F(1.f) / a; }
V3D_INLINE M operator<(F a, F b) { return {a.v < b.v}; }
V3D_INLINE M operator<=(F a, F b) { return {a.v <= b.v}; }
V3D_INLINE M operator&(M a, M b) { return {a.m & b.m}; }
V3D_INLINE M operator|(M a, M b) { return {a.m | b.m}; }
V3D_INLINE M andnot(M a, M b) { return {~a.m & b.m}; }
V3D_INLINE M all_true() { return {ivec{-1, -1, -1, -1}}; }
V3D_INLINE uint32_t bits(M a) { return (a.m[0] & 1) | (a.m[1] & 2) | (a.m[2] & 4) | (a.m[3] & 8); }
V3D_INLINE bool any(M a) {
    uint64_t halves[2];
    std::memcpy(halves, &a.m, sizeof halves);
    return (halves[0] | halves[1]) != 0;
}
V3D_INLINE F add_where(M m, F a, F b) { return a + keep(m, b); }
V3D_INLINE F fma_where(M m, F a, F b, F c) { return fma(keep(m, a), b, c); }
V3D_INLINE float sum(F a) { return (a.v[0] + a.v[1]) + (a.v[2] + a.v[3]); }
V3D_INLINE F exp2(F x) {
    const vec magic = F(12582912.f).v;  // 1.5 * 2^23: adding it rounds to the nearest integer
    const vec shifted = x.v + magic;
    const vec n = shifted - magic;
    const F f = x.v - n;
    F p = fma(F(1.325460267e-3f), f, F(9.671999142e-3f));
    p = fma(p, f, F(5.550779402e-2f));
    p = fma(p, f, F(2.402223200e-1f));
    p = fma(p, f, F(6.931469440e-1f));
    p = fma(p, f, F(1.f));
    return vec(ivec(p.v) + (ivec(shifted) << 23));
}

#endif

V3D_INLINE M operator>(F a, F b) { return b < a; }
V3D_INLINE M operator>=(F a, F b) { return b <= a; }

// The natural logarithm of a > 0, with an error of 1e-7, absolute where it is small and relative elsewhere.
V3D_INLINE F log(F a) {
    F m;
    const F power = exponent(a, m);
    const F t = (m - F(1.f)) / (m + F(1.f)), z = t * t;  // log m = 2 (t + t^3 / 3 + ...), |t| <= 0.2
    F p = fma(z, F(1.f / 9), F(1.f / 7));
    p = fma(z, p, F(1.f / 5));
    p = fma(z, p, F(1.f / 3));
    return fma(power, F(0.693147182f), F(2.f) * fma(t * z, p, t));
}

// e^a for |a| < 87, relative error 1e-7.
V3D_INLINE F exp(F a) {
    const F magic(12582912.f);
    const F x = min(max(a, F(-87.f)), F(87.f));
    const F n = fma(x, F(1.44269504f), magic) - magic;
    F r = fnma(n, F(0.693145752f), x);  // ln 2 in two parts, the first one with few bits
    r = fnma(n, F(1.42860677e-6f), r);
    F p = fma(r, F(1.f / 5040), F(1.f / 720));
    for (const float term : {1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f}) p = fma(r, p, F(term));
    return p * exp2(n);
}

// Sine and cosine with an error of 2e-7: multiples of 90 degrees are subtracted in three parts, then Taylor series to pi / 4.
// Values over 8192, where this is not precise enough, are passed to the C library one by one.
V3D_INLINE void sincos(F x, F& s, F& c) {
    if (any(F(8192.f) < abs(x))) {
        alignas(64) float in[LANES], sines[LANES], cosines[LANES];
        store(in, x);
        for (int lane = 0; lane < LANES; ++lane) {
            sines[lane] = ::sinf(in[lane]);
            cosines[lane] = ::cosf(in[lane]);
        }
        s = load(sines);
        c = load(cosines);
        return;
    }
    const F magic(12582912.f), quarter(0.636619772f);  // 1.5 * 2^23: adding it rounds to the nearest integer
    const F turns = fma(x, quarter, magic) - magic;
    F r = fnma(turns, F(1.5703125f), x);  // pi / 2 = 1.5703125 + 4.8375129e-4 + 7.5497900e-8, the first two with few bits
    r = fnma(turns, F(4.837512969970703e-4f), r);
    r = fnma(turns, F(7.549790126404332e-8f), r);
    const F z = r * r;
    F p = fma(z, F(2.7557319e-6f), F(-1.9841270e-4f));
    p = fma(z, p, F(8.3333333e-3f));
    p = fma(z, p, F(-1.6666667e-1f));
    const F sine = fma(r * z, p, r);
    F q = fma(z, F(-2.7557319e-7f), F(2.4801587e-5f));
    q = fma(z, q, F(-1.3888889e-3f));
    q = fma(z, q, F(4.1666667e-2f));
    q = fma(z, q, F(-0.5f));
    const F cosine = fma(z, q, F(1.f));
    const F quadrant = turns - F(4.f) * (fma(turns, F(0.25f), magic) - magic);  // -2, -1, 0, 1 or 2
    const M odd = (F(0.5f) < abs(quadrant)) & (abs(quadrant) < F(1.5f));
    const F swap_s = select(odd, cosine, sine), swap_c = select(odd, sine, cosine);
    s = select((quadrant < F(-0.5f)) | (F(1.5f) < quadrant), -swap_s, swap_s);
    c = select((F(0.5f) < quadrant) | (quadrant < F(-1.5f)), -swap_c, swap_c);
}

// The angle of (x, y) for x, y >= 0, not both 0; relative error 2e-7.
V3D_INLINE F atan2(F y, F x) {
    const M steep = x < y;
    const F ratio = select(steep, x, y) / select(steep, y, x);
    const M far = F(0.41421356f) < ratio;  // beyond pi / 8: the angle to the diagonal instead
    const F t = select(far, (ratio - F(1.f)) / (ratio + F(1.f)), ratio);
    const F z = t * t;
    F p = F(5.8823529e-2f);
    for (const float term : {-6.6666667e-2f, 7.6923077e-2f, -9.0909091e-2f, 1.1111111e-1f, -1.4285714e-1f, 0.2f, -3.3333333e-1f})
        p = fma(z, p, F(term));
    F angle = fma(t * z, p, t);
    angle = select(far, angle + F(0.78539816f), angle);
    return select(steep, F(1.5707963f) - angle, angle);
}

// Flushes underflowing results to zero while this object exists: denormal numbers cost a hundred cycles each.
struct FlushToZero {
#if defined(__SSE2__)
    unsigned saved = __builtin_ia32_stmxcsr();
    FlushToZero() { __builtin_ia32_ldmxcsr(saved | 0x8040); }
    ~FlushToZero() { __builtin_ia32_ldmxcsr(saved); }
#endif
};

}  // namespace vision3d::V3D_ISA::simd

namespace vision3d {
template <> struct Traits<V3D_ISA::simd::F> {
    using Mask = V3D_ISA::simd::M;
    using Scalar = float;
};
}  // namespace vision3d
