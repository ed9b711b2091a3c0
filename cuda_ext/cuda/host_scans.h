#pragma once
#include "vision3d/scans_args.h"

// The bodies of the GPU kernels on a CPU, one thread after the other: the float64 implementation, compared by tests with the vector
// loops.
namespace vision3d::host {

template <typename Args> void scan(const Args& args);

}  // namespace vision3d::host
