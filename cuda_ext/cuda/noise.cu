#include "cuda/noise.h"

namespace vision3d::cuda {
namespace {

template <typename T>
__global__ void add_noise_kernel(NoiseArgs<T> args) {
    const int64_t row = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (row < args.count) vision3d::add_noise(args, row);
}

__global__ void normals_kernel(uint64_t seed, uint64_t step, int64_t count, float* out) {
    const int64_t row = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (row < count) vision3d::normals(seed, step, uint64_t(row), out + 3 * row);
}

}  // namespace

template <typename T>
void add_noise(const NoiseArgs<T>& args, const Stream& where) {
    launch("add_noise", where, blocks_of(args.count), THREADS, add_noise_kernel<T>, args);
}

template void add_noise(const NoiseArgs<float>&, const Stream&);
template void add_noise(const NoiseArgs<double>&, const Stream&);

void normals(uint64_t seed, uint64_t step, int64_t count, float* out, const Stream& where) {
    launch("normals", where, blocks_of(count), THREADS, normals_kernel, seed, step, count, out);
}

}  // namespace vision3d::cuda
