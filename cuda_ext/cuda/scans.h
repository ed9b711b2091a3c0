#pragma once
#include "cuda/launch.h"
#include "vision3d/scans_args.h"

namespace vision3d::cuda {

template <typename Args> void scan(const Stream& where, const Args& args);

}  // namespace vision3d::cuda
