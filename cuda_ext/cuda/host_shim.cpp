#include "cuda/host_shim.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>
#include "cpu/pairs.h"
#include "cpu/parallel.h"
#include "cuda/kernels/blend.h"
#include "cuda/kernels/blend_2dgs.h"
#include "cuda/kernels/intersect.h"
#include "cuda/kernels/project.h"

namespace vision3d::host {
namespace {

// A kernel with independent threads.
template <typename Body>
void launch(int64_t count, Body body) {
    parallel_for(count, 1024, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) body(i);
    });
}

template <typename Body>
void launch_blocks(int64_t blocks, int threads, Body body) {
    parallel_for(blocks, 1, [&](int64_t index, int64_t) { body(Block{index, threads}); });
}

// Blocks of pairs, one image after the other: the cameras of a batch add to the same Gaussians.
template <typename Body>
void launch_pairs(int64_t images, int64_t chunks, Body body) {
    for (int64_t image = 0; image < images; ++image)
        parallel_for(chunks, 1, [&](int64_t chunk, int64_t) { body(Block{image * chunks + chunk, int(PAIR_CHUNK)}); });
}

template <typename T>
int64_t tiles_of(const BlendArgs<T>& args) {
    return args.images * args.tiles_x * args.tiles_y;
}

// The narrow width reads the colors of the records, the wide one those of the array.
template <typename Body>
void with_width(int64_t channels, Body body) {
    with_channels<4, 32>(channels, body);
}

}  // namespace

template <typename T>
void project(Host, const ProjectArgs<T>& args) {
    with_camera(args.model, args.covars != nullptr, [&](auto model, auto covars) {
        launch(args.batches * args.cameras * args.count,
               [&](int64_t i) { bodies::project<model(), covars()>(args, i / args.count, i % args.count); });
    });
}

template <typename T>
void project_vjp(Host, const ProjectVjpArgs<T>& args) {
    const ProjectArgs<T>& f = args.forward;
    with_camera(f.model, f.covars != nullptr, [&](auto model, auto covars) {
        launch_pairs(f.batches * f.cameras, args.chunks, [&](Block block) { bodies::project_vjp<model(), covars()>(block, args); });
    });
}

template <typename T>
void sh_colors(Host, const ShArgs<T>& args) {
    with_degree(args.degree, [&](auto degree) {
        launch_pairs(args.images, args.chunks, [&](Block block) { bodies::sh_colors<degree()>(block, args); });
    });
}

template <typename T>
void sh_colors_vjp(Host, const ShArgs<T>& args) {
    with_degree(args.degree, [&](auto degree) {
        launch_pairs(args.images, args.chunks, [&](Block block) { bodies::sh_colors_vjp<degree()>(block, args); });
    });
}

template <typename T>
void count_tiles(Host, const TileArgs<T>& args, int32_t* tiles_per_gauss, DepthKey<T>* depth_keys, int32_t* ids) {
    launch(args.count, [&](int64_t i) { bodies::count_tiles(args, i, tiles_per_gauss, depth_keys, ids); });
}

template <typename T>
void fill_tiles(Host, const TileArgs<T>& args, const int32_t* order, const int64_t* ends, const int64_t* image_ids, uint32_t* tile_keys,
                int32_t* ids) {
    launch(args.count, [&](int64_t i) { bodies::fill_tiles(args, i, order, ends, image_ids, tile_keys, ids); });
}

template <typename T>
void finish_tiles(Host, const TileGrid<T>& grid, int64_t images, int64_t records, const uint32_t* tile_keys, const int32_t* ids,
                  const T* depths, int64_t* isect_ids, int32_t* isect_offsets) {
    const int bits = bits_of(int64_t(grid.tiles_x) * grid.tiles_y);
    launch(records + 1,
           [&](int64_t at) { bodies::finish_tiles(grid, bits, images, records, at, tile_keys, ids, depths, isect_ids, isect_offsets); });
}

template <typename Key>
int64_t sort_scratch(Host, const Key*, int64_t) {
    return 0;
}

template <typename Key>
void sort_pairs(Host, int64_t count, int bits, const Key* keys, const int32_t* ids, Key* sorted_keys, int32_t* sorted_ids, void*, int64_t) {
    const Key mask = bits < int(8 * sizeof(Key)) ? (Key(1) << bits) - 1 : ~Key(0);
    std::vector<int64_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (keys[a] & mask) < (keys[b] & mask); });
    for (int64_t i = 0; i < count; ++i) {
        sorted_keys[i] = keys[order[i]];
        sorted_ids[i] = ids[order[i]];
    }
}

template <typename T>
void make_records(Host, int64_t count, int64_t channels, const T* means2d, const T* conics, const T* colors, const T* opacities,
                  Record<T>* records) {
    launch(count,
           [&](int64_t i) { make_record(means2d + 2 * i, conics + 3 * i, colors + i * channels, channels, opacities[i], records[i]); });
}

template <typename T>
void blend(Host, const BlendArgs<T>& args) {
    with_width(args.channels, [&](auto width) {
        launch_blocks(tiles_of(args), args.tile_size * args.tile_size, [&](Block block) {
            std::vector<bodies::Staged<T>> staged(block.threads);
            if (args.max_depths)
                bodies::blend<width(), true>(block, args, staged.data());
            else
                bodies::blend<width(), false>(block, args, staged.data());
        });
    });
}

