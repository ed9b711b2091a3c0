#include "vision3d/ssim.h"
#include "cuda/kernels/block.h"
#include "cuda/ssim.h"

// Separable windows: each block sums over the columns of its tile into shared memory, then over rows. Rows of an image are arrays of
// width times channels values, one thread for each of them.
namespace vision3d::cuda {
namespace {

// Sums over windows: out[y][i] of sum_k,l w[k] w[l] in[y + top + k][i + (left + l) channels], of N quantities.
struct Windows {
    int64_t images;
    int height, width, out_height, out_width;  // width: values of a row
    int top, left, window, channels;
    int tile, tiles;  // output values of a block's rows, blocks of a row of tiles

    Windows(int64_t images, int64_t height, int64_t width, int64_t out_height, int64_t out_width, int64_t start, int window,
            int64_t channels)
        : images(images),
          height(int(height)),
          width(int(width * channels)),
          out_height(int(out_height)),
          out_width(int(out_width * channels)),
          top(int(start)),
          left(int(start)),
          window(window),
          channels(int(channels)) {
        const int halo = int((window - 1) * channels);
        tile = halo <= THREADS / 2 ? THREADS - halo : THREADS / 2;  // with a small halo, one pass over the columns
        tiles = (this->out_width + tile - 1) / tile;
    }
};

constexpr int ROWS = 4;  // of output in a block: more read less, but need more registers

template <int N, typename T>
struct alignas(16) Sums {
    T of[N];
};

template <int N, typename T> using Columns = Sums<N, T>[ROWS][THREADS];

int64_t blocks_of(const Windows& w) { return w.images * ((w.out_height + ROWS - 1) / ROWS) * w.tiles; }

// load(index, sums) sets the quantities of an input value, and finish(index, sums) gets those of an output.
template <int N, typename T, typename Load, typename Finish>
__device__ __forceinline__ void sum_windows(const Windows& w, const T* weights, Columns<N, T>& columns, Load load, Finish finish) {
    const Block block;
    const int bands = (w.out_height + ROWS - 1) / ROWS, at = int(blockIdx.x), band = at / w.tiles, image = band / bands;
    const int first_row = (band - image * bands) * ROWS, first = (at - band * w.tiles) * w.tile, t = int(threadIdx.x);
    const int end = (first + w.tile < w.out_width ? first + w.tile : w.out_width) + (w.window - 1) * w.channels;
    Sums<N, T> sums[ROWS] = {};
    for (int start = first; start < end; start += THREADS) {
        // Column t of this part: every input is read once and added to the outputs whose window contains it.
        const int column = start + t + w.left * w.channels;
        if (start + t < end) {
            Sums<N, T> mine[ROWS] = {};
            T taps[ROWS] = {};  // weights of this row for each output
            for (int k = 0; k < w.window + ROWS - 1; ++k) {
                V3D_UNROLL
                for (int r = ROWS - 1; r > 0; --r) taps[r] = taps[r - 1];
                taps[0] = k < w.window ? weights[k] : T(0);
                const int row = first_row + w.top + k;
                if (row < 0 || row >= w.height || column < 0 || column >= w.width) continue;
                Sums<N, T> in;
                load((int64_t(image) * w.height + row) * w.width + column, in);
                V3D_UNROLL
                for (int r = 0; r < ROWS; ++r)
                    for (int q = 0; q < N; ++q) mine[r].of[q] += taps[r] * in.of[q];
            }
            V3D_UNROLL
            for (int r = 0; r < ROWS; ++r) columns[r][t] = mine[r];
        }
        block.barrier();
        // The taps of output t in this part.
        if (t < w.tile && first + t < w.out_width)
            for (int k = 0; k < w.window; ++k) {
                const int place = first + t + k * w.channels - start;
                if (place < 0 || place >= THREADS) continue;
                V3D_UNROLL
                for (int r = 0; r < ROWS; ++r)
                    for (int q = 0; q < N; ++q) sums[r].of[q] += weights[k] * columns[r][place].of[q];
            }
        block.barrier();
    }
    if (t >= w.tile || first + t >= w.out_width) return;
    V3D_UNROLL
    for (int r = 0; r < ROWS; ++r)
        if (first_row + r < w.out_height) finish((int64_t(image) * w.out_height + first_row + r) * w.out_width + first + t, sums[r]);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) ssim_kernel(SsimImage<T> s, Windows windows) {
    using Columns4 = Columns<4, T>;
    V3D_SHARED(Columns4, columns);
    const auto load = [&](int64_t i, Sums<4, T>& in) {
        const T a = s.a[i], b = s.b[i];
        in = {a, b, a * a + b * b, a * b};
    };
    sum_windows<4, T>(windows, s.weights, columns, load, [&](int64_t i, const Sums<4, T>& mean) {
        const Ssim<T> ssim = ssim_of_means(mean.of[0], mean.of[1], mean.of[2], mean.of[3], s.c1, s.c2);
        s.values[i] = ssim.value;
        if (s.v_means_a == nullptr) return;
        s.v_means_a[i] = ssim.v_mean_a;
        s.v_means_b[i] = ssim.v_mean_b;
        s.v_squares[i] = ssim.v_squares;
        s.v_products[i] = ssim.v_product;
    });
}

// The window is symmetric, so the windows that contain a pixel are a window of their own.
template <typename T>
__global__ void __launch_bounds__(THREADS) ssim_vjp_kernel(SsimImageVjp<T> s, Windows windows) {
    using Columns3 = Columns<3, T>;
    V3D_SHARED(Columns3, columns);
    const auto load = [&](int64_t i, Sums<3, T>& in) {
        const T v = s.v_values[i];
        in = {v * s.v_means[i], v * s.v_squares[i], v * s.v_products[i]};
    };
    sum_windows<3, T>(windows, s.weights, columns, load,
                      [&](int64_t i, const Sums<3, T>& by) { s.v_a[i] = ssim_pixel_vjp(s.a[i], s.b[i], by.of[0], by.of[1], by.of[2]); });
}

}  // namespace

template <typename T>
void ssim(const SsimImage<T>& s, const Stream& where) {
    const Windows windows(s.images, s.height, s.width, s.out_height, s.out_width, -s.margin, s.window, s.channels);
    launch("ssim", where, blocks_of(windows), THREADS, ssim_kernel<T>, s, windows);
}

template <typename T>
void ssim_vjp(const SsimImageVjp<T>& s, const Stream& where) {
    const int64_t start = s.margin - (s.window - 1);
    const Windows windows(s.images, s.out_height, s.out_width, s.height, s.width, start, s.window, s.channels);
    launch("ssim_vjp", where, blocks_of(windows), THREADS, ssim_vjp_kernel<T>, s, windows);
}

template void ssim(const SsimImage<float>&, const Stream&);
template void ssim(const SsimImage<double>&, const Stream&);
template void ssim_vjp(const SsimImageVjp<float>&, const Stream&);
template void ssim_vjp(const SsimImageVjp<double>&, const Stream&);

}  // namespace vision3d::cuda
