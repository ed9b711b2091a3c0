#pragma once
#include "vision3d/camera.h"
#include "vision3d/quaternion.h"

namespace vision3d {

// EWA projection of one Gaussian (Kerbl et al. 2023, section 4; Zwicker et al. 2002).
template <typename T>
struct Projection {
    T mean2d[2], depth, conic[3], compensation;  // conic (a, b, c): exponent 0.5 (a dx^2 + c dy^2) + b dx dy
    T cov2d[3], det;                             // of the blurred covariance: xx, xy, yy
};

constexpr double COMPENSATION_FLOOR = 0.005 * 0.005;  // of det(before blur) / det(after)

// Visibility limits of a camera.
template <typename T>
struct Limits {
    T width, height, near_plane, far_plane, radius_clip;
};

// Number of standard deviations to alpha = 1/255: 3.33 for an opaque Gaussian, negative if alpha is always smaller.
template <typename T>
V3D_HD T seen_extent(T opacity) {
    if (!(opacity >= T(1) / T(255) && opacity < T(1e30))) return T(-1);
    return min(T(3.33), sqrt(T(2) * log(T(255) * opacity)));
}

// Whether a Gaussian is visible, and the half sides in pixels of its bounding box. A NaN anywhere makes it invisible.
template <typename T>
V3D_HD bool splat_radii(const Projection<T>& f, T extent, const Limits<T>& limits, int32_t radii[2]) {
    const T big(1e30), zero(0), x = f.mean2d[0], y = f.mean2d[1];
    radii[0] = radii[1] = 0;
    if (!(f.depth >= limits.near_plane && f.depth <= limits.far_plane && f.det > zero && extent >= zero)) return false;
    const T rx = ceil(extent * sqrt(f.cov2d[0])), ry = ceil(extent * sqrt(f.cov2d[2]));
    bool seen = (rx > limits.radius_clip || ry > limits.radius_clip) && x + rx > zero && x - rx < limits.width && y + ry > zero &&
                y - ry < limits.height && rx < big && ry < big && abs(f.compensation) < big;
    for (int j = 0; j < 3; ++j) seen = seen && abs(f.conic[j]) < big;
    if (!seen) return false;
    radii[0] = int32_t(min(rx, T(1e9)));
    radii[1] = int32_t(min(ry, T(1e9)));
    return true;
}

// P = J R: derivative of the pixel by the world position.
template <typename T, typename S>
V3D_HD void pixel_jacobian(const View<S>& view, const T J[6], T P[6]) {
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 3; ++j)
            P[3 * i + j] = fma(J[3 * i], T(view.R[j]), fma(J[3 * i + 1], T(view.R[3 + j]), J[3 * i + 2] * T(view.R[6 + j])));
}

// A = P R(q) diag(s), so that the covariance in the image is A A^T.
template <typename T>
V3D_HD void image_factor(const T P[6], const T rotmat[9], const T scales[3], T A[6]) {
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 3; ++j)
            A[3 * i + j] = scales[j] * fma(P[3 * i], rotmat[j], fma(P[3 * i + 1], rotmat[3 + j], P[3 * i + 2] * rotmat[6 + j]));
}

// Blur, determinant, conic and antialiasing compensation (Yu et al. 2024, Mip-Splatting) from the covariance before blur.
template <typename T>
V3D_HD void finish_projection(const T cov[3], T det_sharp, T eps2d, Projection<T>& out) {
    out.cov2d[0] = cov[0] + eps2d;
    out.cov2d[1] = cov[1];
    out.cov2d[2] = cov[2] + eps2d;
    // det(C + e I) = det(C) + e tr(C) + e^2 has no cancellation.
    out.det = det_sharp + eps2d * (cov[0] + cov[2] + eps2d);
    const T inverse = rcp(out.det);
    out.conic[0] = out.cov2d[2] * inverse;
    out.conic[1] = -(out.cov2d[1] * inverse);
    out.conic[2] = out.cov2d[0] * inverse;
    out.compensation = sqrt(max(T(typename Traits<T>::Scalar(COMPENSATION_FLOOR)), det_sharp * inverse));
}

