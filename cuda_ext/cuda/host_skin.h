#pragma once
#include "vision3d/skin_args.h"

// The bodies of the GPU kernels on a CPU, one vertex after the other: the float64 implementation, compared by tests with the
// vector loops.
namespace vision3d::host {

template <typename T> void skin_vertices(const skin::Args<T>& args, int mode);
template <typename T> void skin_vertices_vjp(const skin::VjpArgs<T>& args, int mode);

}  // namespace vision3d::host
