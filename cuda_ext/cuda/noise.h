#pragma once
#include "cuda/launch.h"
#include "vision3d/noise.h"

namespace vision3d::cuda {

// As cpu::add_noise and cpu::normals, with device pointers.
template <typename T>
void add_noise(const NoiseArgs<T>& args, const Stream& where);
void normals(uint64_t seed, uint64_t step, int64_t count, float* out, const Stream& where);

}  // namespace vision3d::cuda
