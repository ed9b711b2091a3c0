#include "cuda/skin.h"
#include "cuda/kernels/skin.h"

namespace vision3d::cuda {
namespace {

template <int MODE, typename T>
__global__ void skin_kernel(skin::Args<T> args, int chunks) {
    each_row(chunks, args.vertices_count, [&](int64_t b, int64_t vertex) { bodies::skin_vertex<MODE>(args, b, vertex); });
}

template <int MODE, typename T>
__global__ void __launch_bounds__(THREADS) skin_vjp_kernel(skin::VjpArgs<T> args) {
    bodies::skin_vjp<MODE>(Block(), args);
}

}  // namespace

template <typename T>
void skin_vertices(const Stream& where, const skin::Args<T>& args, int mode) {
    const int64_t chunks = blocks_of(args.vertices_count);
    skin::with_mode(
        mode, [&](auto m) { launch("skin", where, args.batch * chunks, THREADS, skin_kernel<decltype(m)::value, T>, args, int(chunks)); });
}

template <typename T>
void skin_vertices_vjp(const Stream& where, const skin::VjpArgs<T>& args, int mode) {
    const DeviceGuard guard(where);
    const size_t size = size_t(args.batch * args.joints * skin::ROW) * sizeof(T);
    check(cudaMemsetAsync(args.v_rows, 0, size, where.stream), "clearing gradients of joints");
    skin::with_mode(mode, [&](auto m) {
        launch("skin_vjp", where, blocks_of(args.vertices_count), THREADS, skin_vjp_kernel<decltype(m)::value, T>, args);
    });
}

template void skin_vertices(const Stream&, const skin::Args<float>&, int);
template void skin_vertices(const Stream&, const skin::Args<double>&, int);
template void skin_vertices_vjp(const Stream&, const skin::VjpArgs<float>&, int);
template void skin_vertices_vjp(const Stream&, const skin::VjpArgs<double>&, int);

}  // namespace vision3d::cuda
