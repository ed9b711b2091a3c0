#pragma once
#include <vector>
#include "vision3d/group_kernel.h"

// Pairs (output sample, input sample) one after the other. Loops run over the units of a layer, which are contiguous in the
// transposed weights, so that each is vectorized; the last layer is a small matrix product over the points of the grid.
namespace vision3d::V3D_ISA {
namespace {

// A vector of this set, and the block of the last layer: ten vectors of sums hide the latency of the multiply-adds.
#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX2__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
template <typename T> struct Row;
template <> struct Row<float> {
    typedef float Vector __attribute__((vector_size(BYTES), aligned(4), may_alias));
};
template <> struct Row<double> {
    typedef double Vector __attribute__((vector_size(BYTES), aligned(8), may_alias));
};
constexpr int POINT_BLOCK = 5, VECTORS = 2;

template <typename T>
void wave_all(int wave, const T* z, T* out, int count) {
    if (wave == WAVE_SIREN) {
        for (int u = 0; u < count; ++u) out[u] = kernel_sin(T(KERNEL_OMEGA) * z[u]);
    } else {
        for (int u = 0; u < count; ++u) out[u] = kernel_wave(wave, z[u]);
    }
}

// out = wave(x W + b) for weights (inputs, KERNEL_WIDTH)
template <typename T>
void dense_wave(int wave, const T* x, int inputs, const T* weights, const T* bias, T* out, int width) {
    T z[KERNEL_WIDTH];
    for (int u = 0; u < KERNEL_WIDTH; ++u) z[u] = bias[u];
    for (int j = 0; j < inputs; ++j) {
        const T value = x[j];
        for (int u = 0; u < KERNEL_WIDTH; ++u) z[u] += value * weights[j * KERNEL_WIDTH + u];
    }
    wave_all(wave, z, out, width);
}

// weights: the layers transposed and padded by pad_group_kernel
template <typename T>
void group_kernel(const GroupKernelArgs<T>& a, const T* const* weights, const T* const* biases, int64_t begin, int64_t end) {
    using Vector = typename Row<T>::Vector;
    constexpr int LANES = BYTES / sizeof(T), TILE = VECTORS * LANES;
    const auto at = [](const T* row, int v) { return reinterpret_cast<const Vector*>(row)[v]; };
    const int points = a.size * a.size, dims = kernel_dims(a);
    const int64_t count = a.c_out * a.c_in, stride = group_kernel_stride(count);
    std::vector<T> hidden((points + POINT_BLOCK) * KERNEL_WIDTH), factors(points + POINT_BLOCK);
    for (int64_t pair = begin; pair < end; ++pair) {
        const int64_t o = pair / a.inputs, i = pair % a.inputs;
        const T* inverse = a.inverses + 4 * o;
        T x[KERNEL_DIMS], first[KERNEL_WIDTH], second[KERNEL_WIDTH];
        const T length = a.sym < 0 ? T(0) : polar_features(inverse, a.elements + 4 * i, a.sym, x + 2);
        const T factor = a.out_factors[o] * a.in_factors[i];
        for (int p = 0; p < points; ++p) {
            const T gx = kernel_cell(p % a.size, a.size, a.extent), gy = kernel_cell(p / a.size, a.size, a.extent);
            x[0] = inverse[0] * gx + inverse[1] * gy;
            x[1] = inverse[2] * gx + inverse[3] * gy;
            factors[p] = factor * kernel_mask(a.mask, x[0] * x[0] + x[1] * x[1] + length);
            dense_wave(a.wave, x, dims, weights[0], biases[0], first, a.width);
            dense_wave(a.wave, first, a.width, weights[1], biases[1], second, a.width);
            dense_wave(a.wave, second, a.width, weights[2], biases[2], hidden.data() + p * KERNEL_WIDTH, a.width);
        }
        for (int64_t v0 = 0; v0 < count; v0 += TILE) {
            for (int p0 = 0; p0 < points; p0 += POINT_BLOCK) {
                Vector sums[POINT_BLOCK][VECTORS];
                for (int k = 0; k < POINT_BLOCK; ++k)
                    for (int v = 0; v < VECTORS; ++v) sums[k][v] = at(biases[3] + v0, v);
                for (int j = 0; j < a.width; ++j) {
                    const T* row = weights[3] + j * stride + v0;
                    const Vector first = at(row, 0), second = at(row, 1);
                    for (int k = 0; k < POINT_BLOCK; ++k) {
                        const T h = hidden[(p0 + k) * KERNEL_WIDTH + j];
                        sums[k][0] += h * first;
                        sums[k][1] += h * second;
                    }
                }
                const int last = points - p0 < POINT_BLOCK ? points - p0 : POINT_BLOCK;
                const int64_t values = count - v0 < TILE ? count - v0 : TILE;
                for (int64_t v = 0; v < values; ++v) {
                    const int64_t co = (v0 + v) / a.c_in, ci = (v0 + v) % a.c_in;
                    T* to = a.values + (((co * a.outputs + o) * a.c_in + ci) * a.inputs + i) * points + p0;
                    for (int k = 0; k < last; ++k) to[k] = sums[k][v / LANES][v % LANES] * factors[p0 + k];
                }
            }
        }
    }
}

}  // namespace
}  // namespace vision3d::V3D_ISA
