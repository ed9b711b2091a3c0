#pragma once
#include "cuda/host_shim.h"
#include "vision3d/mesh_args.h"

// The bodies of the mesh kernels on a CPU, one block after the other: compared by tests with the CPU's own loops.
namespace vision3d::host {

template <typename T> void rasterize(Host, const MeshArgs<T>& args);
template <typename T> void rasterize_vjp(Host, const MeshVjpArgs<T>& args);
template <typename T> void interpolate(Host, const InterpolateArgs<T>& args);
template <typename T> void interpolate_vjp(Host, const InterpolateArgs<T>& args);
template <typename T> void texture(Host, const TextureArgs<T>& args);
template <typename T> void texture_vjp(Host, const TextureArgs<T>& args);
template <typename T> void antialias(Host, const AntialiasArgs<T>& args);
template <typename T> void antialias_vjp(Host, const AntialiasArgs<T>& args);

}  // namespace vision3d::host
