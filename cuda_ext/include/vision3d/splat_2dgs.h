#pragma once
#include "vision3d/blend.h"
#include "vision3d/project.h"
#include "vision3d/quaternion.h"

// 2D Gaussians (2dgs, also called surfels): flat splats intersected exactly by the ray of a pixel (Huang et al. 2024, "2D Gaussian
// Splatting").
namespace vision3d {

// A splat in camera coordinates: columns s_u t_u and s_v t_v, center p, and its frame W R(q).
template <typename T>
struct Splat2dgs {
    T axes[9], p[3];      // columns of axes: unit tangents and normal
    T rows[4], reach[2];  // x and y of the tangents relative to the projected center (times fx, fy), and their z
    T anchor[2], inverse_z;
    T divisor;  // |reach|^2 - z^2, negative if the unit splat is in front of the camera
};

// `transform` (3x3, row-major) maps (u, v, 1) to homogeneous pixels: K [s_u t_u, s_v t_v, p].
template <typename T, typename S>
V3D_HD void make_2dgs(const View<S>& view, const T mean[3], const T quat[4], const T scales[3], Splat2dgs<T>& splat, T transform[9]) {
    T rotmat[9];
    world_to_camera(view, mean, splat.p);
    quat_to_rotmat(quat, rotmat);
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            splat.axes[3 * i + j] = T(view.R[3 * i]) * rotmat[j] + T(view.R[3 * i + 1]) * rotmat[3 + j] +
                                    T(view.R[3 * i + 2]) * rotmat[6 + j];
    const T fx(view.fx), fy(view.fy), cx(view.cx), cy(view.cy);
    splat.inverse_z = rcp(splat.p[2]);
    const T x = splat.p[0] * splat.inverse_z, y = splat.p[1] * splat.inverse_z;
    splat.anchor[0] = fma(fx, x, cx);
    splat.anchor[1] = fma(fy, y, cy);
    for (int j = 0; j < 3; ++j) {
        const T s = j < 2 ? scales[j] : T(1);
        const T a = j < 2 ? s * splat.axes[j] : splat.p[0], b = j < 2 ? s * splat.axes[3 + j] : splat.p[1],
                c = j < 2 ? s * splat.axes[6 + j] : splat.p[2];
        transform[j] = fx * a + cx * c;
        transform[3 + j] = fy * b + cy * c;
        transform[6 + j] = c;
        if (j == 2) continue;
        splat.rows[j] = fx * (a - x * c);
        splat.rows[2 + j] = fy * (b - y * c);
        splat.reach[j] = c;
    }
    splat.divisor = splat.reach[0] * splat.reach[0] + splat.reach[1] * splat.reach[1] - splat.p[2] * splat.p[2];
}

// Center of the projected splat.
template <typename T>
V3D_HD void center_2dgs(const Splat2dgs<T>& splat, T mean2d[2]) {
    const auto bounded = splat.divisor < T(0);
    const T inverse = rcp(select(bounded, splat.divisor, T(-1)));
    for (int i = 0; i < 2; ++i)
        mean2d[i] = splat.anchor[i] +
                    keep(bounded, (splat.rows[2 * i] * splat.reach[0] + splat.rows[2 * i + 1] * splat.reach[1]) * inverse);
}

// +1 if the normal axes[:, 2] faces the camera, else -1.
template <typename T>
V3D_HD T facing(const Splat2dgs<T>& splat) {
    const T dot = splat.axes[2] * splat.p[0] + splat.axes[5] * splat.p[1] + splat.axes[8] * splat.p[2];
    return select(dot < T(0), T(1), T(-1));
}

// As splat_radii: bounding box of the splat of radius `extent`; unbounded if that splat crosses the plane of the camera.
template <typename T>
V3D_HD bool radii_2dgs(const T mean2d[2], T depth, const T transform[9], const T normal[3], const T anchor[2], const T rows[4], T extent,
                       const Limits<T>& limits, int32_t radii[2]) {
    const T zero(0), big(1e30), size[2] = {limits.width, limits.height};
    radii[0] = radii[1] = 0;
    if (!(depth >= limits.near_plane && depth <= limits.far_plane && extent >= zero)) return false;
    const T square = extent * extent, a = transform[6], b = transform[7], divisor = square * (a * a + b * b) - depth * depth;
    T box[2];
    for (int k = 0; k < 2; ++k) {
        const T r0 = rows[2 * k], r1 = rows[2 * k + 1], m = mean2d[k], center = square * (r0 * a + r1 * b) / divisor;
        const T half = sqrt(max(center * center - square * (r0 * r0 + r1 * r1) / divisor, zero));
        box[k] = divisor < zero ? abs(anchor[k] + center - m) + half : max(abs(m), abs(size[k] - m)) + T(1);
        box[k] = ceil(max(box[k], extent * T(0.7071067811865476)));
    }
    bool seen = box[0] > limits.radius_clip || box[1] > limits.radius_clip;
    for (int k = 0; k < 2; ++k)
        seen = seen && mean2d[k] + box[k] > zero && mean2d[k] - box[k] < size[k] && box[k] < big && abs(mean2d[k]) < big;
    for (int j = 0; j < 9; ++j) seen = seen && abs(transform[j]) < big;
    for (int j = 0; j < 3; ++j) seen = seen && abs(normal[j]) < big;
    if (!seen) return false;
    for (int k = 0; k < 2; ++k) radii[k] = int32_t(min(box[k], T(1e9)));
    return true;
}

// Gradients by mean2d, depth, transform and normal to the splat's mean, quat, scales, and the camera (R then t, added to).
template <typename T, typename S>
V3D_HD void vjp_2dgs(const View<S>& view, const T mean[3], const T quat[4], const T scales[3], const T v_mean2d[2], T v_depth,
                     const T v_transform[9], const T v_normal[3], T v_mean[3], T v_quat[4], T v_scales[3], T* v_view) {
    Splat2dgs<T> splat;
    T transform[9], v_M[9], rotmat[9];
    make_2dgs(view, mean, quat, scales, splat, transform);
    for (int i = 0; i < 9; ++i) v_M[i] = v_transform[i];

    const auto bounded = splat.divisor < T(0);
    const T inverse = rcp(select(bounded, splat.divisor, T(-1))), two(2);
    T v_z = v_depth, v_divisor(0), v_reach[2] = {T(0), T(0)};
    for (int i = 0; i < 2; ++i) {
        const T* row = splat.rows + 2 * i;
        const T shift = (row[0] * splat.reach[0] + row[1] * splat.reach[1]) * inverse, v_shift = keep(bounded, v_mean2d[i]) * inverse;
        T v_anchor = v_mean2d[i];
        v_divisor = v_divisor - v_shift * shift;
        for (int j = 0; j < 2; ++j) {
            const T v_row = v_shift * splat.reach[j];
            v_reach[j] = v_reach[j] + v_shift * row[j] - splat.anchor[i] * v_row;
            v_anchor = v_anchor - v_row * splat.reach[j];
            v_M[3 * i + j] = v_M[3 * i + j] + v_row;
        }
        v_M[3 * i + 2] = v_M[3 * i + 2] + v_anchor * splat.inverse_z;
        v_z = v_z - v_anchor * splat.anchor[i] * splat.inverse_z;
    }
    for (int j = 0; j < 2; ++j) v_M[6 + j] = v_M[6 + j] + v_reach[j] + two * v_divisor * splat.reach[j];
    v_M[8] = v_M[8] + v_z - two * v_divisor * splat.p[2];

    T v_axes[9], v_p[3];
    for (int j = 0; j < 3; ++j) {
        const T column[3] = {T(view.fx) * v_M[j], T(view.fy) * v_M[3 + j], v_M[6 + j] + T(view.cx) * v_M[j] + T(view.cy) * v_M[3 + j]};
        if (j < 2) v_scales[j] = T(0);
        for (int i = 0; i < 3; ++i) {
            if (j == 2) {
                v_p[i] = column[i];
                v_axes[3 * i + 2] = facing(splat) * v_normal[i];
            } else {
                v_axes[3 * i + j] = scales[j] * column[i];
                v_scales[j] = v_scales[j] + splat.axes[3 * i + j] * column[i];
            }
        }
    }
    v_scales[2] = T(0);
    T v_rotmat[9];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            v_rotmat[3 * i + j] = T(view.R[i]) * v_axes[j] + T(view.R[3 + i]) * v_axes[3 + j] + T(view.R[6 + i]) * v_axes[6 + j];
    quat_to_rotmat_vjp(quat, v_rotmat, v_quat);
    for (int j = 0; j < 3; ++j) v_mean[j] = v_p[0] * T(view.R[j]) + v_p[1] * T(view.R[3 + j]) + v_p[2] * T(view.R[6 + j]);
    if (v_view == nullptr) return;
    quat_to_rotmat(quat, rotmat);
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j)
            v_view[3 * i + j] = v_view[3 * i + j] + v_p[i] * mean[j] + v_axes[3 * i] * rotmat[3 * j] +
                                v_axes[3 * i + 1] * rotmat[3 * j + 1] + v_axes[3 * i + 2] * rotmat[3 * j + 2];
        v_view[9 + i] = v_view[9 + i] + v_p[i];
    }
}

