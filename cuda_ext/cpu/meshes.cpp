#include "cpu/meshes.h"

#include <algorithm>
#include <vector>
#include "cpu/face_groups.h"
#include "cpu/parallel.h"
#include "vision3d/interpolate.h"
#include "vision3d/mesh.h"

namespace vision3d::cpu {
namespace {

constexpr int TILE = 32;  // pixels; the keys of a tile stay in the first cache

// Faces of one image by the tiles that their boxes touch, each list in the order of the faces.
struct TileLists {
    std::vector<int64_t> begins;
    std::vector<int32_t> faces;

    TileLists(const std::vector<PixelBox>& boxes, int tiles_x, int tiles_y) : begins(int64_t(tiles_x) * tiles_y + 1, 0) {
        const auto each = [&](auto&& visit) {
            for (size_t f = 0; f < boxes.size(); ++f) {
                const PixelBox& b = boxes[f];
                if (b.x0 >= b.x1 || b.y0 >= b.y1) continue;
                for (int ty = b.y0 / TILE; ty <= (b.y1 - 1) / TILE; ++ty)
                    for (int tx = b.x0 / TILE; tx <= (b.x1 - 1) / TILE; ++tx) visit(int64_t(ty) * tiles_x + tx, int32_t(f));
            }
        };
        each([&](int64_t tile, int32_t) { ++begins[tile + 1]; });
        for (size_t t = 1; t < begins.size(); ++t) begins[t] += begins[t - 1];
        faces.resize(begins.back());
        std::vector<int64_t> next(begins.begin(), begins.end() - 1);
        each([&](int64_t tile, int32_t face) { faces[next[tile]++] = face; });
    }
};

template <typename T>
void draw_tile(const MeshArgs<T>& a, int64_t image, const std::vector<PixelBox>& boxes, const TileLists& lists, int64_t tile, int tiles_x) {
    const int left = int(tile % tiles_x) * TILE, top = int(tile / tiles_x) * TILE;
    const int right = std::min(left + TILE, a.width), bottom = std::min(top + TILE, a.height);
    uint64_t keys[TILE * TILE];
    std::fill(keys, keys + TILE * TILE, NO_FRAGMENT);
    const T* positions = a.positions + 4 * image * a.vertices;
    for (int64_t n = lists.begins[tile]; n < lists.begins[tile + 1]; ++n) {
        const int32_t face = lists.faces[n];
        const PixelBox& b = boxes[face];
        const MeshFace f = load_face(positions, a.triangles + 3 * int64_t(face));
        for (int y = std::max(b.y0, top); y < std::min(b.y1, bottom); ++y)
            for (int x = std::max(b.x0, left); x < std::min(b.x1, right); ++x) {
                double e[3], depth;
                if (!covers(f, x + .5, y + .5, a.near_plane, a.far_plane, e, depth)) continue;
                uint64_t& key = keys[(y - top) * TILE + x - left];
                key = std::min(key, fragment_key(depth, face));
            }
    }
    for (int y = top; y < bottom; ++y)
        for (int x = left; x < right; ++x)
            write_fragment(a, (image * a.height + y) * a.width + x, keys[(y - top) * TILE + x - left]);
}

// Sums of `width` numbers of each corner over the pixels of every face, added to rows[corner].
template <typename T, typename Pixel>
void sum_corners(const FaceGroups& groups, const int32_t* triangles, int64_t width, T* rows, Pixel pixel) {
    const int64_t count = int64_t(groups.faces.size());
    std::vector<double> sums(count * 3 * width, 0);
    parallel_for(count, 256, [&](int64_t begin, int64_t end) {
        for (int64_t g = begin; g < end; ++g)
            for (int64_t n = groups.begins[g]; n < groups.begins[g + 1]; ++n) pixel(groups.pixels[n], groups.faces[g], &sums[g * 3 * width]);
    });
    // Faces share corners, so this goes in their order.
    for (int64_t g = 0; g < count; ++g)
        for (int k = 0; k < 3; ++k) {
            T* row = rows + width * triangles[3 * int64_t(groups.faces[g]) + k];
            for (int64_t c = 0; c < width; ++c) row[c] += T(sums[(g * 3 + k) * width + c]);
        }
}

}  // namespace

template <typename T>
void rasterize(Loops, const MeshArgs<T>& a) {
    const int tiles_x = (a.width + TILE - 1) / TILE, tiles_y = (a.height + TILE - 1) / TILE;
    std::vector<PixelBox> boxes(a.faces);
    for (int64_t image = 0; image < a.images; ++image) {
        parallel_for(a.faces, 4096, [&](int64_t begin, int64_t end) {
            for (int64_t f = begin; f < end; ++f)
                boxes[f] = face_box(load_face(a.positions + 4 * image * a.vertices, a.triangles + 3 * f), a.width, a.height, a.near_plane);
        });
        const TileLists lists(boxes, tiles_x, tiles_y);
        parallel_for(int64_t(tiles_x) * tiles_y, 1, [&](int64_t tile, int64_t) { draw_tile(a, image, boxes, lists, tile, tiles_x); });
    }
}

template <typename T>
void rasterize_vjp(Loops, const MeshVjpArgs<T>& a) {
    const MeshArgs<T>& f = a.forward;
    const int64_t size = int64_t(f.width) * f.height;
    for (int64_t image = 0; image < f.images; ++image) {
        const FaceGroups groups(f.face_ids + image * size, size, f.faces);
        sum_corners(groups, f.triangles, 4, a.v_positions + 4 * image * f.vertices, [&](int64_t pixel, int32_t face, double* sums) {
            fragment_vjp(a, image * size + pixel, face, reinterpret_cast<double(*)[4]>(sums));
        });
    }
}

template <typename T>
void interpolate(Loops, const InterpolateArgs<T>& a) {
    parallel_for(a.images * a.pixels, 4096, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) interpolate_pixel(a, i);
    });
}

template <typename T>
void interpolate_vjp(Loops, const InterpolateArgs<T>& a) {
    parallel_for(a.images * a.pixels, 4096, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) interpolate_pixel_vjp(a, i);
    });
    const int64_t D = a.channels;
    for (int64_t image = 0; image < a.images; ++image) {
        const FaceGroups groups(a.face_ids + image * a.pixels, a.pixels, a.faces);
        T* rows = a.v_attributes + (a.sets == 1 ? 0 : image) * a.vertices * D;
        sum_corners(groups, a.triangles, D, rows, [&](int64_t pixel, int32_t, double* sums) {
            const int64_t i = image * a.pixels + pixel;
            for (int k = 0; k < 3; ++k)
                for (int64_t c = 0; c < D; ++c) sums[k * D + c] += double(a.barycentrics[3 * i + k]) * double(a.v_values[i * D + c]);
        });
    }
}

#define V3D_INSTANTIATE(T)                                     \
    template void rasterize(Loops, const MeshArgs<T>&);        \
    template void rasterize_vjp(Loops, const MeshVjpArgs<T>&); \
    template void interpolate(Loops, const InterpolateArgs<T>&); \
    template void interpolate_vjp(Loops, const InterpolateArgs<T>&);
V3D_INSTANTIATE(float)
V3D_INSTANTIATE(double)
#undef V3D_INSTANTIATE

}  // namespace vision3d::cpu
