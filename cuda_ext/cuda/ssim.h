#pragma once
#include "cpu/ssim.h"
#include "cuda/launch.h"

namespace vision3d::cuda {

// As cpu::ssim. `scratch` holds 4 * images * out_height * width * channels numbers; all pointers, the weights too, are
// on the device.
template <typename T>
void ssim(const SsimImage<T>& image, T* scratch, const Stream& where);

// As cpu::ssim_vjp. `scratch` holds 3 * images * height * out_width * channels numbers.
template <typename T>
void ssim_vjp(const SsimImageVjp<T>& image, T* scratch, const Stream& where);

}  // namespace vision3d::cuda
