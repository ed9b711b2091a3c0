#pragma once
#include <cmath>
#include <cstdint>
#include "vision3d/macros.h"

// Overlap of upright boxes (x y z length width height yaw), and its gradient. Computed in double for all inputs: two boxes far
// from the origin that touch differ in the last bits of a float.
namespace vision3d::boxes {

constexpr int SIZE = 7;
constexpr double LARGEST = 1e75;  // product of four such values is finite
constexpr int CORNERS = 20;       // 4, and at most half as many more after each of four clips

struct Box {
    double x, y, z, l, w, h, c, s;
    bool valid;  // values are not NaN or beyond LARGEST, and no size is negative
};

template <typename T>
V3D_HD Box read(const T* b) {
    const double yaw = double(b[6]);
    Box box{double(b[0]), double(b[1]), double(b[2]), double(b[3]), double(b[4]), double(b[5]), ::cos(yaw), ::sin(yaw), true};
    double sum = 0;
    for (int k = 0; k < SIZE; ++k) sum += ::fabs(double(b[k]));
    box.valid = sum < LARGEST && box.l >= 0 && box.w >= 0 && box.h >= 0;
    return box;
}

// The polygon of an intersection. side[i] is the side on which the edge from corner i lies: 0 to 3 of the second box, 4 to 7 of
// the first, each as +l +w -l -w.
struct Polygon {
    double x[CORNERS], y[CORNERS];
    int side[CORNERS], count;
};

// Keeps the part with axis * sign <= limit (Sutherland and Hodgman 1974).
template <bool ALONG_X>
V3D_HD void clip(const Polygon& in, double sign, double limit, int side, Polygon& out) {
    out.count = 0;
    for (int i = 0; i < in.count; ++i) {
        const int j = i + 1 < in.count ? i + 1 : 0;
        const double a = sign * (ALONG_X ? in.x[i] : in.y[i]) - limit, b = sign * (ALONG_X ? in.x[j] : in.y[j]) - limit;
        if (a <= 0) {
            out.x[out.count] = in.x[i];
            out.y[out.count] = in.y[i];
            out.side[out.count++] = in.side[i];
        }
        if ((a <= 0) == (b <= 0)) continue;
        const double t = a / (a - b);
        out.x[out.count] = ALONG_X ? sign * limit : in.x[i] + t * (in.x[j] - in.x[i]);
        out.y[out.count] = ALONG_X ? in.y[i] + t * (in.y[j] - in.y[i]) : sign * limit;
        out.side[out.count++] = a <= 0 ? side : in.side[i];
    }
}

// The second box in the frame of the first.
struct Placed {
    double x, y, c, s;
};

V3D_HD Placed place(const Box& a, const Box& b) {
    const double x = b.x - a.x, y = b.y - a.y;
    return {a.c * x + a.s * y, a.c * y - a.s * x, a.c * b.c + a.s * b.s, a.c * b.s - a.s * b.c};
}

V3D_HD bool are_apart(const Box& a, const Box& b) {
    const double x = a.x - b.x, y = a.y - b.y, square = a.l * a.l + a.w * a.w, other = b.l * b.l + b.w * b.w;
    return 4 * (x * x + y * y) > square + other + 2 * ::sqrt(square * other);
}

// The intersection seen from above, in the frame of the first box, counter-clockwise.
V3D_HD void intersect(const Box& a, const Box& b, const Placed& at, Polygon& polygon) {
    Polygon other;
    const double along[4] = {b.l / 2, b.l / 2, -b.l / 2, -b.l / 2}, across[4] = {-b.w / 2, b.w / 2, b.w / 2, -b.w / 2};
    other.count = 4;
    for (int k = 0; k < 4; ++k) {  // side k begins at corner k
        other.x[k] = at.x + at.c * along[k] - at.s * across[k];
        other.y[k] = at.y + at.s * along[k] + at.c * across[k];
        other.side[k] = k;
    }
    clip<true>(other, 1, a.l / 2, 4, polygon);
    clip<false>(polygon, 1, a.w / 2, 5, other);
    clip<true>(other, -1, a.l / 2, 6, polygon);
    clip<false>(polygon, -1, a.w / 2, 7, other);
    polygon = other;
}

V3D_HD double area_of(const Polygon& p) {
    double sum = 0;
    for (int i = 1; i + 1 < p.count; ++i) sum += (p.x[i] - p.x[0]) * (p.y[i + 1] - p.y[0]) - (p.x[i + 1] - p.x[0]) * (p.y[i] - p.y[0]);
    return sum > 0 ? sum / 2 : 0;
}

// The area changes by the length of each edge times the speed of its side along the outward normal.
V3D_HD void area_vjp(const Box& a, const Placed& at, const Polygon& p, double v, double* v_a, double* v_b) {
    for (int i = 0; i < p.count; ++i) {
        const int j = i + 1 < p.count ? i + 1 : 0, side = p.side[i] % 4;
        const bool of_second = p.side[i] < 4;
        const double c = of_second ? at.c : 1, s = of_second ? at.s : 0, sign = side < 2 ? 1 : -1;
        const double nx = sign * (side % 2 ? -s : c), ny = sign * (side % 2 ? c : s);
        const double x = (p.x[i] + p.x[j]) / 2 - (of_second ? at.x : 0), y = (p.y[i] + p.y[j]) / 2 - (of_second ? at.y : 0);
        const double dx = p.x[j] - p.x[i], dy = p.y[j] - p.y[i], length = v * ::sqrt(dx * dx + dy * dy);
        double* v_box = of_second ? v_b : v_a;
        v_box[0] += length * (a.c * nx - a.s * ny);
        v_box[1] += length * (a.s * nx + a.c * ny);
        v_box[3 + side % 2] += length / 2;
        v_box[6] += length * (ny * x - nx * y);
    }
}

V3D_HD double height_of(const Box& a, const Box& b) {
    const double top = ::fmin(a.z + a.h / 2, b.z + b.h / 2), bottom = ::fmax(a.z - a.h / 2, b.z - b.h / 2);
    return top > bottom ? top - bottom : 0;
}

// Intersection over union, seen from above or of the volumes; 0 where the union is empty, NaN where a box is invalid.
V3D_HD double iou(const Box& a, const Box& b, bool is_3d) {
    if (!a.valid || !b.valid) return NAN;
    const double height = is_3d ? height_of(a, b) : 1;
    if (height == 0 || are_apart(a, b)) return 0;
    Polygon polygon;
    intersect(a, b, place(a, b), polygon);
    const double shared = height * area_of(polygon);
    const double both = a.l * a.w * (is_3d ? a.h : 1) + b.l * b.w * (is_3d ? b.h : 1) - shared;
    return both > 0 ? ::fmin(shared / both, 1.0) : 0;
}

// Adds the gradients of v * iou to v_a and v_b. Where the IoU has a kink, the gradient of one side of it.
V3D_HD void iou_vjp(const Box& a, const Box& b, bool is_3d, double v, double* v_a, double* v_b) {
    if (!a.valid || !b.valid) {
        for (int k = 0; k < SIZE; ++k) v_a[k] = v_b[k] = NAN;
        return;
    }
    const double height = is_3d ? height_of(a, b) : 1;
    if (v == 0 || height == 0 || are_apart(a, b)) return;
    const Placed at = place(a, b);
    Polygon polygon;
    intersect(a, b, at, polygon);
    const double area = area_of(polygon), shared = height * area, ha = is_3d ? a.h : 1, hb = is_3d ? b.h : 1;
    const double both = a.l * a.w * ha + b.l * b.w * hb - shared;
    if (!(both > 0)) return;
    const double v_shared = v * (both + shared) / (both * both), v_size = -v * shared / (both * both);
    area_vjp(a, at, polygon, v_shared * height, v_a, v_b);
    v_a[3] += v_size * a.w * ha;
    v_a[4] += v_size * a.l * ha;
    v_b[3] += v_size * b.w * hb;
    v_b[4] += v_size * b.l * hb;
    if (!is_3d) return;
    v_a[5] += v_size * a.l * a.w;
    v_b[5] += v_size * b.l * b.w;
    const double v_height = v_shared * area;
    double* top = a.z + a.h / 2 < b.z + b.h / 2 ? v_a : v_b;
    top[2] += v_height;
    top[5] += v_height / 2;
    double* bottom = a.z - a.h / 2 > b.z - b.h / 2 ? v_a : v_b;
    bottom[2] -= v_height;
    bottom[5] += v_height / 2;
}

template <typename T>
struct IouArgs {
    const T *first, *second;  // (N, 7), (M, 7)
    int64_t rows, columns;
    bool is_3d, is_paired;  // paired: row n of both, N = M
    T* out;                 // (N * M), or (N) if paired
};

template <typename T>
struct IouVjpArgs : IouArgs<T> {
    const T* v_out;
    T *v_first, *v_second;
};

// Boxes in the order of decreasing score.
template <typename T>
struct NmsArgs {
    const T* boxes;         // (N, 7)
    const int64_t* groups;  // (N), only boxes of one group suppress each other
    int64_t count, max_kept;
    double threshold;
    bool is_3d;
    uint8_t* kept;      // (N)
    uint64_t* scratch;  // (N + 1, ceil(N / 64)) on a GPU
};

// Gradient of one of the boxes: of the first by all its pairs, or of the second.
template <typename T>
V3D_HD void box_vjp(const IouVjpArgs<T>& args, int64_t n, bool of_second) {
    double v_a[SIZE] = {}, v_b[SIZE] = {};
    const Box own = read((of_second ? args.second : args.first) + SIZE * n);
    const int64_t others = of_second ? args.rows : args.columns;
    for (int64_t m = args.is_paired ? n : 0; m < (args.is_paired ? n + 1 : others); ++m) {
        const Box other = read((of_second ? args.first : args.second) + SIZE * m);
        const int64_t at = args.is_paired ? n : of_second ? m * args.columns + n : n * args.columns + m;
        iou_vjp(of_second ? other : own, of_second ? own : other, args.is_3d, double(args.v_out[at]), v_a, v_b);
    }
    T* out = (of_second ? args.v_second : args.v_first) + SIZE * n;
    for (int k = 0; k < SIZE; ++k) out[k] = T(of_second ? v_b[k] : v_a[k]);
}

}  // namespace vision3d::boxes
