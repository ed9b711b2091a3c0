#pragma once
#include <cstdint>
#include <cuda_runtime_api.h>
#include <stdexcept>
#include <string>
#include <utility>

namespace vision3d::cuda {

// Where a function of this folder runs: a device, and its stream as given by torch.
struct Stream {
    int device;
    cudaStream_t stream;
};

inline void check(cudaError_t error, const char* what) {
    if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA, ") + what + ": " + cudaGetErrorString(error));
}

// Makes the stream's device current, and restores the previous one at the end.
class DeviceGuard {
  public:
    explicit DeviceGuard(const Stream& where) {
        check(cudaGetDevice(&before_), "no usable device");
        if (where.device != before_) check(cudaSetDevice(where.device), "no such device");
        changed_ = where.device != before_;
    }
    ~DeviceGuard() {
        if (changed_) cudaSetDevice(before_);
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

  private:
    int before_ = 0;
    bool changed_ = false;
};

// What keeps the kernels from running on a GPU: an old driver, no code for its architecture. Empty if they run.
std::string problem(int device);

#if defined(__CUDACC__)

// Launches kernel(args...) on `blocks` blocks; `name` is for the error message if it cannot be launched.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, const Stream& where, int64_t blocks, int threads, void (*kernel)(Parameters...), Arguments&&... arguments) {
    if (blocks == 0) return;
    if (blocks > INT32_MAX) throw std::length_error(std::string("CUDA, ") + name + ": more than 2^31 blocks, render fewer cameras at once");
    const DeviceGuard guard(where);
#if !defined(V3D_EMULATED)
    kernel<<<unsigned(blocks), unsigned(threads), 0, where.stream>>>(std::forward<Arguments>(arguments)...);
#else
    emulator::launch(name, reinterpret_cast<const void*>(kernel), blocks, threads, [&] { kernel(arguments...); });
#endif
    check(cudaGetLastError(), name);
}

constexpr int THREADS = 256;  // per block, if each thread processes one of `count` values

inline int64_t blocks_of(int64_t count) { return (count + THREADS - 1) / THREADS; }

// body(row, i), i < count, for rows of `chunks` blocks each: a 32-bit division for the block, not a 64-bit one for every thread.
template <typename Body>
__device__ __forceinline__ void each_row(int chunks, int64_t count, Body body) {
    const int block = int(blockIdx.x), row = block / chunks;
    const int64_t i = int64_t(block - row * chunks) * blockDim.x + threadIdx.x;
    if (i < count) body(int64_t(row), i);
}

#endif

}  // namespace vision3d::cuda
