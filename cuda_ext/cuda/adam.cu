#include "cuda/adam.h"

namespace vision3d::cuda {
namespace {

constexpr int BLOCK = 256;

template <typename T>
__global__ void adam_kernel(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, const uint8_t* visible,
                            int64_t row_size, AdamFactors<T> factors, int64_t count) {
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i >= count || (visible != nullptr && !visible[i / row_size])) return;
    vision3d::adam_step(param[i], grad[i], exp_avg[i], exp_avg_sq[i], factors);
}

__global__ void not_finite_kernel(const float* values, int64_t count, int* has_bad) {
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i < count && !(values[i] - values[i] == 0.f)) *has_bad = 1;  // all writers write the same
}

unsigned blocks(int64_t count) { return unsigned((count + BLOCK - 1) / BLOCK); }

}  // namespace

template <typename T>
void adam_step(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, const uint8_t* visible, int64_t rows,
               int64_t row_size, const AdamFactors<T>& factors, cudaStream_t stream) {
    const int64_t count = rows * row_size;
    if (count == 0) return;
    adam_kernel<<<blocks(count), BLOCK, 0, stream>>>(param, grad, exp_avg, exp_avg_sq, visible, row_size, factors, count);
}

void find_not_finite(const float* values, int64_t count, int* has_bad, cudaStream_t stream) {
    if (count > 0) not_finite_kernel<<<blocks(count), BLOCK, 0, stream>>>(values, count, has_bad);
}

template void adam_step(float*, const float*, float*, float*, const uint8_t*, int64_t, int64_t,
                        const AdamFactors<float>&, cudaStream_t);
template void adam_step(double*, const double*, double*, double*, const uint8_t*, int64_t, int64_t,
                        const AdamFactors<double>&, cudaStream_t);

}  // namespace vision3d::cuda
