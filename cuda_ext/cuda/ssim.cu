#include "vision3d/ssim.h"
#include "cuda/ssim.h"

// Separable windows in two passes, one thread per value: columns into scratch, then rows. Adjacent threads read
// adjacent values, and the caches serve the taps.
namespace vision3d::cuda {
namespace {

// sums[q][image, out_y, x, channel] of a, b, aa + bb, ab over the taps of a column
template <typename T>
__global__ void ssim_columns(SsimImage<T> s, T* sums, int64_t count) {
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i >= count) return;
    const int64_t row_size = s.width * s.channels, row = i / row_size;
    const int64_t top = row % s.out_height - s.margin, image = row / s.out_height;
    T mean_a = 0, mean_b = 0, squares = 0, product = 0;
    for (int k = 0; k < s.window; ++k) {
        if (top + k < 0 || top + k >= s.height) continue;
        const int64_t at = (image * s.height + top + k) * row_size + i % row_size;
        const T x = s.a[at], y = s.b[at], wx = s.weights[k] * x, wy = s.weights[k] * y;
        mean_a += wx;
        mean_b += wy;
        squares += wx * x + wy * y;
        product += wx * y;
    }
    sums[i] = mean_a;
    sums[count + i] = mean_b;
    sums[2 * count + i] = squares;
    sums[3 * count + i] = product;
}

template <typename T>
__global__ void ssim_rows(SsimImage<T> s, const T* sums, int64_t columns_count, int64_t count) {
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i >= count) return;
    const int64_t channel = i % s.channels, left = i / s.channels % s.out_width - s.margin;
    const int64_t row = i / (s.channels * s.out_width);
    T mean[4] = {0, 0, 0, 0};
    for (int k = 0; k < s.window; ++k) {
        if (left + k < 0 || left + k >= s.width) continue;
        const int64_t at = (row * s.width + left + k) * s.channels + channel;
        for (int q = 0; q < 4; ++q) mean[q] += s.weights[k] * sums[q * columns_count + at];
    }
    const Ssim<T> ssim = ssim_of_means(mean[0], mean[1], mean[2], mean[3], s.c1, s.c2);
    s.values[i] = ssim.value;
    if (s.v_means_a != nullptr) {
        s.v_means_a[i] = ssim.v_mean_a;
        s.v_means_b[i] = ssim.v_mean_b;
        s.v_squares[i] = ssim.v_squares;
        s.v_products[i] = ssim.v_product;
    }
}

// sums[q][image, y, out_x, channel] of the loss's gradient times the derivatives, over the windows of a column
template <typename T>
__global__ void ssim_vjp_columns(SsimImageVjp<T> s, T* sums, int64_t count) {
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i >= count) return;
    const int64_t row_size = s.out_width * s.channels, row = i / row_size;
    const int64_t y = row % s.height, image = row / s.height;
    T mean = 0, square = 0, product = 0;
    for (int k = 0; k < s.window; ++k) {
        const int64_t out_y = y + s.margin - k;
        if (out_y < 0 || out_y >= s.out_height) continue;
        const int64_t at = (image * s.out_height + out_y) * row_size + i % row_size;
        const T v = s.weights[k] * s.v_values[at];
        mean += v * s.v_means[at];
        square += v * s.v_squares[at];
        product += v * s.v_products[at];
    }
    sums[i] = mean;
    sums[count + i] = square;
    sums[2 * count + i] = product;
}

template <typename T>
__global__ void ssim_vjp_rows(SsimImageVjp<T> s, const T* sums, int64_t columns_count, int64_t count) {
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i >= count) return;
    const int64_t channel = i % s.channels, x = i / s.channels % s.width, row = i / (s.channels * s.width);
    T by[3] = {0, 0, 0};
    for (int k = 0; k < s.window; ++k) {
        const int64_t out_x = x + s.margin - k;
        if (out_x < 0 || out_x >= s.out_width) continue;
        const int64_t at = (row * s.out_width + out_x) * s.channels + channel;
        for (int q = 0; q < 3; ++q) by[q] += s.weights[k] * sums[q * columns_count + at];
    }
    s.v_a[i] = ssim_pixel_vjp(s.a[i], s.b[i], by[0], by[1], by[2]);
}

}  // namespace

template <typename T>
void ssim(const SsimImage<T>& s, T* scratch, const Stream& where) {
    const int64_t columns = s.images * s.out_height * s.width * s.channels;
    const int64_t count = s.images * s.out_height * s.out_width * s.channels;
    launch("ssim_columns", where, blocks_of(columns), THREADS, ssim_columns<T>, s, scratch, columns);
    launch("ssim_rows", where, blocks_of(count), THREADS, ssim_rows<T>, s, static_cast<const T*>(scratch), columns, count);
}

template <typename T>
void ssim_vjp(const SsimImageVjp<T>& s, T* scratch, const Stream& where) {
    const int64_t columns = s.images * s.height * s.out_width * s.channels;
    const int64_t count = s.images * s.height * s.width * s.channels;
    launch("ssim_vjp_columns", where, blocks_of(columns), THREADS, ssim_vjp_columns<T>, s, scratch, columns);
    launch("ssim_vjp_rows", where, blocks_of(count), THREADS, ssim_vjp_rows<T>, s, static_cast<const T*>(scratch), columns, count);
}

template void ssim(const SsimImage<float>&, float*, const Stream&);
template void ssim(const SsimImage<double>&, double*, const Stream&);
template void ssim_vjp(const SsimImageVjp<float>&, float*, const Stream&);
template void ssim_vjp(const SsimImageVjp<double>&, double*, const Stream&);

}  // namespace vision3d::cuda
