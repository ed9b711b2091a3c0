#include "cpu/mpm_sort.h"

#include <algorithm>
#include <cstring>

#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

constexpr int64_t CHUNK = 8192, PART = 1024;

// The first of the three nodes along an axis; the loops over particles compute the same in float.
inline int32_t base_of(float x, float inverse) { return int32_t(x * inverse - 0.5f); }

}  // namespace

void SortedParticles::sort(float* rows, int32_t* ids, int64_t stride, int64_t count, const mpm::Step<float>& step, int bodies) {
    for (int k = 0; k < 3; ++k) widths_[k] = (step.size[k] + (1 << SHIFTS[k]) - 1) >> SHIFTS[k];
    const int64_t num_blocks = widths_[0] * widths_[1] * widths_[2];
    const float inverse = 1.f / step.spacing;
    const float *x = rows, *y = rows + stride, *z = rows + 2 * stride;
    keys_.resize(count);
    order_.resize(count);
    parallel_for(count, CHUNK, [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; ++p) {
            const int64_t i = base_of(x[p], inverse) >> 2, j = base_of(y[p], inverse) >> 2, k = base_of(z[p], inverse) >> 3;
            keys_[p] = int32_t(((i * widths_[1] + j) * widths_[2] + k) * bodies + ids[p]);
        }
    });
    starts_.assign(size_t(num_blocks * bodies + 1), 0);
    for (int64_t p = 0; p < count; ++p) ++starts_[size_t(keys_[p]) + 1];
    for (size_t n = 1; n < starts_.size(); ++n) starts_[n] += starts_[n - 1];
    list_blocks(bodies);
    for (int64_t p = 0; p < count; ++p) order_[starts_[size_t(keys_[p])]++] = int32_t(p);  // starts_ become ends
    // By cell within a segment, so that particles that share nodes are adjacent.
    parallel_for(int64_t(segments_.size()), 1, [&](int64_t first, int64_t last) {
        std::vector<int32_t> sorted;
        for (int64_t s = first; s < last; ++s) {
            const Segment& segment = segments_[size_t(s)];
            const int64_t begin = segment.begin, size = segment.end - segment.begin;
            int32_t counts[CELLS + 1] = {0};
            const auto cell_of = [&](int32_t p) {
                return (base_of(x[p], inverse) & 3) * 32 + (base_of(y[p], inverse) & 3) * 8 + (base_of(z[p], inverse) & 7);
            };
            for (int64_t n = 0; n < size; ++n) ++counts[cell_of(order_[begin + n]) + 1];
            for (int c = 0; c < CELLS; ++c) counts[c + 1] += counts[c];
            sorted.resize(size_t(size));
            for (int64_t n = 0; n < size; ++n) sorted[size_t(counts[cell_of(order_[begin + n])]++)] = order_[begin + n];
            std::memcpy(&order_[begin], sorted.data(), size_t(size) * sizeof(int32_t));
        }
    });
    parallel_for(mpm::ROWS + 3, 1, [&](int64_t begin, int64_t end) {
        static thread_local Scratch<uint32_t> scratch;
        scratch.resize(count);
        for (int64_t r = begin; r < end; ++r) {
            uint32_t* row = r < mpm::ROWS ? reinterpret_cast<uint32_t*>(rows) + r * stride
                                          : reinterpret_cast<uint32_t*>(ids) + (r - mpm::ROWS) * stride;
            for (int64_t p = 0; p < count; ++p) scratch[p] = row[order_[p]];
            std::memcpy(row, scratch.data(), size_t(count) * sizeof(uint32_t));
        }
    });
}

void SortedParticles::sort_if_mixed(float* rows, int32_t* ids, int64_t stride, int64_t count, const mpm::Step<float>& step, int bodies) {
    const float inverse = 1.f / step.spacing;
    const auto is_apart = [&](int64_t p) {
        bool found = false;
        for (int a = 0; a < 3; ++a) found = found || base_of(rows[a * stride + p], inverse) != base_of(rows[a * stride + p - 1], inverse);
        return found;
    };
    int64_t changes = 0;
    for (int64_t p = 1; p < count; ++p) changes += is_apart(p);
    if (4 * changes > count) return sort(rows, ids, stride, count, step, bodies);
    segments_.clear();
    for (int64_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && end - begin < PART && ids[end] == ids[begin];) ++end;
        segments_.push_back({ids[begin], begin, end});
    }
}

// From the starts of all blocks and bodies.
void SortedParticles::list_blocks(int bodies) {
    blocks_.clear();
    segments_.clear();
    active_.clear();
    for (auto& color : colors_) color.clear();
    const int64_t num_blocks = widths_[0] * widths_[1] * widths_[2];
    is_active_.assign(size_t(num_blocks), 0);
    for (int64_t n = 0; n < num_blocks; ++n) {
        if (starts_[size_t(n * bodies)] == starts_[size_t((n + 1) * bodies)]) continue;
        Block block{{int(n / (widths_[1] * widths_[2])), int(n / widths_[2] % widths_[1]), int(n % widths_[2])}, int(segments_.size()), 0};
        for (int body = 0; body < bodies; ++body) {
            const int64_t begin = starts_[size_t(n * bodies + body)], end = starts_[size_t(n * bodies + body + 1)];
            if (begin < end) segments_.push_back({body, begin, end});
        }
        block.last_segment = int(segments_.size());
        colors_[(block.at[0] & 1) << 2 | (block.at[1] & 1) << 1 | (block.at[2] & 1)].push_back(int(blocks_.size()));
        blocks_.push_back(block);
        for (int i = std::max(block.at[0] - 1, 0); i <= std::min<int64_t>(block.at[0] + 1, widths_[0] - 1); ++i)
            for (int j = std::max(block.at[1] - 1, 0); j <= std::min<int64_t>(block.at[1] + 1, widths_[1] - 1); ++j)
                for (int k = std::max(block.at[2] - 1, 0); k <= std::min<int64_t>(block.at[2] + 1, widths_[2] - 1); ++k)
                    is_active_[size_t((i * widths_[1] + j) * widths_[2] + k)] = 1;
    }
    for (int64_t n = 0; n < num_blocks; ++n)
        if (is_active_[size_t(n)]) active_.push_back(n);
}

}  // namespace vision3d::cpu
