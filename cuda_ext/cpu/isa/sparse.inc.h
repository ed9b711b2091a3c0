#pragma once
#include <algorithm>
#include <utility>
#include "cpu/isa/group_kernel.inc.h"
#include "vision3d/sparse.h"

// Gather, multiply, scatter: the pairs of one offset are taken in blocks whose sums stay in registers. Rows of weights and outputs
// are padded to whole vectors.
namespace vision3d::V3D_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int ROW_BLOCK = 6, COLUMN_BLOCK = 4;  // 24 of 32 registers
#elif defined(__AVX2__)
constexpr int ROW_BLOCK = 6, COLUMN_BLOCK = 2;  // 12 of 16
#else
constexpr int ROW_BLOCK = 4, COLUMN_BLOCK = 2;
#endif
constexpr int PAIR_BLOCK = 512;  // pairs gathered at a time

template <typename T>
struct PairRows {
    const T* in[PAIR_BLOCK];
    T* out[PAIR_BLOCK];
    int count = 0;
};

template <typename T>
using Lanes = typename Row<T>::Vector;

// out[r] += in[r] W for ROWS pairs and COLUMNS vectors of columns.
template <int ROWS, int COLUMNS, typename T>
void multiply_rows(const T* const* in, T* const* out, const T* weights, int64_t c_in, int64_t stride, int64_t first) {
    Lanes<T> sums[ROWS][COLUMNS];
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < COLUMNS; ++v) sums[r][v] = reinterpret_cast<const Lanes<T>*>(out[r] + first)[v];
    for (int64_t c = 0; c < c_in; ++c) {
        const Lanes<T>* row = reinterpret_cast<const Lanes<T>*>(weights + c * stride + first);
        Lanes<T> w[COLUMNS];
        for (int v = 0; v < COLUMNS; ++v) w[v] = row[v];
        for (int r = 0; r < ROWS; ++r) {
            const T value = in[r][c];
            for (int v = 0; v < COLUMNS; ++v) sums[r][v] += value * w[v];
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < COLUMNS; ++v) reinterpret_cast<Lanes<T>*>(out[r] + first)[v] = sums[r][v];
}

// W[r] += sum over pairs of in[r] out, for ROWS rows and COLUMNS vectors of columns of the weights.
template <int ROWS, int COLUMNS, typename T>
void add_products(const PairRows<const T>& pairs, int begin, int end, T* weights, int64_t row, int64_t stride, int64_t first) {
    Lanes<T> sums[ROWS][COLUMNS];
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < COLUMNS; ++v) sums[r][v] = reinterpret_cast<const Lanes<T>*>(weights + (row + r) * stride + first)[v];
    for (int p = begin; p < end; ++p) {
        const T* in = pairs.in[p] + row;
        const Lanes<T>* out = reinterpret_cast<const Lanes<T>*>(pairs.out[p] + first);
        Lanes<T> o[COLUMNS];
        for (int v = 0; v < COLUMNS; ++v) o[v] = out[v];
        for (int r = 0; r < ROWS; ++r) {
            const T value = in[r];
            for (int v = 0; v < COLUMNS; ++v) sums[r][v] += value * o[v];
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < COLUMNS; ++v) reinterpret_cast<Lanes<T>*>(weights + (row + r) * stride + first)[v] = sums[r][v];
}

// Calls body(constant, position) for blocks of SIZE, and one smaller block at the end.
template <int SIZE, typename Body>
void in_blocks(int64_t count, Body body) {
    int64_t at = 0;
    for (; at + SIZE <= count; at += SIZE) body(std::integral_constant<int, SIZE>{}, at);
    if constexpr (SIZE > 1)
        if (at < count) in_blocks<SIZE - 1>(count - at, [&](auto size, int64_t offset) { body(size, at + offset); });
}

// Calls body(pairs) for the pairs of an offset with voxels [begin, end), in blocks.
template <typename T, typename Out, typename Body>
void gather_pairs(const sparse::ConvArgs<T>& a, int64_t offset, Out* out, int64_t stride, int64_t begin, int64_t end, Body body) {
    const int32_t* neighbors = a.neighbors + offset * a.count;
    PairRows<Out> pairs;
    for (int64_t at = begin; at < end; at += PAIR_BLOCK) {
        const int64_t stop = std::min<int64_t>(at + PAIR_BLOCK, end);
        pairs.count = 0;
        for (int64_t o = at; o < stop; ++o) {  // without a branch: most offsets of most voxels are empty
            const int64_t i = neighbors[o];
            pairs.in[pairs.count] = a.features + i * a.c_in;
            pairs.out[pairs.count] = out + o * stride;
            pairs.count += i >= 0;
        }
        if (pairs.count) body(pairs);
    }
}

// Outputs of voxels [begin, end).
template <typename T>
void submanifold_conv(const sparse::ConvArgs<T>& a, const T* weights, T* out, int64_t stride, int64_t begin, int64_t end) {
    constexpr int LANES = BYTES / sizeof(T);
    std::fill(out + begin * stride, out + end * stride, T(0));
    for (int64_t k = 0; k < a.offsets; ++k) {
        const T* own = weights + k * a.c_in * stride;
        gather_pairs(a, k, out, stride, begin, end, [&](const PairRows<T>& pairs) {
            in_blocks<COLUMN_BLOCK>(stride / LANES, [&](auto columns, int64_t vector) {
                in_blocks<ROW_BLOCK>(pairs.count, [&](auto rows, int64_t p) {
                    multiply_rows<decltype(rows)::value, decltype(columns)::value>(pairs.in + p, pairs.out + p, own, a.c_in, stride,
                                                                                   vector * LANES);
                });
            });
        });
    }
}

// Adds the products of voxels [begin, end).
template <typename T>
void submanifold_conv_weights(const sparse::ConvWeightsArgs<T>& a, const T* v_out, T* v_weights, int64_t stride, int64_t begin,
                              int64_t end) {
    constexpr int LANES = BYTES / sizeof(T), BLOCK = 64;  // rows of that many pairs stay in the first cache
    for (int64_t k = 0; k < a.offsets; ++k) {
        T* own = v_weights + k * a.c_in * stride;
        gather_pairs<T, const T>(a, k, v_out, stride, begin, end, [&](const PairRows<const T>& pairs) {
            for (int p = 0; p < pairs.count; p += BLOCK)
                in_blocks<COLUMN_BLOCK>(stride / LANES, [&](auto columns, int64_t vector) {
                    in_blocks<ROW_BLOCK>(a.c_in, [&](auto rows, int64_t row) {
                        add_products<decltype(rows)::value, decltype(columns)::value, T>(pairs, p, std::min(p + BLOCK, pairs.count), own,
                                                                                         row, stride, vector * LANES);
                    });
                });
        });
    }
}

}  // namespace
}  // namespace vision3d::V3D_ISA
