#pragma once
#include "cpu/ssim.h"
#include "cuda/launch.h"

namespace vision3d::cuda {

// As cpu::ssim and cpu::ssim_vjp; all pointers, the weights too, are on the device.
template <typename T> void ssim(const SsimImage<T>& image, const Stream& where);
template <typename T> void ssim_vjp(const SsimImageVjp<T>& image, const Stream& where);

}  // namespace vision3d::cuda
