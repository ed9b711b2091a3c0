#pragma once
#include "cuda/kernels/block.h"
#include "vision3d/args.h"

// Blending: one block per tile, one thread per pixel. Records are staged in batches of the block size.
namespace vision3d::bodies {

// Parts of a Record shared by the threads of a block, ordered for loads of 16 bytes.
template <typename T>
struct alignas(16) Staged {
    T color[4], x, y, ha, b, hc, lo;
    int32_t id;
};

template <typename T> using Batch = Staged<T>[MAX_THREADS];

template <typename T>
V3D_BODY void stage(const BlendArgs<T>& args, int64_t record, Staged<T>& staged) {
    const int32_t id = args.ids[record];
    const Record<T>& r = args.packed[id];
    staged.x = r.x;
    staged.y = r.y;
    staged.ha = r.ha;
    staged.b = r.b;
    staged.hc = r.hc;
    staged.lo = r.lo;
    for (int k = 0; k < 4; ++k) staged.color[k] = r.color[k];
    staged.id = id;
}

// Colors beyond four channels stay in global memory: all threads of a warp read the same address.
template <int D, typename T>
V3D_BODY const T* colors_of(const BlendArgs<T>& args, const Staged<T>& staged) {
    return D <= 4 ? staged.color : args.colors + int64_t(staged.id) * args.channels;
}

// The tile of a block, and the pixel of each thread: a warp covers 8 x 4 pixels, so that its threads hit the same Gaussians. Tiles
// of 4, 8 or 16 pixels; the bindings limit all counts to 32 bits.
template <typename T>
struct Tile {
    int image, begin, end, left, top;

    V3D_BODY Tile(const BlendArgs<T>& args, int64_t index) {
        const int tiles = args.tiles_x * args.tiles_y, at = int(index), rest = at % tiles;
        image = at / tiles;
        left = rest % args.tiles_x * args.tile_size;
        top = rest / args.tiles_x * args.tile_size;
        begin = args.offsets[index];
        end = at + 1 < int(args.images) * tiles ? args.offsets[index + 1] : int(args.records);
    }

