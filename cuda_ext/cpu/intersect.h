#pragma once
#include <cstdint>
#include <memory>
#include <vector>
#include "vision3d/tiles.h"

namespace vision3d::cpu {

// Tiles that each Gaussian touches, front to back within a tile. Counting comes first, so that the caller can allocate.
class Intersections {
  public:
    // Pairs [offsets[i], offsets[i+1]) belong to image i; radii 0 means not visible. Without conics (null), only the box of
    // the radii is used. The arrays must outlive fill().
    Intersections(int64_t images, const int64_t* offsets, const float* means2d, const int32_t* radii, const float* depths,
                  const float* conics, const float* opacities, int width, int height, int tile_size);

    int64_t total() const { return total_; }
    int64_t count() const { return count_; }
    int64_t images() const { return images_; }
    const TileGrid<float>& grid() const { return grid_; }

    // (nnz) tiles per Gaussian, (M) image | tile | depth keys, (M) indices, (I,tiles) first record of each tile.
    void fill(int32_t* tiles_per_gauss, int64_t* isect_ids, int32_t* flatten_ids, int32_t* isect_offsets) const;

  private:
    struct Chunk {
        int64_t image, begin, end;
    };  // range in order_

    // Tiles that a Gaussian touches within its box of at most 64 tiles, row by row from tile `first`.
    struct Reach {
        uint64_t tiles;
        int32_t first, width;  // width 0: the box is larger, tiles are tested on demand
    };
    Reach reach(int64_t id) const;

    // Calls visit(tile) for the tiles that the Gaussian touches.
    template <typename Visit>
    void each_tile(int64_t id, Visit visit) const;

    int64_t images_, count_, total_ = 0;
    const float *means2d_, *depths_, *conics_, *opacities_;
    const int32_t* radii_;
    TileGrid<float> grid_;
    std::vector<uint32_t> order_;     // visible Gaussians, by image and depth
    std::unique_ptr<Reach[]> reach_;  // of each pair; unset if it is not visible
    std::vector<Chunk> chunks_;
    std::vector<int32_t> first_;       // (chunks, tiles): start of the chunk's records of a tile
    std::vector<int32_t> tile_start_;  // (images, tiles)
};

}  // namespace vision3d::cpu