// A splat in the layout of the blending loops. The ray of a pixel at (dx, dy) from (x, y) intersects the splat's plane at
// h = dx by_x + dy by_y + base, (u, v) = h.xy / h.z; signs are such that h.z > 0 in front of the camera.
template <typename T>
struct alignas(16 * sizeof(T)) Record2dgs {
    T x, y, lo, sign;
    T by_x[3], by_y[3], base[3];
    T rx, ry, depth;
    T normal[3];
    T spare[13];
};

template <typename T>
V3D_HD void cross(const T a[3], const T b[3], T c[3]) {
    c[0] = a[1] * b[2] - a[2] * b[1];
    c[1] = a[2] * b[0] - a[0] * b[2];
    c[2] = a[0] * b[1] - a[1] * b[0];
}

// Planes of the ray from the transform, with pixels relative to `center`; returns the sign that was multiplied in.
template <typename T>
V3D_HD T ray_planes(const T M[9], const T center[2], T by_x[3], T by_y[3], T base[3]) {
    T across[3], down[3];
    for (int j = 0; j < 3; ++j) {
        across[j] = M[j] - center[0] * M[6 + j];
        down[j] = M[3 + j] - center[1] * M[6 + j];
    }
    cross(down, M + 6, by_x);
    cross(M + 6, across, by_y);
    cross(across, down, base);
    const T det = M[6] * base[0] + M[7] * base[1] + M[8] * base[2];
    const T sign = det > 0 ? T(1) : det < 0 ? T(-1) : T(0);
    for (int j = 0; j < 3; ++j) {
        by_x[j] *= sign;
        by_y[j] *= sign;
        base[j] *= sign;
    }
    return sign;
}

