#pragma once
#include "cuda/kernels/choose.h"
#include "vision3d/args.h"

// The bodies of the CUDA kernels on a CPU, grid and blocks as loops: the float64 implementation, compared by tests with the
// vector kernels. T is float or double. Blocks are distributed over threads so that results do not depend on their number.
namespace vision3d::host {

struct Host {};

template <typename T> void project(Host, const ProjectArgs<T>& args);
template <typename T> void project_vjp(Host, const ProjectVjpArgs<T>& args);
template <typename T> void sh_colors(Host, const ShArgs<T>& args);
template <typename T> void sh_colors_vjp(Host, const ShArgs<T>& args);

template <typename T>
void count_tiles(Host, const TileArgs<T>& args, int32_t* tiles_per_gauss, DepthKey<T>* depth_keys, int32_t* ids);
template <typename T>
void fill_tiles(Host, const TileArgs<T>& args, const int32_t* order, const int64_t* ends, const int64_t* image_ids, uint32_t* tile_keys,
                int32_t* ids);
template <typename T>
void finish_tiles(Host, const TileGrid<T>& grid, int64_t images, int64_t records, const uint32_t* tile_keys, const int32_t* ids,
                  const T* depths, int64_t* isect_ids, int32_t* isect_offsets);
// Stable; needs no scratch here.
template <typename Key> int64_t sort_scratch(Host, const Key* keys, int64_t count);
template <typename Key>
void sort_pairs(Host, int64_t count, int bits, const Key* keys, const int32_t* ids, Key* sorted_keys, int32_t* sorted_ids, void* scratch,
                int64_t scratch_bytes);

template <typename T>
void make_records(Host, int64_t count, int64_t channels, const T* means2d, const T* conics, const T* colors, const T* opacities,
                  Record<T>* records);
template <typename T> void blend(Host, const BlendArgs<T>& args);
template <typename T> void blend_vjp(Host, const BlendVjpArgs<T>& args, const BlendFinishArgs<T>& finish);

template <typename T> void project_2dgs(Host, const Project2dgsArgs<T>& args);
template <typename T> void project_2dgs_vjp(Host, const Project2dgsVjpArgs<T>& args);
template <typename T>
void make_records_2dgs(Host, int64_t count, int64_t channels, const T* means2d, const T* transforms, const T* opacities, const T* normals,
                       const T* colors, Record2dgs<T>* records);
template <typename T> void blend_2dgs(Host, const Blend2dgsArgs<T>& args);
template <typename T> void blend_2dgs_vjp(Host, const Blend2dgsVjpArgs<T>& args, const Blend2dgsFinishArgs<T>& finish);

}  // namespace vision3d::host
