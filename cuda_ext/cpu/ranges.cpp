#include "cpu/ranges.h"

#include <algorithm>
#include <atomic>

#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

template <typename T>
int64_t find(const T* values, int64_t count, int64_t low, int64_t high) {
    std::atomic<bool> found{false};
    parallel_for(count, 1 << 18, [&](int64_t begin, int64_t end) {
        T smallest = values[begin], largest = values[begin];
        for (int64_t i = begin; i < end; ++i) {
            smallest = std::min(smallest, values[i]);
            largest = std::max(largest, values[i]);
        }
        if (smallest < low || largest >= high) found.store(true, std::memory_order_relaxed);
    });
    if (!found.load()) return -1;
    return std::find_if(values, values + count, [&](T value) { return value < low || value >= high; }) - values;
}

}  // namespace

int64_t find_outside(const int32_t* values, int64_t count, int64_t low, int64_t high) { return find(values, count, low, high); }
int64_t find_outside(const int64_t* values, int64_t count, int64_t low, int64_t high) { return find(values, count, low, high); }

}  // namespace vision3d::cpu
