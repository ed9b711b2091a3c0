#include "cpu/surfels.h"

#include <cmath>
#include "cpu/dispatch.h"
#include "cpu/pairs.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {

void project_discs(const DiscArgs& args) {
    for (int64_t image = 0; image < args.batches * args.cameras; ++image)
        parallel_for(args.count, 2048, [&](int64_t begin, int64_t end) { kernels().project_discs(args, image, begin, end); });
}

void project_discs_vjp(const DiscVjpArgs& args, const int64_t* offsets, int64_t chunks) {
    each_pair_chunk(args.forward.batches * args.forward.cameras, offsets, [&](int64_t image, int64_t begin, int64_t end, int64_t chunk) {
        kernels().project_discs_vjp(args, image, begin, end, args.v_views ? args.v_views + 12 * (image * chunks + chunk) : nullptr);
    });
}

void make_disc_records(int64_t count, const float* means2d, const float* transforms, const float* opacities, const float* normals,
                       const float* colors, int64_t channels, DiscRecord* records) {
    parallel_for(count, 4096, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            DiscRecord& r = records[i];
            r.x = means2d[2 * i]; r.y = means2d[2 * i + 1];
            r.lo = std::log2(opacities[i]);
            r.sign = ray_planes(transforms + 9 * i, means2d + 2 * i, r.by_x, r.by_y, r.base);
            disc_reach(transforms + 9 * i, means2d + 2 * i, std::log(255.f * opacities[i]), r.rx, r.ry);
            r.depth = colors[i * channels + channels - 1];
            for (int k = 0; k < 3; ++k) r.normal[k] = normals[3 * i + k];
        }
    });
}

void blend_discs(const DiscBlendArgs& args) {
    parallel_for(args.base.images * args.base.tiles_x * args.base.tiles_y, 1, [&](int64_t t, int64_t) { kernels().blend_discs(args, t); });
}

void blend_discs_vjp(const DiscBlendVjpArgs& args, const DiscReduceArgs& reduce) {
    const BlendArgs& f = args.forward.base;
    parallel_for(f.images * f.tiles_x * f.tiles_y, 1, [&](int64_t t, int64_t) { kernels().blend_discs_vjp(args, t); });
    const int64_t D = f.channels;
    sum_records(f.splats, f.records, f.ids, args.v_records, DISC_ROW + D, [&](int64_t i, const float* s) {
        const float opacity = reduce.opacities[i], *m = reduce.means2d + 2 * i, *M = reduce.transforms + 9 * i;
        reduce.v_opacities[i] = opacity > 0.f ? s[0] / opacity : 0.f;
        ray_planes_vjp(M, m, args.forward.discs[i].sign, s + 1, s + 4, s + 7, reduce.v_transforms + 9 * i);
        for (int64_t k = 0; k < 2; ++k) reduce.v_means2d[2 * i + k] = s[10 + k];
        for (int64_t k = 0; k < 3; ++k) reduce.v_normals[3 * i + k] = s[12 + k];
        for (int64_t k = 0; k < D; ++k) reduce.v_colors[i * D + k] = s[DISC_ROW + k];
    });
}

}  // namespace vision3d::cpu
