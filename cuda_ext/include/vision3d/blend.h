#pragma once
#include "vision3d/scalar.h"

namespace vision3d {

constexpr double LOG2E = 1.4426950408889634, LOG2_255 = 7.994353436858858;
constexpr double STOP_TRANSMITTANCE = 1e-4;

// A projected Gaussian in the layout of the blending loops: 16 values, one cache line of floats. All exponents are powers of two.
template <typename T>
struct alignas(16 * sizeof(T)) Record {
    T x, y;              // center, pixels
    T ha, b, hc;         // exponent = ha dx^2 + b dx dy + hc dy^2
    T lo;                // log2(opacity): alpha = 2^(lo - exponent)
    T slope_x, slope_y;  // minimum of the exponent: dx = slope_x dy on a row, dy = slope_y dx on a column
    T color[4];          // the first four channels
    T spare[4];
};

template <typename T>
V3D_HD void make_record(const T mean2d[2], const T conic[3], const T* color, int64_t channels, T opacity, Record<T>& r) {
    r.x = mean2d[0];
    r.y = mean2d[1];
    r.ha = T(0.5 * LOG2E) * conic[0];
    r.b = T(LOG2E) * conic[1];
    r.hc = T(0.5 * LOG2E) * conic[2];
    r.lo = log2(opacity);
    r.slope_x = -conic[1] / conic[0];
    r.slope_y = -conic[1] / conic[2];
    for (int k = 0; k < 4; ++k) r.color[k] = k < channels ? color[k] : T(0);
}

// log2 of opacity * Gaussian at the offset (dx, dy) = pixel - center.
template <typename T>
V3D_HD T log2_alpha(T dx, T dy, T ha, T b, T hc, T lo) {
    return fnma(fma(ha, dx, b * dy), dx, fnma(hc * dy, dy, lo));
}

// Minimum exponent over the rectangle of offsets [x0, x1] x [y0, y1]: exact for a positive definite form.
template <typename T>
V3D_HD T least_exponent(T x0, T x1, T y0, T y1, T ha, T b, T hc, T slope_x, T slope_y) {
    const T zero(0), cx = min(max(zero, x0), x1), cy = min(max(zero, y0), y1);
    const T ey = min(max(slope_y * cx, y0), y1), ex = min(max(slope_x * cy, x0), x1);
    const T on_column = fma(fma(ha, cx, b * ey), cx, hc * ey * ey), on_row = fma(fma(ha, ex, b * cy), ex, hc * cy * cy);
    return min(on_column, on_row);
}

// Front-to-back blending of one Gaussian at a pixel (Kerbl et al. 2023, section 4; splats with alpha < 1/255 are
// skipped, and the one that would reduce the transmittance to STOP_TRANSMITTANCE stops the pixel without being drawn).
template <typename T, typename M>
struct Blend {
    T alpha, weight, transmittance;  // transmittance is unchanged where nothing is drawn
    M drawn, stopped;
};

// e = log2_alpha, T > 0 where the pixel is open.
template <typename T, typename M>
V3D_HD M is_hit(T e, T lo, M open) {
    return (T(typename Traits<T>::Scalar(-LOG2_255)) <= e) & (e <= lo) & open;
}

template <typename T, typename M>
V3D_HD Blend<T, M> blend_forward(T e, M hit, T transmittance, T alpha_max) {
    Blend<T, M> step;
    step.alpha = min(exp2(e), alpha_max);
    const T next = fnma(step.alpha, transmittance, transmittance);
    step.stopped = hit & (next <= T(typename Traits<T>::Scalar(STOP_TRANSMITTANCE)));
    step.drawn = andnot(step.stopped, hit);
    step.weight = keep(step.drawn, step.alpha * transmittance);
    step.transmittance = select(step.drawn, next, transmittance);
    return step;
}

// One step back to front. `behind` is sum_j>i w_j c_j . v_C + T_final (v_T + background . v_C); `transmittance` is that behind the
// Gaussian on entry, before it on exit. Returns the weight (0 where not hit) and s = -dL/d(exponent of e), which is also
// opacity * dL/d(opacity); both are 0 where alpha is clamped.
template <typename T, typename M>
V3D_HD void blend_backward(T e, M hit, T alpha_max, T color_dot, T& transmittance, T& behind, T& weight, T& s) {
    const T raw = exp2(e), alpha = min(raw, alpha_max);
    const T ra = rcp(T(1) - alpha);
    const T before = transmittance * ra;
    const T v_alpha = fnma(ra, behind, before * color_dot);
    weight = keep(hit, alpha * before);
    s = keep(hit & (raw <= alpha_max), alpha * v_alpha);
    behind = fma(weight, color_dot, behind);
    transmittance = select(hit, before, transmittance);
}

// Gradients of one Gaussian from the sums over its pixels of s (1, dx, dy, dx^2, dx dy, dy^2).
template <typename T>
V3D_HD void blend_finish(const T conic[3], T opacity, const T sums[6], T v_mean2d[2], T v_conic[3], T& v_opacity) {
    v_opacity = opacity > T(0) ? sums[0] / opacity : T(0);
    v_mean2d[0] = conic[0] * sums[1] + conic[1] * sums[2];
    v_mean2d[1] = conic[1] * sums[1] + conic[2] * sums[2];
    v_conic[0] = T(-0.5) * sums[3];
    v_conic[1] = -sums[4];
    v_conic[2] = T(-0.5) * sums[5];
}

}  // namespace vision3d
