#include "cuda/group_kernel.h"

// One thread per pair of samples and grid point: its hidden layers are in local memory, the weights come from the caches.
namespace vision3d::cuda {
namespace {

template <typename T>
__device__ void dense_wave(int wave, const T* x, int inputs, const T* weights, const T* bias, T* out, int width) {
    for (int u = 0; u < width; ++u) {
        T z = bias[u];
        for (int j = 0; j < inputs; ++j) z += x[j] * weights[u * inputs + j];
        out[u] = kernel_wave(wave, z);
    }
}

template <typename T>
__global__ void group_kernel_kernel(GroupKernelArgs<T> a, int64_t count) {
    const int64_t at = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (at >= count) return;
    const int points = a.size * a.size, p = int(at % points);
    const int64_t pair = at / points, o = pair / a.inputs, i = pair % a.inputs;
    const T* inverse = a.inverses + 4 * o;
    T x[KERNEL_DIMS], first[KERNEL_WIDTH], second[KERNEL_WIDTH];
    const T length = a.sym < 0 ? T(0) : polar_features(inverse, a.elements + 4 * i, a.sym, x + 2);
    const T gx = kernel_cell(p % a.size, a.size, a.extent), gy = kernel_cell(p / a.size, a.size, a.extent);
    x[0] = inverse[0] * gx + inverse[1] * gy;
    x[1] = inverse[2] * gx + inverse[3] * gy;
    const T factor = a.out_factors[o] * a.in_factors[i] * kernel_mask(a.mask, x[0] * x[0] + x[1] * x[1] + length);
    dense_wave(a.wave, x, kernel_dims(a), a.weights[0], a.biases[0], first, a.width);
    dense_wave(a.wave, first, a.width, a.weights[1], a.biases[1], second, a.width);
    dense_wave(a.wave, second, a.width, a.weights[2], a.biases[2], first, a.width);
    for (int64_t co = 0, v = 0; co < a.c_out; ++co)
        for (int64_t ci = 0; ci < a.c_in; ++ci, ++v) {
            T sum = a.biases[3][v];
            for (int j = 0; j < a.width; ++j) sum += first[j] * a.weights[3][v * a.width + j];
            a.values[(((co * a.outputs + o) * a.c_in + ci) * a.inputs + i) * points + p] = sum * factor;
        }
}

}  // namespace

template <typename T>
void group_kernel(const GroupKernelArgs<T>& args, const Stream& where) {
    const int64_t count = args.outputs * args.inputs * args.size * args.size;
    launch("group_kernel", where, blocks_of(count), THREADS, group_kernel_kernel<T>, args, count);
}

template void group_kernel(const GroupKernelArgs<float>&, const Stream&);
template void group_kernel(const GroupKernelArgs<double>&, const Stream&);

}  // namespace vision3d::cuda
