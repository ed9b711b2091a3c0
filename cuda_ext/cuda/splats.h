#pragma once
#include "cuda/kernels/choose.h"
#include "cuda/launch.h"
#include "vision3d/args.h"

// The splat kernels on a GPU. All pointers are to memory of the stream's device; nothing is allocated or synchronized.
namespace vision3d::cuda {

template <typename T> void project(const Stream& where, const ProjectArgs<T>& args);
template <typename T> void project_vjp(const Stream& where, const ProjectVjpArgs<T>& args);
template <typename T> void sh_colors(const Stream& where, const ShArgs<T>& args);
template <typename T> void sh_colors_vjp(const Stream& where, const ShArgs<T>& args);

template <typename T>
void count_tiles(const Stream& where, const TileArgs<T>& args, int32_t* tiles_per_gauss, DepthKey<T>* depth_keys, int32_t* ids);
template <typename T>
void fill_tiles(const Stream& where, const TileArgs<T>& args, const int32_t* order, const int64_t* ends, const int64_t* image_ids,
                uint32_t* tile_keys, int32_t* ids);
template <typename T>
void finish_tiles(const Stream& where, const TileGrid<T>& grid, int64_t images, int64_t records, const uint32_t* tile_keys,
                  const int32_t* ids, const T* depths, int64_t* isect_ids, int32_t* isect_offsets);
// Bytes of scratch memory that sort_pairs needs for this many pairs.
template <typename Key> int64_t sort_scratch(const Stream& where, const Key* keys, int64_t count);
// Stable, by the low `bits` of the keys.
template <typename Key>
void sort_pairs(const Stream& where, int64_t count, int bits, const Key* keys, const int32_t* ids, Key* sorted_keys, int32_t* sorted_ids,
                void* scratch, int64_t scratch_bytes);

template <typename T>
void make_records(const Stream& where, int64_t count, int64_t channels, const T* means2d, const T* conics, const T* colors,
                  const T* opacities, Record<T>* records);
template <typename T> void blend(const Stream& where, const BlendArgs<T>& args);
// args.sums has one row per Gaussian and starts at zero; the last bits depend on the order in which tiles finish.
template <typename T> void blend_vjp(const Stream& where, const BlendVjpArgs<T>& args, const BlendFinishArgs<T>& finish);

template <typename T> void project_2dgs(const Stream& where, const Project2dgsArgs<T>& args);
template <typename T> void project_2dgs_vjp(const Stream& where, const Project2dgsVjpArgs<T>& args);
template <typename T>
void make_records_2dgs(const Stream& where, int64_t count, int64_t channels, const T* means2d, const T* transforms, const T* opacities,
                       const T* normals, const T* colors, Record2dgs<T>* records);
template <typename T> void blend_2dgs(const Stream& where, const Blend2dgsArgs<T>& args);
template <typename T> void blend_2dgs_vjp(const Stream& where, const Blend2dgsVjpArgs<T>& args, const Blend2dgsFinishArgs<T>& finish);

}  // namespace vision3d::cuda
