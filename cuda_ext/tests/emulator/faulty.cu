#include <stdexcept>
#include <string>

#include "cuda/launch.h"

// Kernels with an error that the emulator must find. One block of 32 threads.
namespace vision3d::cuda {
namespace {

__global__ void lane_outside_of_its_mask() { __any_sync(0x7fffffffu, 1); }

__global__ void missing_lane() {
    if (threadIdx.x != 5) __any_sync(0xffffffffu, 1);
}

__global__ void different_masks() { __any_sync(threadIdx.x < 16 ? 0xffffffffu : 0xffff0000u, 1); }

__global__ void shuffle_from_outside() {
    if (threadIdx.x < 4) __shfl_xor_sync(0xfu, 1, 4);
}

__global__ void different_barriers() {
    if (threadIdx.x < 16)
        __syncthreads();
    else
        __syncthreads();
}

__global__ void missing_thread() {
    if (threadIdx.x != 5) __syncthreads();
}

}  // namespace

void run_faulty(const std::string& name) {
    const Stream where{0, nullptr};
    const auto run = [&](const char* other, void (*kernel)()) {
        if (name == other) launch(other, where, 1, 32, kernel);
    };
    run("lane_outside_of_its_mask", lane_outside_of_its_mask);
    run("missing_lane", missing_lane);
    run("different_masks", different_masks);
    run("shuffle_from_outside", shuffle_from_outside);
    run("different_barriers", different_barriers);
    run("missing_thread", missing_thread);
}

}  // namespace vision3d::cuda
