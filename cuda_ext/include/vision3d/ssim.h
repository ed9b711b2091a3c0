#pragma once
#include "vision3d/macros.h"

namespace vision3d {

// SSIM of one window from the weighted means of a, b, aa + bb and ab (Wang et al. 2004, eq. 13), and its derivatives by
// them. The sum of squares is sufficient, as only the sum of the variances is used.
template <typename T>
struct Ssim {
    T value, v_mean_a, v_mean_b, v_squares, v_product;
};

template <typename T>
V3D_HD Ssim<T> ssim_of_means(T mean_a, T mean_b, T squares, T product, T c1, T c2) {
    const T both = mean_a * mean_b, sum = mean_a * mean_a + mean_b * mean_b;
    const T n1 = 2 * both + c1, n2 = 2 * (product - both) + c2;
    const T inverse1 = T(1) / (sum + c1), inverse2 = T(1) / (squares - sum + c2);
    const T inverse = inverse1 * inverse2, value = n1 * n2 * inverse;
    // d value / d mean_a = cross b + own a, and vice versa for b
    const T cross = 2 * (n2 - n1) * inverse, own = 2 * value * (inverse2 - inverse1);
    return {value, cross * mean_b + own * mean_a, cross * mean_a + own * mean_b, -value * inverse2, 2 * n1 * inverse};
}

// Gradient of a loss by one pixel of a, from the windowed sums of v_mean_a, v_squares and v_product times the loss's own
// gradient.
template <typename T>
V3D_HD T ssim_pixel_vjp(T a, T b, T v_mean_a, T v_squares, T v_product) {
    return v_mean_a + 2 * a * v_squares + b * v_product;
}

}  // namespace vision3d
