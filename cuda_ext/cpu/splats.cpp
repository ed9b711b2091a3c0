#include "cpu/splats.h"

#include <cmath>
#include <cstring>
#include "cpu/dispatch.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {

void project(const ProjectArgs& args) {
    for (int64_t image = 0; image < args.batches * args.cameras; ++image)
        parallel_for(args.count, 2048, [&](int64_t begin, int64_t end) { kernels().project(args, image, begin, end); });
}

namespace {

// body(image, begin, end, chunk) on the visible pairs. One image after the other: cameras add to the same Gaussians.
template <typename Body>
void each_pair_chunk(int64_t images, const int64_t* offsets, Body body) {
    for (int64_t image = 0; image < images; ++image) {
        const int64_t first = offsets[image];
        parallel_for(offsets[image + 1] - first, PAIR_CHUNK, [&](int64_t begin, int64_t end) {
            body(image, first + begin, first + end, begin / PAIR_CHUNK);
        });
    }
}

}  // namespace

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
    parallel_for(tiles, 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) kernels().blend_forward(args, t);
    });
}

void blend_backward(const BlendVjpArgs& args, const ReduceArgs& reduce) {
    const BlendArgs& f = args.forward;
    parallel_for(f.images * f.tiles_x * f.tiles_y, 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) kernels().blend_backward(args, t);
    });

    // Each chunk owns a range of Gaussians and reads all records: tile order, whatever the number of threads.
    const int64_t D = f.channels, row = 6 + D + (args.absgrad ? 2 : 0);
    const int64_t chunk = std::max<int64_t>(4096, (f.splats + 15) / 16);
    parallel_for(f.splats, chunk, [&](int64_t begin, int64_t end) {
        std::vector<float> sums((end - begin) * row, 0.f);
        for (int64_t i = 0; i < f.records; ++i) {
            const int64_t id = f.ids[i];
            if (id < begin || id >= end) continue;
            const float* from = args.v_records + i * row;
            float* to = sums.data() + (id - begin) * row;
            for (int64_t k = 0; k < row; ++k) to[k] += from[k];
        }
        for (int64_t i = begin; i < end; ++i) {
            const float *s = sums.data() + (i - begin) * row, *c = reduce.conics + 3 * i, opacity = reduce.opacities[i];
            reduce.v_opacities[i] = opacity > 0.f ? s[0] / opacity : 0.f;
            reduce.v_means2d[2 * i] = c[0] * s[1] + c[1] * s[2];
            reduce.v_means2d[2 * i + 1] = c[1] * s[1] + c[2] * s[2];
            reduce.v_conics[3 * i] = -0.5f * s[3];
            reduce.v_conics[3 * i + 1] = -s[4];
            reduce.v_conics[3 * i + 2] = -0.5f * s[5];
            for (int64_t k = 0; k < D; ++k) reduce.v_colors[i * D + k] = s[6 + k];
            if (args.absgrad)
                for (int64_t k = 0; k < 2; ++k) reduce.v_means2d_abs[2 * i + k] = s[6 + D + k] * float(1 / LOG2E);
        }
    });
}

}  // namespace vision3d::cpu
