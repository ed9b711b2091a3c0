#include "cpu/ssim.h"

#include <vector>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

constexpr int64_t ROWS = 8;  // rows per work item; results do not depend on it

}  // namespace

template <typename T>
void ssim(const SsimImage<T>& s) {
    const auto row_kernel = image_kernels<T>().ssim_row;
    const int64_t scratch = 4 * s.channels * (s.width + 2 * s.margin);
    parallel_for(s.images * s.out_height, ROWS, [&](int64_t begin, int64_t end) {
        std::vector<T> sums(scratch);
        for (int64_t row = begin; row < end; ++row) row_kernel(s, row, sums.data());
    });
}

template <typename T>
void ssim_vjp(const SsimImageVjp<T>& s) {
    const auto row_kernel = image_kernels<T>().ssim_vjp_row;
    const int64_t scratch = 3 * s.channels * (s.out_width + 2 * (s.window - 1 - s.margin));
    parallel_for(s.images * s.height, ROWS, [&](int64_t begin, int64_t end) {
        std::vector<T> sums(scratch);
        for (int64_t row = begin; row < end; ++row) row_kernel(s, row, sums.data());
    });
}

template void ssim(const SsimImage<float>&);
template void ssim(const SsimImage<double>&);
template void ssim_vjp(const SsimImageVjp<float>&);
template void ssim_vjp(const SsimImageVjp<double>&);

}  // namespace vision3d::cpu
