#pragma once
// Projection and blending of 2D Gaussians; tiles and blocks as in blend.inc.h.
#include "cpu/isa/blend.inc.h"
#include "cpu/isa/project.inc.h"
#include "vision3d/args.h"

namespace vision3d::V3D_ISA {

static void project_2dgs(const Project2dgsArgs<float>& args, int64_t image, int64_t begin, int64_t end) {
    constexpr int N = LANES;
    const simd::FlushToZero flush;
    const int64_t first = image / args.cameras * args.count, out = image * args.count;
    const View<float> view(args.viewmats + 16 * image, args.Ks + 9 * image, args.limits.width, args.limits.height);
    for (int64_t i = begin; i < end; i += N) {
        int64_t ids[N];
        const int used = lane_ids<N>(i, end, ids);
        F mean[3], quat[4], scales[3], transform[9], mean2d[2];
        gather<F, 3>(args.means + 3 * first, ids, mean);
        gather<F, 4>(args.quats + 4 * first, ids, quat);
        gather<F, 3>(args.scales + 3 * first, ids, scales);
        Splat2dgs<F> splat;
        make_2dgs(view, mean, quat, scales, splat, transform);
        center_2dgs(splat, mean2d);
        const F sign = facing(splat);
        const F columns[20] = {mean2d[0],       mean2d[1],       splat.p[2],           transform[0],         transform[1],
                               transform[2],    transform[3],    transform[4],         transform[5],         transform[6],
                               transform[7],    transform[8],    sign * splat.axes[2], sign * splat.axes[5], sign * splat.axes[8],
                               splat.anchor[0], splat.anchor[1], splat.rows[0],        splat.rows[1],        splat.rows[2]};
        alignas(64) float v[21][N];
        for (int j = 0; j < 20; ++j) simd::store(v[j], columns[j]);
        simd::store(v[20], splat.rows[3]);
        for (int lane = 0; lane < used; ++lane) {
            const int64_t g = ids[lane];
            const auto w = [&](int j) { return v[j][lane]; };
            const float extent = args.opacities ? seen_extent(args.opacities[first + g]) : 3.33f;
            const float m[2] = {w(0), w(1)}, M[9] = {w(3), w(4), w(5), w(6), w(7), w(8), w(9), w(10), w(11)};
            const float normal[3] = {w(12), w(13), w(14)}, anchor[2] = {w(15), w(16)}, rows[4] = {w(17), w(18), w(19), w(20)};
            int32_t radius[2];
            const bool seen = radii_2dgs(m, w(2), M, normal, anchor, rows, extent, args.limits, radius);
            const int64_t at = out + g;
            for (int k = 0; k < 2; ++k) {
                args.radii[2 * at + k] = radius[k];
                args.means2d[2 * at + k] = seen ? m[k] : 0.f;
            }
            args.depths[at] = seen ? w(2) : 0.f;
            for (int j = 0; j < 9; ++j) args.transforms[9 * at + j] = seen ? M[j] : 0.f;
            for (int j = 0; j < 3; ++j) args.normals[3 * at + j] = seen ? normal[j] : 0.f;
        }
    }
}

static void project_2dgs_vjp(const Project2dgsVjpArgs<float>& vjp, int64_t image, int64_t begin, int64_t end, float* v_view_out) {
    constexpr int N = LANES;
    const simd::FlushToZero flush;
    const Project2dgsArgs<float>& args = vjp.forward;
    const int64_t first = image / args.cameras * args.count, out = image * args.count;
    const View<float> view(args.viewmats + 16 * image, args.Ks + 9 * image, args.limits.width, args.limits.height);
    F v_view[12];
    for (F& v : v_view) v = F(0.f);
    for (int64_t i = begin; i < end; i += N) {
        int64_t places[N], ids[N];
        const int used = lane_ids<N>(i, end, places);
        for (int lane = 0; lane < N; ++lane) {
            ids[lane] = vjp.gaussian_ids[places[lane]];
            places[lane] = out + ids[lane];
        }
        F mean[3], quat[4], scales[3], v_mean2d[2], v_depth[1], v_transform[9], v_normal[3], v_mean[3], v_quat[4], v_scales[3];
        gather<F, 3>(args.means + 3 * first, ids, mean);
        gather<F, 4>(args.quats + 4 * first, ids, quat);
        gather<F, 3>(args.scales + 3 * first, ids, scales);
        gather<F, 2>(vjp.v_means2d, places, v_mean2d);
        gather<F, 1>(vjp.v_depths, places, v_depth);
        gather<F, 9>(vjp.v_transforms, places, v_transform);
        gather<F, 3>(vjp.v_normals, places, v_normal);
        if (used < N) {  // repeated lanes must not contribute to the camera's gradient
            alignas(64) float on[N];
            for (int lane = 0; lane < N; ++lane) on[lane] = lane < used ? 1.f : 0.f;
            const F m = simd::load(on);
            for (F& v : v_mean2d) v = v * m;
            for (F& v : v_transform) v = v * m;
            for (F& v : v_normal) v = v * m;
            v_depth[0] = v_depth[0] * m;
        }
        vjp_2dgs(view, mean, quat, scales, v_mean2d, v_depth[0], v_transform, v_normal, v_mean, v_quat, v_scales,
                 v_view_out ? v_view : nullptr);
        scatter<F, 3, true>(vjp.v_means + 3 * first, ids, used, v_mean);
        scatter<F, 4, true>(vjp.v_quats + 4 * first, ids, used, v_quat);
        scatter<F, 3, true>(vjp.v_scales + 3 * first, ids, used, v_scales);
    }
    if (v_view_out)
        for (int j = 0; j < 12; ++j) v_view_out[j] = simd::sum(v_view[j]);
}

// Blocks touched by the box of a splat.
V3D_INLINE uint64_t touched_by_box(const Tile& tile, const Record2dgs<float>& r) {
    const F ox(r.x - float(tile.x)), oy(r.y - float(tile.y)), rx(r.rx), ry(r.ry), zero(0.f);
    uint64_t mask = 0;
    for (int i = 0; i < tile.blocks; i += LANES) {
        const F x0 = simd::load(tile.left + i) - ox, y0 = simd::load(tile.top + i) - oy;
        const M hit = (x0 <= rx) & (zero - rx <= x0 + F(simd::BLOCK_W - 1)) & (y0 <= ry) & (zero - ry <= y0 + F(simd::BLOCK_H - 1));
        mask |= uint64_t(simd::bits(hit)) << i;
    }
    return mask;
}

struct Lanes2dgs {
    F by_x[3], by_y[3], base[3], lo, dx0, dy0;
    V3D_HD_MEMBER Lanes2dgs(const Tile& tile, const Record2dgs<float>& r) : lo(r.lo) {
        for (int j = 0; j < 3; ++j) {
            by_x[j] = F(r.by_x[j]);
            by_y[j] = F(r.by_y[j]);
            base[j] = F(r.base[j]);
        }
        dx0 = simd::load(tile.lane_x) - F(r.x - float(tile.x));
        dy0 = simd::load(tile.lane_y) - F(r.y - float(tile.y));
    }
};

template <bool LIMITED>
static void blend_2dgs_tile(const Blend2dgsArgs<float>& splats, int64_t index) {
    const simd::FlushToZero flush;
    const BlendArgs<float>& args = splats.base;
    const Tile tile(args, index);
    const int D = int(args.channels);
    alignas(64) float T[MAX_PIXELS], last[MAX_PIXELS], middle[MAX_PIXELS], median[MAX_PIXELS], spread[MAX_PIXELS], moment[MAX_PIXELS],
        limit[LIMITED ? MAX_PIXELS : 1], C[(MAX_CHANNELS + 3) * MAX_PIXELS];
    uint64_t open = 0;
    tile.each_pixel(args, [&](int slot, int64_t pixel) {
        T[slot] = pixel >= 0 ? 1.f : -1.f;
        last[slot] = middle[slot] = -1.f;
        median[slot] = spread[slot] = moment[slot] = 0.f;
        if constexpr (LIMITED) limit[slot] = pixel >= 0 ? args.max_depths[pixel] : 0.f;
        for (int k = 0; k < D + 3; ++k) C[k * MAX_PIXELS + slot] = 0.f;
        open |= uint64_t(pixel >= 0) << (slot / LANES);
    });
    if (args.masks && !args.masks[index]) open = 0;
    const F alpha_max(args.alpha_max), zero(0.f), half(0.5f), one(1.f), two(2.f);
    for (int64_t i = tile.begin; i < tile.end && open; ++i) {
        const int64_t id = args.ids[i];
        const Record2dgs<float>& r = splats.packed[id];
        uint64_t mask = touched_by_box(tile, r) & open;
        if (!mask) continue;
        const Lanes2dgs lanes(tile, r);
        const F depth(r.depth), place(float(i - tile.begin));
        const float* color = args.colors + id * D;
        for (; mask; mask &= mask - 1) {
            const int block = __builtin_ctzll(mask), slot = block * LANES;
            const F dx = lanes.dx0 + F(tile.left[block]), dy = lanes.dy0 + F(tile.top[block]), t = simd::load(T + slot);
            const F e = meet_2dgs<F, M>(dx, dy, lanes.by_x, lanes.by_y, lanes.base, lanes.lo).e;
            M live = zero < t;
            if constexpr (LIMITED) {
                live = live & (depth < simd::load(limit + slot));
                if (!simd::any(live)) open &= ~(uint64_t(1) << block);
            }
            const M hit = is_hit(e, lanes.lo, live);
            if (!simd::any(hit)) continue;
            const Blend<F, M> step = blend_forward(e, hit, t, alpha_max);
            for (int k = 0; k < D + 3; ++k) {
                float* c = C + k * MAX_PIXELS + slot;
                simd::store(c, fma(step.weight, F(k < D ? color[k] : r.normal[k - D]), simd::load(c)));
            }
            const F before = simd::load(moment + slot), lump = step.weight * depth;
            simd::store(spread + slot, fma(two, lump * (one - t) - step.weight * before, simd::load(spread + slot)));
            simd::store(moment + slot, before + lump);
            const M central = step.drawn & (half < t);
            simd::store(median + slot, simd::select(central, depth, simd::load(median + slot)));
            simd::store(middle + slot, simd::select(central, place, simd::load(middle + slot)));
            simd::store(last + slot, simd::select(step.drawn, place, simd::load(last + slot)));
            F next = step.transmittance;
            if (simd::any(step.stopped)) {
                next = simd::select(step.stopped, -next, next);
                if (!simd::any(zero < next)) open &= ~(uint64_t(1) << block);
            }
            simd::store(T + slot, next);
        }
    }
    const float* background = args.backgrounds ? args.backgrounds + tile.image * D : nullptr;
    tile.each_pixel(args, [&](int slot, int64_t pixel) {
        if (pixel < 0) return;
        const float t = T[slot] < 0 ? -T[slot] : T[slot];
        for (int k = 0; k < D; ++k) args.out_colors[pixel * D + k] = C[k * MAX_PIXELS + slot] + (background ? t * background[k] : 0.f);
        for (int k = 0; k < 3; ++k) splats.normals[pixel * 3 + k] = C[(D + k) * MAX_PIXELS + slot];
        args.out_transmittances[pixel] = t;
        args.last_ids[pixel] = last[slot] < 0 ? -1 : int32_t(last[slot]) + int32_t(tile.begin);
        splats.median_ids[pixel] = middle[slot] < 0 ? -1 : int32_t(middle[slot]) + int32_t(tile.begin);
        splats.distortions[pixel] = splats.distortion ? spread[slot] : 0.f;
        splats.moments[pixel] = moment[slot];
        splats.medians[pixel] = median[slot];
    });
}

static void blend_2dgs(const Blend2dgsArgs<float>& args, int64_t index) {
    if (args.base.max_depths)
        blend_2dgs_tile<true>(args, index);
    else
        blend_2dgs_tile<false>(args, index);
}

static void blend_2dgs_vjp(const Blend2dgsVjpArgs<float>& vjp, int64_t index) {
    const simd::FlushToZero flush;
    const Blend2dgsArgs<float>& splats = vjp.forward;
    const BlendArgs<float>& args = splats.base;
    const Tile tile(args, index);
    const int D = int(args.channels), row = ROW_2DGS + D;
    alignas(64) float T[MAX_PIXELS], last[MAX_PIXELS], middle[MAX_PIXELS], behind[MAX_PIXELS], moment[MAX_PIXELS], all_moment[MAX_PIXELS],
        all_weight[MAX_PIXELS], v_spread[MAX_PIXELS], v_median[MAX_PIXELS], vC[(MAX_CHANNELS + 3) * MAX_PIXELS];
    const float* background = args.backgrounds ? args.backgrounds + tile.image * D : nullptr;
    int64_t stop = -1;
    uint64_t open = 0;
    tile.each_pixel(args, [&](int slot, int64_t pixel) {
        T[slot] = 1.f;
        last[slot] = middle[slot] = -1.f;
        behind[slot] = moment[slot] = all_moment[slot] = all_weight[slot] = v_spread[slot] = v_median[slot] = 0.f;
        for (int k = 0; k < D + 3; ++k) vC[k * MAX_PIXELS + slot] = 0.f;
        if (pixel < 0) return;
        const int64_t place = args.last_ids[pixel] < 0 ? -1 : args.last_ids[pixel] - tile.begin;
        const float t = args.out_transmittances[pixel];
        float v = vjp.v_transmittances[pixel];
        for (int k = 0; k < D; ++k) {
            const float g = vjp.v_colors[pixel * D + k];
            vC[k * MAX_PIXELS + slot] = g;
            if (background) v += background[k] * g;
        }
        for (int k = 0; k < 3; ++k) vC[(D + k) * MAX_PIXELS + slot] = vjp.v_normals[pixel * 3 + k];
        T[slot] = t;
        last[slot] = float(place);
        behind[slot] = t * v;
        middle[slot] = splats.median_ids[pixel] < 0 ? -1.f : float(splats.median_ids[pixel] - tile.begin);
        moment[slot] = all_moment[slot] = splats.moments[pixel];
        all_weight[slot] = 1.f - t;
        v_spread[slot] = splats.distortion ? vjp.v_distortions[pixel] : 0.f;
        v_median[slot] = vjp.v_medians[pixel];
        open |= uint64_t(place >= 0) << (slot / LANES);
        stop = place > stop ? place : stop;
    });
    const int64_t used = tile.begin + stop + 1;
    for (int64_t i = used * row; i < tile.end * row; ++i) vjp.sums[i] = 0.f;
    const F alpha_max(args.alpha_max), one(1.f), two(2.f), zero(0.f);
    for (int64_t i = used; i-- > tile.begin;) {
        const int64_t id = args.ids[i];
        const Record2dgs<float>& r = splats.packed[id];
        const float* color = args.colors + id * D;
        F sums[ROW_2DGS + MAX_CHANNELS];
        for (int k = 0; k < row; ++k) sums[k] = zero;
        const Lanes2dgs lanes(tile, r);
        const F depth(r.depth), here(float(i - tile.begin));
        for (uint64_t mask = touched_by_box(tile, r) & open; mask; mask &= mask - 1) {
            const int block = __builtin_ctzll(mask), slot = block * LANES;
            const F dx = lanes.dx0 + F(tile.left[block]), dy = lanes.dy0 + F(tile.top[block]);
            const Hit2dgs<F, M> met = meet_2dgs<F, M>(dx, dy, lanes.by_x, lanes.by_y, lanes.base, lanes.lo);
            const M hit = is_hit(met.e, lanes.lo, here <= simd::load(last + slot));
            if (!simd::any(hit)) continue;
            F t = simd::load(T + slot), rest = simd::load(behind + slot), dot(0.f), weight, s;
            for (int k = 0; k < D + 3; ++k) dot = fma(F(k < D ? color[k] : r.normal[k - D]), simd::load(vC + k * MAX_PIXELS + slot), dot);
            // Distortion 2 sum_i w_i sum_j<i w_j (z_i - z_j): its derivative by this weight needs the sums in front of it.
            const F alpha = min(exp2(met.e), alpha_max), before = t * rcp(one - alpha), w = keep(hit, alpha * before);
            const F in_front = simd::load(moment + slot) - w * depth, weight_front = one - before, total = simd::load(all_weight + slot);
            const F v_dist = simd::load(v_spread + slot);
            dot = fma(two * v_dist, two * (depth * weight_front - in_front) + simd::load(all_moment + slot) - depth * total, dot);
            blend_backward(met.e, hit, alpha_max, dot, t, rest, weight, s);
            simd::store(T + slot, t);
            simd::store(behind + slot, rest);
            simd::store(moment + slot, in_front);
            for (int k = 0; k < D; ++k) sums[ROW_2DGS + k] = fma(weight, simd::load(vC + k * MAX_PIXELS + slot), sums[ROW_2DGS + k]);
            for (int k = 0; k < 3; ++k) sums[12 + k] = fma(weight, simd::load(vC + (D + k) * MAX_PIXELS + slot), sums[12 + k]);
            const M central = (here <= simd::load(middle + slot)) & (simd::load(middle + slot) <= here);
            sums[row - 1] = sums[row - 1] + keep(central, simd::load(v_median + slot)) +
                            two * v_dist * weight * (two * weight_front + weight - total);
            sums[0] = sums[0] + s;
            // s = -dL/dq; q = 0.5 (u^2 + v^2) on the splat, dx^2 + dy^2 in the low-pass filter.
            const F v_h0 = keep(met.nearer, -(s * met.u * met.inverse)), v_h1 = keep(met.nearer, -(s * met.v * met.inverse));
            const F v_h[3] = {v_h0, v_h1, -(v_h0 * met.u + v_h1 * met.v)};
            for (int k = 0; k < 3; ++k) {
                sums[1 + k] = fma(v_h[k], dx, sums[1 + k]);
                sums[4 + k] = fma(v_h[k], dy, sums[4 + k]);
                sums[7 + k] = sums[7 + k] + v_h[k];
            }
            const F low = simd::select(met.nearer, zero, two * s);
            sums[10] = fma(low, dx, sums[10]);
            sums[11] = fma(low, dy, sums[11]);
        }
        for (int k = 0; k < row; ++k) vjp.sums[i * row + k] = simd::sum(sums[k]);
    }
}

}  // namespace vision3d::V3D_ISA
