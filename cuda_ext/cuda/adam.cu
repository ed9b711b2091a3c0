#include "cuda/adam.h"

namespace vision3d::cuda {
namespace {

template <typename T>
__global__ void adam_kernel(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, const uint8_t* visible, int64_t row_size,
                            AdamFactors<T> factors, int64_t count) {
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i >= count || (visible != nullptr && !visible[i / row_size])) return;
    vision3d::adam_step(param[i], grad[i], exp_avg[i], exp_avg_sq[i], factors);
}

}  // namespace

template <typename T>
void adam_step(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, const uint8_t* visible, int64_t rows, int64_t row_size,
               const AdamFactors<T>& factors, const Stream& where) {
    const int64_t count = rows * row_size;
    launch("adam", where, blocks_of(count), THREADS, adam_kernel<T>, param, grad, exp_avg, exp_avg_sq, visible, row_size, factors, count);
}

template void adam_step(float*, const float*, float*, float*, const uint8_t*, int64_t, int64_t, const AdamFactors<float>&, const Stream&);
template void adam_step(double*, const double*, double*, double*, const uint8_t*, int64_t, int64_t, const AdamFactors<double>&,
                        const Stream&);

}  // namespace vision3d::cuda
