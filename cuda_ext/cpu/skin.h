#pragma once
#include "vision3d/skin_args.h"

// Skinning on all cores; bitwise equal for any number of threads.
namespace vision3d::cpu {

void skin_vertices(const skin::Args<float>& args, int mode);
void skin_vertices_vjp(const skin::VjpArgs<float>& args, int mode);

}  // namespace vision3d::cpu
