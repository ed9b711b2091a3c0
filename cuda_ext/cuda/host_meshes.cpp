#include "cuda/host_meshes.h"

#include <memory>
#include "cuda/kernels/meshes.h"

namespace vision3d::host {
namespace {

constexpr int THREADS = 256;  // as in cuda/launch.h

int64_t blocks_of(int64_t count) { return (count + THREADS - 1) / THREADS; }

// Pixels and faces add to the same vertices and texels, so everything runs sequentially here.
template <typename Body>
void launch(int64_t count, Body body) {
    for (int64_t i = 0; i < count; ++i) body(i);
}

template <typename Body>
void launch_blocks(int64_t blocks, int threads, Body body) {
    for (int64_t index = 0; index < blocks; ++index) body(Block{index, threads});
}

template <typename Args>
int64_t pixels_of(const Args& a) {
    return a.images * a.height * a.width;
}

}  // namespace

template <typename T>
void rasterize(Host, const MeshArgs<T>& a) {
    constexpr int TILE = bodies::MESH_TILE;
    const auto staged = std::make_unique<bodies::StagedFaces>();
    const int64_t chunks = blocks_of(a.faces), tiles = int64_t((a.width + TILE - 1) / TILE) * ((a.height + TILE - 1) / TILE);
    launch(pixels_of(a), [&](int64_t i) { bodies::clear_fragments(a, i); });
    launch_blocks(a.images * chunks, THREADS, [&](Block block) { bodies::draw_faces(block, a, chunks, staged.get()); });
    launch_blocks(a.images * tiles, TILE * TILE, [&](Block block) { bodies::finish_fragments(block, a, staged.get()); });
}

template <typename T>
void rasterize_vjp(Host, const MeshVjpArgs<T>& a) {
    launch_blocks(blocks_of(pixels_of(a.forward)), THREADS, [&](Block block) { bodies::rasterize_vjp(block, a); });
}

template <typename T>
void interpolate(Host, const InterpolateArgs<T>& a) {
    launch(a.images * a.pixels, [&](int64_t i) { interpolate_pixel(a, i, a.channels); });
}

template <typename T>
void interpolate_vjp(Host, const InterpolateArgs<T>& a) {
    launch_blocks(blocks_of(a.images * a.pixels), THREADS, [&](Block block) { bodies::interpolate_vjp(block, a); });
}

template <typename T>
void texture(Host, const TextureArgs<T>& a) {
    launch(a.images * a.pixels, [&](int64_t i) { texture_pixel(a, i); });
}

template <typename T>
void texture_vjp(Host, const TextureArgs<T>& a) {
    launch(a.images * a.pixels, [&](int64_t i) { bodies::texture_vjp(a, i); });
}

template <typename T>
void antialias(Host, const AntialiasArgs<T>& a) {
    launch(pixels_of(a), [&](int64_t i) { bodies::find_pairs(a, i); });
    launch(pixels_of(a), [&](int64_t i) { antialias_pixel(a, i); });
}

template <typename T>
void antialias_vjp(Host, const AntialiasArgs<T>& a) {
    launch(pixels_of(a), [&](int64_t i) { bodies::antialias_vjp(a, i); });
}

#define V3D_INSTANTIATE(T)                                          \
    template void rasterize(Host, const MeshArgs<T>&);              \
    template void rasterize_vjp(Host, const MeshVjpArgs<T>&);       \
    template void interpolate(Host, const InterpolateArgs<T>&);     \
    template void interpolate_vjp(Host, const InterpolateArgs<T>&); \
    template void texture(Host, const TextureArgs<T>&);             \
    template void texture_vjp(Host, const TextureArgs<T>&);         \
    template void antialias(Host, const AntialiasArgs<T>&);         \
    template void antialias_vjp(Host, const AntialiasArgs<T>&);
V3D_INSTANTIATE(float)
V3D_INSTANTIATE(double)

}  // namespace vision3d::host
