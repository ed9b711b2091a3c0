#pragma once
#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "vision3d/row_ops.h"

// Row operations on all cores: float with the vector kernels, double row by row.
namespace vision3d::cpu {

constexpr int64_t ROWS_CHUNK = 4096;

template <typename Op, typename T>
void rows_forward(int op, const T* in, T* out, int64_t count) {
    parallel_for(count, ROWS_CHUNK, [=](int64_t begin, int64_t end) {
        if constexpr (sizeof(T) == sizeof(float)) {
            kernels().rows[op].forward(in, out, begin, end);
        } else {
            for (int64_t i = begin; i < end; ++i) rows::forward<Op>(in + Op::IN * i, out + Op::OUT * i);
        }
    });
}

template <typename Op, typename T>
void rows_vjp(int op, const T* in, const T* out, const T* v_out, T* v_in, int64_t count) {
    parallel_for(count, ROWS_CHUNK, [=](int64_t begin, int64_t end) {
        if constexpr (sizeof(T) == sizeof(float)) {
            kernels().rows[op].vjp(in, out, v_out, v_in, begin, end);
        } else {
            for (int64_t i = begin; i < end; ++i)
                rows::vjp<Op>(in + Op::IN * i, Op::KEEPS_OUTPUT ? out + Op::OUT * i : nullptr, v_out + Op::OUT * i, v_in + Op::IN * i);
        }
    });
}

}  // namespace vision3d::cpu
