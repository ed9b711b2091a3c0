// Row operations, LANES rows at a time: transposed to vectors, computed, and transposed back.
#pragma once
#include "cpu/isa/simd.h"
#include "vision3d/row_ops.h"

namespace vision3d::V3D_ISA {

template <int WIDTH>
V3D_INLINE void load_rows(const float* rows, int used, simd::F* out) {
    constexpr int N = simd::LANES;
    alignas(64) float buffer[WIDTH][N];
    if (used == N) {
        for (int lane = 0; lane < N; ++lane)
            for (int j = 0; j < WIDTH; ++j) buffer[j][lane] = rows[lane * WIDTH + j];
    } else {  // lanes past the end repeat the last row
        for (int lane = 0; lane < N; ++lane)
            for (int j = 0; j < WIDTH; ++j) buffer[j][lane] = rows[(lane < used ? lane : used - 1) * WIDTH + j];
    }
    for (int j = 0; j < WIDTH; ++j) out[j] = simd::load(buffer[j]);
}

template <int WIDTH>
V3D_INLINE void store_rows(float* rows, int used, const simd::F* values) {
    constexpr int N = simd::LANES;
    alignas(64) float buffer[WIDTH][N];
    for (int j = 0; j < WIDTH; ++j) simd::store(buffer[j], values[j]);
    if (used == N) {
        for (int lane = 0; lane < N; ++lane)
            for (int j = 0; j < WIDTH; ++j) rows[lane * WIDTH + j] = buffer[j][lane];
    } else {
        for (int lane = 0; lane < used; ++lane)
            for (int j = 0; j < WIDTH; ++j) rows[lane * WIDTH + j] = buffer[j][lane];
    }
}

template <typename Op>
void rows_forward(const float* in, float* out, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += simd::LANES) {
        const int used = end - i < simd::LANES ? int(end - i) : simd::LANES;
        simd::F a[Op::IN], b[Op::OUT];
        load_rows<Op::IN>(in + i * Op::IN, used, a);
        rows::forward<Op>(a, b);
        store_rows<Op::OUT>(out + i * Op::OUT, used, b);
    }
}

template <typename Op>
void rows_vjp(const float* in, const float* out, const float* v_out, float* v_in, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += simd::LANES) {
        const int used = end - i < simd::LANES ? int(end - i) : simd::LANES;
        simd::F a[Op::IN], b[Op::OUT], v_b[Op::OUT], v_a[Op::IN];
        load_rows<Op::IN>(in + i * Op::IN, used, a);
        if constexpr (Op::KEEPS_OUTPUT) load_rows<Op::OUT>(out + i * Op::OUT, used, b);
        load_rows<Op::OUT>(v_out + i * Op::OUT, used, v_b);
        rows::vjp<Op>(a, b, v_b, v_a);
        store_rows<Op::IN>(v_in + i * Op::IN, used, v_a);
    }
}

}  // namespace vision3d::V3D_ISA
