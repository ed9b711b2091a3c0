#pragma once
// Stand-in for the header of CUDA's toolkit: the functions that cuda_ext uses, for one device whose memory is the CPU's.
#include <cstdlib>
#include <cstring>

#define CUDART_VERSION 12000

enum cudaError_t {
    cudaSuccess,
    cudaErrorMemoryAllocation,
    cudaErrorInvalidDevice,
    cudaErrorInsufficientDriver,
    cudaErrorInvalidDeviceFunction,
    cudaErrorInvalidKernelImage,
    cudaErrorNoKernelImageForDevice,
    cudaErrorUnsupportedPtxVersion
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
struct cudaFuncAttributes {};
struct cudaDeviceProp {
    int major, minor;
};
using cudaStream_t = struct EmulatedStream*;

inline const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory"
           : error == cudaErrorInvalidDevice  ? "invalid device ordinal"
                                              : "unknown error";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) { return *properties = {9, 0}, cudaSuccess; }
template <typename Function>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Function*) {
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

// New memory is garbage, here NaN.
inline cudaError_t cudaMallocAsync(void** memory, size_t size, cudaStream_t) {
    *memory = std::malloc(size);
    if (*memory == nullptr) return cudaErrorMemoryAllocation;
    std::memset(*memory, 0xff, size);
    return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* memory, cudaStream_t) { return std::free(memory), cudaSuccess; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t) {
    return std::memcpy(to, from, size), cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t size, cudaStream_t) {
    return std::memset(memory, value, size), cudaSuccess;
}