// Half sides of the box around `center` with all pixels of exponent <= limit, of the splat or the low-pass filter: the bounding
// box of the conic M diag(e, e, -1) M^T, e = 2 limit; unbounded where it crosses the plane of the camera.
template <typename T>
V3D_HD void reach_2dgs(const T M[9], const T center[2], T limit, T& rx, T& ry) {
    const T e = 2 * limit, far = T(1e9);
    const T d22 = e * (M[6] * M[6] + M[7] * M[7]) - M[8] * M[8];
    T* half[2] = {&rx, &ry};
    for (int i = 0; i < 2; ++i) {
        const T a = M[3 * i] - center[i] * M[6], b = M[3 * i + 1] - center[i] * M[7], c = M[3 * i + 2] - center[i] * M[8];
        const T middle = (e * (a * M[6] + b * M[7]) - c * M[8]) / d22;
        const T square = middle * middle - (e * (a * a + b * b) - c * c) / d22;
        *half[i] = d22 < 0 ? max(abs(middle) + sqrt(max(square, T(0))), sqrt(max(limit, T(0)))) * T(1.001) + T(0.01) : far;
    }
}

template <typename T>
V3D_HD void make_record_2dgs(const T mean2d[2], const T transform[9], T opacity, const T normal[3], T depth, Record2dgs<T>& r) {
    r.x = mean2d[0];
    r.y = mean2d[1];
    r.lo = log2(opacity);
    r.sign = ray_planes(transform, mean2d, r.by_x, r.by_y, r.base);
    reach_2dgs(transform, mean2d, log(T(255) * opacity), r.rx, r.ry);
    r.depth = depth;
    for (int k = 0; k < 3; ++k) r.normal[k] = normal[k];
}

