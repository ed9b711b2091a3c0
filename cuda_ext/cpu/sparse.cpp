#include "cpu/sparse.h"

#include <algorithm>
#include <cstring>
#include <vector>
#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace vision3d::cpu {
namespace {

constexpr int64_t VOXELS = 512, ROWS = 256;        // per chunk
constexpr int64_t LEAST = 2048, MOST_CHUNKS = 16;  // gradient by the weights: voxels, and sums that are added up
constexpr int64_t MOST_SAMPLES = 1 << 20;          // so that a key fits into 62 bits
constexpr int64_t PADDING = 64 / sizeof(float);    // columns, a whole vector of each instruction set

int64_t padded(int64_t columns) { return (columns + PADDING - 1) / PADDING * PADDING; }

// Rows of `columns` numbers as rows of `stride`, the rest zero; the rows themselves if they need no padding.
template <typename T>
const T* padded_rows(const T* rows, int64_t count, int64_t columns, int64_t stride, Scratch<T>& scratch) {
    if (columns == stride) return rows;
    scratch.resize(count * stride);
    parallel_for(count, ROWS, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            std::memcpy(&scratch[n * stride], rows + n * columns, size_t(columns) * sizeof(T));
            std::fill(&scratch[n * stride] + columns, &scratch[n * stride] + stride, T(0));
        }
    });
    return scratch.data();
}

template <typename T>
void copy_columns(const T* rows, int64_t count, int64_t columns, int64_t stride, T* out) {
    parallel_for(count, ROWS, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) std::memcpy(out + n * columns, rows + n * stride, size_t(columns) * sizeof(T));
    });
}

}  // namespace

int64_t find_unsorted(const int64_t* coords, int64_t count, const sparse::Grid& grid) {
    int64_t before = -1;
    for (int64_t n = 0; n < count; ++n) {
        const int64_t* c = coords + 4 * n;
        if (c[0] < 0 || c[0] >= MOST_SAMPLES || c[1] < 0 || c[1] >= grid.x || c[2] < 0 || c[2] >= grid.y || c[3] < 0 || c[3] >= grid.z)
            return n;
        const int64_t key = sparse::key_of(c, grid);
        if (key <= before) return n;
        before = key;
    }
    return -1;
}

// Voxels are visited in the order of their keys, and so are the neighbors at one offset: each row of offsets along z has a place in
// the list that only moves forward.
void find_neighbors(const sparse::NeighborArgs& args) {
    std::vector<int64_t> keys(size_t(args.count), 0);
    for (int64_t n = 0; n < args.count; ++n) keys[size_t(n)] = sparse::key_of(args.coords + 4 * n, args.grid);
    const int64_t half_z = args.size[2] / 2, count = args.count;
    parallel_for(count, 4096, [&](int64_t begin, int64_t end) {
        for (int row = 0; row < args.size[0] * args.size[1]; ++row) {
            const int64_t dx = row / args.size[1] - args.size[0] / 2, dy = row % args.size[1] - args.size[1] / 2;
            const int64_t shift = (dx * args.grid.y + dy) * args.grid.z;
            int64_t p = std::lower_bound(keys.begin(), keys.end(), keys[size_t(begin)] + shift - half_z) - keys.begin();
            int32_t* out = args.neighbors + int64_t(row) * args.size[2] * count;
            for (int64_t n = begin; n < end; ++n) {
                const int64_t *c = args.coords + 4 * n, x = c[1] + dx, y = c[2] + dy, middle = keys[size_t(n)] + shift;
                const bool is_inside = x >= 0 && x < args.grid.x && y >= 0 && y < args.grid.y;
                while (p < count && keys[size_t(p)] < middle - half_z) ++p;
                int64_t q = p;
                for (int64_t dz = -half_z; dz <= half_z; ++dz) {
                    const bool is_found = q < count && keys[size_t(q)] == middle + dz;
                    const bool is_same_row = c[3] + dz >= 0 && c[3] + dz < args.grid.z;
                    out[(dz + half_z) * count + n] = is_found && is_same_row && is_inside ? int32_t(q) : -1;
                    q += is_found;
                }
            }
        }
    });
}

template <typename T>
void submanifold_conv(const sparse::ConvArgs<T>& args) {
    const int64_t stride = padded(args.c_out);
    Scratch<T> weight_rows, out_rows;
    const T* weights = padded_rows(args.weights, args.offsets * args.c_in, args.c_out, stride, weight_rows);
    if (stride != args.c_out) out_rows.resize(args.count * stride);
    T* out = stride == args.c_out ? args.out : out_rows.data();
    parallel_for(args.count, VOXELS, [&](int64_t begin, int64_t end) { sparse_kernels<T>().conv(args, weights, out, stride, begin, end); });
    if (stride != args.c_out) copy_columns(out, args.count, args.c_out, stride, args.out);
}

