#pragma once
#include "vision3d/mesh_args.h"
#include "vision3d/scalar.h"
#include "vision3d/tiles.h"

// Triangles in homogeneous pixel positions (X, Y, Z, W): a point is visible at x = X / W, y = Y / W if W > 0, and Z is its
// depth. Edge functions of homogeneous points need no clipping (Olano and Greer 1997). All in double: with float input, the
// differences below are almost always exact, so that the sign of an edge function is correct or zero. Built without
// contraction to fma, which would break e(a, b) = -e(b, a).
namespace vision3d {

struct MeshFace {
    double x[3], y[3], z[3], w[3];
};

struct PixelBox {
    int x0, y0, x1, y1;  // pixels [x0, x1) x [y0, y1)
};

template <typename T>
V3D_HD MeshFace load_face(const T* positions, const int32_t* corners) {
    MeshFace f;
    for (int i = 0; i < 3; ++i) {
        const T* p = positions + 4 * int64_t(corners[i]);
        f.x[i] = double(p[0]);
        f.y[i] = double(p[1]);
        f.z[i] = double(p[2]);
        f.w[i] = double(p[3]);
    }
    return f;
}

// Edge functions at a pixel center: e[i] belongs to the edge opposite corner i, e[i] / sum(e) is the perspective-correct
// barycentric coordinate of corner i.
V3D_HD void edge_functions(const MeshFace& f, double px, double py, double e[3]) {
    double dx[3], dy[3];
    for (int i = 0; i < 3; ++i) {
        dx[i] = f.x[i] - px * f.w[i];
        dy[i] = f.y[i] - py * f.w[i];
    }
    e[0] = dx[1] * dy[2] - dy[1] * dx[2];
    e[1] = dx[2] * dy[0] - dy[2] * dx[0];
    e[2] = dx[0] * dy[1] - dy[0] * dx[1];
}

// Whether a pixel center on edge i belongs to this side of it (top-left rule). The triangle on the other side
// has the opposite normal, so exactly one of the two gets the pixel.
V3D_HD bool owns_edge(const MeshFace& f, int i, double sign) {
    const int j = (i + 1) % 3, k = (i + 2) % 3;
    const double a = sign * (f.y[j] * f.w[k] - f.w[j] * f.y[k]), b = sign * (f.w[j] * f.x[k] - f.x[j] * f.w[k]);
    return a > 0 || (a == 0 && b > 0);
}

// Whether the triangle, of either orientation, covers the pixel between the planes; its edge functions and depth there.
// Comparisons are false for NaN, so a corner that is not finite covers nothing.
V3D_HD bool covers(const MeshFace& f, double px, double py, double near_plane, double far_plane, double e[3], double& depth) {
    edge_functions(f, px, py, e);
    const bool positive = e[0] >= 0 && e[1] >= 0 && e[2] >= 0;
    if (!positive && !(e[0] <= 0 && e[1] <= 0 && e[2] <= 0)) return false;
    const double sum = e[0] + e[1] + e[2], sign = positive ? 1. : -1.;
    if (sum == 0) return false;
    if (!(sign * (e[0] * f.w[0] + e[1] * f.w[1] + e[2] * f.w[2]) > 0)) return false;  // W <= 0: behind the camera
    for (int i = 0; i < 3; ++i)
        if (e[i] == 0 && !owns_edge(f, i, sign)) return false;
    depth = (e[0] * f.z[0] + e[1] * f.z[1] + e[2] * f.z[2]) / sum;
    return depth >= near_plane && depth <= far_plane;
}

// Order of fragments: closer first in float32, then the lower face index.
V3D_HD uint64_t fragment_key(double depth, int64_t face) { return uint64_t(sortable(float(depth))) << 32 | uint64_t(uint32_t(face)); }
constexpr uint64_t NO_FRAGMENT = ~uint64_t(0);

V3D_HD void extend_box(double x, double y, double w, double box[4], bool& whole) {
    if (!(w > 0)) {
        whole = true;
        return;
    }
    box[0] = min(box[0], x / w);
    box[1] = min(box[1], y / w);
    box[2] = max(box[2], x / w);
    box[3] = max(box[3], y / w);
}

// Pixels with centers in a box of x, y, x, y, or up to a margin outside.
V3D_HD PixelBox pixels_between(const double box[4], double margin, int width, int height) {
    return {ceil_tile(box[0] - .5 - margin, width), ceil_tile(box[1] - .5 - margin, height), floor_tile(box[2] + .5 + margin, width),
            floor_tile(box[3] + .5 + margin, height)};
}

constexpr double BOX_MARGIN = 1. / 256;  // pixels, for rounding

// Pixels that the part in front of the near plane can cover; empty for corners that are not finite.
V3D_HD PixelBox face_box(const MeshFace& f, int width, int height, double near_plane) {
    double sum = 0;
    for (int i = 0; i < 3; ++i) sum += f.x[i] * 0 + f.y[i] * 0 + f.z[i] * 0 + f.w[i] * 0;
    if (!(sum == 0)) return {0, 0, 0, 0};
    double box[4] = {1e300, 1e300, -1e300, -1e300}, margin = BOX_MARGIN;
    bool whole = false, any = false;
    for (int i = 0; i < 3; ++i) {
        const int j = (i + 1) % 3;
        const bool in = f.z[i] >= near_plane, next = f.z[j] >= near_plane;
        any = any || in;
        if (in) extend_box(f.x[i], f.y[i], f.w[i], box, whole);
        if (in == next) continue;
        const double t = (near_plane - f.z[i]) / (f.z[j] - f.z[i]);
        extend_box(f.x[i] + t * (f.x[j] - f.x[i]), f.y[i] + t * (f.y[j] - f.y[i]), f.w[i] + t * (f.w[j] - f.w[i]), box, whole);
        margin = 1;  // the clipping is rounded
    }
    if (!any) return {0, 0, 0, 0};
    if (whole) return {0, 0, width, height};
    return pixels_between(box, margin, width, height);
}

// The outputs of pixel i, counted over all images, from the winner's key.
template <typename T>
V3D_HD void write_fragment(const MeshArgs<T>& a, int64_t i, uint64_t key) {
    T* b = a.barycentrics + 3 * i;
    if (key == NO_FRAGMENT) {
        a.face_ids[i] = -1;
        a.depths[i] = b[0] = b[1] = b[2] = T(0);
        return;
    }
    const int32_t face = int32_t(uint32_t(key));
    const int64_t size = int64_t(a.width) * a.height, image = i / size;
    const int pixel = int(i - image * size);
    const MeshFace f = load_face(a.positions + 4 * image * a.vertices, a.triangles + 3 * int64_t(face));
    double e[3];
    edge_functions(f, double(pixel % a.width) + .5, double(pixel / a.width) + .5, e);
    const double scale = 1 / (e[0] + e[1] + e[2]);
    a.face_ids[i] = face;
    for (int k = 0; k < 3; ++k) b[k] = T(e[k] * scale);
    a.depths[i] = T((e[0] * f.z[0] + e[1] * f.z[1] + e[2] * f.z[2]) * scale);
}

// Adds a gradient of the edge function between corners j and k at a pixel to v[corner] = (X, Y, Z, W).
V3D_HD void edge_function_vjp(const MeshFace& f, int j, int k, double px, double py, double v_e, double v_j[4], double v_k[4]) {
    const double xj = f.x[j] - px * f.w[j], yj = f.y[j] - py * f.w[j], xk = f.x[k] - px * f.w[k], yk = f.y[k] - py * f.w[k];
    const double v_xj = v_e * yk, v_yj = -v_e * xk, v_xk = -v_e * yj, v_yk = v_e * xj;
    v_j[0] += v_xj;
    v_j[1] += v_yj;
    v_j[3] -= px * v_xj + py * v_yj;
    v_k[0] += v_xk;
    v_k[1] += v_yk;
    v_k[3] -= px * v_xk + py * v_yk;
}

// Adds to v[3][4] the gradient by the corners of the barycentrics and the depth at a pixel.
V3D_HD void fragment_vjp(const MeshFace& f, double px, double py, const double v_b[3], double v_depth, double v[3][4]) {
    double e[3], by[3];
    edge_functions(f, px, py, e);
    const double scale = 1 / (e[0] + e[1] + e[2]);
    double along = 0;
    for (int i = 0; i < 3; ++i) {
        by[i] = v_b[i] + v_depth * f.z[i];
        along += by[i] * e[i] * scale;
        v[i][2] += v_depth * e[i] * scale;
    }
    for (int i = 0; i < 3; ++i) {
        const int j = (i + 1) % 3, k = (i + 2) % 3;
        edge_function_vjp(f, j, k, px, py, (by[i] - along) * scale, v[j], v[k]);
    }
}

// As above for pixel i, counted over all images, which shows `face`.
template <typename T>
V3D_HD void fragment_vjp(const MeshVjpArgs<T>& a, int64_t i, int32_t face, double v[3][4]) {
    const MeshArgs<T>& f = a.forward;
    const int64_t size = int64_t(f.width) * f.height, image = i / size;
    const int pixel = int(i - image * size);
    double v_b[3];
    for (int k = 0; k < 3; ++k) v_b[k] = a.v_barycentrics ? double(a.v_barycentrics[3 * i + k]) : 0;
    fragment_vjp(load_face(f.positions + 4 * image * f.vertices, f.triangles + 3 * int64_t(face)), double(pixel % f.width) + .5,
                 double(pixel / f.width) + .5, v_b, a.v_depths ? double(a.v_depths[i]) : 0, v);
}

// Sums of a face over its pixels: gradients of its edge functions at pixels (x, y), times x, y and 1, which is sufficient for the
// corners, as edge functions are linear in the pixel; and gradients of the corners' depths.
struct FaceSums {
    double x[3] = {}, y[3] = {}, one[3] = {}, depth[3] = {};
};

// Adds pixels [begin, end) of row y of an image, from column x on, all of which show `face`.
template <typename T>
V3D_HD void add_run(const MeshVjpArgs<T>& a, int32_t face, int64_t image, int64_t x, int64_t y, int64_t begin, int64_t end,
                    FaceSums& sums) {
    const MeshArgs<T>& m = a.forward;
    const MeshFace f = load_face(m.positions + 4 * image * m.vertices, m.triangles + 3 * int64_t(face));
    const double px = double(x) + .5, py = double(y) + .5;
    double dx[3], dy[3], at[3], slope[3], g[3] = {}, gx[3] = {}, depth[3] = {};
    for (int i = 0; i < 3; ++i) {
        dx[i] = f.x[i] - px * f.w[i];
        dy[i] = f.y[i] - py * f.w[i];
    }
    for (int i = 0; i < 3; ++i) {
        const int j = (i + 1) % 3, k = (i + 2) % 3;
        at[i] = dx[j] * dy[k] - dy[j] * dx[k];
        slope[i] = dy[j] * f.w[k] - f.w[j] * dy[k];
    }
    for (int64_t n = begin; n < end; ++n) {
        const double along_x = double(n - begin),
                     e[3] = {at[0] + along_x * slope[0], at[1] + along_x * slope[1], at[2] + along_x * slope[2]};
        const double scale = 1 / (e[0] + e[1] + e[2]), v_depth = a.v_depths ? double(a.v_depths[n]) : 0;
        double by[3], along = 0;
        for (int i = 0; i < 3; ++i) {
            const double weight = e[i] * scale;
            by[i] = (a.v_barycentrics ? double(a.v_barycentrics[3 * n + i]) : 0) + v_depth * f.z[i];
            along += by[i] * weight;
            depth[i] += v_depth * weight;
        }
        for (int i = 0; i < 3; ++i) {
            const double v_e = (by[i] - along) * scale;
            g[i] += v_e;
            gx[i] += v_e * along_x;
        }
    }
    for (int i = 0; i < 3; ++i) {
        sums.one[i] += g[i];
        sums.x[i] += gx[i] + px * g[i];
        sums.y[i] += py * g[i];
        sums.depth[i] += depth[i];
    }
}

// Gradients by the corners (X, Y, Z, W). The edge function of j and k at p = (x, y, 1) is p . (j x k) with j = (X, Y, W).
V3D_HD void face_vjp(const MeshFace& f, const FaceSums& s, double v[3][4]) {
    for (int i = 0; i < 3; ++i)
        for (int c = 0; c < 4; ++c) v[i][c] = c == 2 ? s.depth[i] : 0;
    for (int i = 0; i < 3; ++i) {
        const int j = (i + 1) % 3, k = (i + 2) % 3;
        v[j][0] += f.y[k] * s.one[i] - f.w[k] * s.y[i];
        v[j][1] += f.w[k] * s.x[i] - f.x[k] * s.one[i];
        v[j][3] += f.x[k] * s.y[i] - f.y[k] * s.x[i];
        v[k][0] -= f.y[j] * s.one[i] - f.w[j] * s.y[i];
        v[k][1] -= f.w[j] * s.x[i] - f.x[j] * s.one[i];
        v[k][3] -= f.x[j] * s.y[i] - f.y[j] * s.x[i];
    }
}

}  // namespace vision3d