template <typename T>
V3D_HD void ray_planes_vjp(const T M[9], const T center[2], T sign, const T v_by_x[3], const T v_by_y[3], const T v_base[3], T v_M[9]) {
    T across[3], down[3], a[3], b[3], c[3];
    for (int j = 0; j < 3; ++j) {
        across[j] = sign * (M[j] - center[0] * M[6 + j]);
        down[j] = sign * (M[3 + j] - center[1] * M[6 + j]);
    }
    const T toward[3] = {sign * M[6], sign * M[7], sign * M[8]};
    cross(v_by_y, toward, a);
    cross(down, v_base, b);
    for (int j = 0; j < 3; ++j) v_M[j] = a[j] + b[j];
    cross(toward, v_by_x, a);
    cross(v_base, across, b);
    for (int j = 0; j < 3; ++j) v_M[3 + j] = a[j] + b[j];
    cross(v_by_x, down, a);
    cross(across, v_by_y, c);
    for (int j = 0; j < 3; ++j) v_M[6 + j] = a[j] + c[j] - center[0] * v_M[j] - center[1] * v_M[3 + j];
}

// Intersection of the ray with the splat, and the exponent: the smaller one of the splat and the low-pass filter (sigma =
// 1/sqrt 2 px) (Huang et al. 2024, eq. 11). Powers of two, as in log2_alpha.
template <typename T, typename M>
struct Hit2dgs {
    T u, v, inverse, e;
    M nearer;  // the exponent is that of the splat
};

template <typename T, typename M>
V3D_HD Hit2dgs<T, M> meet_2dgs(T dx, T dy, const T by_x[3], const T by_y[3], const T base[3], T lo) {
    using S = typename Traits<T>::Scalar;
    const T h0 = fma(dx, by_x[0], fma(dy, by_y[0], base[0])), h1 = fma(dx, by_x[1], fma(dy, by_y[1], base[1])),
            h2 = fma(dx, by_x[2], fma(dy, by_y[2], base[2]));
    const T low_pass = fma(dx, dx, dy * dy), planar = fma(h0, h0, h1 * h1);
    Hit2dgs<T, M> hit;
    hit.nearer = (planar < T(S(2)) * low_pass * h2 * h2) & (T(S(0)) < h2);
    hit.inverse = rcp(select(hit.nearer, h2, T(S(1))));
    hit.u = keep(hit.nearer, h0 * hit.inverse);
    hit.v = keep(hit.nearer, h1 * hit.inverse);
    const T q = select(hit.nearer, T(S(0.5)) * fma(hit.u, hit.u, hit.v * hit.v), low_pass);
    hit.e = fnma(T(S(LOG2E)), q, lo);
    return hit;
}

}  // namespace vision3d
