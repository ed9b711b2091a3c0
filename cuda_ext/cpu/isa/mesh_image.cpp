// Compiled once per instruction set, with V3D_ISA as the name of its namespace, and without contraction to fma: bitwise equal on
// every set.
#include <cstring>
#include <type_traits>
#include "cpu/mesh_tile.h"

namespace vision3d::V3D_ISA {
namespace {

// One number for each corner of a face; the fourth is unused.
typedef double Q __attribute__((vector_size(32)));
typedef int64_t Order __attribute__((vector_size(32)));

V3D_HD Q load(const double* from) {
    Q v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

V3D_HD void store(double* to, Q v) { std::memcpy(to, &v, sizeof v); }
V3D_HD Q next(Q v) { return __builtin_shuffle(v, Order{1, 2, 0, 3}); }
V3D_HD Q last(Q v) { return __builtin_shuffle(v, Order{2, 0, 1, 3}); }
V3D_HD double sum(Q v) { return v[0] + v[1] + v[2]; }

// The corners of a face relative to a pixel center.
struct Corners {
    Q x, y, w;
};

template <typename T>
V3D_HD Corners corners_of(const T* positions, const int32_t* triangle, double px, double py) {
    const T *a = positions + 4 * int64_t(triangle[0]), *b = positions + 4 * int64_t(triangle[1]), *c = positions + 4 * int64_t(triangle[2]);
    const Q w = {double(a[3]), double(b[3]), double(c[3]), 0};
    return {Q{double(a[0]), double(b[0]), double(c[0]), 0} - px * w, Q{double(a[1]), double(b[1]), double(c[1]), 0} - py * w, w};
}

// body(channels), a compile-time constant if there are few.
template <typename Body>
V3D_HD void with_few_channels(int64_t channels, Body body) {
    switch (channels) {
        case 1: return body(std::integral_constant<int64_t, 1>());
        case 3: return body(std::integral_constant<int64_t, 3>());
        case 4: return body(std::integral_constant<int64_t, 4>());
        default: return body(channels);
    }
}

// The steps of `finish` and interpolate_pixel, bitwise equal.
template <typename T, typename N>
void shade_tile(const MeshTile& tile, const MeshImageArgs<T>& a, N channels) {
    const MeshArgs<T>& m = a.mesh;
    const T* set = a.attributes + (a.sets == 1 ? 0 : tile.image) * m.vertices * channels;
    for (int y = tile.top; y < tile.bottom; ++y) {
        const int row = (y - tile.top) * MeshTile::STRIDE;
        const int64_t first = (tile.image * m.height + y) * m.width + tile.left;
        T weights[3][MESH_TILE_W], depths[MESH_TILE_W] = {};
        for (int block = 0; block < MESH_TILE_W; block += 8) {  // many are empty
            int64_t least = NO_KEY;
            for (int n = block; n < block + 8; ++n) least = tile.keys[row + n] < least ? tile.keys[row + n] : least;
            if (least == NO_KEY) continue;
            for (int n = block; n < block + 8; ++n) {
                const double scale = 1 / (tile.e[0][row + n] + tile.e[1][row + n] + tile.e[2][row + n]);
                for (int k = 0; k < 3; ++k) weights[k][n] = T(tile.e[k][row + n] * scale);
                depths[n] = T(tile.depth[row + n] * scale);
            }
        }
        for (int n = 0; n < tile.right - tile.left; ++n) {
            const bool seen = tile.keys[row + n] != NO_KEY;
            m.face_ids[first + n] = seen ? int32_t(uint32_t(tile.keys[row + n])) : -1;
            m.depths[first + n] = seen ? depths[n] : T(0);
        }
        for (int n = 0; n < tile.right - tile.left; ++n) {
            T* out = a.colors + (first + n) * channels;
            const int32_t face = m.face_ids[first + n];
            if (face < 0) {
                for (int64_t c = 0; c < channels; ++c) out[c] = T(0);
                continue;
            }
            const int32_t* triangle = m.triangles + 3 * int64_t(face);
            const T *p = set + triangle[0] * int64_t(channels), *q = set + triangle[1] * int64_t(channels),
                    *r = set + triangle[2] * int64_t(channels);
            for (int64_t c = 0; c < channels; ++c) out[c] = T(0) + weights[0][n] * p[c] + weights[1][n] * q[c] + weights[2][n] * r[c];
        }
    }
}

template <typename T>
void shade(const MeshTile& tile, const MeshImageArgs<T>& a) {
    with_few_channels(a.channels, [&](auto channels) { shade_tile(tile, a, channels); });
}

// Adds a pixel with gradient `v` of its color to the sums of its face.
template <typename T, typename Factor, typename N>
V3D_HD void add_pixel(double* face, double x, double y, const T* v, Factor factor, N channels) {
    double* attributes = face + FaceRow::ATTRIBUTES;
    double* sums = attributes + 4 * channels;
    double* edges = sums + 4 * channels;
    const double px = x - face[FaceRow::X], py = y - face[FaceRow::Y];
    const Q e = load(face + FaceRow::SLOPE_X) * px + (load(face + FaceRow::SLOPE_Y) * py + load(face + FaceRow::AT));
    const double scale = 1 / sum(e);
    const Q weights = e * scale;
    Q by{};
    for (int64_t c = 0; c < channels; ++c) {
        const double value = double(factor) * double(v[c]);
        by += load(attributes + 4 * c) * value;
        store(sums + 4 * c, load(sums + 4 * c) + weights * value);
    }
    const Q v_e = (by - sum(by * weights)) * scale;
    store(edges, load(edges) + v_e);
    store(edges + 4, load(edges + 4) + v_e * px);
    store(edges + 8, load(edges + 8) + v_e * py);
}

template <typename T, typename N>
void sum_rows(const MeshImageArgs<T>& a, const FaceSumsArgs<T>& s, N channels) {
    const MeshArgs<T>& m = a.mesh;
    const int64_t size = FaceRow::size(channels);
    const T* positions = m.positions + 4 * s.image * m.vertices;
    const T* set = a.attributes + (a.sets == 1 ? 0 : s.image) * m.vertices * channels;
    for (int64_t n = 0; n < s.count; ++n) {
        double* row = s.rows + n * size;
        const int32_t* triangle = m.triangles + 3 * int64_t(s.faces[n]);
        const double px = double(s.first[n] % m.width) + .5, py = double(s.first[n] / m.width) + .5;
        const Corners f = corners_of(positions, triangle, px, py);
        store(row + FaceRow::SLOPE_X, next(f.y) * last(f.w) - next(f.w) * last(f.y));
        store(row + FaceRow::SLOPE_Y, next(f.w) * last(f.x) - next(f.x) * last(f.w));
        store(row + FaceRow::AT, next(f.x) * last(f.y) - next(f.y) * last(f.x));
        row[FaceRow::X] = px;
        row[FaceRow::Y] = py;
        double* attributes = row + FaceRow::ATTRIBUTES;
        const T *p = set + triangle[0] * int64_t(channels), *q = set + triangle[1] * int64_t(channels),
                *r = set + triangle[2] * int64_t(channels);
        for (int64_t c = 0; c < channels; ++c) store(attributes + 4 * c, Q{double(p[c]), double(q[c]), double(r[c]), 0});
        for (int64_t k = channels; k < 2 * channels + 3; ++k) store(attributes + 4 * k, Q{});
    }
    for (int64_t y = s.begin; y < s.end; ++y) {
        const int64_t first = (s.image * m.height + y) * m.width;
        for (int64_t x = 0; x < m.width; ++x) {
            const int32_t face = m.face_ids[first + x];
            if (face < 0) continue;
            add_pixel(s.rows + s.slots[face] * size, double(x) + .5, double(y) + .5, a.v_colors + (first + x) * channels,
                      std::integral_constant<int, 1>(), channels);
        }
    }
    for (int64_t n = 0; n < s.shares; ++n) {
        const PixelShare& share = s.share[n];
        const int64_t pixel = share.pixel - s.image * m.height * m.width;
        add_pixel(s.rows + s.slots[m.face_ids[share.pixel]] * size, double(pixel % m.width) + .5, double(pixel / m.width) + .5,
                  a.v_colors + share.from * channels, share.factor, channels);
    }
    // Writes the gradients by the corners, as in face_vjp, over the first three rows.
    for (int64_t n = 0; n < s.count; ++n) {
        double* row = s.rows + n * size;
        const double px = row[FaceRow::X], py = row[FaceRow::Y];
        const Corners f = corners_of(positions, m.triangles + 3 * int64_t(s.faces[n]), px, py);
        const double* edges = row + FaceRow::ATTRIBUTES + 8 * channels;
        const Q one = load(edges), x = load(edges + 4), y = load(edges + 8);
        const Q v_x = next(f.y) * last(one) - next(f.w) * last(y) - last(f.y) * next(one) + last(f.w) * next(y);
        const Q v_y = next(f.w) * last(x) - next(f.x) * last(one) - last(f.w) * next(x) + last(f.x) * next(one);
        const Q v_w = next(f.x) * last(y) - next(f.y) * last(x) - last(f.x) * next(y) + last(f.y) * next(x);
        store(row, v_x);
        store(row + 4, v_y);
        store(row + 8, v_w - px * v_x - py * v_y);
    }
}

template <typename T>
void sum_faces(const MeshImageArgs<T>& a, const FaceSumsArgs<T>& s) {
    with_few_channels(a.channels, [&](auto channels) { sum_rows(a, s, channels); });
}

}  // namespace

void fill_mesh_image_table(MeshKernels& kernels) {
    kernels.shade = shade<float>;
    kernels.shade64 = shade<double>;
    kernels.sum_faces = sum_faces<float>;
    kernels.sum_faces64 = sum_faces<double>;
}

}  // namespace vision3d::V3D_ISA
