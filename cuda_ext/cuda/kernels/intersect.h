#pragma once
#include "cuda/kernels/block.h"
#include "vision3d/args.h"

// Tile lists. Gaussians are sorted by depth, write their (tile, Gaussian) records in that order, and a stable sort of the
// records by tile preserves it: fewer bits to sort than (tile, depth) together.
namespace vision3d::bodies {

template <typename T, typename Visit>
V3D_BODY void each_tile(const TileArgs<T>& args, int64_t i, Visit visit) {
    if (args.radii[2 * i] <= 0 && args.radii[2 * i + 1] <= 0) return;
    const TileBox box = tile_box(args.grid, args.means2d + 2 * i, args.radii + 2 * i);
    const T nothing[3] = {T(1), T(0), T(1)};
    const TileTest<T> test(args.means2d + 2 * i, args.conics ? args.conics + 3 * i : nothing, args.opacities[i]);
    for (int ty = box.y0; ty < box.y1; ++ty)
        for (int tx = box.x0; tx < box.x1; ++tx)
            if (!args.conics || test.touches(args.grid, tx, ty)) visit(ty * args.grid.tiles_x + tx);
}

// Number of tiles and depth key of pair i.
template <typename T, typename Key>
V3D_BODY void count_tiles(const TileArgs<T>& args, int64_t i, int32_t* tiles_per_gauss, Key* depth_keys, int32_t* ids) {
    int32_t count = 0;
    each_tile(args, i, [&](int) { ++count; });
    tiles_per_gauss[i] = count;
    depth_keys[i] = sortable(args.depths[i]);
    ids[i] = int32_t(i);
}

// Records of the pair at `place` in depth order; its records end at ends[place].
template <typename T>
V3D_BODY void fill_tiles(const TileArgs<T>& args, int64_t place, const int32_t* order, const int64_t* ends, const int64_t* image_ids,
                         uint32_t* tile_keys, int32_t* ids) {
    const int32_t i = order[place];
    const uint32_t first = uint32_t(image_ids[i] * args.grid.tiles_x * args.grid.tiles_y);
    int64_t at = place ? ends[place - 1] : 0;
    each_tile(args, i, [&](int tile) {
        if (at >= ends[place]) return;
        tile_keys[at] = first + uint32_t(tile);
        ids[at++] = i;
    });
}

// Public outputs of record `at`, and the starts of the tile lists that follow the previous record; at = records
// closes the lists of the last tiles. tile_bits: bits_of(tiles of an image).
template <typename T>
V3D_BODY void finish_tiles(const TileGrid<T>& grid, int tile_bits, int64_t images, int64_t records, int64_t at, const uint32_t* tile_keys,
                           const int32_t* ids, const T* depths, int64_t* isect_ids, int32_t* isect_offsets) {
    const uint32_t tiles = uint32_t(grid.tiles_x) * uint32_t(grid.tiles_y), key = at < records ? tile_keys[at] : 0;
    const int64_t tile = at < records ? int64_t(key) : images * tiles - 1;
    if (at < records) isect_ids[at] = (int64_t(key / tiles) << tile_bits | key % tiles) << 32 | depth_bits(float(depths[ids[at]]));
    for (int64_t open = at ? int64_t(tile_keys[at - 1]) + 1 : 0; open <= tile; ++open) isect_offsets[open] = int32_t(at);
}

}  // namespace vision3d::bodies
