#pragma once
// Blending of one tile. The pixels of a tile are grouped in blocks of LANES pixels (4x4, 4x2 or 2x2), and a Gaussian visits
// only the blocks that its 1/255 ellipse touches.
#include "cpu/isa/simd.h"
#include "vision3d/args.h"

namespace vision3d::V3D_ISA {

using simd::F;
using simd::LANES;
using simd::M;

constexpr int MAX_TILE = 16, MAX_PIXELS = MAX_TILE * MAX_TILE, MAX_BLOCKS = MAX_PIXELS / LANES;

// Geometry of a tile: the pixels of each block.
struct Tile {
    int x, y, per_row, blocks, image;
    int64_t begin, end;
    alignas(64) float left[MAX_BLOCKS], top[MAX_BLOCKS];  // first pixel center of each block, relative to the tile
    alignas(64) float lane_x[LANES], lane_y[LANES];

    Tile(const BlendArgs<float>& args, int64_t index) {
        const int64_t tiles = int64_t(args.tiles_x) * args.tiles_y;
        image = int(index / tiles);
        const int t = int(index % tiles);
        x = t % args.tiles_x * args.tile_size;
        y = t / args.tiles_x * args.tile_size;
        begin = args.offsets[index];
        end = index + 1 < args.images * tiles ? args.offsets[index + 1] : args.records;
        per_row = args.tile_size / simd::BLOCK_W;
        blocks = per_row * (args.tile_size / simd::BLOCK_H);
        for (int b = 0; b < MAX_BLOCKS; ++b) {  // blocks past the last one are placed far away, so that nothing touches them
            left[b] = b < blocks ? b % per_row * simd::BLOCK_W + 0.5f : 1e9f;
            top[b] = b < blocks ? b / per_row * simd::BLOCK_H + 0.5f : 1e9f;
        }
        for (int i = 0; i < LANES; ++i) {
            lane_x[i] = float(i % simd::BLOCK_W);
            lane_y[i] = float(i / simd::BLOCK_W);
        }
    }

    // Calls body(slot, pixel) with the index of each pixel of the tile in block order and in the image.
    template <typename Body>
    V3D_HD_MEMBER void each_pixel(const BlendArgs<float>& args, Body body) const {
        for (int b = 0; b < blocks; ++b)
            for (int i = 0; i < LANES; ++i) {
                const int px = x + b % per_row * simd::BLOCK_W + i % simd::BLOCK_W;
                const int py = y + b / per_row * simd::BLOCK_H + i / simd::BLOCK_W;
                const bool inside = px < args.width && py < args.height;
                body(b * LANES + i, inside ? (int64_t(image) * args.height + py) * args.width + px : int64_t(-1));
            }
    }

