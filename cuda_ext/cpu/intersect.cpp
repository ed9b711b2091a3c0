#include "cpu/intersect.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

constexpr int RADIX = 2048;

// Stable radix sort of indices by key, 11 bits per pass. Blocks of keys count and scatter independently; small blocks would
// write to the same cache lines.
void sort_by_key(uint32_t* keys, uint32_t* indices, int64_t count) {
    const int64_t block = std::max<int64_t>(65536, (count + 15) / 16), blocks = (count + block - 1) / block;
    const std::unique_ptr<uint32_t[]> spare(new uint32_t[2 * count]);
    std::vector<uint32_t> starts(blocks * RADIX);
    uint32_t *k = keys, *k2 = spare.get(), *v = indices, *v2 = k2 + count;
    for (int shift = 0; shift < 33; shift += 11) {
        parallel_for(count, block, [&](int64_t begin, int64_t end) {
            uint32_t* mine = starts.data() + begin / block * RADIX;
            std::fill(mine, mine + RADIX, 0);
            for (int64_t i = begin; i < end; ++i) ++mine[k[i] >> shift & (RADIX - 1)];
        });
        uint32_t at = 0;
        bool alike = false;
        for (int digit = 0; digit < RADIX; ++digit) {
            const uint32_t before = at;
            for (int64_t b = 0; b < blocks; ++b) at += std::exchange(starts[b * RADIX + digit], at);
            alike |= at - before == count;
        }
        if (alike) continue;
        parallel_for(count, block, [&](int64_t begin, int64_t end) {
            uint32_t* mine = starts.data() + begin / block * RADIX;
            for (int64_t i = begin; i < end; ++i) {
                const uint32_t to = mine[k[i] >> shift & (RADIX - 1)]++;
                k2[to] = k[i];
                v2[to] = v[i];
            }
        });
        std::swap(k, k2);
        std::swap(v, v2);
    }
    if (v != indices) std::memcpy(indices, v, count * sizeof(uint32_t));
}

}  // namespace

template <typename Visit>
void Intersections::each_tile(int64_t id, Visit visit) const {
    Reach reach = reach_[id];
    int tile = reach.first;
    if (reach.width) {
        const uint64_t row = reach.width < 64 ? (uint64_t(1) << reach.width) - 1 : ~uint64_t(0);
        for (; reach.tiles; tile += grid_.tiles_x) {
            int x = 0;
            for (uint64_t bits = reach.tiles & row; bits; ++x, bits >>= 1)
                if (bits & 1) visit(tile + x);
            reach.tiles = reach.width < 64 ? reach.tiles >> reach.width : 0;
        }
        return;
    }
    const TileBox box = tile_box(grid_, means2d_ + 2 * id, radii_ + 2 * id);
    if (!conics_) {
        for (int ty = box.y0; ty < box.y1; ++ty)
            for (int tx = box.x0; tx < box.x1; ++tx) visit(ty * grid_.tiles_x + tx);
        return;
    }
    const TileTest<float> test(means2d_ + 2 * id, conics_ + 3 * id, opacities_[id]);
    for (int ty = box.y0; ty < box.y1; ++ty)
        for (int tx = box.x0; tx < box.x1; ++tx)
            if (test.touches(grid_, tx, ty)) visit(ty * grid_.tiles_x + tx);
}

Intersections::Reach Intersections::reach(int64_t id) const {
    const TileBox box = tile_box(grid_, means2d_ + 2 * id, radii_ + 2 * id);
    const int width = box.x1 - box.x0, height = box.y1 - box.y0;
    if (width < 1 || height < 1) return {0, 0, 1};
    if (int64_t(width) * height > 64) return {0, 0, 0};
    Reach found{0, box.y0 * grid_.tiles_x + box.x0, width};
    if (!conics_) {
        found.tiles = ~uint64_t(0) >> (64 - width * height);
        return found;
    }
    const TileTest<float> test(means2d_ + 2 * id, conics_ + 3 * id, opacities_[id]);
    int bit = 0;
    for (int ty = box.y0; ty < box.y1; ++ty)
        for (int tx = box.x0; tx < box.x1; ++tx, ++bit) found.tiles |= uint64_t(test.touches(grid_, tx, ty)) << bit;
    return found;
}

