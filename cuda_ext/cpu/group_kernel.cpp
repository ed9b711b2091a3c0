#include "cpu/group_kernel.h"

#include <vector>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

// (rows, columns) -> (columns, stride), the rest zero
template <typename T>
std::vector<T> transposed(const T* values, int64_t rows, int64_t columns, int64_t stride) {
    std::vector<T> out(size_t(columns * stride), T(0));
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) out[size_t(c * stride + r)] = values[r * columns + c];
    return out;
}

}  // namespace

template <typename T>
void group_kernel(const GroupKernelArgs<T>& args) {
    const int64_t count = args.c_out * args.c_in;
    std::vector<T> weights[4], biases[4];
    const T *weight_rows[4], *bias_rows[4];
    for (int layer = 0; layer < 4; ++layer) {
        const int64_t rows = layer == 3 ? count : args.width, columns = layer == 0 ? kernel_dims(args) : args.width;
        const int64_t stride = layer == 3 ? group_kernel_stride(count) : int64_t(KERNEL_WIDTH);
        weights[layer] = transposed(args.weights[layer], rows, columns, stride);
        biases[layer] = transposed(args.biases[layer], rows, 1, stride);
        weight_rows[layer] = weights[layer].data();
        bias_rows[layer] = biases[layer].data();
    }
    parallel_for(args.outputs * args.inputs, 4,
                 [&](int64_t begin, int64_t end) { group_kernel_loop<T>()(args, weight_rows, bias_rows, begin, end); });
}

template void group_kernel(const GroupKernelArgs<float>&);
template void group_kernel(const GroupKernelArgs<double>&);

}  // namespace vision3d::cpu
