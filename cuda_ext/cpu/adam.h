#pragma once
#include <cstdint>
#include "vision3d/adam.h"

namespace vision3d::cpu {

// `rows` rows of `row_size` values each; `visible` (one byte per row, null for all) selects the rows to update.
template <typename T>
void adam_step(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, const uint8_t* visible, int64_t rows, int64_t row_size,
               const AdamFactors<T>& factors);

bool all_finite(const float* values, int64_t count);

}  // namespace vision3d::cpu