template <int MODEL, typename T, typename S>
V3D_HD void project_gaussian(const View<S>& view, const T mean[3], const T quat[4], const T scales[3], T eps2d, Projection<T>& out) {
    T p[3], J[6], P[6], rotmat[9], A[6];
    world_to_camera(view, mean, p);
    project_point<MODEL>(view, p, out.mean2d, J);
    out.depth = p[2];
    pixel_jacobian(view, J, P);
    quat_to_rotmat(quat, rotmat);
    image_factor(P, rotmat, scales, A);
    const T cov[3] = {A[0] * A[0] + A[1] * A[1] + A[2] * A[2], A[0] * A[3] + A[1] * A[4] + A[2] * A[5],
                      A[3] * A[3] + A[4] * A[4] + A[5] * A[5]};
    // Lagrange: det(A A^T) is the squared cross product of the rows.
    const T n[3] = {A[1] * A[5] - A[2] * A[4], A[2] * A[3] - A[0] * A[5], A[0] * A[4] - A[1] * A[3]};
    finish_projection(cov, n[0] * n[0] + n[1] * n[1] + n[2] * n[2], eps2d, out);
}

// The same from a covariance (xx xy xz yy yz zz).
template <int MODEL, typename T, typename S>
V3D_HD void project_covariance(const View<S>& view, const T mean[3], const T covar[6], T eps2d, Projection<T>& out) {
    T p[3], J[6], P[6];
    world_to_camera(view, mean, p);
    project_point<MODEL>(view, p, out.mean2d, J);
    out.depth = p[2];
    pixel_jacobian(view, J, P);
    const T* c = covar;
    T Q[6];  // P C
    for (int i = 0; i < 2; ++i) {
        const T* r = P + 3 * i;
        Q[3 * i] = r[0] * c[0] + r[1] * c[1] + r[2] * c[2];
        Q[3 * i + 1] = r[0] * c[1] + r[1] * c[3] + r[2] * c[4];
        Q[3 * i + 2] = r[0] * c[2] + r[1] * c[4] + r[2] * c[5];
    }
    const T cov[3] = {Q[0] * P[0] + Q[1] * P[1] + Q[2] * P[2], Q[0] * P[3] + Q[1] * P[4] + Q[2] * P[5],
                      Q[3] * P[3] + Q[4] * P[4] + Q[5] * P[5]};
    finish_projection(cov, cov[0] * cov[2] - cov[1] * cov[1], eps2d, out);
}

// Gradient of the loss by the entries xx, xy, yy of the image covariance, from those of conic and compensation.
template <typename T>
V3D_HD void finish_projection_vjp(const Projection<T>& f, T eps2d, const T v_conic[3], T v_compensation, T v_cov[3]) {
    const T a = f.conic[0], b = f.conic[1], c = f.conic[2], two(2);
    v_cov[0] = -(a * a * v_conic[0] + a * b * v_conic[1] + b * b * v_conic[2]);
    v_cov[1] = -(two * a * b * v_conic[0] + (a * c + b * b) * v_conic[1] + two * b * c * v_conic[2]);
    v_cov[2] = -(b * b * v_conic[0] + b * c * v_conic[1] + c * c * v_conic[2]);
    const T rho = f.compensation, floor = T(typename Traits<T>::Scalar(COMPENSATION_FLOOR));
    const T g = keep(floor < rho * rho, v_compensation * T(typename Traits<T>::Scalar(0.5)) / rho);
    const T one_minus = T(1) - rho * rho, e = eps2d * rcp(f.det);
    v_cov[0] = v_cov[0] + g * (one_minus * a - e);
    v_cov[1] = v_cov[1] + two * g * one_minus * b;
    v_cov[2] = v_cov[2] + g * (one_minus * c - e);
}

// Gradient by the point and the camera, from v_P (2x3), v_mean2d and v_depth. v_view gets R (9) then t (3), added to.
template <int MODEL, typename T, typename S>
V3D_HD void pose_vjp(const View<S>& view, const T mean[3], const T p[3], const T J[6], const T v_P[6], const T v_mean2d[2], T v_depth,
                     T v_mean[3], T* v_view) {
    T v_J[6], v_p[3];
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 3; ++j)
            v_J[3 * i + j] = v_P[3 * i] * T(view.R[3 * j]) + v_P[3 * i + 1] * T(view.R[3 * j + 1]) + v_P[3 * i + 2] * T(view.R[3 * j + 2]);
    project_point_vjp<MODEL>(view, p, v_mean2d, v_J, v_p);
    v_p[2] = v_p[2] + v_depth;
    for (int j = 0; j < 3; ++j) v_mean[j] = v_p[0] * T(view.R[j]) + v_p[1] * T(view.R[3 + j]) + v_p[2] * T(view.R[6 + j]);
    if (v_view == nullptr) return;
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) v_view[3 * i + j] = v_view[3 * i + j] + J[i] * v_P[j] + J[3 + i] * v_P[3 + j] + v_p[i] * mean[j];
        v_view[9 + i] = v_view[9 + i] + v_p[i];
    }
}

