#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include "vision3d/macros.h"
#include "vision3d/quaternion.h"

namespace vision3d {

// Philox 4x32-10 (Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3): ten rounds on a counter.
V3D_HD void philox(uint32_t (&counter)[4], uint64_t key) {
    uint32_t key0 = uint32_t(key), key1 = uint32_t(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t(0xD2511F53u) * counter[0], b = uint64_t(0xCD9E8D57u) * counter[2];
        counter[0] = uint32_t(b >> 32) ^ counter[1] ^ key0;
        counter[1] = uint32_t(b);
        counter[2] = uint32_t(a >> 32) ^ counter[3] ^ key1;
        counter[3] = uint32_t(a);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

// The middle of one of 2^23 intervals of (0, 1); exact.
V3D_HD float uniform(uint32_t bits) { return (float(bits >> 9) + 0.5f) * 1.1920929e-7f; }

// sqrt(-2 ln u) for u in (0, 1), by the series of 2 atanh. Only operations that IEEE 754 rounds correctly, compiled without
// contraction: the same bits on every CPU and GPU.
V3D_HD float normal_radius(float u) {
    uint32_t bits;
    memcpy(&bits, &u, sizeof bits);
    int exponent = int(bits >> 23) - 127;
    bits = (bits & 0x7FFFFFu) | 0x3F800000u;
    float m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.41421356f) {
        m *= 0.5f;
        exponent += 1;
    }
    const float s = (m - 1.0f) / (m + 1.0f), ss = s * s;
    float series = 1.0f / 9.0f;
    series = series * ss + 1.0f / 7.0f;
    series = series * ss + 1.0f / 5.0f;
    series = series * ss + 1.0f / 3.0f;
    series = series * ss + 1.0f;
    const float log = float(exponent) * 0.69314718f + 2.0f * s * series;
    return std::sqrt(-2.0f * (log < 0.0f ? log : 0.0f));
}

// cos and sin of 2 pi v for v in [0, 1), by Taylor series on an eighth of the circle; as above.
V3D_HD void circle(float v, float& cosine, float& sine) {
    const int quarter = int(4.0f * v + 0.5f);
    const float x = (4.0f * v - float(quarter)) * 1.57079633f, xx = x * x;
    float s = 1.0f / 362880.0f;
    s = s * xx - 1.0f / 5040.0f;
    s = s * xx + 1.0f / 120.0f;
    s = s * xx - 1.0f / 6.0f;
    s = x * (s * xx + 1.0f);
    float c = -1.0f / 3628800.0f;
    c = c * xx + 1.0f / 40320.0f;
    c = c * xx - 1.0f / 720.0f;
    c = c * xx + 1.0f / 24.0f;
    c = c * xx - 0.5f;
    c = c * xx + 1.0f;
    cosine = quarter % 2 ? ((quarter & 2) ? s : -s) : ((quarter & 2) ? -c : c);
    sine = quarter % 2 ? ((quarter & 2) ? -c : c) : ((quarter & 2) ? -s : s);
}

// Three independent standard normal numbers of a seed, a step and a row (Box and Muller 1958).
V3D_HD void normals(uint64_t seed, uint64_t step, uint64_t row, float* out) {
    uint32_t bits[4] = {uint32_t(row), uint32_t(row >> 32), uint32_t(step), uint32_t(step >> 32)};
    philox(bits, seed);
    const float r = normal_radius(uniform(bits[0]));
    float unused;
    circle(uniform(bits[1]), out[0], out[1]);
    circle(uniform(bits[3]), out[2], unused);
    out[0] *= r;
    out[1] *= r;
    out[2] *= normal_radius(uniform(bits[2]));
}

// Noise of Gaussians in MCMC (Kheradmand et al. 2024): means += R diag(s^2) n strength sigmoid(-100 (opacity - 0.005)), which is
// distributed as Sigma n. Rows above a logit are not changed.
template <typename T>
struct NoiseArgs {
    int64_t count;
    T* means;                 // (count, 3)
    const T* log_scales;      // (count, 3)
    const T* quats;           // (count, 4), wxyz, of any length
    const T* opacity_logits;  // (count,)
    uint64_t seed, step;
    T strength, max_logit;
};

template <typename T>
V3D_HD void add_noise(const NoiseArgs<T>& a, int64_t row) {
    const T logit = a.opacity_logits[row];
    if (logit >= a.max_logit) return;  // a NaN goes on into the means
    const T opacity = T(1) / (T(1) + std::exp(-logit));
    const T strength = a.strength / (T(1) + std::exp(T(100) * (opacity - T(0.005))));
    float n[3];
    normals(a.seed, a.step, uint64_t(row), n);
    T rotmat[9], local[3];
    quat_to_rotmat(a.quats + 4 * row, rotmat);
    for (int k = 0; k < 3; ++k) local[k] = strength * std::exp(T(2) * a.log_scales[3 * row + k]) * T(n[k]);
    for (int k = 0; k < 3; ++k)
        a.means[3 * row + k] += rotmat[3 * k] * local[0] + rotmat[3 * k + 1] * local[1] + rotmat[3 * k + 2] * local[2];
}

}  // namespace vision3d
