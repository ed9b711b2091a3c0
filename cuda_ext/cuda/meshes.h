#pragma once
#include "cuda/launch.h"
#include "vision3d/mesh_args.h"

// The mesh kernels on a GPU, T float or double. Pointers are to memory of the stream's device; nothing is allocated or
// synchronized. Visible faces do not depend on the order of the threads; the last bits of sums do.
namespace vision3d::cuda {

template <typename T> void rasterize(const Stream& where, const MeshArgs<T>& args);
template <typename T> void rasterize_vjp(const Stream& where, const MeshVjpArgs<T>& args);
template <typename T> void interpolate(const Stream& where, const InterpolateArgs<T>& args);
template <typename T> void interpolate_vjp(const Stream& where, const InterpolateArgs<T>& args);
template <typename T> void texture(const Stream& where, const TextureArgs<T>& args);
template <typename T> void texture_vjp(const Stream& where, const TextureArgs<T>& args);
template <typename T> void antialias(const Stream& where, const AntialiasArgs<T>& args);
template <typename T> void antialias_vjp(const Stream& where, const AntialiasArgs<T>& args);

}  // namespace vision3d::cuda
