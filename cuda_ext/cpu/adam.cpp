#include "cpu/adam.h"

#include <atomic>

#include "cpu/dispatch.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {

template <typename T>
void adam_step(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, const uint8_t* visible, int64_t rows, int64_t row_size,
               const AdamFactors<T>& factors) {
    const auto range = image_kernels<T>().adam_range;
    const auto step_rows = [&](int64_t begin, int64_t end) {
        const int64_t at = begin * row_size;
        range(param + at, grad + at, exp_avg + at, exp_avg_sq + at, factors, (end - begin) * row_size);
    };
    parallel_for(rows, 1 + (1 << 14) / (row_size + 1), [&](int64_t begin, int64_t end) {
        if (visible == nullptr) return step_rows(begin, end);
        while (begin < end) {  // runs of visible rows
            while (begin < end && !visible[begin]) ++begin;
            int64_t stop = begin;
            while (stop < end && visible[stop]) ++stop;
            if (stop > begin) step_rows(begin, stop);
            begin = stop;
        }
    });
}

template void adam_step(float*, const float*, float*, float*, const uint8_t*, int64_t, int64_t, const AdamFactors<float>&);
template void adam_step(double*, const double*, double*, double*, const uint8_t*, int64_t, int64_t, const AdamFactors<double>&);

bool all_finite(const float* values, int64_t count) {
    const auto range = kernels().finite_range;
    std::atomic<bool> finite{true};
    parallel_for(count, 1 << 16, [&](int64_t begin, int64_t end) {
        if (!range(values + begin, end - begin)) finite.store(false, std::memory_order_relaxed);
    });
    return finite.load();
}

}  // namespace vision3d::cpu