template <int MODEL, typename T, typename S>
V3D_HD void project_gaussian_vjp(const View<S>& view, const T mean[3], const T quat[4], const T scales[3], T eps2d, const T v_mean2d[2],
                                 T v_depth, const T v_conic[3], T v_compensation, T v_mean[3], T v_quat[4], T v_scales[3], T* v_view) {
    T p[3], J[6], P[6], rotmat[9], A[6];
    Projection<T> f;
    world_to_camera(view, mean, p);
    project_point<MODEL>(view, p, f.mean2d, J);
    pixel_jacobian(view, J, P);
    quat_to_rotmat(quat, rotmat);
    image_factor(P, rotmat, scales, A);
    const T cov[3] = {A[0] * A[0] + A[1] * A[1] + A[2] * A[2], A[0] * A[3] + A[1] * A[4] + A[2] * A[5],
                      A[3] * A[3] + A[4] * A[4] + A[5] * A[5]};
    const T n[3] = {A[1] * A[5] - A[2] * A[4], A[2] * A[3] - A[0] * A[5], A[0] * A[4] - A[1] * A[3]};
    finish_projection(cov, n[0] * n[0] + n[1] * n[1] + n[2] * n[2], eps2d, f);

    T v_cov[3], v_P[6] = {T(0), T(0), T(0), T(0), T(0), T(0)}, v_rotmat[9];
    finish_projection_vjp(f, eps2d, v_conic, v_compensation, v_cov);
    const T two(2);
    for (int j = 0; j < 3; ++j) {
        const T v_A0 = two * v_cov[0] * A[j] + v_cov[1] * A[3 + j], v_A1 = v_cov[1] * A[j] + two * v_cov[2] * A[3 + j];
        const T w0 = scales[j] * v_A0, w1 = scales[j] * v_A1;
        v_scales[j] = T(0);
        for (int i = 0; i < 3; ++i) {
            v_P[i] = fma(w0, rotmat[3 * i + j], v_P[i]);
            v_P[3 + i] = fma(w1, rotmat[3 * i + j], v_P[3 + i]);
            v_rotmat[3 * i + j] = P[i] * w0 + P[3 + i] * w1;
            v_scales[j] = v_scales[j] + rotmat[3 * i + j] * (P[i] * v_A0 + P[3 + i] * v_A1);
        }
    }
    quat_to_rotmat_vjp(quat, v_rotmat, v_quat);
    pose_vjp<MODEL>(view, mean, p, J, v_P, v_mean2d, v_depth, v_mean, v_view);
}

template <int MODEL, typename T, typename S>
V3D_HD void project_covariance_vjp(const View<S>& view, const T mean[3], const T covar[6], T eps2d, const T v_mean2d[2], T v_depth,
                                   const T v_conic[3], T v_compensation, T v_mean[3], T v_covar[6], T* v_view) {
    T p[3], J[6], P[6], v_cov[3], v_P[6];
    Projection<T> f;
    project_covariance<MODEL>(view, mean, covar, eps2d, f);
    world_to_camera(view, mean, p);
    project_point<MODEL>(view, p, f.mean2d, J);
    pixel_jacobian(view, J, P);
    finish_projection_vjp(f, eps2d, v_conic, v_compensation, v_cov);
    const T two(2);
    const T full[9] = {covar[0], covar[1], covar[2], covar[1], covar[3], covar[4], covar[2], covar[4], covar[5]};
    T v_full[9];  // P^T G P with G the symmetric matrix of v_cov
    for (int i = 0; i < 3; ++i) {
        const T g0 = two * v_cov[0] * P[i] + v_cov[1] * P[3 + i], g1 = v_cov[1] * P[i] + two * v_cov[2] * P[3 + i];
        for (int j = 0; j < 3; ++j) v_full[3 * i + j] = g0 * P[j] + g1 * P[3 + j];
    }
    const T half(typename Traits<T>::Scalar(0.5));
    v_covar[0] = half * v_full[0];
    v_covar[3] = half * v_full[4];
    v_covar[5] = half * v_full[8];
    v_covar[1] = half * (v_full[1] + v_full[3]);
    v_covar[2] = half * (v_full[2] + v_full[6]);
    v_covar[4] = half * (v_full[5] + v_full[7]);
    for (int j = 0; j < 3; ++j) {
        const T q0 = P[0] * full[j] + P[1] * full[3 + j] + P[2] * full[6 + j],
                q1 = P[3] * full[j] + P[4] * full[3 + j] + P[5] * full[6 + j];
        v_P[j] = two * v_cov[0] * q0 + v_cov[1] * q1;
        v_P[3 + j] = v_cov[1] * q0 + two * v_cov[2] * q1;
    }
    pose_vjp<MODEL>(view, mean, p, J, v_P, v_mean2d, v_depth, v_mean, v_view);
}

}  // namespace vision3d
