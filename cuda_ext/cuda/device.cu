#include "cuda/launch.h"

namespace vision3d::cuda {
namespace {

__global__ void probe() {}

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

}  // namespace

std::string problem(int device) {
    int driver = 0, runtime = 0, count = 0, before = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || cudaRuntimeGetVersion(&runtime) != cudaSuccess || driver == 0)
        return "no NVIDIA driver is loaded";
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaErrorInsufficientDriver)
        return "the NVIDIA driver supports CUDA " + version(driver) + ", the kernels need " + version(runtime);
    if (error != cudaSuccess) return cudaGetErrorString(error);
    if (device < 0 || device >= count) return "there are " + std::to_string(count) + " GPUs";
    if (cudaGetDevice(&before) != cudaSuccess) return "no usable GPU";
    error = cudaSetDevice(device);
    cudaFuncAttributes attributes;
    if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, probe);
    cudaDeviceProp properties;
    const bool has_properties = cudaGetDeviceProperties(&properties, device) == cudaSuccess;
    cudaSetDevice(before);
    (void)cudaGetLastError();  // it would be reported by the next launch
    if (error == cudaSuccess) return "";
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction || error == cudaErrorInvalidKernelImage) {
        const std::string name = has_properties ? "sm_" + std::to_string(properties.major) + std::to_string(properties.minor) : "this GPU";
        return "the kernels were not compiled for " + name;
    }
    if (error == cudaErrorUnsupportedPtxVersion) return "the kernels need a newer NVIDIA driver for this GPU";
    return cudaGetErrorString(error);
}

}  // namespace vision3d::cuda
