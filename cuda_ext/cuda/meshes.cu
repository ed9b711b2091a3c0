#include "cuda/meshes.h"
#include "cuda/kernels/meshes.h"

// Built with -fmad=false: include/vision3d/mesh.h.
namespace vision3d::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(THREADS) clear_fragments_kernel(MeshArgs<T> args, int64_t count) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) bodies::clear_fragments(args, i);
}

template <typename T>
__global__ void __launch_bounds__(MAX_THREADS) draw_faces_kernel(MeshArgs<T> args, int64_t chunks) {
    V3D_SHARED(bodies::StagedFaces, staged);
    bodies::draw_faces(Block(), args, chunks, &staged);
}

template <typename T>
__global__ void __launch_bounds__(MAX_THREADS) finish_fragments_kernel(MeshArgs<T> args) {
    V3D_SHARED(bodies::StagedFaces, staged);
    bodies::finish_fragments(Block(), args, &staged);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) rasterize_vjp_kernel(MeshVjpArgs<T> args) {
    bodies::rasterize_vjp(Block(), args);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) interpolate_kernel(InterpolateArgs<T> args, int64_t count) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) interpolate_pixel(args, i, args.channels);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) interpolate_vjp_kernel(InterpolateArgs<T> args) {
    bodies::interpolate_vjp(Block(), args);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) texture_kernel(TextureArgs<T> args, int64_t count) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) texture_pixel(args, i);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) texture_vjp_kernel(TextureArgs<T> args, int64_t count) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) bodies::texture_vjp(args, i);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) find_pairs_kernel(AntialiasArgs<T> args, int64_t count) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) bodies::find_pairs(args, i);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) antialias_kernel(AntialiasArgs<T> args, int64_t count) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) antialias_pixel(args, i);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) antialias_vjp_kernel(AntialiasArgs<T> args, int64_t count) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) bodies::antialias_vjp(args, i);
}

int64_t mesh_tiles(int64_t images, int64_t width, int64_t height) {
    return images * ((width + bodies::MESH_TILE - 1) / bodies::MESH_TILE) * ((height + bodies::MESH_TILE - 1) / bodies::MESH_TILE);
}

}  // namespace

template <typename T>
void rasterize(const Stream& where, const MeshArgs<T>& a) {
    const int64_t pixels = a.images * a.height * a.width, chunks = blocks_of(a.faces);
    launch("clear_fragments", where, blocks_of(pixels), THREADS, clear_fragments_kernel<T>, a, pixels);
    launch("draw_faces", where, a.images * chunks, THREADS, draw_faces_kernel<T>, a, chunks);
    launch("finish_fragments", where, mesh_tiles(a.images, a.width, a.height), bodies::MESH_TILE * bodies::MESH_TILE,
           finish_fragments_kernel<T>, a);
}

template <typename T>
void rasterize_vjp(const Stream& where, const MeshVjpArgs<T>& a) {
    const MeshArgs<T>& f = a.forward;
    launch("rasterize_vjp", where, blocks_of(f.images * f.height * f.width), THREADS, rasterize_vjp_kernel<T>, a);
}

template <typename T>
void interpolate(const Stream& where, const InterpolateArgs<T>& a) {
    const int64_t count = a.images * a.pixels;
    launch("interpolate", where, blocks_of(count), THREADS, interpolate_kernel<T>, a, count);
}

template <typename T>
void interpolate_vjp(const Stream& where, const InterpolateArgs<T>& a) {
    launch("interpolate_vjp", where, blocks_of(a.images * a.pixels), THREADS, interpolate_vjp_kernel<T>, a);
}

template <typename T>
void texture(const Stream& where, const TextureArgs<T>& a) {
    const int64_t count = a.images * a.pixels;
    launch("texture", where, blocks_of(count), THREADS, texture_kernel<T>, a, count);
}

template <typename T>
void texture_vjp(const Stream& where, const TextureArgs<T>& a) {
    const int64_t count = a.images * a.pixels;
    launch("texture_vjp", where, blocks_of(count), THREADS, texture_vjp_kernel<T>, a, count);
}

template <typename T>
void antialias(const Stream& where, const AntialiasArgs<T>& a) {
    const int64_t count = a.images * a.height * a.width;
    launch("find_pairs", where, blocks_of(count), THREADS, find_pairs_kernel<T>, a, count);
    launch("antialias", where, blocks_of(count), THREADS, antialias_kernel<T>, a, count);
}

template <typename T>
void antialias_vjp(const Stream& where, const AntialiasArgs<T>& a) {
    const int64_t count = a.images * a.height * a.width;
    launch("antialias_vjp", where, blocks_of(count), THREADS, antialias_vjp_kernel<T>, a, count);
}

#define V3D_INSTANTIATE(T)                                                   \
    template void rasterize(const Stream&, const MeshArgs<T>&);              \
    template void rasterize_vjp(const Stream&, const MeshVjpArgs<T>&);       \
    template void interpolate(const Stream&, const InterpolateArgs<T>&);     \
    template void interpolate_vjp(const Stream&, const InterpolateArgs<T>&); \
    template void texture(const Stream&, const TextureArgs<T>&);             \
    template void texture_vjp(const Stream&, const TextureArgs<T>&);         \
    template void antialias(const Stream&, const AntialiasArgs<T>&);         \
    template void antialias_vjp(const Stream&, const AntialiasArgs<T>&);
V3D_INSTANTIATE(float)
V3D_INSTANTIATE(double)

}  // namespace vision3d::cuda
