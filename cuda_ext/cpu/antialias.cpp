#include "vision3d/antialias.h"

#include <algorithm>
#include <cstring>
#include <vector>
#include "cpu/meshes.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

// The lines of the faces that an image shows, each found once; a face behind them that a walk meets is found when it is met.
template <typename T>
class LinesOfImage {
  public:
    explicit LinesOfImage(const AntialiasArgs<T>& a) : a_(a), slots_(a.faces) {}

    void load(int64_t image) {
        image_ = image;
        const int64_t size = int64_t(a_.width) * a_.height;
        const int32_t* ids = a_.face_ids + image * size;
        std::fill(slots_.begin(), slots_.end(), -1);
        faces_.clear();
        for (int64_t i = 0; i < size; ++i) {
            if (ids[i] < 0 || slots_[ids[i]] >= 0) continue;
            slots_[ids[i]] = int32_t(faces_.size());
            faces_.push_back(ids[i]);
        }
        lines_.resize(faces_.size());
        parallel_for(int64_t(faces_.size()), 512, [&](int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; ++n) lines_[n] = face_lines(a_, image, faces_[n]);
        });
    }

    const FaceLines& get(int32_t face, FaceLines& met) const {
        if (slots_[face] >= 0) return lines_[slots_[face]];
        return met = face_lines(a_, image_, face);
    }

  private:
    const AntialiasArgs<T>& a_;
    int64_t image_ = 0;
    std::vector<int32_t> slots_, faces_;
    std::vector<FaceLines> lines_;
};

constexpr int64_t ROWS = 8;  // of a picture that a thread takes at once

// visit(x) for the pixels of a row that are part of a pair that blends, and for some others: mostly there are none.
template <typename T, typename Visit>
void each_blended(const AntialiasArgs<T>& a, int64_t row, Visit visit) {
    const uint8_t *own = a.pairs + row * a.width, *above = own - (row % a.height ? a.width : 0);
    for (int first = 0; first < a.width; first += 8) {
        const int count = std::min(8, a.width - first);
        uint64_t some[2] = {};
        std::memcpy(&some[0], own + first, count);
        std::memcpy(&some[1], above + first, count);
        if (some[0] == 0 && some[1] == 0 && (first == 0 || own[first - 1] == 0)) continue;
        for (int x = first; x < first + count; ++x) visit(x);
    }
}

// body(row counted over all images)
template <typename T, typename Body>
void each_row(const AntialiasArgs<T>& a, Body body) {
    parallel_for(a.images * a.height, ROWS, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) body(row);
    });
}

}  // namespace

template <typename T>
void antialias(Loops, const AntialiasArgs<T>& a) {
    LinesOfImage<T> known(a);
    for (int64_t image = 0; image < a.images; ++image) {
        known.load(image);
        parallel_for(a.height, ROWS, [&](int64_t begin, int64_t end) {
            FaceLines met;
            const auto lines = [&](int32_t face) -> const FaceLines& { return known.get(face, met); };
            for (int64_t y = begin; y < end; ++y)
                for (int x = 0; x < a.width; ++x) a.pairs[(image * a.height + y) * a.width + x] = find_pairs(a, image, x, int(y), lines);
        });
    }
    each_row(a, [&](int64_t row) {
        const int64_t first = row * a.width;
        std::copy(a.colors + first * a.channels, a.colors + (first + a.width) * a.channels, a.out_colors + first * a.channels);
        each_blended(a, row, [&](int x) { antialias_pixel(a, first + x); });
    });
}

template <typename T>
void antialias_vjp(Loops, const AntialiasArgs<T>& a) {
    struct Share {
        int64_t corner;  // counted over all images
        double v[4];
    };
    std::vector<std::vector<Share>> rows(a.images * a.height);
    each_row(a, [&](int64_t row) {
        const int64_t first = row * a.width, image = row / a.height;
        const int y = int(row % a.height);
        std::copy(a.v_out_colors + first * a.channels, a.v_out_colors + (first + a.width) * a.channels, a.v_colors + first * a.channels);
        each_blended(a, row, [&](int x) {
            antialias_pixel_vjp(a, first + x);
            for (const bool vertical : {false, true}) {
                if (!(a.pairs[first + x] & (vertical ? PAIR_BELOW : PAIR_RIGHT))) continue;
                int32_t corners[2];
                double v[2][4] = {};
                blend_pair_vjp(a, image, x, y, vertical, blend_pair(a, image, x, y, vertical), corners, v);
                for (int k = 0; k < 2; ++k) rows[row].push_back({image * a.vertices + corners[k], {v[k][0], v[k][1], v[k][2], v[k][3]}});
            }
        });
    });
    // Few pixels lie on silhouettes; adding in their order keeps the bits.
    for (const auto& row : rows)
        for (const Share& share : row)
            for (int k = 0; k < 4; ++k) a.v_positions[4 * share.corner + k] += T(share.v[k]);
}

template void antialias(Loops, const AntialiasArgs<float>&);
template void antialias(Loops, const AntialiasArgs<double>&);
template void antialias_vjp(Loops, const AntialiasArgs<float>&);
template void antialias_vjp(Loops, const AntialiasArgs<double>&);

}  // namespace vision3d::cpu