template <typename T>
void blend_vjp(Host, const BlendVjpArgs<T>& args, const BlendFinishArgs<T>& finish) {
    const BlendArgs<T>& f = args.forward;
    const int64_t row = blend_row(args);
    std::memset(args.sums, 0, f.records * row * sizeof(T));
    with_width(f.channels, [&](auto width) {
        launch_blocks(tiles_of(f), f.tile_size * f.tile_size, [&](Block block) {
            std::vector<bodies::Staged<T>> staged(block.threads);
            if (args.absgrad)
                bodies::blend_vjp<width(), true>(block, args, staged.data());
            else
                bodies::blend_vjp<width(), false>(block, args, staged.data());
        });
    });
    cpu::sum_records(f.splats, f.records, f.ids, args.sums, row, [&](int64_t i, const T* s) { blend_finish(args, finish, i, s); });
}

template <typename T>
void project_2dgs(Host, const Project2dgsArgs<T>& args) {
    launch(args.batches * args.cameras * args.count, [&](int64_t i) { bodies::project_2dgs(args, i / args.count, i % args.count); });
}

template <typename T>
void project_2dgs_vjp(Host, const Project2dgsVjpArgs<T>& args) {
    launch_pairs(args.forward.batches * args.forward.cameras, args.chunks, [&](Block block) { bodies::project_2dgs_vjp(block, args); });
}

template <typename T>
void make_records_2dgs(Host, int64_t count, int64_t channels, const T* means2d, const T* transforms, const T* opacities, const T* normals,
                       const T* colors, Record2dgs<T>* records) {
    launch(count, [&](int64_t i) {
        make_record_2dgs(means2d + 2 * i, transforms + 9 * i, opacities[i], normals + 3 * i, colors[(i + 1) * channels - 1], records[i]);
    });
}

template <typename T>
void blend_2dgs(Host, const Blend2dgsArgs<T>& args) {
    with_width(args.base.channels, [&](auto width) {
        launch_blocks(tiles_of(args.base), args.base.tile_size * args.base.tile_size, [&](Block block) {
            std::vector<bodies::Staged2dgs<T>> staged(block.threads);
            if (args.base.max_depths)
                bodies::blend_2dgs<width(), true>(block, args, staged.data());
            else
                bodies::blend_2dgs<width(), false>(block, args, staged.data());
        });
    });
}

template <typename T>
void blend_2dgs_vjp(Host, const Blend2dgsVjpArgs<T>& args, const Blend2dgsFinishArgs<T>& finish) {
    const BlendArgs<T>& f = args.forward.base;
    const int64_t row = ROW_2DGS + f.channels;
    std::memset(args.sums, 0, f.records * row * sizeof(T));
    with_width(f.channels, [&](auto width) {
        launch_blocks(tiles_of(f), f.tile_size * f.tile_size, [&](Block block) {
            std::vector<bodies::Staged2dgs<T>> staged(block.threads);
            bodies::blend_2dgs_vjp<width()>(block, args, staged.data());
        });
    });
    cpu::sum_records(f.splats, f.records, f.ids, args.sums, row, [&](int64_t i, const T* s) { blend_2dgs_finish(args, finish, i, s); });
}

#define V3D_INSTANTIATE(T)                                                                                                                 \
    template void project(Host, const ProjectArgs<T>&);                                                                                    \
    template void project_vjp(Host, const ProjectVjpArgs<T>&);                                                                             \
    template void sh_colors(Host, const ShArgs<T>&);                                                                                       \
    template void sh_colors_vjp(Host, const ShArgs<T>&);                                                                                   \
    template void count_tiles(Host, const TileArgs<T>&, int32_t*, DepthKey<T>*, int32_t*);                                                 \
    template void fill_tiles(Host, const TileArgs<T>&, const int32_t*, const int64_t*, const int64_t*, uint32_t*, int32_t*);               \
    template void finish_tiles(Host, const TileGrid<T>&, int64_t, int64_t, const uint32_t*, const int32_t*, const T*, int64_t*, int32_t*); \
    template void make_records(Host, int64_t, int64_t, const T*, const T*, const T*, const T*, Record<T>*);                                \
    template void blend(Host, const BlendArgs<T>&);                                                                                        \
    template void blend_vjp(Host, const BlendVjpArgs<T>&, const BlendFinishArgs<T>&);                                                      \
    template void project_2dgs(Host, const Project2dgsArgs<T>&);                                                                           \
    template void project_2dgs_vjp(Host, const Project2dgsVjpArgs<T>&);                                                                    \
    template void make_records_2dgs(Host, int64_t, int64_t, const T*, const T*, const T*, const T*, const T*, Record2dgs<T>*);             \
    template void blend_2dgs(Host, const Blend2dgsArgs<T>&);                                                                               \
    template void blend_2dgs_vjp(Host, const Blend2dgsVjpArgs<T>&, const Blend2dgsFinishArgs<T>&);
V3D_INSTANTIATE(float)
V3D_INSTANTIATE(double)
#define V3D_INSTANTIATE_SORT(Key)                             \
    template int64_t sort_scratch(Host, const Key*, int64_t); \
    template void sort_pairs(Host, int64_t, int, const Key*, const int32_t*, Key*, int32_t*, void*, int64_t);
V3D_INSTANTIATE_SORT(uint32_t)
V3D_INSTANTIATE_SORT(uint64_t)

}  // namespace vision3d::host
