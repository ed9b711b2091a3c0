#pragma once
#include <cmath>
#include <cstdint>
#include "vision3d/macros.h"

// Kernels on the plane and a group of linear maps: the grid transformed by h^-1, the polar chart of h^-1 g, the waves of a small
// network and the mask. One function per step, for one number at a time; the loops are in cpu/isa/group_kernel.inc.h and
// cuda/group_kernel.cu.
namespace vision3d {

enum KernelMask : int { MASK_SMOOTH = 0, MASK_DISK = 1, MASK_BUMP = 2 };
enum KernelWave : int { WAVE_SIREN = 0, WAVE_GABOR = 1 };
constexpr int KERNEL_WIDTH = 64;  // maximum units of a hidden layer
constexpr int KERNEL_DIMS = 7;    // maximum coordinates: x, y, three of Y, cos, sin
constexpr double KERNEL_OMEGA = 10, KERNEL_SIGMA = 3;

template <typename T>
struct GroupKernelArgs {
    int64_t outputs, inputs;  // N, M; M = 1 if the kernel is only on the plane
    int64_t c_out, c_in;
    int size, sym;  // K; coordinates of Y (0, 2, 3), or -1 only on the plane
    int width, mask, wave;
    T extent;
    const T *inverses, *elements;       // (N,2,2) (M,2,2) or null
    const T *out_factors, *in_factors;  // (N) (M)
    const T *weights[4], *biases[4];    // (width,dims) (width,width) (width,width) (c_out*c_in,width)
    T* values;                          // (c_out,N,c_in,M,K*K)
};

// Row of the transposed last layer: whole tiles of every instruction set.
V3D_HD int64_t group_kernel_stride(int64_t values) { return (values + 31) / 32 * 32; }

template <typename T>
V3D_HD int kernel_dims(const GroupKernelArgs<T>& a) {
    return a.sym < 0 ? 2 : 2 + a.sym + 2;
}

// Features of the polar chart of a 2x2 map with positive determinant: sym coordinates of Y, cos, sin; returns |Y|^2 over those.
template <typename T>
V3D_HD T polar_features(const T* left, const T* right, int sym, T* features) {
    const T g00 = left[0] * right[0] + left[1] * right[2], g01 = left[0] * right[1] + left[1] * right[3];
    const T g10 = left[2] * right[0] + left[3] * right[2], g11 = left[2] * right[1] + left[3] * right[3];
    const T x = g00 + g11, y = g10 - g01, twice = std::sqrt(x * x + y * y);
    const T c = twice > T(0) ? x / twice : T(1), s = twice > T(0) ? y / twice : T(0);
    features[sym] = c;
    features[sym + 1] = s;
    if (sym == 0) return T(0);
    const T mean = twice / 2, a0 = (g00 - g11) / 2, b0 = (g01 + g10) / 2;
    const T a = c * a0 - s * b0, b = s * a0 + c * b0;
    const T ratio = (a * a + b * b) / (mean * mean);
    T slope;  // atanh(t) / t
    if (ratio < T(0.1)) {
        slope = T(1) / 31;
        for (int k = 14; k >= 0; --k) slope = slope * ratio + T(1) / (2 * k + 1);
    } else {
        const T t = std::sqrt(ratio);
        slope = std::atanh(t) / t;
    }
    slope = slope / mean;
    const T root2 = T(1.41421356237309504880);
    if (sym == 2) {
        features[0] = root2 * slope * a;
        features[1] = root2 * slope * b;
        return features[0] * features[0] + features[1] * features[1];
    }
    const T half_log_det = std::log(mean) + std::log1p(-ratio) / 2;
    features[0] = half_log_det + slope * a;
    features[1] = root2 * slope * b;
    features[2] = half_log_det - slope * a;
    return features[0] * features[0] + features[1] * features[1] + features[2] * features[2];
}

// Coordinate i of the centers of K cells that span [-extent, extent].
template <typename T>
V3D_HD T kernel_cell(int i, int size, T extent) {
    return (T(2 * i + 1) / T(size) - T(1)) * extent;
}

template <typename T>
V3D_HD T kernel_mask(int mask, T squares) {
    if (mask == MASK_DISK) return squares <= T(1) ? T(1) : T(0);
    if (mask == MASK_BUMP) {
        const T rest = squares < T(1) ? T(1) - squares : T(0);
        return rest * rest;
    }
    return T(1) / (T(1) + std::exp(T(2) * (std::sqrt(squares) - T(1))));
}

// Branch-free sin, so that loops are vectorized: |x| up to 1e4, error about 1e-7.
V3D_HD float kernel_sin(float x) {
    const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
    const float shifted = x * 0.318309886f + magic, turns = shifted - magic;
    float r = x - turns * 3.140625f;  // pi in three parts
    r = r - turns * 9.67502594e-4f;
    r = r - turns * 1.50995788e-7f;
    union {
        float f;
        uint32_t u;
    } parity{shifted}, value;
    const float q = r * r;
    // Taylor series to r^11: error below 6e-8 at the end of the range, 90 degrees
    value.f = r + r * q * (-1.f / 6 + q * (1.f / 120 + q * (-1.f / 5040 + q * (1.f / 362880 - q * (1.f / 39916800)))));
    value.u ^= (parity.u & 1u) << 31;
    return value.f;
}
V3D_HD double kernel_sin(double x) { return std::sin(x); }

template <typename T>
V3D_HD T kernel_wave(int wave, T z) {
    if (wave == WAVE_SIREN) return kernel_sin(T(KERNEL_OMEGA) * z);
    const T s = T(KERNEL_SIGMA) * z;
    return std::cos(T(KERNEL_OMEGA) * z) * std::exp(-s * s);
}

}  // namespace vision3d
