#pragma once
#include <cstdint>

namespace vision3d {

// Images (images, height, width, channels) and maps (images, out_height, out_width, channels), all contiguous. `margin`
// is the number of zero pixels around: 0 or half the window. The weights of the window sum to 1.
template <typename T>
struct SsimSize {
    int64_t images, height, width, channels, out_height, out_width, margin;
    int window;
    const T* weights;
};

template <typename T>
struct SsimImage : SsimSize<T> {
    const T *a, *b;
    T c1, c2;
    T *values, *v_means_a, *v_means_b, *v_squares, *v_products;  // the last four are null without gradients
};

template <typename T>
struct SsimImageVjp : SsimSize<T> {
    const T *a, *b, *v_values, *v_means, *v_squares, *v_products;
    T* v_a;
};

namespace cpu {

template <typename T> void ssim(const SsimImage<T>& image);
template <typename T> void ssim_vjp(const SsimImageVjp<T>& image);

}  // namespace cpu
}  // namespace vision3d
