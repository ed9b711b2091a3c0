#pragma once
#include "vision3d/mesh_args.h"

// The mesh kernels on a CPU, T float or double. Results do not depend on the number of threads.
namespace vision3d::cpu {

struct Loops {};

template <typename T> void rasterize(Loops, const MeshArgs<T>& args);
template <typename T> void rasterize_vjp(Loops, const MeshVjpArgs<T>& args);
template <typename T> void interpolate(Loops, const InterpolateArgs<T>& args);
template <typename T> void interpolate_vjp(Loops, const InterpolateArgs<T>& args);
template <typename T> void texture(Loops, const TextureArgs<T>& args);
template <typename T> void texture_vjp(Loops, const TextureArgs<T>& args);
template <typename T> void antialias(Loops, const AntialiasArgs<T>& args);
template <typename T> void antialias_vjp(Loops, const AntialiasArgs<T>& args);
template <typename T> void draw_mesh(Loops, const MeshImageArgs<T>& args);
template <typename T> void draw_mesh_vjp(Loops, const MeshImageArgs<T>& args);

}  // namespace vision3d::cpu
