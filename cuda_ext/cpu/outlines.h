#pragma once
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>
#include "cpu/mesh_setup.h"
#include "cpu/parallel.h"
#include "vision3d/antialias.h"

// Pairs of pixels that blend, found along outlines.
namespace vision3d::cpu {

constexpr int64_t PAIR_ROWS = 8;  // image rows per work item

// Two pixels, counted over all images; the first gets a share of the other's color.
struct Blended {
    int64_t target, from;
    double weight;
};

inline Blended blended(const PairBlend& blend, int64_t at, int64_t other) {
    return blend.target == 0 ? Blended{at, other, blend.weight} : Blended{other, at, blend.weight};
}

// The lines of the last face used: a pair needs them more than once.
template <typename T>
class LinesMet {
  public:
    LinesMet(const AntialiasArgs<T>& a, int64_t image) : a_(a), image_(image) {}

    const FaceLines& operator()(int32_t face) {
        if (face != face_) lines_ = face_lines(a_, image_, face);
        face_ = face;
        return lines_;
    }

  private:
    const AntialiasArgs<T>& a_;
    const int64_t image_;
    int32_t face_ = -1;
    FaceLines lines_{};
};

template <typename T>
class Outlines {
  public:
    explicit Outlines(const AntialiasArgs<T>& a) : a_(a) {}

    // Uses the signs of the faces' areas, 0 where narrow, if known.
    void load(int64_t image, const int8_t* signs = nullptr) {
        image_ = image;
        const int64_t size = int64_t(a_.width) * a_.height;
        near_.assign(size, 0);
        if (a_.faces > size) return mark_all();  // finding the outlines would cost more than it saves
        mark_outlines(signs ? signs : find_signs());
    }

    // Calls visit(blended) for the pairs of rows [begin, end) in image order; writes a.pairs of these rows.
    template <typename Visit>
    void each_blend(int64_t begin, int64_t end, Visit visit) const {
        LinesMet<T> met(a_, image_);
        const auto lines = [&](int32_t face) -> const FaceLines& { return met(face); };
        const int64_t width = a_.width;
        std::memset(a_.pairs + (image_ * a_.height + begin) * width, 0, (end - begin) * width);
        for (int64_t at = begin * width; at < end * width;) {
            uint64_t eight;
            if (at + 8 <= end * width && (std::memcpy(&eight, &near_[at], 8), eight == 0)) {
                at += 8;
                continue;
            }
            const int64_t here = at++, i = image_ * a_.height * width + here;
            const uint8_t near = near_[here];
            if (near == 0) continue;
            const int x = int(here % width), y = int(here / width);
            for (const bool vertical : {false, true}) {
                if (!(near & (vertical ? PAIR_BELOW : PAIR_RIGHT)) || (vertical ? y + 1 >= a_.height : x + 1 >= width)) continue;
                const int64_t other = i + (vertical ? width : 1);
                if (a_.face_ids[i] == a_.face_ids[other]) continue;
                const PairBlend blend = blend_pair(a_, image_, x, y, vertical, lines);
                if (blend.target < 0) continue;
                a_.pairs[i] |= vertical ? PAIR_BELOW : PAIR_RIGHT;
                visit(blended(blend, i, other));
            }
        }
    }

  private:
    void mark_all() { std::fill(near_.begin(), near_.end(), PAIR_RIGHT | PAIR_BELOW); }

    const int8_t* find_signs() {
        const T* positions = a_.positions + 4 * image_ * a_.vertices;
        signs_.resize(a_.faces);
        parallel_for(a_.faces, 4096, [&](int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; ++n) signs_[n] = area_sign(load_face(positions, a_.triangles + 3 * n));
        });
        return signs_.data();
    }

