#pragma once
#include "bindings/arrays.h"
#include "cuda/launch.h"

namespace vision3d::arrays {

// A target on a GPU.
template <typename T>
struct CudaTarget {
    using Scalar = T;
    using Device = nb::device::cuda;
    cuda::Stream where;
    CudaTarget(int device, uint64_t stream) : where{device, reinterpret_cast<cudaStream_t>(stream)} {}
};

}  // namespace vision3d::arrays
