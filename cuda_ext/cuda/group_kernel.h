#pragma once
#include "cuda/launch.h"
#include "vision3d/group_kernel.h"

namespace vision3d::cuda {

template <typename T>
void group_kernel(const GroupKernelArgs<T>& args, const Stream& where);

}  // namespace vision3d::cuda
