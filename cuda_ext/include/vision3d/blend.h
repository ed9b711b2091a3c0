#pragma once
#include "vision3d/scalar.h"

namespace vision3d {

constexpr double LOG2E = 1.4426950408889634, LOG2_255 = 7.994353436858858;
constexpr float STOP_TRANSMITTANCE = 1e-4f;

// A projected Gaussian as the blending loops read it: 16 floats, one cache line. All exponents are in powers of two.
struct alignas(64) Record {
    float x, y;             // centre, pixels
    float ha, b, hc;        // exponent = ha dx^2 + b dx dy + hc dy^2
    float lo;               // log2(opacity): alpha = 2^(lo - exponent)
    float slope_x, slope_y;  // the exponent is least at dx = slope_x dy on a row, at dy = slope_y dx on a column
    float color[4];         // the first four channels
    float spare[4];
};

// log2 of opacity * Gaussian at the offset (dx, dy) = pixel - centre.
template <typename T>
V3D_HD T log2_alpha(T dx, T dy, T ha, T b, T hc, T lo) {
    return fnma(fma(ha, dx, b * dy), dx, fnma(hc * dy, dy, lo));
}

// Least exponent over the rectangle of offsets [x0, x1] x [y0, y1]: exact for a positive definite form.
template <typename T>
V3D_HD T least_exponent(T x0, T x1, T y0, T y1, T ha, T b, T hc, T slope_x, T slope_y) {
    const T zero(0), cx = min(max(zero, x0), x1), cy = min(max(zero, y0), y1);
    const T ey = min(max(slope_y * cx, y0), y1), ex = min(max(slope_x * cy, x0), x1);
    const T on_column = fma(fma(ha, cx, b * ey), cx, hc * ey * ey), on_row = fma(fma(ha, ex, b * cy), ex, hc * cy * cy);
    return min(on_column, on_row);
}

// What front-to-back blending does with one Gaussian at a pixel (Kerbl et al. 2023, section 4; splats with alpha < 1/255 are
// skipped, and the one that would bring the transmittance to STOP_TRANSMITTANCE ends the pixel without being drawn).
template <typename T, typename M>
struct Blend {
    T alpha, weight, transmittance;  // transmittance is kept where nothing is drawn
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

// One step back to front. `behind` is sum_j>i w_j c_j . v_C + T_final (v_T + background . v_C); `transmittance` that behind the
// Gaussian on entry, before it on exit. Gives the weight (0 where not hit) and s = -dL/d(exponent of e), which is also
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

}  // namespace vision3d
