#pragma once
#include "vision3d/scalar.h"

namespace vision3d {

enum CameraModel : int { PINHOLE = 0, ORTHO = 1, FISHEYE = 2 };

// One camera: world to camera x_cam = R x + t (R row-major), intrinsics and image size in pixels.
template <typename S>
struct View {
    S R[9], t[3], fx, fy, cx, cy;
    S low_x, high_x, low_y, high_y;  // where x/z and y/z are clamped in the Jacobian of a pinhole

    View() = default;
    V3D_HD_MEMBER View(const S* viewmat, const S* K, S width, S height) {
        for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 3; ++j) R[3 * i + j] = viewmat[4 * i + j];
            t[i] = viewmat[4 * i + 3];
        }
        fx = K[0];
        fy = K[4];
        cx = K[2];
        cy = K[5];
        const S margin_x = S(0.15) * width / fx, margin_y = S(0.15) * height / fy;  // 0.3 of the half field of view
        low_x = -(cx / fx + margin_x);
        high_x = (width - cx) / fx + margin_x;
        low_y = -(cy / fy + margin_y);
        high_y = (height - cy) / fy + margin_y;
    }
};

template <typename T, typename S>
V3D_HD void world_to_camera(const View<S>& view, const T x[3], T p[3]) {
    for (int i = 0; i < 3; ++i)
        p[i] = fma(x[0], T(view.R[3 * i]), fma(x[1], T(view.R[3 * i + 1]), fma(x[2], T(view.R[3 * i + 2]), T(view.t[i]))));
}

// Terms of the equidistant projection m = f s (x, y) with s = theta / r and k = 2 ds/d(r^2). Series near the axis.
template <typename T>
struct Equidistant {
    T s, k, dk_da, w;  // w = 1 / |p|^2, dk_da = dk/d(r^2)

    V3D_HD_MEMBER Equidistant(const T p[3]) {
        const T x = p[0], y = p[1], z = p[2], a = x * x + y * y;
        w = rcp(a + z * z);
        const T q = a / (z * z), limit = sizeof(T) == 4 ? T(1e-2) : T(1e-4);
        if (z > T(0) && q < limit) {
            const T iz = rcp(z), iz3 = iz * iz * iz;
            s = iz * (T(1) - q * (T(1) / 3 - q * (T(1) / 5 - q * (T(1) / 7))));
            k = iz3 * (-T(2) / 3 + q * (T(4) / 5 - q * (T(6) / 7 - q * (T(8) / 9))));
            dk_da = iz3 * iz * iz * (T(4) / 5 - q * (T(12) / 7 - q * (T(24) / 9)));
        } else {
            const T r = sqrt(a);
            s = atan2(r, z) / r;
            k = (z * w - s) / a;
            dk_da = (-z * w * w - T(1.5) * k) / a;
        }
    }
};

// Pixel m of a point p in camera coordinates, and J = dm/dp (2x3, row-major), where the pinhole clamps x/z and y/z
// (splatting after Zwicker et al. 2002; the clamp bounds the size of Gaussians outside the image).
template <int MODEL, typename T, typename S>
V3D_HD void project_point(const View<S>& view, const T p[3], T m[2], T J[6]) {
    const T fx(view.fx), fy(view.fy), zero(0);
    if constexpr (MODEL == PINHOLE) {
        const T rz = rcp(p[2]), u = p[0] * rz, v = p[1] * rz;
        const T cu = min(max(u, T(view.low_x)), T(view.high_x)), cv = min(max(v, T(view.low_y)), T(view.high_y));
        m[0] = fma(fx, u, T(view.cx));
        m[1] = fma(fy, v, T(view.cy));
        const T gx = fx * rz, gy = fy * rz;
        J[0] = gx;
        J[1] = zero;
        J[2] = -(gx * cu);
        J[3] = zero;
        J[4] = gy;
        J[5] = -(gy * cv);
    } else if constexpr (MODEL == ORTHO) {
        m[0] = fma(fx, p[0], T(view.cx));
        m[1] = fma(fy, p[1], T(view.cy));
        J[0] = fx;
        J[1] = zero;
        J[2] = zero;
        J[3] = zero;
        J[4] = fy;
        J[5] = zero;
    } else {
        const Equidistant<T> e(p);
        const T x = p[0], y = p[1];
        m[0] = fx * e.s * x + T(view.cx);
        m[1] = fy * e.s * y + T(view.cy);
        J[0] = fx * (e.s + x * x * e.k);
        J[1] = fx * x * y * e.k;
        J[2] = -fx * x * e.w;
        J[3] = fy * x * y * e.k;
        J[4] = fy * (e.s + y * y * e.k);
        J[5] = -fy * y * e.w;
    }
}

// Gradient of a loss through the above: v_p from v_m and v_J. A clamped x/z passes no gradient through the clamp.
template <int MODEL, typename T, typename S>
V3D_HD void project_point_vjp(const View<S>& view, const T p[3], const T v_m[2], const T v_J[6], T v_p[3]) {
    const T fx(view.fx), fy(view.fy), zero(0);
    if constexpr (MODEL == PINHOLE) {
        const T rz = rcp(p[2]), u = p[0] * rz, v = p[1] * rz;
        const T cu = min(max(u, T(view.low_x)), T(view.high_x)), cv = min(max(v, T(view.low_y)), T(view.high_y));
        const T gx = fx * rz, gy = fy * rz;
        // J[2] = -gx cu with u = x rz where not clamped.
        const T open_u = keep((cu <= u) & (u <= cu), gx * rz * v_J[2]), open_v = keep((cv <= v) & (v <= cv), gy * rz * v_J[5]);
        v_p[0] = gx * v_m[0] - open_u;
        v_p[1] = gy * v_m[1] - open_v;
        v_p[2] = open_u * u + open_v * v - gx * fma(rz, v_J[0] - cu * v_J[2], u * v_m[0]) - gy * fma(rz, v_J[4] - cv * v_J[5], v * v_m[1]);
    } else if constexpr (MODEL == ORTHO) {
        v_p[0] = fx * v_m[0];
        v_p[1] = fy * v_m[1];
        v_p[2] = zero;
    } else {
        const Equidistant<T> e(p);
        const T x = p[0], y = p[1], z = p[2], two(2);
        // First d(m, J) at fixed s, k, w, then their dependence on a = x^2 + y^2 and on z.
        const T off = fx * v_J[1] + fy * v_J[3];
        const T v_s = fx * (v_m[0] * x + v_J[0]) + fy * (v_m[1] * y + v_J[4]);
        const T v_k = fx * x * x * v_J[0] + fy * y * y * v_J[4] + x * y * off;
        const T v_w = -(fx * x * v_J[2] + fy * y * v_J[5]);
        const T v_a = T(0.5) * e.k * v_s + e.dk_da * v_k - e.w * e.w * v_w;
        v_p[0] = fx * e.s * v_m[0] + two * fx * x * e.k * v_J[0] + y * e.k * off - fx * e.w * v_J[2] + two * x * v_a;
        v_p[1] = fy * e.s * v_m[1] + two * fy * y * e.k * v_J[4] + x * e.k * off - fy * e.w * v_J[5] + two * y * v_a;
        v_p[2] = -e.w * v_s + two * e.w * e.w * v_k - two * z * e.w * e.w * v_w;
    }
}

}  // namespace vision3d
