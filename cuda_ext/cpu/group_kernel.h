#pragma once
#include "vision3d/group_kernel.h"

namespace vision3d::cpu {

template <typename T>
void group_kernel(const GroupKernelArgs<T>& args);

}  // namespace vision3d::cpu
