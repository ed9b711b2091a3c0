#include <cub/device/device_radix_sort.cuh>

#include "cuda/kernels/intersect.h"
#include "cuda/splats.h"

namespace vision3d::cuda {
namespace {

template <typename T>
__global__ void __launch_bounds__(THREADS)
    count_tiles_kernel(TileArgs<T> args, int32_t* tiles_per_gauss, DepthKey<T>* depth_keys, int32_t* ids) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < args.count) bodies::count_tiles(args, i, tiles_per_gauss, depth_keys, ids);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) fill_tiles_kernel(TileArgs<T> args, const int32_t* order, const int64_t* ends,
                                                             const int64_t* image_ids, uint32_t* tile_keys, int32_t* ids) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < args.count) bodies::fill_tiles(args, i, order, ends, image_ids, tile_keys, ids);
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
    finish_tiles_kernel(TileGrid<T> grid, int tile_bits, int64_t images, int64_t records, const uint32_t* tile_keys, const int32_t* ids,
                        const T* depths, int64_t* isect_ids, int32_t* isect_offsets) {
    const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at <= records) bodies::finish_tiles(grid, tile_bits, images, records, at, tile_keys, ids, depths, isect_ids, isect_offsets);
}

}  // namespace

template <typename T>
void count_tiles(const Stream& where, const TileArgs<T>& args, int32_t* tiles_per_gauss, DepthKey<T>* depth_keys, int32_t* ids) {
    launch("count_tiles", where, blocks_of(args.count), THREADS, count_tiles_kernel<T>, args, tiles_per_gauss, depth_keys, ids);
}

template <typename T>
void fill_tiles(const Stream& where, const TileArgs<T>& args, const int32_t* order, const int64_t* ends, const int64_t* image_ids,
                uint32_t* tile_keys, int32_t* ids) {
    launch("fill_tiles", where, blocks_of(args.count), THREADS, fill_tiles_kernel<T>, args, order, ends, image_ids, tile_keys, ids);
}

template <typename T>
void finish_tiles(const Stream& where, const TileGrid<T>& grid, int64_t images, int64_t records, const uint32_t* tile_keys,
                  const int32_t* ids, const T* depths, int64_t* isect_ids, int32_t* isect_offsets) {
    launch("finish_tiles", where, blocks_of(records + 1), THREADS, finish_tiles_kernel<T>, grid,
           bits_of(int64_t(grid.tiles_x) * grid.tiles_y), images, records, tile_keys, ids, depths, isect_ids, isect_offsets);
}

template <typename Key>
int64_t sort_scratch(const Stream& where, const Key*, int64_t count) {
    const DeviceGuard guard(where);
    size_t bytes = 0;
    check(cub::DeviceRadixSort::SortPairs(nullptr, bytes, static_cast<const Key*>(nullptr), static_cast<Key*>(nullptr),
                                          static_cast<const int32_t*>(nullptr), static_cast<int32_t*>(nullptr), count, 0,
                                          int(8 * sizeof(Key)), where.stream),
          "sort_scratch");
    return int64_t(bytes);
}

template <typename Key>
void sort_pairs(const Stream& where, int64_t count, int bits, const Key* keys, const int32_t* ids, Key* sorted_keys, int32_t* sorted_ids,
                void* scratch, int64_t scratch_bytes) {
    const DeviceGuard guard(where);
    size_t bytes = size_t(scratch_bytes);
    check(cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, sorted_keys, ids, sorted_ids, count, 0, bits, where.stream), "sort_pairs");
}

#define V3D_INSTANTIATE(T)                                                                                                               \
    template void count_tiles(const Stream&, const TileArgs<T>&, int32_t*, DepthKey<T>*, int32_t*);                                      \
    template void fill_tiles(const Stream&, const TileArgs<T>&, const int32_t*, const int64_t*, const int64_t*, uint32_t*, int32_t*);    \
    template void finish_tiles(const Stream&, const TileGrid<T>&, int64_t, int64_t, const uint32_t*, const int32_t*, const T*, int64_t*, \
                               int32_t*);
V3D_INSTANTIATE(float)
V3D_INSTANTIATE(double)
#define V3D_INSTANTIATE_SORT(Key)                                      \
    template int64_t sort_scratch(const Stream&, const Key*, int64_t); \
    template void sort_pairs(const Stream&, int64_t, int, const Key*, const int32_t*, Key*, int32_t*, void*, int64_t);
V3D_INSTANTIATE_SORT(uint32_t)
V3D_INSTANTIATE_SORT(uint64_t)

}  // namespace vision3d::cuda
