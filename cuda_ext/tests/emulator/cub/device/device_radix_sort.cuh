#pragma once
// Stand-in for CUB's stable sort of pairs by the bits [begin, end) of their keys.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "cuda_runtime_api.h"

namespace cub {

struct DeviceRadixSort {
    template <typename Key, typename Value>
    static cudaError_t SortPairs(void* scratch, size_t& bytes, const Key* keys, Key* sorted_keys, const Value* values, Value* sorted_values,
                                 int64_t count, int begin, int end, cudaStream_t) {
        if (scratch == nullptr) return bytes = 1, cudaSuccess;
        const Key all = end - begin == 8 * int(sizeof(Key)) ? ~Key(0) : (Key(1) << (end - begin)) - 1;
        std::vector<int64_t> order(static_cast<size_t>(count));
        std::iota(order.begin(), order.end(), int64_t(0));
        std::stable_sort(order.begin(), order.end(),
                         [&](int64_t a, int64_t b) { return (keys[a] >> begin & all) < (keys[b] >> begin & all); });
        for (int64_t i = 0; i < count; ++i) {
            sorted_keys[i] = keys[order[size_t(i)]];
            sorted_values[i] = values[order[size_t(i)]];
        }
        return cudaSuccess;
    }
};

}  // namespace cub