    // Sets the pixel's center; returns its index in the image, or -1 outside.
    V3D_BODY int64_t pixel(const BlendArgs<T>& args, int t, T& x, T& y) const {
        const int width = args.tile_size < 8 ? 2 : 3, across = args.tile_size > 8 ? 1 : 0, patch = t >> (width + 2);  // powers of two
        const int px = left + ((patch & across) << width) + (t & ((1 << width) - 1)), py = top + (patch >> across << 2) + (t >> width & 3);
        x = T(px) + T(0.5);
        y = T(py) + T(0.5);
        return px < args.width && py < args.height ? (int64_t(image) * args.height + py) * args.width + px : int64_t(-1);
    }
};

template <int D, typename T>
struct Pixel {
    T x, y, transmittance, limit, color[D];
    int32_t last;
    bool open;
};

// D is at least the number of channels; LIMITED if there are max_depths.
template <int D, bool LIMITED, typename T>
V3D_BODY void blend(const Block& block, const BlendArgs<T>& args, Staged<T>* staged) {
    const Tile<T> tile(args, block.index);
    const bool shown = !args.masks || args.masks[block.index];
    const int channels = int(args.channels);
    PerThread<Pixel<D, T>> pixels(block.threads);
    block.each([&](int t) {
        Pixel<D, T>& p = pixels[t];
        const int64_t place = tile.pixel(args, t, p.x, p.y);
        p.open = shown && place >= 0;
        if constexpr (LIMITED) p.limit = p.open ? args.max_depths[place] : T(0);
        p.transmittance = T(1);
        p.last = -1;
        for (int k = 0; k < D; ++k) p.color[k] = T(0);
    });
    for (int first = tile.begin; first < tile.end; first += block.threads) {
        // Also the barrier before the records of the last batch are overwritten.
        if (block.all([&](int t) { return !pixels[t].open; })) break;
        const int used = tile.end - first < block.threads ? tile.end - first : block.threads;
        block.each([&](int t) {
            if (t < used) stage(args, first + t, staged[t]);
        });
        block.barrier();
        block.each([&](int t) {
            Pixel<D, T>& p = pixels[t];
            for (int j = 0; j < used && p.open; ++j) {
                const Staged<T>& r = staged[j];
                if constexpr (LIMITED) {  // all following records are deeper
                    p.open = args.depths[r.id] < p.limit;
                    if (!p.open) break;
                }
                const T e = log2_alpha(p.x - r.x, p.y - r.y, r.ha, r.b, r.hc, r.lo);
                if (!is_hit(e, r.lo, true)) continue;
                const Blend<T, bool> step = blend_forward(e, true, p.transmittance, args.alpha_max);
                p.open = step.drawn;
                if (!step.drawn) break;
                const T* color = colors_of<D>(args, r);
                V3D_UNROLL
                for (int k = 0; k < D; ++k)
                    if (k < channels) p.color[k] = fma(step.weight, color[k], p.color[k]);
                p.transmittance = step.transmittance;
                p.last = first + j;
            }
        });
    }
    block.each([&](int t) {
        Pixel<D, T>& p = pixels[t];
        const int64_t place = tile.pixel(args, t, p.x, p.y);  // again: it would take registers
        if (place < 0) return;
        const T* background = args.backgrounds ? args.backgrounds + tile.image * channels : nullptr;
        V3D_UNROLL
        for (int k = 0; k < D; ++k)
            if (k < channels) args.out_colors[place * channels + k] = p.color[k] + (background ? p.transmittance * background[k] : T(0));
        args.out_transmittances[place] = p.transmittance;
        args.last_ids[place] = p.last;
    });
}

template <int D, typename T>
struct PixelVjp {
    T x, y, transmittance, behind, v_color[D];
    int32_t last;
};

template <int D, bool ABSGRAD, typename T>
V3D_BODY void blend_vjp(const Block& block, const BlendVjpArgs<T>& vjp, Staged<T>* staged) {
    const BlendArgs<T>& args = vjp.forward;
    const Tile<T> tile(args, block.index);
    const int channels = int(args.channels), row = 6 + channels + (ABSGRAD ? 2 : 0);
    constexpr int N = 6 + D + (ABSGRAD ? 2 : 0);
    PerThread<PixelVjp<D, T>> pixels(block.threads);
    PerThread<T[N]> sums(block.threads);
    PerThread<bool> counts(block.threads);
    block.each([&](int t) {
        PixelVjp<D, T>& p = pixels[t];
        const int64_t place = tile.pixel(args, t, p.x, p.y);
        p.last = -1;
        p.transmittance = T(1);
        p.behind = T(0);
        for (int k = 0; k < D; ++k) p.v_color[k] = T(0);
        if (place < 0) return;
        const T* background = args.backgrounds ? args.backgrounds + tile.image * channels : nullptr;
        T v = vjp.v_transmittances ? vjp.v_transmittances[place] : T(0);
        V3D_UNROLL
        for (int k = 0; k < D; ++k)
            if (k < channels) {
                p.v_color[k] = vjp.v_colors[place * channels + k];
                if (background) v += background[k] * p.v_color[k];
            }
        p.transmittance = args.out_transmittances[place];
        p.behind = p.transmittance * v;
        p.last = args.last_ids[place];
    });
    for (int end = block.max([&](int t) { return pixels[t].last; }) + 1; end > tile.begin; end -= block.threads) {
        const int used = end - tile.begin < block.threads ? end - tile.begin : block.threads;
        block.barrier();
        block.each([&](int t) {
            if (t < used) stage(args, end - 1 - t, staged[t]);
        });
        block.barrier();
        for (int j = 0; j < used; ++j) {
            const Staged<T>& r = staged[j];
            const int here = end - 1 - j;
            const T* color = colors_of<D>(args, r);
            block.each([&](int t) {
                PixelVjp<D, T>& p = pixels[t];
                const T dx = p.x - r.x, dy = p.y - r.y, e = log2_alpha(dx, dy, r.ha, r.b, r.hc, r.lo);
                counts[t] = is_hit(e, r.lo, here <= p.last);
                T(&out)[N] = sums[t];
                if (!counts[t]) {
                    for (int k = 0; k < N; ++k) out[k] = T(0);
                    return;
                }
                T dot(0), weight, s;
                V3D_UNROLL
                for (int k = 0; k < D; ++k)
                    if (k < channels) dot = fma(color[k], p.v_color[k], dot);
                blend_backward(e, true, args.alpha_max, dot, p.transmittance, p.behind, weight, s);
                const T sx = s * dx, sy = s * dy;
                out[0] = s;
                out[1] = sx;
                out[2] = sy;
                out[3] = sx * dx;
                out[4] = sx * dy;
                out[5] = sy * dy;
                V3D_UNROLL
                for (int k = 0; k < D; ++k) out[N - D + k] = weight * p.v_color[k];
                if constexpr (ABSGRAD) {  // in units of the record's ha, b, hc; scaled once per Gaussian
                    out[6] = abs(fma(r.ha + r.ha, sx, r.b * sy));
                    out[7] = abs(fma(r.b, sx, (r.hc + r.hc) * sy));
                }
            });
            block.add_sums(sums, counts, row, vjp.sums + sum_row(here, r.id) * row);
        }
    }
}

}  // namespace vision3d::bodies
