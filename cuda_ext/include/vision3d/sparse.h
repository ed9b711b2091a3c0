#pragma once
#include <cmath>
#include <cstdint>
#include "vision3d/macros.h"

// Voxels of sparse grids: neighbors, submanifold convolution, sums and maxima of segments.
namespace vision3d::sparse {

constexpr int MAX_SIZE = 7;  // of a convolution along an axis

struct Grid {
    int64_t x, y, z;
};

// Coordinates are rows batch x y z, sorted by this key and unique.
V3D_HD int64_t key_of(const int64_t* c, const Grid& grid) { return ((c[0] * grid.x + c[1]) * grid.y + c[2]) * grid.z + c[3]; }

// The first voxel whose key is not below `key`.
V3D_HD int64_t lower_bound(const int64_t* coords, int64_t count, int64_t key, const Grid& grid) {
    int64_t low = 0, high = count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (key_of(coords + 4 * middle, grid) < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Offsets of an axis go from -size / 2 to size / 2; the kernel's cells are numbered in the order of the keys.
struct NeighborArgs {
    const int64_t* coords;  // (M, 4)
    int64_t count;
    Grid grid;
    int size[3];
    int32_t* neighbors;  // (K, M), index of the voxel at each offset, or -1
};

// The neighbor of a voxel at an offset.
V3D_HD int32_t neighbor_of(const NeighborArgs& args, int64_t voxel, int offset) {
    const int64_t* c = args.coords + 4 * voxel;
    const int64_t at[4] = {c[0], c[1] + offset / (args.size[1] * args.size[2]) - args.size[0] / 2,
                           c[2] + offset / args.size[2] % args.size[1] - args.size[1] / 2, c[3] + offset % args.size[2] - args.size[2] / 2};
    if (at[1] < 0 || at[1] >= args.grid.x || at[2] < 0 || at[2] >= args.grid.y || at[3] < 0 || at[3] >= args.grid.z) return -1;
    const int64_t key = key_of(at, args.grid), found = lower_bound(args.coords, args.count, key, args.grid);
    return found < args.count && key_of(args.coords + 4 * found, args.grid) == key ? int32_t(found) : -1;
}

template <typename T>
struct ConvArgs {
    const T* features;         // (M, c_in)
    const int32_t* neighbors;  // (K, M)
    const T* weights;          // (K, c_in, c_out)
    int64_t count, offsets, c_in, c_out;
    T* out;  // (M, c_out)
};

// Gradient by the weights; `weights` and `out` of ConvArgs are not used.
template <typename T>
struct ConvWeightsArgs : ConvArgs<T> {
    const T* v_out;  // (M, c_out)
    T* v_weights;    // (K, c_in, c_out)
};

template <typename T>
V3D_HD T conv_value(const ConvArgs<T>& args, int64_t voxel, int64_t column) {
    T sum(0);
    for (int64_t k = 0; k < args.offsets; ++k) {
        const int64_t neighbor = args.neighbors[k * args.count + voxel];
        if (neighbor < 0 || neighbor >= args.count) continue;
        const T *x = args.features + neighbor * args.c_in, *w = args.weights + k * args.c_in * args.c_out + column;
        for (int64_t c = 0; c < args.c_in; ++c) sum += x[c] * w[c * args.c_out];
    }
    return sum;
}

template <typename T>
V3D_HD T conv_weight_vjp(const ConvWeightsArgs<T>& args, int64_t offset, int64_t row, int64_t column) {
    T sum(0);
    for (int64_t voxel = 0; voxel < args.count; ++voxel) {
        const int64_t neighbor = args.neighbors[offset * args.count + voxel];
        if (neighbor >= 0 && neighbor < args.count)
            sum += args.features[neighbor * args.c_in + row] * args.v_out[voxel * args.c_out + column];
    }
    return sum;
}

// Segment m has the rows order[starts[m]] to order[starts[m + 1] - 1].
template <typename T>
struct SegmentArgs {
    const T* values;        // (N, channels)
    const int64_t* order;   // (N)
    const int64_t* starts;  // (M + 1)
    int64_t rows, segments, channels;
    T* out;           // (M, channels)
    int64_t* places;  // (M, channels), row of the first maximum; or null
};

template <typename T>
V3D_HD T segment_sum(const SegmentArgs<T>& args, int64_t segment, int64_t channel) {
    T sum(0);
    for (int64_t p = args.starts[segment]; p < args.starts[segment + 1]; ++p) sum += args.values[args.order[p] * args.channels + channel];
    return sum;
}

// Row of the maximum; the first NaN counts as one. 0 for an empty segment.
template <typename T>
V3D_HD int64_t segment_max(const SegmentArgs<T>& args, int64_t segment, int64_t channel, T& most) {
    most = T(NAN);
    int64_t place = 0;
    for (int64_t p = args.starts[segment]; p < args.starts[segment + 1]; ++p) {
        const T value = args.values[args.order[p] * args.channels + channel];
        if (p != args.starts[segment] && !(value > most) && !(value != value && most == most)) continue;
        most = value;
        place = args.order[p];
    }
    return place;
}

}  // namespace vision3d::sparse
