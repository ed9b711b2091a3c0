#include "cpu/splats.h"

#include "cpu/dispatch.h"
#include "cpu/pairs.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

constexpr int64_t CHUNK = 4 * PAIR_CHUNK;  // pairs per work item

// Row of partial sums of one chunk, or null.
float* sums_row(float* rows, int64_t chunks, int64_t width, int64_t image, int64_t chunk) {
    return rows ? rows + width * (image * chunks + chunk) : nullptr;
}

}  // namespace

void project(Simd, const ProjectArgs<float>& args) {
    for (int64_t image = 0; image < args.batches * args.cameras; ++image)
        parallel_for(args.count, 2048, [&](int64_t begin, int64_t end) { kernels().project(args, image, begin, end); });
}

void project_vjp(Simd, const ProjectVjpArgs<float>& args) {
    const int64_t images = args.forward.batches * args.forward.cameras;
    each_pair_chunk(images, args.offsets, CHUNK, [&](int64_t image, int64_t begin, int64_t end, int64_t chunk) {
        kernels().project_vjp(args, image, begin, end, sums_row(args.v_views, args.chunks, 12, image, chunk));
    });
}

void sh_colors(Simd, const ShArgs<float>& args) {
    each_pair_chunk(args.images, args.offsets, CHUNK,
                    [&](int64_t image, int64_t begin, int64_t end, int64_t) { kernels().sh_colors(args, image, begin, end, nullptr); });
}

void sh_colors_vjp(Simd, const ShArgs<float>& args) {
    each_pair_chunk(args.images, args.offsets, CHUNK, [&](int64_t image, int64_t begin, int64_t end, int64_t chunk) {
        kernels().sh_colors_vjp(args, image, begin, end, sums_row(args.v_centers, args.chunks, 3, image, chunk));
    });
}

void make_records(Simd, int64_t count, int64_t channels, const float* means2d, const float* conics, const float* colors,
                  const float* opacities, Record<float>* records) {
    parallel_for(count, 4096, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            make_record(means2d + 2 * i, conics + 3 * i, colors + i * channels, channels, opacities[i], records[i]);
    });
}

void blend(Simd, const BlendArgs<float>& args) {
    parallel_for(args.images * args.tiles_x * args.tiles_y, 1, [&](int64_t t, int64_t) { kernels().blend(args, t); });
}

void blend_vjp(Simd, const BlendVjpArgs<float>& args, const BlendFinishArgs<float>& finish) {
    const BlendArgs<float>& f = args.forward;
    parallel_for(f.images * f.tiles_x * f.tiles_y, 1, [&](int64_t t, int64_t) { kernels().blend_vjp(args, t); });
    const int64_t row = blend_row(args);
    sum_records(f.splats, f.records, f.ids, args.sums, row, [&](int64_t i, const float* s) { blend_finish(args, finish, i, s); });
}

void project_2dgs(Simd, const Project2dgsArgs<float>& args) {
    for (int64_t image = 0; image < args.batches * args.cameras; ++image)
        parallel_for(args.count, 2048, [&](int64_t begin, int64_t end) { kernels().project_2dgs(args, image, begin, end); });
}

void project_2dgs_vjp(Simd, const Project2dgsVjpArgs<float>& args) {
    const int64_t images = args.forward.batches * args.forward.cameras;
    each_pair_chunk(images, args.offsets, CHUNK, [&](int64_t image, int64_t begin, int64_t end, int64_t chunk) {
        kernels().project_2dgs_vjp(args, image, begin, end, sums_row(args.v_views, args.chunks, 12, image, chunk));
    });
}

void make_records_2dgs(Simd, int64_t count, int64_t channels, const float* means2d, const float* transforms, const float* opacities,
                       const float* normals, const float* colors, Record2dgs<float>* records) {
    parallel_for(count, 4096, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            make_record_2dgs(means2d + 2 * i, transforms + 9 * i, opacities[i], normals + 3 * i, colors[(i + 1) * channels - 1],
                             records[i]);
    });
}

void blend_2dgs(Simd, const Blend2dgsArgs<float>& args) {
    const int64_t tiles = args.base.images * args.base.tiles_x * args.base.tiles_y;
    parallel_for(tiles, 1, [&](int64_t t, int64_t) { kernels().blend_2dgs(args, t); });
}

void blend_2dgs_vjp(Simd, const Blend2dgsVjpArgs<float>& args, const Blend2dgsFinishArgs<float>& finish) {
    const BlendArgs<float>& f = args.forward.base;
    parallel_for(f.images * f.tiles_x * f.tiles_y, 1, [&](int64_t t, int64_t) { kernels().blend_2dgs_vjp(args, t); });
    const int64_t row = ROW_2DGS + f.channels;
    sum_records(f.splats, f.records, f.ids, args.sums, row, [&](int64_t i, const float* s) { blend_2dgs_finish(args, finish, i, s); });
}

}  // namespace vision3d::cpu
