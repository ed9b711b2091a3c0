#pragma once
#include <cstdint>
#include <cuda_runtime_api.h>
#include "vision3d/adam.h"

namespace vision3d::cuda {

// As cpu::adam_step, with device pointers.
template <typename T>
void adam_step(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, const uint8_t* visible, int64_t rows,
               int64_t row_size, const AdamFactors<T>& factors, cudaStream_t stream);

// Sets *has_bad (zeroed before) to 1 when a value is NaN or infinite.
void find_not_finite(const float* values, int64_t count, int* has_bad, cudaStream_t stream);

}  // namespace vision3d::cuda
