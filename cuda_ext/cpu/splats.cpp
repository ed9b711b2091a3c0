#include "cpu/splats.h"

#include <cmath>
#include "cpu/dispatch.h"
#include "cpu/pairs.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {

void project(const ProjectArgs& args) {
    for (int64_t image = 0; image < args.batches * args.cameras; ++image)
        parallel_for(args.count, 2048, [&](int64_t begin, int64_t end) { kernels().project(args, image, begin, end); });
}

void project_vjp(const ProjectVjpArgs& args, const int64_t* offsets, int64_t chunks) {
    each_pair_chunk(args.forward.batches * args.forward.cameras, offsets, [&](int64_t image, int64_t begin, int64_t end, int64_t chunk) {
        kernels().project_vjp(args, image, begin, end, args.v_views ? args.v_views + 12 * (image * chunks + chunk) : nullptr);
    });
}

void sh_colors(const ShArgs& args, int64_t images, const int64_t* offsets) {
    each_pair_chunk(images, offsets, [&](int64_t image, int64_t begin, int64_t end, int64_t) {
        kernels().sh_colors(args, image, begin, end, nullptr);
    });
}

void sh_colors_vjp(const ShArgs& args, int64_t images, const int64_t* offsets, float* v_centers, int64_t chunks) {
    each_pair_chunk(images, offsets, [&](int64_t image, int64_t begin, int64_t end, int64_t chunk) {
        kernels().sh_colors_vjp(args, image, begin, end, v_centers ? v_centers + 3 * (image * chunks + chunk) : nullptr);
    });
}

void make_records(int64_t count, int64_t channels, const float* means2d, const float* conics, const float* colors,
                  const float* opacities, Record* records) {
    parallel_for(count, 4096, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            Record& r = records[i];
            const float *m = means2d + 2 * i, *c = conics + 3 * i;
            r.x = m[0]; r.y = m[1];
            r.ha = float(0.5 * LOG2E) * c[0]; r.b = float(LOG2E) * c[1]; r.hc = float(0.5 * LOG2E) * c[2];
            r.lo = std::log2(opacities[i]);
            r.slope_x = -c[1] / c[0]; r.slope_y = -c[1] / c[2];
            for (int64_t k = 0; k < 4; ++k) r.color[k] = k < channels ? colors[i * channels + k] : 0.f;
        }
    });
}

void blend_forward(const BlendArgs& args) {
    const int64_t tiles = args.images * args.tiles_x * args.tiles_y;
    parallel_for(tiles, 1, [&](int64_t t, int64_t) { kernels().blend(args, t); });
}

void blend_backward(const BlendVjpArgs& args, const ReduceArgs& reduce) {
    const BlendArgs& f = args.forward;
    parallel_for(f.images * f.tiles_x * f.tiles_y, 1, [&](int64_t t, int64_t) { kernels().blend_vjp(args, t); });

    const int64_t D = f.channels, row = 6 + D + (args.absgrad ? 2 : 0);
    sum_records(f.splats, f.records, f.ids, args.v_records, row, [&](int64_t i, const float* s) {
        const float *c = reduce.conics + 3 * i, opacity = reduce.opacities[i];
        reduce.v_opacities[i] = opacity > 0.f ? s[0] / opacity : 0.f;
        reduce.v_means2d[2 * i] = c[0] * s[1] + c[1] * s[2];
        reduce.v_means2d[2 * i + 1] = c[1] * s[1] + c[2] * s[2];
        reduce.v_conics[3 * i] = -0.5f * s[3];
        reduce.v_conics[3 * i + 1] = -s[4];
        reduce.v_conics[3 * i + 2] = -0.5f * s[5];
        for (int64_t k = 0; k < D; ++k) reduce.v_colors[i * D + k] = s[6 + k];
        if (args.absgrad)
            for (int64_t k = 0; k < 2; ++k) reduce.v_means2d_abs[2 * i + k] = s[6 + D + k] * float(1 / LOG2E);
    });
}

}  // namespace vision3d::cpu
