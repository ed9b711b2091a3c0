#pragma once
#include "cuda/launch.h"
#include "vision3d/skin_args.h"

namespace vision3d::cuda {

template <typename T> void skin_vertices(const Stream& where, const skin::Args<T>& args, int mode);
template <typename T> void skin_vertices_vjp(const Stream& where, const skin::VjpArgs<T>& args, int mode);

}  // namespace vision3d::cuda