Intersections::Intersections(int64_t images, const int64_t* offsets, const float* means2d, const int32_t* radii, const float* depths,
                             const float* conics, const float* opacities, int width, int height, int tile_size)
    : images_(images),
      count_(offsets[images]),
      means2d_(means2d),
      depths_(depths),
      conics_(conics),
      opacities_(opacities),
      radii_(radii),
      grid_(width, height, tile_size) {
    const int64_t tiles = int64_t(grid_.tiles_x) * grid_.tiles_y;
    if (count_ > INT32_MAX) throw std::length_error("more than 2^31 visible Gaussians in one call: render fewer cameras at once");

    std::vector<int64_t> starts(images + 1, 0);  // start of each image in order_
    for (int64_t image = 0; image < images; ++image) {
        int64_t visible = 0;
        for (int64_t i = offsets[image]; i < offsets[image + 1]; ++i) visible += radii[2 * i] > 0 || radii[2 * i + 1] > 0;
        starts[image + 1] = starts[image] + visible;
    }
    order_.resize(starts[images]);
    reach_.reset(new Reach[count_]);  // uninitialized: the threads that fill it touch it first
    const auto sort = [&](int64_t image) {
        const int64_t size = starts[image + 1] - starts[image];
        const std::unique_ptr<uint32_t[]> keys(new uint32_t[size]);
        uint32_t* order = order_.data() + starts[image];
        int64_t place = 0;
        for (int64_t i = offsets[image]; i < offsets[image + 1]; ++i)
            if (radii[2 * i] > 0 || radii[2 * i + 1] > 0) {
                keys[place] = sortable(depths[i]);
                order[place++] = uint32_t(i);
            }
        sort_by_key(keys.get(), order, size);
    };
    // The order and the tiles are independent: one thread sorts while the others test.
    constexpr int64_t BLOCK = 1024;
    parallel_for(images + (count_ + BLOCK - 1) / BLOCK, 1, [&](int64_t job, int64_t) {
        if (job < images) return sort(job);
        const int64_t begin = (job - images) * BLOCK, end = std::min(count_, begin + BLOCK);
        for (int64_t i = begin; i < end; ++i)
            if (radii[2 * i] > 0 || radii[2 * i + 1] > 0) reach_[i] = reach(i);
    });
    for (int64_t image = 0; image < images; ++image) {
        const int64_t size = starts[image + 1] - starts[image], step = std::max<int64_t>(2048, (size + 15) / 16);
        for (int64_t begin = 0; begin < size; begin += step)
            chunks_.push_back({image, starts[image] + begin, starts[image] + std::min(size, begin + step)});
    }

    std::vector<int32_t> counts(chunks_.size() * tiles, 0);
    parallel_for(int64_t(chunks_.size()), 1, [&](int64_t c, int64_t) {
        for (int64_t i = chunks_[c].begin; i < chunks_[c].end; ++i) each_tile(order_[i], [&](int tile) { ++counts[c * tiles + tile]; });
    });
    // The records of a tile are adjacent, and within a tile the chunks follow each other, which keeps the depth order.
    first_.resize(counts.size());
    tile_start_.resize(images * tiles);
    size_t chunk = 0;
    for (int64_t image = 0; image < images; ++image) {
        size_t last = chunk;
        while (last < chunks_.size() && chunks_[last].image == image) ++last;
        for (int64_t tile = 0; tile < tiles; ++tile) {
            tile_start_[image * tiles + tile] = int32_t(total_);
            for (size_t c = chunk; c < last; ++c) {
                first_[c * tiles + tile] = int32_t(total_);
                total_ += counts[c * tiles + tile];
                if (total_ > INT32_MAX) throw std::length_error("more than 2^31 tile intersections: the Gaussians are too large");
            }
        }
        chunk = last;
    }
}

void Intersections::fill(int32_t* tiles_per_gauss, int64_t* isect_ids, int32_t* flatten_ids, int32_t* isect_offsets) const {
    const int64_t tiles = int64_t(grid_.tiles_x) * grid_.tiles_y;
    const int tile_bits = bits_of(tiles);
    std::memset(tiles_per_gauss, 0, count_ * sizeof(int32_t));
    std::memcpy(isect_offsets, tile_start_.data(), tile_start_.size() * sizeof(int32_t));
    parallel_for(int64_t(chunks_.size()), 1, [&](int64_t c, int64_t) {
        std::vector<int32_t> next(first_.begin() + c * tiles, first_.begin() + (c + 1) * tiles);
        for (int64_t i = chunks_[c].begin; i < chunks_[c].end; ++i) {
            const uint32_t id = order_[i];
            const uint32_t depth = depth_bits(depths_[id]);
            each_tile(id, [&](int tile) {
                const int32_t at = next[tile]++;
                flatten_ids[at] = int32_t(id);
                isect_ids[at] = (chunks_[c].image << tile_bits | tile) << 32 | depth;
                ++tiles_per_gauss[id];
            });
        }
    });
}

}  // namespace vision3d::cpu