    // Bit b is set when some pixel of block b can have alpha >= 1/255.
    V3D_HD_MEMBER uint64_t touched(const Record<float>& r) const {
        const F ha(r.ha), b(r.b), hc(r.hc), sx(r.slope_x), sy(r.slope_y), limit(r.lo + float(LOG2_255) + 1e-3f);
        const F ox(r.x - float(x)), oy(r.y - float(y));
        uint64_t mask = 0;
        for (int i = 0; i < blocks; i += LANES) {
            const F x0 = simd::load(left + i) - ox, y0 = simd::load(top + i) - oy;
            const F least = least_exponent(x0, x0 + F(simd::BLOCK_W - 1), y0, y0 + F(simd::BLOCK_H - 1), ha, b, hc, sx, sy);
            mask |= uint64_t(simd::bits(least <= limit)) << i;
        }
        return mask;
    }
};

template <int D>
V3D_INLINE void load_color(const BlendArgs<float>& args, const Record<float>& r, int64_t id, float* color) {
    if constexpr (D > 0 && D <= 4) {
        for (int k = 0; k < D; ++k) color[k] = r.color[k];
    } else {
        for (int k = 0; k < args.channels; ++k) color[k] = args.colors[id * args.channels + k];
    }
}

constexpr int MAX_CHANNELS = 32;

// D is the number of channels, or 0 to read it from args (at most MAX_CHANNELS).
template <int D, bool LIMITED>
static void blend_forward_tile(const BlendArgs<float>& args, int64_t index) {
    const simd::FlushToZero flush;
    const Tile tile(args, index);
    const int channels = D > 0 ? D : int(args.channels);
    alignas(64) float T[MAX_PIXELS], last[MAX_PIXELS], limit[LIMITED ? MAX_PIXELS : 1], C[(D > 0 ? D : MAX_CHANNELS) * MAX_PIXELS];
    uint64_t open = 0;
    tile.each_pixel(args, [&](int slot, int64_t pixel) {
        T[slot] = pixel >= 0 ? 1.f : -1.f;  // a negative sign marks a finished pixel
        last[slot] = -1.f;
        if constexpr (LIMITED) limit[slot] = pixel >= 0 ? args.max_depths[pixel] : 0.f;
        for (int k = 0; k < channels; ++k) C[k * MAX_PIXELS + slot] = 0.f;
        open |= uint64_t(pixel >= 0) << (slot / LANES);
    });
    if (args.masks && !args.masks[index]) open = 0;

    const F alpha_max(args.alpha_max), zero(0.f), lane_x = simd::load(tile.lane_x), lane_y = simd::load(tile.lane_y);
    for (int64_t i = tile.begin; i < tile.end && open; ++i) {
        const int64_t id = args.ids[i];
        const Record<float>& r = args.packed[id];
        if (i + 4 < tile.end) __builtin_prefetch(args.packed + args.ids[i + 4]);
        uint64_t mask = tile.touched(r) & open;
        if (!mask) continue;
        const F ha(r.ha), b(r.b), hc(r.hc), lo(r.lo), place(float(i - tile.begin));
        const F dx0 = lane_x - F(r.x - float(tile.x)), dy0 = lane_y - F(r.y - float(tile.y));
        float color[D > 0 ? D : MAX_CHANNELS];
        load_color<D>(args, r, id, color);
        for (; mask; mask &= mask - 1) {
            const int block = __builtin_ctzll(mask), slot = block * LANES;
            const F dx = dx0 + F(tile.left[block]), dy = dy0 + F(tile.top[block]);
            const F e = log2_alpha(dx, dy, ha, b, hc, lo), t = simd::load(T + slot);
            M live = zero < t;
            if constexpr (LIMITED) {  // all following records are deeper
                live = live & (F(args.depths[id]) < simd::load(limit + slot));
                if (!simd::any(live)) open &= ~(uint64_t(1) << block);
            }
            const M hit = is_hit(e, lo, live);
            if (!simd::any(hit)) continue;
            const Blend<F, M> step = blend_forward(e, hit, t, alpha_max);
            for (int k = 0; k < channels; ++k) {
                float* c = C + k * MAX_PIXELS + slot;
                simd::store(c, fma(step.weight, F(color[k]), simd::load(c)));
            }
            simd::store(last + slot, simd::select(step.drawn, place, simd::load(last + slot)));
            F next = step.transmittance;
            if (simd::any(step.stopped)) {
                next = simd::select(step.stopped, -next, next);
                if (!simd::any(zero < next)) open &= ~(uint64_t(1) << block);
            }
            simd::store(T + slot, next);
        }
    }

    const float* background = args.backgrounds ? args.backgrounds + tile.image * args.channels : nullptr;
    tile.each_pixel(args, [&](int slot, int64_t pixel) {
        if (pixel < 0) return;
        const float t = T[slot] < 0 ? -T[slot] : T[slot];
        for (int k = 0; k < channels; ++k)
            args.out_colors[pixel * args.channels + k] = C[k * MAX_PIXELS + slot] + (background ? t * background[k] : 0.f);
        args.out_transmittances[pixel] = t;
        args.last_ids[pixel] = last[slot] < 0 ? -1 : int32_t(last[slot]) + int32_t(tile.begin);
    });
}

template <int D, bool ABSGRAD>
static void blend_backward_tile(const BlendVjpArgs<float>& vjp, int64_t index) {
    const simd::FlushToZero flush;
    const BlendArgs<float>& args = vjp.forward;
    const Tile tile(args, index);
    const int channels = D > 0 ? D : int(args.channels);
    const int row = 6 + channels + (ABSGRAD ? 2 : 0);
    alignas(64) float T[MAX_PIXELS], last[MAX_PIXELS], behind[MAX_PIXELS], vC[(D > 0 ? D : MAX_CHANNELS) * MAX_PIXELS];
    const float* background = args.backgrounds ? args.backgrounds + tile.image * args.channels : nullptr;
    int64_t stop = -1;  // last record that the tile drew
    uint64_t open = 0;  // blocks that drew anything
    tile.each_pixel(args, [&](int slot, int64_t pixel) {
        T[slot] = 1.f;
        last[slot] = -1.f;
        behind[slot] = 0.f;
        for (int k = 0; k < channels; ++k) vC[k * MAX_PIXELS + slot] = 0.f;
        if (pixel < 0) return;
        const int64_t place = args.last_ids[pixel] < 0 ? -1 : args.last_ids[pixel] - tile.begin;
        const float t = args.out_transmittances[pixel];
        float v = vjp.v_transmittances ? vjp.v_transmittances[pixel] : 0.0f;
        for (int k = 0; k < channels; ++k) {
            const float g = vjp.v_colors[pixel * args.channels + k];
            vC[k * MAX_PIXELS + slot] = g;
            if (background) v += background[k] * g;
        }
        T[slot] = t;
        last[slot] = float(place);
        behind[slot] = t * v;
        open |= uint64_t(place >= 0) << (slot / LANES);
        stop = place > stop ? place : stop;
    });

    const int64_t used = tile.begin + stop + 1;
    for (int64_t i = used * row; i < tile.end * row; ++i) vjp.sums[i] = 0.f;
    const F alpha_max(args.alpha_max), lane_x = simd::load(tile.lane_x), lane_y = simd::load(tile.lane_y);
    for (int64_t i = used; i-- > tile.begin;) {
        const int64_t id = args.ids[i], place = i - tile.begin;
        const Record<float>& r = args.packed[id];
        if (i - 4 >= tile.begin) __builtin_prefetch(args.packed + args.ids[i - 4]);
        float* out = vjp.sums + i * row;
        uint64_t mask = tile.touched(r) & open;
        F S(0.f), Sx(0.f), Sy(0.f), Sxx(0.f), Sxy(0.f), Syy(0.f), Ax(0.f), Ay(0.f), Sc[D > 0 ? D : MAX_CHANNELS];
        for (int k = 0; k < channels; ++k) Sc[k] = F(0.f);
        const F ha(r.ha), b(r.b), hc(r.hc), lo(r.lo), here((float(place)));
        const F dx0 = lane_x - F(r.x - float(tile.x)), dy0 = lane_y - F(r.y - float(tile.y));
        float color[D > 0 ? D : MAX_CHANNELS];
        load_color<D>(args, r, id, color);
        for (; mask; mask &= mask - 1) {
            const int block = __builtin_ctzll(mask), slot = block * LANES;
            const F dx = dx0 + F(tile.left[block]), dy = dy0 + F(tile.top[block]);
            const F e = log2_alpha(dx, dy, ha, b, hc, lo);
            const M hit = is_hit(e, lo, here <= simd::load(last + slot));
            if (!simd::any(hit)) continue;
            F t = simd::load(T + slot), rest = simd::load(behind + slot), dot(0.f), weight, s;
            for (int k = 0; k < channels; ++k) dot = fma(F(color[k]), simd::load(vC + k * MAX_PIXELS + slot), dot);
            blend_backward(e, hit, alpha_max, dot, t, rest, weight, s);
            simd::store(T + slot, t);
            simd::store(behind + slot, rest);
            for (int k = 0; k < channels; ++k) Sc[k] = fma(weight, simd::load(vC + k * MAX_PIXELS + slot), Sc[k]);
            const F sx = s * dx, sy = s * dy;
            S = S + s;
            Sx = Sx + sx;
            Sy = Sy + sy;
            Sxx = fma(sx, dx, Sxx);
            Sxy = fma(sx, dy, Sxy);
            Syy = fma(sy, dy, Syy);
            if constexpr (ABSGRAD) {  // in units of the record's ha, b, hc; scaled once per Gaussian
                Ax = Ax + simd::abs(fma(ha + ha, sx, b * sy));
                Ay = Ay + simd::abs(fma(b, sx, (hc + hc) * sy));
            }
        }
        out[0] = simd::sum(S);
        out[1] = simd::sum(Sx);
        out[2] = simd::sum(Sy);
        out[3] = simd::sum(Sxx);
        out[4] = simd::sum(Sxy);
        out[5] = simd::sum(Syy);
        if constexpr (ABSGRAD) {
            out[6] = simd::sum(Ax);
            out[7] = simd::sum(Ay);
        }
        for (int k = 0; k < channels; ++k) out[row - channels + k] = simd::sum(Sc[k]);
    }
}

static void blend_any(const BlendArgs<float>& args, int64_t index) {
    switch (args.channels * 2 + (args.max_depths != nullptr)) {
        case 2: return blend_forward_tile<1, false>(args, index);
        case 3: return blend_forward_tile<1, true>(args, index);
        case 6: return blend_forward_tile<3, false>(args, index);
        case 7: return blend_forward_tile<3, true>(args, index);
        case 8: return blend_forward_tile<4, false>(args, index);
        case 9: return blend_forward_tile<4, true>(args, index);
        default: return args.max_depths ? blend_forward_tile<0, true>(args, index) : blend_forward_tile<0, false>(args, index);
    }
}

static void blend_any_vjp(const BlendVjpArgs<float>& args, int64_t index) {
    switch (args.forward.channels * 2 + args.absgrad) {
        case 2: return blend_backward_tile<1, false>(args, index);
        case 6: return blend_backward_tile<3, false>(args, index);
        case 7: return blend_backward_tile<3, true>(args, index);
        case 8: return blend_backward_tile<4, false>(args, index);
        default: return args.absgrad ? blend_backward_tile<0, true>(args, index) : blend_backward_tile<0, false>(args, index);
    }
}

}  // namespace vision3d::V3D_ISA
