#pragma once
#include <cmath>
#include <cstdint>
#include "vision3d/macros.h"

// Bilinear samples of max(0, transposed convolution + shift) + positions, where the convolution's kernel is its stride: each texel
// depends on one cell, so only the four texels of each sample are computed.
namespace vision3d::expansion {

constexpr int CORNERS = 4;

template <typename T>
struct Args {
    int64_t images, height, width, c_in, c_out, points, step;
    const T* features;   // (N, H, W, c_in)
    const T* weights;    // (step * step, c_in, c_out), by the texel's place in its cell
    const T* shift;      // (c_out)
    const T* positions;  // (H * step * W * step, c_out)
    const T* places;     // (N, points, 2), u and v in [0, 1] from the first to the last texel; clamped
    T* out;              // (N, points, c_out)
};

// A texel of a bilinear sample, and its weight. NaN in, NaN out.
template <typename T>
struct Corner {
    int64_t texel, cell;
    int place;  // in the cell
    T weight;
};

template <typename T>
V3D_HD int64_t split(T along, int64_t count, bool is_second, T& weight) {
    const T at = (along < T(0) ? T(0) : along > T(1) ? T(1) : along) * T(count - 1);
    const T low = floor(at), share = at - low;
    weight = is_second ? share : T(1) - share;
    if (!(at == at)) return 0;
    const int64_t index = int64_t(low) + is_second;
    return index < count ? index : count - 1;
}

template <typename T>
V3D_HD Corner<T> corner_of(const Args<T>& args, const T* place, int corner) {
    T by_x, by_y;
    const int64_t x = split(place[0], args.width * args.step, corner % 2 == 1, by_x);
    const int64_t y = split(place[1], args.height * args.step, corner / 2 == 1, by_y);
    return {y * args.width * args.step + x, y / args.step * args.width + x / args.step, int(y % args.step * args.step + x % args.step),
            by_x * by_y};
}

template <typename T>
V3D_HD T positive(T value) {
    return value < T(0) ? T(0) : value;  // keeps NaN
}

// One feature of one sample.
template <typename T>
V3D_HD T sample_of(const Args<T>& args, int64_t image, int64_t point, int64_t column) {
    const T* place = args.places + (image * args.points + point) * 2;
    T total(0);
    for (int k = 0; k < CORNERS; ++k) {
        const Corner<T> corner = corner_of(args, place, k);
        const T* x = args.features + (image * args.height * args.width + corner.cell) * args.c_in;
        const T* w = args.weights + corner.place * args.c_in * args.c_out + column;
        T sum = args.shift[column];
        for (int64_t c = 0; c < args.c_in; ++c) sum += x[c] * w[c * args.c_out];
        total += corner.weight * (positive(sum) + args.positions[corner.texel * args.c_out + column]);
    }
    return total;
}

}  // namespace vision3d::expansion
