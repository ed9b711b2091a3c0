#pragma once
#include "bindings/arrays.h"
#include "cuda/launch.h"

namespace vision3d::arrays {

// A target on a GPU. The memory of an emulated GPU is that of the CPU.
template <typename T>
struct CudaTarget {
    using Scalar = T;
#if defined(V3D_EMULATED)
    using Device = nb::device::cpu;
#else
    using Device = nb::device::cuda;
#endif
    static constexpr bool ON_CPU = false;
    cuda::Stream where;
    CudaTarget(int device, uint64_t stream) : where{device, reinterpret_cast<cudaStream_t>(stream)} {}
};

}  // namespace vision3d::arrays
