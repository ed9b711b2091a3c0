#pragma once
#include <cstdint>
#include "cuda/launch.h"

namespace vision3d::cuda {

// Op is one of vision3d::rows.
template <typename Op, typename T>
void rows_forward(const Stream& where, const T* in, T* out, int64_t count);
template <typename Op, typename T>
void rows_vjp(const Stream& where, const T* in, const T* out, const T* v_out, T* v_in, int64_t count);

}  // namespace vision3d::cuda
