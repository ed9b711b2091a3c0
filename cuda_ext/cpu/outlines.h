#pragma once
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>
#include "cpu/mesh_setup.h"
#include "cpu/parallel.h"
#include "vision3d/antialias.h"

// Which pairs of pixels blend, found where outlines pass.
namespace vision3d::cpu {

constexpr int64_t PAIR_ROWS = 8;  // of a picture that a thread takes at once

// Two pixels, counted over all images, of which the first takes a share of the other's colour.
struct Blended {
    int64_t target, from;
    double weight;
};

inline Blended blended(const PairBlend& blend, int64_t at, int64_t other) {
    return blend.target == 0 ? Blended{at, other, blend.weight} : Blended{other, at, blend.weight};
}

// The lines of the face that was met last: a pair asks for them more than once.
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

    // Takes the signs of the faces' areas, 0 where narrow, where they are known.
    void load(int64_t image, const int8_t* signs = nullptr) {
        image_ = image;
        const int64_t size = int64_t(a_.width) * a_.height;
        near_.assign(size, 0);
        if (a_.faces > size) return mark_all();  // finding the outlines would cost more than it saves
        mark_outlines(signs ? signs : find_signs());
    }

    // visit(blended) for the pairs of rows [begin, end) in the order of the picture; writes a.pairs of these rows.
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

    // Marks the pixels whose pairs an edge may pass that `face_lines` may call a silhouette: the neighbour is not there, is turned
    // the other way, or is narrow. Too many do no harm.
    void mark_outlines(const int8_t* signs) {
        const T* positions = a_.positions + 4 * image_ * a_.vertices;
        for (int64_t n = 0; n < a_.faces; ++n) {
            bool goes_on[3];
            for (int i = 0; i < 3; ++i) goes_on[i] = surface_goes_on(n, i, signs);
            if (goes_on[0] & goes_on[1] & goes_on[2]) continue;  // by far the most
            for (int i = 0; i < 3; ++i) {
                const int32_t* own = a_.triangles + 3 * n;
                const int32_t j = own[(i + 1) % 3], k = own[(i + 2) % 3];
                if (goes_on[i] || a_.neighbors[3 * n + i] > n) continue;  // from one of its faces
                if (!mark_edge(positions + 4 * int64_t(j), positions + 4 * int64_t(k))) return mark_all();
            }
        }
    }

    // Without branches: there is a neighbour behind the edge, it is turned to the same side, and its corners run the same way round.
    bool surface_goes_on(int64_t face, int i, const int8_t* signs) const {
        const int32_t* own = a_.triangles + 3 * face;
        const int32_t neighbor = a_.neighbors[3 * face + i], j = own[(i + 1) % 3], k = own[(i + 2) % 3];
        const int64_t behind = neighbor < 0 ? 0 : neighbor;
        const int32_t* other = a_.triangles + 3 * behind;
        const bool alike = ((other[0] == k) & (other[1] == j)) | ((other[1] == k) & (other[2] == j)) | ((other[2] == k) & (other[0] == j));
        return (neighbor >= 0) & (signs[face] * signs[behind] > 0) & alike;
    }

    // False when it may be anywhere.
    bool mark_edge(const T* p, const T* q) {
        if (!(p[3] > 0 && q[3] > 0)) return false;
        const double x[2] = {double(p[0]) / double(p[3]), double(q[0]) / double(q[3])};
        const double y[2] = {double(p[1]) / double(p[3]), double(q[1]) / double(q[3])};
        const double size = abs(x[0]) + abs(x[1]) + abs(y[0]) + abs(y[1]);
        if (!(size < 1e10)) return false;  // where pixels are not resolved any more, or not finite
        // Steep edges blend along rows, flat ones along columns (blend_pair).
        const double across = abs(x[1] - x[0]), down = abs(y[1] - y[0]);
        if (down >= across * (1 - 1e-6)) mark_steps(y, x, a_.height, a_.width, a_.width, 1, PAIR_RIGHT);
        if (across >= down * (1 - 1e-6)) mark_steps(x, y, a_.width, a_.height, 1, a_.width, PAIR_BELOW);
        return true;
    }

    // At every centre along the first axis between the ends, the pairs along the second one which the edge passes, with a margin.
    void mark_steps(const double along[2], const double across[2], int along_count, int across_count, int64_t along_stride,
                    int64_t across_stride, uint8_t bit) {
        constexpr double MARGIN = 1. / 16;
        const double low = min(along[0], along[1]), high = max(along[0], along[1]);
        const double slope = high > low ? (across[1] - across[0]) / (along[1] - along[0]) : 0;
        const double least = min(across[0], across[1]), most = max(across[0], across[1]);
        const int end = floor_tile(high + .5 + MARGIN, along_count);
        for (int n = ceil_tile(low - .5 - MARGIN, along_count); n < end; ++n) {
            const double at = min(max(across[0] + (n + .5 - along[0]) * slope, least), most);
            const int last = floor_tile(at + .5 + MARGIN, across_count);  // of the pair the pixel on the left, or the upper one
            for (int m = ceil_tile(at - 1.5 - MARGIN, across_count); m < last; ++m) near_[n * along_stride + m * across_stride] |= bit;
        }
    }

    const AntialiasArgs<T>& a_;
    int64_t image_ = 0;
    std::vector<int8_t> signs_;
    std::vector<uint8_t> near_;
};

}  // namespace vision3d::cpu
