#pragma once
#include "vision3d/skin_args.h"

// The bodies of the GPU's kernels on a CPU, vertex after vertex: the float64 path there, and what the tests compare with the
// vector loops.
namespace vision3d::host {

template <typename T> void skin_vertices(const skin::Args<T>& args, int mode);
template <typename T> void skin_vertices_vjp(const skin::VjpArgs<T>& args, int mode);

}  // namespace vision3d::host
