#pragma once
// Rows of four nodes, each a quad of numbers: 16 floats in as many vectors as needed.
#include "cpu/isa/simd.h"

namespace vision3d::V3D_ISA::simd {

constexpr int PARTS = 16 / LANES;

struct Quads {
    F part[PARTS];
};

V3D_INLINE Quads load_quads(const float* p) {
    Quads out;
    for (int k = 0; k < PARTS; ++k) out.part[k] = load(p + k * LANES);
    return out;
}
V3D_INLINE void store_quads(float* p, const Quads& a) {
    for (int k = 0; k < PARTS; ++k) store(p + k * LANES, a.part[k]);
}
V3D_INLINE Quads operator+(const Quads& a, const Quads& b) {
    Quads out;
    for (int k = 0; k < PARTS; ++k) out.part[k] = a.part[k] + b.part[k];
    return out;
}
V3D_INLINE Quads operator*(const Quads& a, const Quads& b) {
    Quads out;
    for (int k = 0; k < PARTS; ++k) out.part[k] = a.part[k] * b.part[k];
    return out;
}
V3D_INLINE Quads operator*(F a, const Quads& b) {
    Quads out;
    for (int k = 0; k < PARTS; ++k) out.part[k] = a * b.part[k];
    return out;
}
V3D_INLINE Quads fma(const Quads& a, const Quads& b, const Quads& c) {
    Quads out;
    for (int k = 0; k < PARTS; ++k) out.part[k] = fma(a.part[k], b.part[k], c.part[k]);
    return out;
}
V3D_INLINE Quads fma(F a, const Quads& b, const Quads& c) {
    Quads out;
    for (int k = 0; k < PARTS; ++k) out.part[k] = fma(a, b.part[k], c.part[k]);
    return out;
}

#if defined(__AVX512F__)

// Quad p repeated four times.
V3D_INLINE Quads repeat_quad(const float* p) { return {{F(_mm512_broadcast_f32x4(_mm_loadu_ps(p)))}}; }
// p[0] four times, p[1] four times, ...
V3D_INLINE Quads spread_quad(const float* p) {
    const __m512i places = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    return {{F(_mm512_permutexvar_ps(places, _mm512_castps128_ps512(_mm_loadu_ps(p))))}};
}
// The sums over the quads of a, b, c and d.
V3D_INLINE Quads sum_quads(const Quads& a, const Quads& b, const Quads& c, const Quads& d) {
    const auto folded = [](__m512 x, __m512 y) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
    };
    const __m512 s = folded(a.part[0].v, b.part[0].v), t = folded(c.part[0].v, d.part[0].v);
    return {{F(_mm512_add_ps(_mm512_shuffle_f32x4(s, t, 0x88), _mm512_shuffle_f32x4(s, t, 0xdd)))}};
}
// Transposes sixteen vectors.
V3D_INLINE void transpose(F v[16]) {
    __m512 a[16], b[16];
    for (int k = 0; k < 16; k += 2) {
        a[k] = _mm512_unpacklo_ps(v[k].v, v[k + 1].v);
        a[k + 1] = _mm512_unpackhi_ps(v[k].v, v[k + 1].v);
    }
    for (int k = 0; k < 16; k += 4)
        for (int j = 0; j < 2; ++j) {
            const __m512d x = _mm512_castps_pd(a[k + j]), y = _mm512_castps_pd(a[k + j + 2]);
            b[k + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
            b[k + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
        }
    for (int j = 0; j < 4; ++j) {
        const __m512 x0 = _mm512_shuffle_f32x4(b[j], b[j + 4], 0x88), x1 = _mm512_shuffle_f32x4(b[j], b[j + 4], 0xdd);
        const __m512 y0 = _mm512_shuffle_f32x4(b[j + 8], b[j + 12], 0x88), y1 = _mm512_shuffle_f32x4(b[j + 8], b[j + 12], 0xdd);
        v[j].v = _mm512_shuffle_f32x4(x0, y0, 0x88);
        v[j + 8].v = _mm512_shuffle_f32x4(x0, y0, 0xdd);
        v[j + 4].v = _mm512_shuffle_f32x4(x1, y1, 0x88);
        v[j + 12].v = _mm512_shuffle_f32x4(x1, y1, 0xdd);
    }
}

#elif defined(__AVX2__)

V3D_INLINE Quads repeat_quad(const float* p) {
    const F twice = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
    return {{twice, twice}};
}
V3D_INLINE Quads spread_quad(const float* p) {
    const __m256 both = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
    return {{F(_mm256_permutevar_ps(both, _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0))),
             F(_mm256_permutevar_ps(both, _mm256_set_epi32(3, 3, 3, 3, 2, 2, 2, 2)))}};
}
V3D_INLINE Quads sum_quads(const Quads& a, const Quads& b, const Quads& c, const Quads& d) {
    const auto pair = [](const Quads& x, const Quads& y) {
        const __m256 s = _mm256_add_ps(x.part[0].v, x.part[1].v), t = _mm256_add_ps(y.part[0].v, y.part[1].v);
        return F(_mm256_add_ps(_mm256_permute2f128_ps(s, t, 0x20), _mm256_permute2f128_ps(s, t, 0x31)));
    };
    return {{pair(a, b), pair(c, d)}};
}
V3D_INLINE void transpose(F v[8]) {
    __m256 a[8], b[8];
    for (int k = 0; k < 8; k += 2) {
        a[k] = _mm256_unpacklo_ps(v[k].v, v[k + 1].v);
        a[k + 1] = _mm256_unpackhi_ps(v[k].v, v[k + 1].v);
    }
    for (int k = 0; k < 8; k += 4)
        for (int j = 0; j < 2; ++j) {
            b[k + 2 * j] = _mm256_shuffle_ps(a[k + j], a[k + j + 2], 0x44);
            b[k + 2 * j + 1] = _mm256_shuffle_ps(a[k + j], a[k + j + 2], 0xee);
        }
    for (int j = 0; j < 4; ++j) {
        v[j].v = _mm256_permute2f128_ps(b[j], b[j + 4], 0x20);
        v[j + 4].v = _mm256_permute2f128_ps(b[j], b[j + 4], 0x31);
    }
}

#else

V3D_INLINE Quads repeat_quad(const float* p) {
    const F quad = load(p);
    return {{quad, quad, quad, quad}};
}
V3D_INLINE Quads spread_quad(const float* p) { return {{F(p[0]), F(p[1]), F(p[2]), F(p[3])}}; }
V3D_INLINE Quads sum_quads(const Quads& a, const Quads& b, const Quads& c, const Quads& d) {
    const auto folded = [](const Quads& x) { return (x.part[0] + x.part[1]) + (x.part[2] + x.part[3]); };
    return {{folded(a), folded(b), folded(c), folded(d)}};
}
V3D_INLINE void transpose(F v[4]) {
    const F rows[4] = {v[0], v[1], v[2], v[3]};
    for (int k = 0; k < 4; ++k) v[k].v = vec{rows[0].v[k], rows[1].v[k], rows[2].v[k], rows[3].v[k]};
}

#endif

// Transposes COLUMNS rows of LANES numbers, one row per component, to LANES records of COLUMNS numbers; COLUMNS a multiple of 16.
template <int COLUMNS>
V3D_INLINE void to_records(const F* columns, float* records) {
    for (int first = 0; first < COLUMNS; first += LANES) {
        F tile[LANES];
        for (int k = 0; k < LANES; ++k) tile[k] = columns[first + k];
        transpose(tile);
        for (int lane = 0; lane < LANES; ++lane) store(records + lane * COLUMNS + first, tile[lane]);
    }
}

// The inverse.
template <int COLUMNS>
V3D_INLINE void from_records(const float* records, F* columns) {
    for (int first = 0; first < COLUMNS; first += LANES) {
        F tile[LANES];
        for (int lane = 0; lane < LANES; ++lane) tile[lane] = load(records + lane * COLUMNS + first);
        transpose(tile);
        for (int k = 0; k < LANES; ++k) columns[first + k] = tile[k];
    }
}

}  // namespace vision3d::V3D_ISA::simd
