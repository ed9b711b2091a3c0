#pragma once
#include "vision3d/expansion.h"

// Samples of a transposed convolution on all cores; bitwise equal for any number of threads.
namespace vision3d::cpu {

// c_out is a multiple of expansion_padding<T>().
template <typename T> void sampled_expansion(const expansion::Args<T>& args);

template <typename T> constexpr int64_t expansion_padding() { return 64 / int64_t(sizeof(T)); }

}  // namespace vision3d::cpu
