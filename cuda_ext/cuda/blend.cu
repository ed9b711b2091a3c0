#include "cuda/kernels/blend.h"
#include "cuda/kernels/blend_2dgs.h"
#include "cuda/splats.h"

namespace vision3d::cuda {
namespace {

// Blocks per multiprocessor for which registers are allocated, by the compiled number of channels.
template <typename T>
constexpr int blocks_of_width(int channels, int to4, int to8, int to16, int more) {
    return sizeof(T) == 8 ? 1 : channels <= 4 ? to4 : channels <= 8 ? to8 : channels <= 16 ? to16 : more;
}

template <typename T>
__global__ void __launch_bounds__(THREADS) make_records_kernel(int64_t count, int64_t channels, const T* means2d, const T* conics,
                                                               const T* colors, const T* opacities, Record<T>* records) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) make_record(means2d + 2 * i, conics + 3 * i, colors + i * channels, channels, opacities[i], records[i]);
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
    make_records_2dgs_kernel(int64_t count, int64_t channels, const T* means2d, const T* transforms, const T* opacities, const T* normals,
                             const T* colors, Record2dgs<T>* records) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= count) return;
    make_record_2dgs(means2d + 2 * i, transforms + 9 * i, opacities[i], normals + 3 * i, colors[(i + 1) * channels - 1], records[i]);
}

template <int D, bool LIMITED, typename T>
__global__ void __launch_bounds__(MAX_THREADS) blend_kernel(BlendArgs<T> args) {
    V3D_SHARED(bodies::Batch<T>, staged);
    bodies::blend<D, LIMITED>(Block(), args, staged);
}

template <int D, bool ABSGRAD, typename T>
__global__ void __launch_bounds__(MAX_THREADS, blocks_of_width<T>(D, 8, 6, 4, 2)) blend_vjp_kernel(BlendVjpArgs<T> args) {
    V3D_SHARED(bodies::Batch<T>, staged);
    bodies::blend_vjp<D, ABSGRAD>(Block(), args, staged);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) blend_finish_kernel(BlendVjpArgs<T> args, BlendFinishArgs<T> finish) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < args.forward.splats) blend_finish(args, finish, i, args.sums + i * blend_row(args));
}

template <int D, bool LIMITED, typename T>
__global__ void __launch_bounds__(MAX_THREADS, blocks_of_width<T>(D, 5, 5, 4, 3)) blend_2dgs_kernel(Blend2dgsArgs<T> args) {
    V3D_SHARED(bodies::Batch2dgs<T>, staged);
    bodies::blend_2dgs<D, LIMITED>(Block(), args, staged);
}

template <int D, typename T>
__global__ void __launch_bounds__(MAX_THREADS, blocks_of_width<T>(D, 4, 3, 3, 2)) blend_2dgs_vjp_kernel(Blend2dgsVjpArgs<T> args) {
    V3D_SHARED(bodies::Batch2dgs<T>, staged);
    bodies::blend_2dgs_vjp<D>(Block(), args, staged);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) blend_2dgs_finish_kernel(Blend2dgsVjpArgs<T> args, Blend2dgsFinishArgs<T> finish) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    const BlendArgs<T>& f = args.forward.base;
    if (i < f.splats) blend_2dgs_finish(args, finish, i, args.sums + i * (ROW_2DGS + f.channels));
}

template <typename T>
int64_t tiles_of(const BlendArgs<T>& args) {
    return args.images * args.tiles_x * args.tiles_y;
}

// Compiled channel counts: the common ones for float, two for double, which is used for precision.
template <typename T, typename Body>
void with_width(int64_t channels, Body body) {
    if constexpr (sizeof(T) == 4)
        with_channels<1, 3, 4, 8, 16, 32>(channels, body);
    else
        with_channels<4, 32>(channels, body);
}

}  // namespace

template <typename T>
void make_records(const Stream& where, int64_t count, int64_t channels, const T* means2d, const T* conics, const T* colors,
                  const T* opacities, Record<T>* records) {
    launch("make_records", where, blocks_of(count), THREADS, make_records_kernel<T>, count, channels, means2d, conics, colors, opacities,
           records);
}

template <typename T>
void blend(const Stream& where, const BlendArgs<T>& args) {
    with_width<T>(args.channels, [&](auto width) {
        const auto kernel = args.max_depths ? blend_kernel<width(), true, T> : blend_kernel<width(), false, T>;
        launch("blend", where, tiles_of(args), args.tile_size * args.tile_size, kernel, args);
    });
}

template <typename T>
void blend_vjp(const Stream& where, const BlendVjpArgs<T>& args, const BlendFinishArgs<T>& finish) {
    const BlendArgs<T>& f = args.forward;
    with_width<T>(f.channels, [&](auto width) {
        const auto kernel = args.absgrad ? blend_vjp_kernel<width(), true, T> : blend_vjp_kernel<width(), false, T>;
        launch("blend_vjp", where, tiles_of(f), f.tile_size * f.tile_size, kernel, args);
    });
    launch("blend_finish", where, blocks_of(f.splats), THREADS, blend_finish_kernel<T>, args, finish);
}

template <typename T>
void make_records_2dgs(const Stream& where, int64_t count, int64_t channels, const T* means2d, const T* transforms, const T* opacities,
                       const T* normals, const T* colors, Record2dgs<T>* records) {
    launch("make_records_2dgs", where, blocks_of(count), THREADS, make_records_2dgs_kernel<T>, count, channels, means2d, transforms,
           opacities, normals, colors, records);
}

template <typename T>
void blend_2dgs(const Stream& where, const Blend2dgsArgs<T>& args) {
    with_width<T>(args.base.channels, [&](auto width) {
        const auto kernel = args.base.max_depths ? blend_2dgs_kernel<width(), true, T> : blend_2dgs_kernel<width(), false, T>;
        launch("blend_2dgs", where, tiles_of(args.base), args.base.tile_size * args.base.tile_size, kernel, args);
    });
}

template <typename T>
void blend_2dgs_vjp(const Stream& where, const Blend2dgsVjpArgs<T>& args, const Blend2dgsFinishArgs<T>& finish) {
    const BlendArgs<T>& f = args.forward.base;
    with_width<T>(f.channels, [&](auto width) {
        launch("blend_2dgs_vjp", where, tiles_of(f), f.tile_size * f.tile_size, blend_2dgs_vjp_kernel<width(), T>, args);
    });
    launch("blend_2dgs_finish", where, blocks_of(f.splats), THREADS, blend_2dgs_finish_kernel<T>, args, finish);
}

#define V3D_INSTANTIATE(T)                                                                                                              \
    template void make_records(const Stream&, int64_t, int64_t, const T*, const T*, const T*, const T*, Record<T>*);                    \
    template void blend(const Stream&, const BlendArgs<T>&);                                                                            \
    template void blend_vjp(const Stream&, const BlendVjpArgs<T>&, const BlendFinishArgs<T>&);                                          \
    template void make_records_2dgs(const Stream&, int64_t, int64_t, const T*, const T*, const T*, const T*, const T*, Record2dgs<T>*); \
    template void blend_2dgs(const Stream&, const Blend2dgsArgs<T>&);                                                                   \
    template void blend_2dgs_vjp(const Stream&, const Blend2dgsVjpArgs<T>&, const Blend2dgsFinishArgs<T>&);
V3D_INSTANTIATE(float)
V3D_INSTANTIATE(double)

}  // namespace vision3d::cuda
