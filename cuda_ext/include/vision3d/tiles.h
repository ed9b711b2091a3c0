#pragma once
#include <cstring>
#include "vision3d/blend.h"

namespace vision3d {

template <typename T>
struct TileGrid {
    T width, height;  // of the image, pixels
    int tile_size, tiles_x, tiles_y;

    TileGrid(int width, int height, int tile_size)
        : width(T(width)),
          height(T(height)),
          tile_size(tile_size),
          tiles_x((width + tile_size - 1) / tile_size),
          tiles_y((height + tile_size - 1) / tile_size) {}
};

struct TileBox {
    int x0, y0, x1, y1;  // tiles [x0, x1) x [y0, y1)
};

// Tiles before v, and those that start before v, in 0..count: truncation after the clip is the floor, without a call to the
// maths library.
template <typename T>
V3D_HD int floor_tile(T v, int count) {
    return v > T(0) ? (v < T(count) ? int(v) : count) : 0;
}

template <typename T>
V3D_HD int ceil_tile(T v, int count) {
    const int whole = floor_tile(v, count);
    return whole < count && v > T(whole) ? whole + 1 : whole;
}

template <typename T>
V3D_HD TileBox tile_box(const TileGrid<T>& grid, const T mean2d[2], const int32_t radii[2]) {
    const T scale = T(1) / T(grid.tile_size), rx = T(radii[0]), ry = T(radii[1]);
    return {floor_tile((mean2d[0] - rx) * scale, grid.tiles_x), floor_tile((mean2d[1] - ry) * scale, grid.tiles_y),
            ceil_tile((mean2d[0] + rx) * scale, grid.tiles_x), ceil_tile((mean2d[1] + ry) * scale, grid.tiles_y)};
}

// Tiles with a pixel center, or around one, where alpha can reach 1/255.
template <typename T>
struct TileTest {
    T x, y, ha, b, hc, slope_x, slope_y, limit;

    V3D_HD_MEMBER TileTest(const T mean2d[2], const T conic[3], T opacity)
        : x(mean2d[0]),
          y(mean2d[1]),
          ha(T(0.5) * conic[0]),
          b(conic[1]),
          hc(T(0.5) * conic[2]),
          slope_x(-conic[1] / conic[0]),
          slope_y(-conic[1] / conic[2]),
          limit(log(T(255) * opacity) + (sizeof(T) == 4 ? T(1e-3) : T(1e-9))) {}

    // By the rectangle of the tile's pixel centers, clipped to the image.
    V3D_HD_MEMBER bool touches(const TileGrid<T>& grid, int tx, int ty) const {
        const T size = T(grid.tile_size), half(0.5);
        const T x0 = T(tx) * size + half - x, x1 = min(T(tx + 1) * size, grid.width) - half - x;
        const T y0 = T(ty) * size + half - y, y1 = min(T(ty + 1) * size, grid.height) - half - y;
        return least_exponent(x0, x1, y0, y1, ha, b, hc, slope_x, slope_y) <= limit;
    }
};

// Bits of a depth as an unsigned number in the same order, including negative depths.
V3D_HD uint32_t depth_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
V3D_HD uint32_t sortable(float x) {
    const uint32_t bits = depth_bits(x);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}
V3D_HD uint64_t sortable(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits ^ (bits >> 63 ? ~uint64_t(0) : uint64_t(1) << 63);
}

// Bits of the number of tiles; isect_ids hold image | tile | 32 bits of the depth.
V3D_HD int bits_of(int64_t tiles) {
    int bits = 0;
    while ((int64_t(1) << bits) <= tiles) ++bits;
    return bits;
}

}  // namespace vision3d
