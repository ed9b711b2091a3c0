#pragma once
#include <cstdint>
#include "cuda/launch.h"
#include "vision3d/adam.h"

namespace vision3d::cuda {

// As cpu::adam_step, with device pointers.
template <typename T>
void adam_step(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, const uint8_t* visible, int64_t rows, int64_t row_size,
               const AdamFactors<T>& factors, const Stream& where);

}  // namespace vision3d::cuda
