#include "cuda/skin.h"
#include "cuda/kernels/skin.h"

namespace vision3d::cuda {
namespace {

template <int MODE, typename T>
__global__ void skin_kernel(skin::Args<T> args) {
    const int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (n < args.batch * args.vertices_count) bodies::skin_vertex<MODE>(args, n);
}

template <int MODE, typename T>
__global__ void skin_vjp_kernel(skin::VjpArgs<T> args) {
    const int64_t vertex = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (vertex < args.vertices_count) bodies::skin_vertex_vjp<MODE>(args, vertex);
}

}  // namespace

template <typename T>
void skin_vertices(const Stream& where, const skin::Args<T>& args, int mode) {
    skin::with_mode(mode, [&](auto m) {
        launch("skin", where, blocks_of(args.batch * args.vertices_count), THREADS, skin_kernel<decltype(m)::value, T>, args);
    });
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
