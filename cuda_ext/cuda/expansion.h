#pragma once
#include "cuda/launch.h"
#include "vision3d/expansion.h"

namespace vision3d::cuda {

template <typename T> void sampled_expansion(const Stream& where, const expansion::Args<T>& args);

}  // namespace vision3d::cuda
