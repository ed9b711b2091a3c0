#pragma once
#include <cstdint>
#include "vision3d/noise.h"

namespace vision3d::cpu {

template <typename T>
void add_noise(const NoiseArgs<T>& args);

// out[row] = the normal numbers of rows 0 to count - 1.
void normals(uint64_t seed, uint64_t step, int64_t count, float* out);

}  // namespace vision3d::cpu
