#include "cpu/ranges.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <type_traits>

#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

template <typename T>
int64_t find(const T* values, int64_t count, int64_t low, int64_t high) {
    using Unsigned = std::make_unsigned_t<T>;
    high = std::min<int64_t>(high, int64_t(std::numeric_limits<T>::max()) - (sizeof(T) == 8) + 1);
    const Unsigned first = Unsigned(low), span = high > low ? Unsigned(high) - first : 0;
    std::atomic<bool> found{false};
    parallel_for(count, 1 << 18, [&](int64_t begin, int64_t end) {
        Unsigned outside = 0;  // one comparison per value, as values below the range wrap to large ones
        for (int64_t i = begin; i < end; ++i) outside |= Unsigned(Unsigned(values[i]) - first >= span);
        if (outside) found.store(true, std::memory_order_relaxed);
    });
    if (!found.load()) return -1;
    return std::find_if(values, values + count, [&](T value) { return value < low || value >= high; }) - values;
}

}  // namespace

int64_t find_outside(const int32_t* values, int64_t count, int64_t low, int64_t high) { return find(values, count, low, high); }
int64_t find_outside(const int64_t* values, int64_t count, int64_t low, int64_t high) { return find(values, count, low, high); }

}  // namespace vision3d::cpu
