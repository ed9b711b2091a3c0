#include "cpu/intersect.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

// Stable radix sort of indices by key, 11 bits a pass.
void sort_by_key(std::vector<uint32_t>& keys, uint32_t* indices, int64_t count) {
    std::vector<uint32_t> keys2(count), indices2(count);
    uint32_t *k = keys.data(), *k2 = keys2.data(), *v = indices, *v2 = indices2.data();
    for (int shift = 0; shift < 33; shift += 11) {
        uint32_t starts[2049] = {};
        for (int64_t i = 0; i < count; ++i) ++starts[(k[i] >> shift & 2047) + 1];
        if (std::find(starts, starts + 2049, uint32_t(count)) != starts + 2049) continue;  // all alike
        for (int i = 0; i < 2048; ++i) starts[i + 1] += starts[i];
        for (int64_t i = 0; i < count; ++i) {
            const uint32_t to = starts[k[i] >> shift & 2047]++;
            k2[to] = k[i]; v2[to] = v[i];
        }
        std::swap(k, k2);
        std::swap(v, v2);
    }
    if (v != indices) std::memcpy(indices, v, count * sizeof(uint32_t));
}

}  // namespace

template <bool COUNT, typename Visit>
void Intersections::each_tile(int64_t id, uint64_t& known, Visit visit) const {
    const TileBox box = tile_box(grid_, means2d_ + 2 * id, radii_ + 2 * id);
    const bool small = int64_t(box.x1 - box.x0) * (box.y1 - box.y0) <= 64;
    int bit = 0;
    if (!conics_ || (!COUNT && small)) {
        for (int ty = box.y0; ty < box.y1; ++ty)
            for (int tx = box.x0; tx < box.x1; ++tx, ++bit)
                if (!conics_ || known >> bit & 1) visit(ty * grid_.tiles_x + tx);
        return;
    }
    const TileTest<float> test(means2d_ + 2 * id, conics_ + 3 * id, opacities_[id]);
    known = 0;
    for (int ty = box.y0; ty < box.y1; ++ty)
        for (int tx = box.x0; tx < box.x1; ++tx, ++bit) {
            if (!test.touches(grid_, tx, ty)) continue;
            if (small) known |= uint64_t(1) << bit;
            visit(ty * grid_.tiles_x + tx);
        }
}

Intersections::Intersections(int64_t images, const int64_t* offsets, const float* means2d, const int32_t* radii, const float* depths,
                             const float* conics, const float* opacities, int width, int height, int tile_size)
    : images_(images), count_(offsets[images]), means2d_(means2d), depths_(depths), conics_(conics), opacities_(opacities), radii_(radii),
      grid_(width, height, tile_size) {
    const int64_t tiles = int64_t(grid_.tiles_x) * grid_.tiles_y;
    if (count_ > INT32_MAX) throw std::length_error("more than 2^31 visible Gaussians in one call: render fewer cameras at once");

    std::vector<int64_t> starts(images + 1, 0);  // of each image in order_
    for (int64_t image = 0; image < images; ++image) {
        int64_t visible = 0;
        for (int64_t i = offsets[image]; i < offsets[image + 1]; ++i) visible += radii[2 * i] > 0 || radii[2 * i + 1] > 0;
        starts[image + 1] = starts[image] + visible;
    }
    order_.resize(starts[images]);
    known_.resize(starts[images]);
    parallel_for(images, 1, [&](int64_t image, int64_t) {
        const int64_t size = starts[image + 1] - starts[image];
        std::vector<uint32_t> keys(size);
        uint32_t* order = order_.data() + starts[image];
        int64_t place = 0;
        for (int64_t i = offsets[image]; i < offsets[image + 1]; ++i)
            if (radii[2 * i] > 0 || radii[2 * i + 1] > 0) {
                keys[place] = sortable(depths[i]);
                order[place++] = uint32_t(i);
            }
        sort_by_key(keys, order, size);
    });
    for (int64_t image = 0; image < images; ++image) {
        const int64_t size = starts[image + 1] - starts[image], step = std::max<int64_t>(2048, (size + 15) / 16);
        for (int64_t begin = 0; begin < size; begin += step)
            chunks_.push_back({image, starts[image] + begin, starts[image] + std::min(size, begin + step)});
    }

    std::vector<int32_t> counts(chunks_.size() * tiles, 0);
    parallel_for(int64_t(chunks_.size()), 1, [&](int64_t c, int64_t) {
        for (int64_t i = chunks_[c].begin; i < chunks_[c].end; ++i)
            each_tile<true>(order_[i], known_[i], [&](int tile) { ++counts[c * tiles + tile]; });
    });
    // A tile's records stand together, and inside a tile the chunks follow each other: that keeps the depth order.
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
            each_tile<false>(id, known_[i], [&](int tile) {
                const int32_t at = next[tile]++;
                flatten_ids[at] = int32_t(id);
                isect_ids[at] = (chunks_[c].image << tile_bits | tile) << 32 | depth;
                ++tiles_per_gauss[id];
            });
        }
    });
}

}  // namespace vision3d::cpu
