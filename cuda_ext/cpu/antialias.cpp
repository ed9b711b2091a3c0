#include "vision3d/antialias.h"

#include <algorithm>
#include <cstring>
#include <vector>
#include "cpu/meshes.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

// Where an image may blend, and the lines of the faces that it shows there, each found once; others are found when a walk
// meets them.
template <typename T>
class LinesOfImage {
  public:
    explicit LinesOfImage(const AntialiasArgs<T>& a) : a_(a), slots_(a.faces), signs_(a.faces) {}

    void load(int64_t image) {
        image_ = image;
        const int64_t size = int64_t(a_.width) * a_.height;
        const int32_t* ids = a_.face_ids + image * size;
        near_.assign(size, 0);
        if (a_.faces > size) std::fill(near_.begin(), near_.end(), 1);  // finding the outlines would cost more than it saves
        else mark_outlines();
        std::fill(slots_.begin(), slots_.end(), -1);
        faces_.clear();
        for (int64_t i = 0; i < size; ++i) {
            if (!near_[i] || ids[i] < 0 || slots_[ids[i]] >= 0) continue;
            slots_[ids[i]] = int32_t(faces_.size());
            faces_.push_back(ids[i]);
        }
        lines_.resize(faces_.size());
        parallel_for(int64_t(faces_.size()), 512, [&](int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; ++n) lines_[n] = face_lines(a_, image, faces_[n]);
        });
    }

    // False only where no pair of pixel i of the image with the next one blends.
    bool near(int64_t i) const { return near_[i] != 0; }

    const FaceLines& get(int32_t face, FaceLines& met) const {
        if (slots_[face] >= 0) return lines_[slots_[face]];
        return met = face_lines(a_, image_, face);
    }

  private:
    // Marks the pixels whose pairs an edge may pass that `face_lines` may call a silhouette: the neighbour is not there, is turned
    // the other way, or is narrow. Too many do no harm.
    void mark_outlines() {
        const T* positions = a_.positions + 4 * image_ * a_.vertices;
        parallel_for(a_.faces, 4096, [&](int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; ++n) {
                const MeshFace f = load_face(positions, a_.triangles + 3 * n);
                const double p[6] = {f.x[0] * f.y[1] * f.w[2], f.x[1] * f.y[2] * f.w[0], f.x[2] * f.y[0] * f.w[1],
                                     f.x[0] * f.y[2] * f.w[1], f.x[1] * f.y[0] * f.w[2], f.x[2] * f.y[1] * f.w[0]};
                const double area = p[0] + p[1] + p[2] - p[3] - p[4] - p[5];
                const double least = 1.01 * EDGE_ON * (abs(p[0]) + abs(p[1]) + abs(p[2]) + abs(p[3]) + abs(p[4]) + abs(p[5]));
                signs_[n] = int8_t((area > least) - (area < -least));
            }
        });
        for (int64_t n = 0; n < a_.faces; ++n)
            for (int i = 0; i < 3; ++i) {
                const int32_t *own = a_.triangles + 3 * n, neighbor = a_.neighbors[3 * n + i];
                const int32_t j = own[(i + 1) % 3], k = own[(i + 2) % 3];
                if (neighbor >= 0 && signs_[n] * signs_[neighbor] > 0) {
                    const int32_t* other = a_.triangles + 3 * int64_t(neighbor);
                    const bool alike = (other[0] == k && other[1] == j) || (other[1] == k && other[2] == j) || (other[2] == k && other[0] == j);
                    if (alike) continue;
                }
                if (!mark_edge(positions + 4 * int64_t(j), positions + 4 * int64_t(k))) return;
            }
    }

    // False when all pixels are marked.
    bool mark_edge(const T* p, const T* q) {
        double box[4] = {1e300, 1e300, -1e300, -1e300};
        bool whole = false;
        for (const T* corner : {p, q}) extend_box(double(corner[0]), double(corner[1]), double(corner[3]), box, whole);
        const double sum = box[0] + box[1] + box[2] + box[3];
        if (whole || !(sum * 0 == 0)) {
            std::fill(near_.begin(), near_.end(), 1);
            return false;
        }
        box[0] -= 1; box[1] -= 1;  // of a pair the pixel on the left, or the upper one
        const PixelBox pixels = pixels_between(box, 1. / 16, a_.width, a_.height);
        for (int y = pixels.y0; y < pixels.y1; ++y)
            for (int x = pixels.x0; x < pixels.x1; ++x) near_[int64_t(y) * a_.width + x] = 1;
        return true;
    }

    const AntialiasArgs<T>& a_;
    int64_t image_ = 0;
    std::vector<int32_t> slots_, faces_;
    std::vector<FaceLines> lines_;
    std::vector<int8_t> signs_;  // of the areas of the faces in the image, 0 where narrow
    std::vector<uint8_t> near_;
};

constexpr int64_t ROWS = 8;  // of a picture that a thread takes at once