    // Marks the pixels whose pairs may be crossed by an edge that `face_lines` may classify as a silhouette: the neighbor is missing,
    // has the opposite orientation, or is narrow. A superset is fine.
    void mark_outlines(const int8_t* signs) {
        const T* positions = a_.positions + 4 * image_ * a_.vertices;
        for (int64_t n = 0; n < a_.faces; ++n) {
            bool goes_on[3];
            for (int i = 0; i < 3; ++i) goes_on[i] = surface_goes_on(n, i, signs);
            if (goes_on[0] & goes_on[1] & goes_on[2]) continue;  // the most common case
            for (int i = 0; i < 3; ++i) {
                const int32_t* own = a_.triangles + 3 * n;
                const int32_t j = own[(i + 1) % 3], k = own[(i + 2) % 3];
                if (goes_on[i] || a_.neighbors[3 * n + i] > n) continue;  // once per edge
                if (!mark_edge(positions + 4 * int64_t(j), positions + 4 * int64_t(k))) return mark_all();
            }
        }
    }

    // Branch-free: there is a face behind the edge, it has the same orientation, and its corners have the same winding.
    bool surface_goes_on(int64_t face, int i, const int8_t* signs) const {
        const int32_t* own = a_.triangles + 3 * face;
        const int32_t neighbor = a_.neighbors[3 * face + i], j = own[(i + 1) % 3], k = own[(i + 2) % 3];
        const int64_t behind = neighbor < 0 ? 0 : neighbor;
        const int32_t* other = a_.triangles + 3 * behind;
        const bool alike = ((other[0] == k) & (other[1] == j)) | ((other[1] == k) & (other[2] == j)) | ((other[2] == k) & (other[0] == j));
        return (neighbor >= 0) & (signs[face] * signs[behind] > 0) & alike;
    }

    // Returns false if the edge may be anywhere.
    bool mark_edge(const T* p, const T* q) {
        if (!(p[3] > 0 && q[3] > 0)) return false;
        const double x[2] = {double(p[0]) / double(p[3]), double(q[0]) / double(q[3])};
        const double y[2] = {double(p[1]) / double(p[3]), double(q[1]) / double(q[3])};
        const double size = abs(x[0]) + abs(x[1]) + abs(y[0]) + abs(y[1]);
        if (!(size < 1e10)) return false;  // pixels are not resolved any more, or it is not finite
        // Steep edges blend along rows, flat ones along columns (blend_pair).
        const double across = abs(x[1] - x[0]), down = abs(y[1] - y[0]);
        if (down >= across * (1 - 1e-6)) mark_steps(y, x, a_.height, a_.width, a_.width, 1, PAIR_RIGHT);
        if (across >= down * (1 - 1e-6)) mark_steps(x, y, a_.width, a_.height, 1, a_.width, PAIR_BELOW);
        return true;
    }

    // For every center along the first axis between the ends: the pairs along the second axis that the edge crosses, with a margin.
    void mark_steps(const double along[2], const double across[2], int along_count, int across_count, int64_t along_stride,
                    int64_t across_stride, uint8_t bit) {
        constexpr double MARGIN = 1. / 16;
        const double low = min(along[0], along[1]), high = max(along[0], along[1]);
        const double slope = high > low ? (across[1] - across[0]) / (along[1] - along[0]) : 0;
        const double least = min(across[0], across[1]), most = max(across[0], across[1]);
        const int end = floor_tile(high + .5 + MARGIN, along_count);
        for (int n = ceil_tile(low - .5 - MARGIN, along_count); n < end; ++n) {
            const double at = min(max(across[0] + (n + .5 - along[0]) * slope, least), most);
            const int last = floor_tile(at + .5 + MARGIN, across_count);  // left or upper pixel of the pair
            for (int m = ceil_tile(at - 1.5 - MARGIN, across_count); m < last; ++m) near_[n * along_stride + m * across_stride] |= bit;
        }
    }

    const AntialiasArgs<T>& a_;
    int64_t image_ = 0;
    std::vector<int8_t> signs_;
    std::vector<uint8_t> near_;
};

}  // namespace vision3d::cpu
