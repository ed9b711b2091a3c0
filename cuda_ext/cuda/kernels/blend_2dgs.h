#pragma once
#include "cuda/kernels/blend.h"

// Blending of 2D Gaussians; as blend.h.
namespace vision3d::bodies {

// As Staged.
template <typename T>
struct alignas(16) Staged2dgs {
    T x, y, rx, ry, lo, by_x[3], by_y[3], base[3], depth, normal[3];
    int32_t id;
};

template <typename T> using Batch2dgs = Staged2dgs<T>[MAX_THREADS];

template <typename T>
V3D_BODY void stage(const Blend2dgsArgs<T>& splats, int64_t record, Staged2dgs<T>& staged) {
    const int32_t id = splats.base.ids[record];
    const Record2dgs<T>& r = splats.packed[id];
    staged.x = r.x;
    staged.y = r.y;
    staged.lo = r.lo;
    staged.rx = r.rx;
    staged.ry = r.ry;
    staged.depth = r.depth;
    for (int k = 0; k < 3; ++k) {
        staged.by_x[k] = r.by_x[k];
        staged.by_y[k] = r.by_y[k];
        staged.base[k] = r.base[k];
        staged.normal[k] = r.normal[k];
    }
    staged.id = id;
}

template <int D, typename T>
struct Pixel2dgs {
    T x, y, transmittance, limit, median, spread, moment, color[D], normal[3];
    int32_t last, middle;
    bool open;
};

template <int D, bool LIMITED, typename T>
V3D_BODY void blend_2dgs(const Block& block, const Blend2dgsArgs<T>& splats, Staged2dgs<T>* staged) {
    const BlendArgs<T>& args = splats.base;
    const Tile<T> tile(args, block.index);
    const bool shown = !args.masks || args.masks[block.index];
    const int channels = int(args.channels);
    PerThread<Pixel2dgs<D, T>> pixels(block.threads);
    block.each([&](int t) {
        Pixel2dgs<D, T>& p = pixels[t];
        const int64_t place = tile.pixel(args, t, p.x, p.y);
        p.open = shown && place >= 0;
        if constexpr (LIMITED) p.limit = p.open ? args.max_depths[place] : T(0);
        p.transmittance = T(1);
        p.median = p.spread = p.moment = T(0);
        p.last = p.middle = -1;
        for (int k = 0; k < D; ++k) p.color[k] = T(0);
        for (int k = 0; k < 3; ++k) p.normal[k] = T(0);
    });
    for (int first = tile.begin; first < tile.end; first += block.threads) {
        if (block.all([&](int t) { return !pixels[t].open; })) break;
        const int used = tile.end - first < block.threads ? tile.end - first : block.threads;
        block.each([&](int t) {
            if (t < used) stage(splats, first + t, staged[t]);
        });
        block.barrier();
        block.each([&](int t) {
            Pixel2dgs<D, T>& p = pixels[t];
            for (int j = 0; j < used && p.open; ++j) {
                const Staged2dgs<T>& r = staged[j];
                if constexpr (LIMITED) {
                    p.open = r.depth < p.limit;
                    if (!p.open) break;
                }
                const T dx = p.x - r.x, dy = p.y - r.y;
                if (!((abs(dx) <= r.rx) & (abs(dy) <= r.ry))) continue;
                const T e = meet_2dgs<T, bool>(dx, dy, r.by_x, r.by_y, r.base, r.lo).e;
                if (!is_hit(e, r.lo, true)) continue;
                const T before = p.transmittance;
                const Blend<T, bool> step = blend_forward(e, true, before, args.alpha_max);
                p.open = step.drawn;
                if (!step.drawn) break;
                const T* color = args.colors + int64_t(r.id) * channels;
                V3D_UNROLL
                for (int k = 0; k < D; ++k)
                    if (k < channels) p.color[k] = fma(step.weight, color[k], p.color[k]);
                for (int k = 0; k < 3; ++k) p.normal[k] = fma(step.weight, r.normal[k], p.normal[k]);
                const T lump = step.weight * r.depth;
                p.spread += T(2) * (lump * (T(1) - before) - step.weight * p.moment);
                p.moment += lump;
                p.transmittance = step.transmittance;
                p.last = first + j;
                if (before > T(0.5)) {
                    p.median = r.depth;
                    p.middle = p.last;
                }
            }
        });
    }
    block.each([&](int t) {
        Pixel2dgs<D, T>& p = pixels[t];
        const int64_t place = tile.pixel(args, t, p.x, p.y);
        if (place < 0) return;
        const T* background = args.backgrounds ? args.backgrounds + tile.image * channels : nullptr;
        V3D_UNROLL
        for (int k = 0; k < D; ++k)
            if (k < channels) args.out_colors[place * channels + k] = p.color[k] + (background ? p.transmittance * background[k] : T(0));
        for (int k = 0; k < 3; ++k) splats.normals[3 * place + k] = p.normal[k];
        args.out_transmittances[place] = p.transmittance;
        args.last_ids[place] = p.last;
        splats.median_ids[place] = p.middle;
        splats.distortions[place] = splats.distortion ? p.spread : T(0);
        splats.moments[place] = p.moment;
        splats.medians[place] = p.median;
    });
}

template <int D, typename T>
struct Pixel2dgsVjp {
    T x, y, transmittance, behind, moment, all_moment, all_weight, v_spread, v_median, v_color[D], v_normal[3];
    int32_t last, middle;
};

template <int D, typename T>
V3D_BODY void blend_2dgs_vjp(const Block& block, const Blend2dgsVjpArgs<T>& vjp, Staged2dgs<T>* staged) {
    const Blend2dgsArgs<T>& splats = vjp.forward;
    const BlendArgs<T>& args = splats.base;
    const Tile<T> tile(args, block.index);
    const int channels = int(args.channels), row = ROW_2DGS + channels;
    constexpr int N = ROW_2DGS + D;
    PerThread<Pixel2dgsVjp<D, T>> pixels(block.threads);
    PerThread<T[N]> sums(block.threads);
    PerThread<bool> counts(block.threads);
    block.each([&](int t) {
        Pixel2dgsVjp<D, T>& p = pixels[t];
        const int64_t place = tile.pixel(args, t, p.x, p.y);
        p.last = p.middle = -1;
        p.transmittance = T(1);
        p.behind = p.moment = p.all_moment = p.all_weight = p.v_spread = p.v_median = T(0);
        for (int k = 0; k < D; ++k) p.v_color[k] = T(0);
        for (int k = 0; k < 3; ++k) p.v_normal[k] = T(0);
        if (place < 0) return;
        const T* background = args.backgrounds ? args.backgrounds + tile.image * channels : nullptr;
        T v = vjp.v_transmittances[place];
        V3D_UNROLL
        for (int k = 0; k < D; ++k)
            if (k < channels) {
                p.v_color[k] = vjp.v_colors[place * channels + k];
                if (background) v += background[k] * p.v_color[k];
            }
        for (int k = 0; k < 3; ++k) p.v_normal[k] = vjp.v_normals[3 * place + k];
        p.transmittance = args.out_transmittances[place];
        p.behind = p.transmittance * v;
        p.last = args.last_ids[place];
        p.middle = splats.median_ids[place];
        p.moment = p.all_moment = splats.moments[place];
        p.all_weight = T(1) - p.transmittance;
        p.v_spread = splats.distortion ? vjp.v_distortions[place] : T(0);
        p.v_median = vjp.v_medians[place];
    });
    for (int end = block.max([&](int t) { return pixels[t].last; }) + 1; end > tile.begin; end -= block.threads) {
        const int used = end - tile.begin < block.threads ? end - tile.begin : block.threads;
        block.barrier();
        block.each([&](int t) {
            if (t < used) stage(splats, end - 1 - t, staged[t]);
        });
        block.barrier();
        for (int j = 0; j < used; ++j) {
            const Staged2dgs<T>& r = staged[j];
            const int here = end - 1 - j;
            const T* color = args.colors + int64_t(r.id) * channels;
            block.each([&](int t) {
                Pixel2dgsVjp<D, T>& p = pixels[t];
                T(&out)[N] = sums[t];
                for (int k = 0; k < N; ++k) out[k] = T(0);
                const T dx = p.x - r.x, dy = p.y - r.y, one(1), two(2);
                counts[t] = (here <= p.last) & (abs(dx) <= r.rx) & (abs(dy) <= r.ry);
                if (!counts[t]) return;
                const Hit2dgs<T, bool> met = meet_2dgs<T, bool>(dx, dy, r.by_x, r.by_y, r.base, r.lo);
                counts[t] = is_hit(met.e, r.lo, true);
                if (!counts[t]) return;
                T dot(0), weight, s;
                V3D_UNROLL
                for (int k = 0; k < D; ++k)
                    if (k < channels) dot = fma(color[k], p.v_color[k], dot);
                for (int k = 0; k < 3; ++k) dot = fma(r.normal[k], p.v_normal[k], dot);
                // Distortion 2 sum_i w_i sum_j<i w_j (z_i - z_j): its derivative by this weight needs the sums in front of it.
                const T alpha = min(exp2(met.e), args.alpha_max), before = p.transmittance * rcp(one - alpha);
                const T in_front = p.moment - alpha * before * r.depth, weight_front = one - before;
                dot = fma(two * p.v_spread, two * (r.depth * weight_front - in_front) + p.all_moment - r.depth * p.all_weight, dot);
                blend_backward(met.e, true, args.alpha_max, dot, p.transmittance, p.behind, weight, s);
                p.moment = in_front;
                // s = -dL/dq; q = 0.5 (u^2 + v^2) on the splat, dx^2 + dy^2 in the low-pass filter.
                const T v_h0 = keep(met.nearer, -(s * met.u * met.inverse)), v_h1 = keep(met.nearer, -(s * met.v * met.inverse));
                const T v_h[3] = {v_h0, v_h1, -(v_h0 * met.u + v_h1 * met.v)}, low = met.nearer ? T(0) : two * s;
                out[0] = s;
                for (int k = 0; k < 3; ++k) {
                    out[1 + k] = v_h[k] * dx;
                    out[4 + k] = v_h[k] * dy;
                    out[7 + k] = v_h[k];
                    out[12 + k] = weight * p.v_normal[k];
                }
                out[10] = low * dx;
                out[11] = low * dy;
                const T v_depth = (here == p.middle ? p.v_median : T(0)) +
                                  two * p.v_spread * weight * (two * weight_front + weight - p.all_weight);
                V3D_UNROLL
                for (int k = 0; k < D; ++k)
                    if (k < channels) out[ROW_2DGS + k] = weight * p.v_color[k] + (k == channels - 1 ? v_depth : T(0));
            });
            block.add_sums(sums, counts, row, vjp.sums + sum_row(here, r.id) * row);
        }
    }
}

}  // namespace vision3d::bodies
