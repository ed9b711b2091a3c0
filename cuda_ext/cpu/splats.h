#pragma once
#include "vision3d/args.h"

// The splat kernels on the vector units of a CPU: float32 only.
namespace vision3d::cpu {

struct Simd {};  // selects where to run; cuda/host_shim.h and cuda/splats.h have the same functions for other targets

void project(Simd, const ProjectArgs<float>& args);
void project_vjp(Simd, const ProjectVjpArgs<float>& args);
void sh_colors(Simd, const ShArgs<float>& args);
void sh_colors_vjp(Simd, const ShArgs<float>& args);
void make_records(Simd, int64_t count, int64_t channels, const float* means2d, const float* conics, const float* colors,
                  const float* opacities, Record<float>* records);
void blend(Simd, const BlendArgs<float>& args);
// First the gradients of every (tile, Gaussian), then their sums in tile order: bitwise equal for any number of threads.
void blend_vjp(Simd, const BlendVjpArgs<float>& args, const BlendFinishArgs<float>& finish);

void project_2dgs(Simd, const Project2dgsArgs<float>& args);
void project_2dgs_vjp(Simd, const Project2dgsVjpArgs<float>& args);
void make_records_2dgs(Simd, int64_t count, int64_t channels, const float* means2d, const float* transforms, const float* opacities,
                       const float* normals, const float* colors, Record2dgs<float>* records);
void blend_2dgs(Simd, const Blend2dgsArgs<float>& args);
void blend_2dgs_vjp(Simd, const Blend2dgsVjpArgs<float>& args, const Blend2dgsFinishArgs<float>& finish);

}  // namespace vision3d::cpu