// Each chunk of voxels has its own sums, which are then added in order. The number of chunks depends only on the sizes.
template <typename T>
void submanifold_conv_weights(const sparse::ConvWeightsArgs<T>& args) {
    const int64_t stride = padded(args.c_out), rows = args.offsets * args.c_in, numbers = rows * stride;
    const int64_t chunk = std::max(LEAST, (args.count + MOST_CHUNKS - 1) / MOST_CHUNKS), chunks = (args.count + chunk - 1) / chunk;
    Scratch<T> v_out_rows, sums;
    const T* v_out = padded_rows(args.v_out, args.count, args.c_out, stride, v_out_rows);
    sums.resize(std::max<int64_t>(chunks, 1) * numbers);
    if (chunks == 0) std::fill(sums.data(), sums.data() + numbers, T(0));
    parallel_for(args.count, chunk, [&](int64_t begin, int64_t end) {
        T* own = sums.data() + begin / chunk * numbers;
        std::fill(own, own + numbers, T(0));
        sparse_kernels<T>().conv_weights(args, v_out, own, stride, begin, end);
    });
    parallel_for(numbers, 1 << 14, [&](int64_t begin, int64_t end) {
        for (int64_t c = 1; c < chunks; ++c)
            for (int64_t n = begin; n < end; ++n) sums[n] += sums[c * numbers + n];
    });
    copy_columns(sums.data(), rows, args.c_out, stride, args.v_weights);
}

template <typename T>
void segment_sum(const sparse::SegmentArgs<T>& args) {
    parallel_for(args.segments, ROWS, [&](int64_t begin, int64_t end) {
        for (int64_t m = begin; m < end; ++m) {
            T* out = args.out + m * args.channels;
            std::fill(out, out + args.channels, T(0));
            for (int64_t p = args.starts[m]; p < args.starts[m + 1]; ++p) {
                const T* row = args.values + args.order[p] * args.channels;
                for (int64_t c = 0; c < args.channels; ++c) out[c] += row[c];
            }
        }
    });
}

template <bool WITH_PLACES, typename T>
void largest(const sparse::SegmentArgs<T>& args, int64_t segment) {
    T* out = args.out + segment * args.channels;
    int64_t* places = WITH_PLACES ? args.places + segment * args.channels : nullptr;
    for (int64_t p = args.starts[segment]; p < args.starts[segment + 1]; ++p) {
        const int64_t place = args.order[p];
        const T* row = args.values + place * args.channels;
        if (p == args.starts[segment]) {
            std::memcpy(out, row, size_t(args.channels) * sizeof(T));
            if (WITH_PLACES) std::fill(places, places + args.channels, place);
            continue;
        }
        for (int64_t c = 0; c < args.channels; ++c) {
            const bool is_more = row[c] > out[c] || (row[c] != row[c] && out[c] == out[c]);
            out[c] = is_more ? row[c] : out[c];
            if (WITH_PLACES) places[c] = is_more ? place : places[c];
        }
    }
}

template <typename T>
void segment_max(const sparse::SegmentArgs<T>& args) {
    parallel_for(args.segments, ROWS, [&](int64_t begin, int64_t end) {
        for (int64_t m = begin; m < end; ++m) args.places ? largest<true>(args, m) : largest<false>(args, m);
    });
}

// By digits of 11 bits, the lowest first, as many as the largest key has.
void sort_keys(const int64_t* keys, int64_t count, int64_t* sorted, int64_t* order) {
    constexpr int BITS = 11, SIZE = 1 << BITS;
    int64_t most = 0;
    for (int64_t n = 0; n < count; ++n) most = std::max(most, keys[n]);
    int passes = 1;
    while (most >> (BITS * passes)) ++passes;
    struct Entry {
        int64_t key, place;
    };
    Scratch<Entry> buffers[2];
    for (auto& buffer : buffers) buffer.resize(std::max<int64_t>(count, 1));
    for (int64_t n = 0; n < count; ++n) buffers[0][n] = {keys[n], n};
    for (int pass = 0; pass < passes; ++pass) {
        const Entry* from = buffers[pass % 2].data();
        Entry* to = buffers[1 - pass % 2].data();
        int64_t places[SIZE + 1] = {0};
        const auto digit = [&](const Entry& entry) { return (entry.key >> (BITS * pass)) & (SIZE - 1); };
        for (int64_t n = 0; n < count; ++n) ++places[digit(from[n]) + 1];
        for (int d = 0; d < SIZE; ++d) places[d + 1] += places[d];
        for (int64_t n = 0; n < count; ++n) to[places[digit(from[n])]++] = from[n];
    }
    for (int64_t n = 0; n < count; ++n) {
        sorted[n] = buffers[passes % 2][n].key;
        order[n] = buffers[passes % 2][n].place;
    }
}

template void submanifold_conv(const sparse::ConvArgs<float>&);
template void submanifold_conv(const sparse::ConvArgs<double>&);
template void submanifold_conv_weights(const sparse::ConvWeightsArgs<float>&);
template void submanifold_conv_weights(const sparse::ConvWeightsArgs<double>&);
template void segment_sum(const sparse::SegmentArgs<float>&);
template void segment_sum(const sparse::SegmentArgs<double>&);
template void segment_max(const sparse::SegmentArgs<float>&);
template void segment_max(const sparse::SegmentArgs<double>&);

}  // namespace vision3d::cpu
