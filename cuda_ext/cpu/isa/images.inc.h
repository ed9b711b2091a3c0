// Row kernels of SSIM, the Adam step and the check for finite values.
// An image row has width * channels values: a step of one pixel in x is a step of `channels` values.
#include "vision3d/adam.h"
#include "vision3d/ssim.h"

namespace vision3d::V3D_ISA {

// One value as a vector of size one: for float64, used only by tests, and for rows shorter than a vector.
template <typename T>
struct Lane {
    static constexpr int64_t LANES = 1;
    using V = T;
    V3D_INLINE T load(const T* p) { return *p; }
    V3D_INLINE void store(T* p, T a) { *p = a; }
    V3D_INLINE T fma(T a, T b, T c) { return a * b + c; }
};
struct Wide {
    static constexpr int64_t LANES = simd::LANES;
    using V = simd::F;
    V3D_INLINE simd::F load(const float* p) { return simd::load(p); }
    V3D_INLINE void store(float* p, simd::F a) { simd::store(p, a); }
    V3D_INLINE simd::F fma(simd::F a, simd::F b, simd::F c) { return simd::fma(a, b, c); }
};
template <typename T> struct Widest {
    using type = Lane<T>;
};
template <> struct Widest<float> {
    using type = Wide;
};

// Calls body(lanes, i) until [0, count) is covered. The last vector is moved back to end at `count`, so it computes some
// values twice: bodies must write, not accumulate.
template <typename T, typename Body>
V3D_INLINE void for_vectors(int64_t count, const Body& body) {
    using W = typename Widest<T>::type;
    if (count < W::LANES) {
        for (int64_t i = 0; i < count; ++i) body(Lane<T>{}, i);
        return;
    }
    for (int64_t i = 0; i < count; i += W::LANES) body(W{}, i + W::LANES <= count ? i : count - W::LANES);
}

template <typename T>
void ssim_row(const SsimImage<T>& s, int64_t row, T* scratch) {
    const int64_t inner = s.width * s.channels, margin = s.margin * s.channels, padded = inner + 2 * margin;
    const int64_t count = s.out_width * s.channels, channels = s.channels;
    const T* const weights = s.weights;
    for (int64_t q = 0; q < 4; ++q)
        for (int64_t i = 0; i < margin; ++i) scratch[q * padded + i] = scratch[(q + 1) * padded - 1 - i] = 0;
    const int64_t image = row / s.out_height, top = row % s.out_height - s.margin;
    const int first = top < 0 ? int(-top) : 0;
    const int last = top + s.window > s.height ? int(s.height - top) : s.window;
    const int64_t start = (image * s.height + top) * inner;
    const SsimImage<T> maps = s;
    for_vectors<T>(inner, [=](auto lanes, int64_t i) {
        using W = decltype(lanes);
        using V = typename W::V;
        V mean_a = T(0), mean_b = T(0), square_a = T(0), square_b = T(0), product = T(0);
        for (int k = first; k < last; ++k) {
            const int64_t at = start + k * inner + i;
            const V x = W::load(maps.a + at), y = W::load(maps.b + at), w = weights[k];
            const V wx = w * x, wy = w * y;
            mean_a = mean_a + wx;
            mean_b = mean_b + wy;
            square_a = W::fma(wx, x, square_a);
            square_b = W::fma(wy, y, square_b);
            product = W::fma(wx, y, product);
        }
        T* const out = scratch + margin + i;
        W::store(out, mean_a);
        W::store(out + padded, mean_b);
        W::store(out + 2 * padded, square_a + square_b);
        W::store(out + 3 * padded, product);
    });
    const int64_t at = row * count;
    const int window = s.window;
    for_vectors<T>(count, [=](auto lanes, int64_t i) {
        using W = decltype(lanes);
        using V = typename W::V;
        V mean_a = T(0), mean_b = T(0), squares = T(0), product = T(0);
        for (int k = 0; k < window; ++k) {
            const T* const in = scratch + i + k * channels;
            const V w = weights[k];
            mean_a = W::fma(w, W::load(in), mean_a);
            mean_b = W::fma(w, W::load(in + padded), mean_b);
            squares = W::fma(w, W::load(in + 2 * padded), squares);
            product = W::fma(w, W::load(in + 3 * padded), product);
        }
        const Ssim<V> ssim = ssim_of_means<V>(mean_a, mean_b, squares, product, maps.c1, maps.c2);
        W::store(maps.values + at + i, ssim.value);
        if (maps.v_means_a != nullptr) {
            W::store(maps.v_means_a + at + i, ssim.v_mean_a);
            W::store(maps.v_means_b + at + i, ssim.v_mean_b);
            W::store(maps.v_squares + at + i, ssim.v_squares);
            W::store(maps.v_products + at + i, ssim.v_product);
        }
    });
}

template <typename T>
void ssim_vjp_row(const SsimImageVjp<T>& s, int64_t row, T* scratch) {
    const int64_t inner = s.out_width * s.channels, count = s.width * s.channels, channels = s.channels;
    const int64_t margin = (s.window - 1 - s.margin) * channels, padded = inner + 2 * margin;
    const T* const weights = s.weights;
    for (int64_t q = 0; q < 3; ++q)
        for (int64_t i = 0; i < margin; ++i) scratch[q * padded + i] = scratch[(q + 1) * padded - 1 - i] = 0;
    // Windows whose tap k is this row start k rows above it. The window is symmetric, so reversed taps are the same.
    const int64_t image = row / s.height, top = row % s.height + s.margin - (s.window - 1);
    const int first = top < 0 ? int(-top) : 0;
    const int last = top + s.window > s.out_height ? int(s.out_height - top) : s.window;
    const SsimImageVjp<T> maps = s;
    const int64_t start = (image * s.out_height + top) * inner;
    for_vectors<T>(inner, [=](auto lanes, int64_t i) {
        using W = decltype(lanes);
        using V = typename W::V;
        V mean = T(0), square = T(0), product = T(0);
        for (int k = first; k < last; ++k) {
            const int64_t at = start + k * inner + i;
            const V v = V(weights[k]) * W::load(maps.v_values + at);
            mean = W::fma(v, W::load(maps.v_means + at), mean);
            square = W::fma(v, W::load(maps.v_squares + at), square);
            product = W::fma(v, W::load(maps.v_products + at), product);
        }
        T* const out = scratch + margin + i;
        W::store(out, mean);
        W::store(out + padded, square);
        W::store(out + 2 * padded, product);
    });
    const int window = s.window;
    const int64_t at = row * count;
    for_vectors<T>(count, [=](auto lanes, int64_t i) {
        using W = decltype(lanes);
        using V = typename W::V;
        V mean = T(0), square = T(0), product = T(0);
        for (int k = 0; k < window; ++k) {
            const T* const in = scratch + i + k * channels;
            const V w = weights[k];
            mean = W::fma(w, W::load(in), mean);
            square = W::fma(w, W::load(in + padded), square);
            product = W::fma(w, W::load(in + 2 * padded), product);
        }
        const V a = W::load(maps.a + at + i), b = W::load(maps.b + at + i);
        W::store(maps.v_a + at + i, ssim_pixel_vjp<V>(a, b, mean, square, product));
    });
}

template <typename T>
void adam_range(T* __restrict param, const T* __restrict grad, T* __restrict exp_avg, T* __restrict exp_avg_sq,
                const AdamFactors<T>& factors, int64_t count) {
    const AdamFactors<T> f = factors;
    for (int64_t i = 0; i < count; ++i) adam_step(param[i], grad[i], exp_avg[i], exp_avg_sq[i], f);
}

// Whether every exponent is below that of infinity and NaN: one integer maximum, no branch.
bool finite_range(const float* values, int64_t count) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        bits &= 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    return largest < 0x7f800000u;
}

}  // namespace vision3d::V3D_ISA
