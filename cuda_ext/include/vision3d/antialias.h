#pragma once
#include "vision3d/mesh.h"

// Analytic blending of adjacent pixels across silhouette edges, after the idea of Laine et al. 2020 (section 3.4): where
// an edge of the nearer face crosses the line between two pixel centers, the pixel that it cuts mixes both colors by the
// distance of the edge from the border between the pixels. The only source of gradients from coverage to vertices.
namespace vision3d {

// Blending of two adjacent pixels a and b: target (0: a, 1: b) += weight * (color of the other - color of the target).
struct PairBlend {
    int target = -1;  // -1: no blending
    double weight = 0;
    int front = 0;                   // the one that shows the nearer face
    int32_t face = -1;               // face with the silhouette
    int edge = 0;                    // its edge, by the opposite corner
    double e_front = 0, e_back = 0;  // edge function at both centers
};

// The corner of a triangle that differs from two others.
V3D_HD int32_t far_corner(const int32_t* triangle, int32_t a, int32_t b) {
    for (int i = 0; i < 2; ++i)
        if (triangle[i] != a && triangle[i] != b) return triangle[i];
    return triangle[2];
}

// The edges of a face as lines: edge function i is a x + b y + c at pixel (x, y), and a x + b y + c w at a homogeneous point.
struct FaceLines {
    double a[3], b[3], c[3];
    double area;  // edge functions inside the face have its sign
};

constexpr double EDGE_ON = 1. / (1 << 21);  // relative to the summands: narrower faces are rounding errors of float32 positions

template <typename T>
V3D_HD FaceLines face_lines(const AntialiasArgs<T>& a, int64_t image, int32_t face) {
    const MeshFace f = load_face(a.positions + 4 * image * a.vertices, a.triangles + 3 * int64_t(face));
    FaceLines lines;
    for (int i = 0; i < 3; ++i) {
        const int j = (i + 1) % 3, k = (i + 2) % 3;
        lines.a[i] = f.y[j] * f.w[k] - f.w[j] * f.y[k];
        lines.b[i] = f.w[j] * f.x[k] - f.x[j] * f.w[k];
        lines.c[i] = f.x[j] * f.y[k] - f.y[j] * f.x[k];
    }
    lines.area = f.x[0] * lines.a[0] + f.y[0] * lines.b[0] + f.w[0] * lines.c[0];  // equal for every corner
    return lines;
}

// Whether the surface ends at an edge of a face: there is no face behind it, or one that does not cover its other side.
template <typename T>
V3D_HD bool ends_at(const AntialiasArgs<T>& a, int64_t image, int32_t face, const FaceLines& lines, int i) {
    const int32_t neighbor = a.neighbors[3 * int64_t(face) + i];
    if (neighbor < 0) return true;
    const int32_t* corners = a.triangles + 3 * int64_t(face);
    const int32_t far = far_corner(a.triangles + 3 * int64_t(neighbor), corners[(i + 1) % 3], corners[(i + 2) % 3]);
    const T* p = a.positions + 4 * (image * a.vertices + far);
    const double along[3] = {lines.a[i] * double(p[0]), lines.b[i] * double(p[1]), lines.c[i] * double(p[3])};
    const double side = along[0] + along[1] + along[2];
    // It folds back to the same side, or is edge-on and covers nothing.
    return lines.area * side > 0 || abs(side) <= EDGE_ON * (abs(along[0]) + abs(along[1]) + abs(along[2]));
}

constexpr int WALK = 16;  // maximum number of faces between two pixel centers

// Pixel a = (x, y) of an image and its neighbor b to the right (vertical false) or below; lines(face) returns its FaceLines.
template <typename T, typename Lines>
V3D_HD PairBlend blend_pair(const AntialiasArgs<T>& a, int64_t image, int x, int y, bool vertical, Lines lines) {
    PairBlend blend;
    const int64_t at = (image * a.height + y) * a.width + x, other = at + (vertical ? a.width : 1);
    const int32_t ids[2] = {a.face_ids[at], a.face_ids[other]};
    if (ids[0] == ids[1]) return blend;
    blend.front = ids[0] < 0 ? 1 : (ids[1] < 0 || a.depths[at] <= a.depths[other] ? 0 : 1);
    blend.face = ids[blend.front];
    for (int i = 0; i < 3; ++i)  // the most common case: both faces belong to one surface
        if (ids[1 - blend.front] >= 0 && a.neighbors[3 * int64_t(blend.face) + i] == ids[1 - blend.front] &&
            !ends_at(a, image, blend.face, lines(blend.face), i))
            return blend;
    const double px = x + (blend.front && !vertical ? 1.5 : .5), py = y + (blend.front && vertical ? 1.5 : .5);
    const double step = blend.front ? 1. : -1.;  // from the back center to the front one
    // Follows the surface from the front center towards the other one, across edges where it continues: near an outline, faces are
    // narrow, and the pixel rarely shows the one that ends there.
    for (int n = 0; n < WALK; ++n) {
        const FaceLines& f = lines(blend.face);
        const double sign = f.area > 0 ? 1. : -1.;
        double first = 2;
        for (int i = 0; i < 3; ++i) {  // branch-free, as branches would be unpredictable
            const double change = step * (vertical ? f.b[i] : f.a[i]), value = f.a[i] * px + f.b[i] * py + f.c[i], t = value / change;
            const bool sooner = (sign * change > 0) & (t < first);
            first = sooner ? t : first;
            blend.edge = sooner ? i : blend.edge;
            blend.e_front = sooner ? value : blend.e_front;
            blend.e_back = sooner ? value - change : blend.e_back;
        }
        if (!(first >= 0 && first <= 1)) return blend;
        if (!ends_at(a, image, blend.face, f, blend.edge)) {
            blend.face = a.neighbors[3 * int64_t(blend.face) + blend.edge];
            if (blend.face == ids[1 - blend.front]) return blend;  // the surface continues to the other center
            continue;
        }
        // Each edge is blended along the axis that it crosses more steeply, so that no part of it counts twice.
        const double along_x = abs(f.a[blend.edge]), along_y = abs(f.b[blend.edge]);
        if (vertical ? !(along_y > along_x) : !(along_x >= along_y)) return blend;
        blend.target = first > .5 ? 1 - blend.front : blend.front;
        blend.weight = first > .5 ? first - .5 : .5 - first;
        return blend;
    }
    return blend;
}

template <typename T>
V3D_HD PairBlend blend_pair(const AntialiasArgs<T>& a, int64_t image, int x, int y, bool vertical) {
    FaceLines lines;
    return blend_pair(a, image, x, y, vertical, [&](int32_t face) -> const FaceLines& { return lines = face_lines(a, image, face); });
}

constexpr uint8_t PAIR_RIGHT = 1, PAIR_BELOW = 2;

// Which of its two pairs, with the pixels to the right and below, pixel (x, y) blends. Few do, and only these have further
// costs.
template <typename T, typename Lines>
V3D_HD uint8_t find_pairs(const AntialiasArgs<T>& a, int64_t image, int x, int y, Lines lines) {
    const int32_t* id = a.face_ids + (image * a.height + y) * a.width + x;
    uint8_t found = 0;
    if (x + 1 < a.width && id[0] != id[1] && blend_pair(a, image, x, y, false, lines).target >= 0) found |= PAIR_RIGHT;
    if (y + 1 < a.height && id[0] != id[a.width] && blend_pair(a, image, x, y, true, lines).target >= 0) found |= PAIR_BELOW;
    return found;
}

// Whether a pixel is marked for blending with its neighbor to the right or below, and has one.
template <typename T>
V3D_HD bool is_marked(const AntialiasArgs<T>& a, int64_t image, int x, int y, bool vertical) {
    const uint8_t pairs = a.pairs[(image * a.height + y) * a.width + x];
    return (pairs & (vertical ? PAIR_BELOW : PAIR_RIGHT)) && (vertical ? y + 1 < a.height : x + 1 < a.width);
}

// Calls visit(blend, index of a, index of b) for the up to four blending pairs of pixel (x, y), always in the same order.
template <typename T, typename Visit>
V3D_HD void each_pair(const AntialiasArgs<T>& a, int64_t image, int x, int y, Visit visit) {
    for (int n = 0; n < 4; ++n) {
        const bool vertical = n >= 2;
        const int px = x - (n == 1), py = y - (n == 3);
        if (px < 0 || py < 0 || !is_marked(a, image, px, py, vertical)) continue;
        const int64_t at = (image * a.height + py) * a.width + px;
        const PairBlend blend = blend_pair(a, image, px, py, vertical);
        if (blend.target >= 0) visit(blend, at, at + (vertical ? a.width : 1));
    }
}

template <typename T>
V3D_HD void antialias_pixel(const AntialiasArgs<T>& a, int64_t i) {
    const int64_t D = a.channels, size = int64_t(a.width) * a.height, image = i / size;
    const int pixel = int(i - image * size);
    T* out = a.out_colors + i * D;
    for (int64_t c = 0; c < D; ++c) out[c] = a.colors[i * D + c];
    each_pair(a, image, pixel % a.width, pixel / a.width, [&](const PairBlend& blend, int64_t at, int64_t other) {
        const int64_t from = at == i ? other : at;
        if ((blend.target == 0 ? at : other) != i) return;
        for (int64_t c = 0; c < D; ++c) out[c] += T(blend.weight) * (a.colors[from * D + c] - a.colors[i * D + c]);
    });
}

// Gradient by the color of pixel i.
template <typename T>
V3D_HD void antialias_pixel_vjp(const AntialiasArgs<T>& a, int64_t i) {
    const int64_t D = a.channels, size = int64_t(a.width) * a.height, image = i / size;
    const int pixel = int(i - image * size);
    T* v = a.v_colors + i * D;
    for (int64_t c = 0; c < D; ++c) v[c] = a.v_out_colors[i * D + c];
    each_pair(a, image, pixel % a.width, pixel / a.width, [&](const PairBlend& blend, int64_t at, int64_t other) {
        const int64_t target = blend.target == 0 ? at : other;
        for (int64_t c = 0; c < D; ++c) v[c] += (target == i ? T(-blend.weight) : T(blend.weight)) * a.v_out_colors[target * D + c];
    });
}

// Gradients by the two corners of the edge of one blending pair, from the gradient of its weight; their indices in `corners`.
template <typename T>
V3D_HD void blend_weight_vjp(const AntialiasArgs<T>& a, int64_t image, int x, int y, bool vertical, const PairBlend& blend, double v_weight,
                             int32_t corners[2], double v[2][4]) {
    const double v_t = blend.target == blend.front ? -v_weight : v_weight, span = blend.e_front - blend.e_back;
    const double v_e[2] = {-v_t * blend.e_back / (span * span), v_t * blend.e_front / (span * span)};  // front, back
    const int32_t* triangle = a.triangles + 3 * int64_t(blend.face);
    const MeshFace f = load_face(a.positions + 4 * image * a.vertices, triangle);
    const int j = (blend.edge + 1) % 3, k = (blend.edge + 2) % 3;
    corners[0] = triangle[j];
    corners[1] = triangle[k];
    for (int side = 0; side < 2; ++side) {
        const bool second = (side == 0 ? blend.front : 1 - blend.front) == 1;
        edge_function_vjp(f, j, k, x + (second && !vertical ? 1.5 : .5), y + (second && vertical ? 1.5 : .5), v_e[side], v[0], v[1]);
    }
}

// As above, from the gradients of the colors.
template <typename T>
V3D_HD void blend_pair_vjp(const AntialiasArgs<T>& a, int64_t image, int x, int y, bool vertical, const PairBlend& blend,
                           int32_t corners[2], double v[2][4]) {
    const int64_t at = (image * a.height + y) * a.width + x, other = at + (vertical ? a.width : 1);
    const int64_t target = blend.target == 0 ? at : other, from = blend.target == 0 ? other : at;
    double v_weight = 0;
    for (int64_t c = 0; c < a.channels; ++c)
        v_weight += double(a.v_out_colors[target * a.channels + c]) *
                    (double(a.colors[from * a.channels + c]) - double(a.colors[target * a.channels + c]));
    blend_weight_vjp(a, image, x, y, vertical, blend, v_weight, corners, v);
}

}  // namespace vision3d