// Two pixels, counted over all images, of which the first takes a share of the other's colour.
struct Blended {
    int64_t target, from;
    double weight;
};

Blended blended(const PairBlend& blend, int64_t at, int64_t other) {
    return blend.target == 0 ? Blended{at, other, blend.weight} : Blended{other, at, blend.weight};
}

void copy_rows(const void* from, void* to, int64_t begin, int64_t end, int64_t bytes) {
    std::memcpy(static_cast<char*>(to) + begin * bytes, static_cast<const char*>(from) + begin * bytes, (end - begin) * bytes);
}

}  // namespace

// Threads find the pairs, row by row; few blend, and one thread adds them in the order of the picture, which keeps the bits.
template <typename T>
void antialias(Loops, const AntialiasArgs<T>& a) {
    const int64_t D = a.channels;
    LinesOfImage<T> known(a);
    std::vector<std::vector<Blended>> found((a.height + ROWS - 1) / ROWS);
    for (int64_t image = 0; image < a.images; ++image) {
        known.load(image);
        parallel_for(a.height, ROWS, [&](int64_t begin, int64_t end) {
            FaceLines met;
            const auto lines = [&](int32_t face) -> const FaceLines& { return known.get(face, met); };
            std::vector<Blended>& pairs = found[begin / ROWS];
            pairs.clear();
            copy_rows(a.colors, a.out_colors, image * a.height + begin, image * a.height + end, a.width * D * sizeof(T));
            for (int64_t y = begin; y < end; ++y)
                for (int x = 0; x < a.width; ++x) {
                    const int64_t i = (image * a.height + y) * a.width + x;
                    a.pairs[i] = 0;
                    if (!known.near(y * a.width + x)) continue;
                    const bool right = x + 1 < a.width && a.face_ids[i] != a.face_ids[i + 1];
                    const bool below = y + 1 < a.height && a.face_ids[i] != a.face_ids[i + a.width];
                    uint8_t& flags = a.pairs[i];
                    if (right) {
                        const PairBlend blend = blend_pair(a, image, x, int(y), false, lines);
                        if (blend.target >= 0) {
                            flags |= PAIR_RIGHT;
                            pairs.push_back(blended(blend, i, i + 1));
                        }
                    }
                    if (below) {
                        const PairBlend blend = blend_pair(a, image, x, int(y), true, lines);
                        if (blend.target >= 0) {
                            flags |= PAIR_BELOW;
                            pairs.push_back(blended(blend, i, i + a.width));
                        }
                    }
                }
        });
        for (const auto& pairs : found)
            for (const Blended& pair : pairs)
                for (int64_t c = 0; c < D; ++c)
                    a.out_colors[pair.target * D + c] += T(pair.weight) * (a.colors[pair.from * D + c] - a.colors[pair.target * D + c]);
    }
}

template <typename T>
void antialias_vjp(Loops, const AntialiasArgs<T>& a) {
    struct Share {
        Blended pair;
        int64_t corners[2];  // counted over all images
        double v[2][4];
    };
    const int64_t D = a.channels, rows = a.images * a.height;
    std::vector<std::vector<Share>> found((rows + ROWS - 1) / ROWS);
    parallel_for(rows, ROWS, [&](int64_t begin, int64_t end) {
        copy_rows(a.v_out_colors, a.v_colors, begin, end, a.width * D * sizeof(T));
        for (int64_t i = begin * a.width; i < end * a.width; ++i) {
            if (a.pairs[i] == 0) continue;
            const int64_t image = i / a.width / a.height;
            const int x = int(i % a.width), y = int(i / a.width % a.height);
            for (const bool vertical : {false, true}) {
                if (!(a.pairs[i] & (vertical ? PAIR_BELOW : PAIR_RIGHT))) continue;
                const PairBlend blend = blend_pair(a, image, x, y, vertical);
                Share share{blended(blend, i, i + (vertical ? a.width : 1)), {}, {}};
                int32_t corners[2];
                blend_pair_vjp(a, image, x, y, vertical, blend, corners, share.v);
                for (int k = 0; k < 2; ++k) share.corners[k] = image * a.vertices + corners[k];
                found[begin / ROWS].push_back(share);
            }
        }
    });
    for (const auto& shares : found)
        for (const Share& share : shares) {
            for (int64_t c = 0; c < D; ++c) {
                const T v = T(share.pair.weight) * a.v_out_colors[share.pair.target * D + c];
                a.v_colors[share.pair.target * D + c] -= v;
                a.v_colors[share.pair.from * D + c] += v;
            }
            for (int k = 0; k < 8; ++k) a.v_positions[4 * share.corners[k / 4] + k % 4] += T(share.v[k / 4][k % 4]);
        }
}

template void antialias(Loops, const AntialiasArgs<float>&);
template void antialias(Loops, const AntialiasArgs<double>&);
template void antialias_vjp(Loops, const AntialiasArgs<float>&);
template void antialias_vjp(Loops, const AntialiasArgs<double>&);

}  // namespace vision3d::cpu
