#pragma once
#include "vision3d/row_ops.h"

// Work of one GPU thread: one row.
namespace vision3d::bodies {

template <typename Op, typename T>
V3D_HD void row_forward(const T* in, T* out, int64_t i) {
    rows::forward<Op>(in + Op::IN * i, out + Op::OUT * i);
}

template <typename Op, typename T>
V3D_HD void row_vjp(const T* in, const T* out, const T* v_out, T* v_in, int64_t i) {
    rows::vjp<Op>(in + Op::IN * i, Op::KEEPS_OUTPUT ? out + Op::OUT * i : nullptr, v_out + Op::OUT * i, v_in + Op::IN * i);
}

}  // namespace vision3d::bodies
