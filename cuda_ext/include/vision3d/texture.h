#pragma once
#include "vision3d/mesh_args.h"
#include "vision3d/scalar.h"

// Textures: (u, v) = (0, 0) is the upper left corner of the image, (1, 1) the lower right one; texel (i, j) has its center
// at u = (j + 0.5) / width, v = (i + 0.5) / height. Levels of a pyramid are stored one after the other, the finest first.
namespace vision3d {

// The four texels around a point in one level, rows then columns, and the position between them.
template <typename T>
struct Texels {
    int64_t rows[2], columns[2];  // rows counted over all levels, columns from the start of the row
    int64_t begins[2];            // first texel of each row
    T fx, fy;
    T scale_x, scale_y;  // derivative of the position in texels by u and v; zero where clamped
};

// i is at most one texel outside.
V3D_HD int64_t wrap_index(int64_t i, int64_t size, bool repeat) {
    if (repeat) return i < 0 ? i + size : (i < size ? i : i - size);
    return i < 0 ? 0 : (i < size ? i : size - 1);
}

// One axis: the two texels around coordinate u, the fraction between them, the derivative of the position by u.
template <typename T>
V3D_HD void place_axis(T u, int64_t size, bool repeat, int64_t at[2], T& fraction, T& scale) {
    scale = T(size);
    if (repeat) {
        u -= floor(u);
    } else if (!(u >= T(0) && u <= T(1))) {
        u = u > T(1) ? T(1) : T(0);
        scale = T(0);
    }
    const T x = u * T(size) - T(0.5), low = floor(x);
    fraction = x - low;
    at[0] = wrap_index(int64_t(low), size, repeat);
    at[1] = wrap_index(int64_t(low) + 1, size, repeat);
}

// Texels of pixel i in level `level`; false for coordinates that are not finite.
template <typename T>
V3D_HD bool place(const TextureArgs<T>& a, int64_t i, int64_t level, Texels<T>& t) {
    const T u = a.uvs[2 * i], v = a.uvs[2 * i + 1];
    if (!(u - u == T(0) && v - v == T(0))) return false;
    int64_t texels = 0, rows = 0;
    for (int64_t l = 0; l < level; ++l) {
        texels += a.sizes[2 * l] * a.sizes[2 * l + 1];
        rows += a.sizes[2 * l];
    }
    const int64_t height = a.sizes[2 * level], width = a.sizes[2 * level + 1];
    place_axis(u, width, a.repeat, t.columns, t.fx, t.scale_x);
    place_axis(v, height, a.repeat, t.rows, t.fy, t.scale_y);
    for (int k = 0; k < 2; ++k) {
        t.begins[k] = texels + t.rows[k] * width;
        t.rows[k] += rows;
    }
    return true;
}

// The levels that pixel i interpolates, and the weight of the second one.
template <typename T>
struct LevelMix {
    int64_t levels[2];
    int count;
    T share;
    bool inside;  // the weight depends on the level of detail
};

template <typename T>
V3D_HD LevelMix<T> mix_levels(const TextureArgs<T>& a, int64_t i) {
    const T last = T(a.levels - 1), lod = a.lods == nullptr ? T(0) : a.lods[i];
    if (!(lod > T(0))) return {{0, 0}, 1, T(0), false};  // NaN too
    if (lod >= last) return {{a.levels - 1, a.levels - 1}, 1, T(0), false};
    const T low = floor(lod);
    return {{int64_t(low), int64_t(low) + 1}, 2, lod - low, true};
}

template <typename T>
V3D_HD const T* texture_of(const TextureArgs<T>& a, int64_t i) {
    return a.textures + (a.sets == 1 ? 0 : i / a.pixels) * a.texels * a.channels;
}

// Calls visit(texel of the set, weight) for the texels of pixel i.
template <typename T, typename Visit>
V3D_HD void each_texel(const TextureArgs<T>& a, int64_t i, Visit visit) {
    if (a.masks != nullptr && !a.masks[i]) return;
    const LevelMix<T> mix = mix_levels(a, i);
    for (int m = 0; m < mix.count; ++m) {
        Texels<T> t;
        if (!place(a, i, mix.levels[m], t)) return;
        const T share = m == 0 ? T(1) - mix.share : mix.share;
        for (int r = 0; r < 2; ++r)
            for (int s = 0; s < 2; ++s) visit(t.begins[r] + t.columns[s], share * (r ? t.fy : T(1) - t.fy) * (s ? t.fx : T(1) - t.fx));
    }
}

// Values of pixel i: bilinear in each level, linear between levels; zero where the mask is false or uv is not finite.
template <typename T>
V3D_HD void texture_pixel(const TextureArgs<T>& a, int64_t i) {
    const int64_t D = a.channels;
    const T* texture = texture_of(a, i);
    T* out = a.values + i * D;
    for (int64_t c = 0; c < D; ++c) out[c] = T(0);
    each_texel(a, i, [&](int64_t texel, T weight) {
        for (int64_t c = 0; c < D; ++c) out[c] += weight * texture[texel * D + c];
    });
}

// Gradients by uv and by the level of detail of pixel i.
template <typename T>
V3D_HD void texture_pixel_vjp(const TextureArgs<T>& a, int64_t i) {
    const int64_t D = a.channels;
    T v_u(0), v_v(0), v_lod(0);
    const bool seen = a.masks == nullptr || a.masks[i];
    const LevelMix<T> mix = mix_levels(a, i);
    const T* texture = texture_of(a, i);
    for (int m = 0; seen && m < mix.count; ++m) {
        Texels<T> t;
        if (!place(a, i, mix.levels[m], t)) break;
        T dots[2][2];
        for (int r = 0; r < 2; ++r)
            for (int s = 0; s < 2; ++s) {
                const T* texel = texture + (t.begins[r] + t.columns[s]) * D;
                T sum(0);
                for (int64_t c = 0; c < D; ++c) sum += a.v_values[i * D + c] * texel[c];
                dots[r][s] = sum;
            }
        const T share = m == 0 ? T(1) - mix.share : mix.share;
        const T upper = dots[0][0] + t.fx * (dots[0][1] - dots[0][0]), lower = dots[1][0] + t.fx * (dots[1][1] - dots[1][0]);
        v_u += share * t.scale_x * ((T(1) - t.fy) * (dots[0][1] - dots[0][0]) + t.fy * (dots[1][1] - dots[1][0]));
        v_v += share * t.scale_y * (lower - upper);
        if (mix.inside) v_lod += (m == 0 ? T(-1) : T(1)) * (upper + t.fy * (lower - upper));
    }
    a.v_uvs[2 * i] = v_u;
    a.v_uvs[2 * i + 1] = v_v;
    if (a.v_lods != nullptr) a.v_lods[i] = v_lod;
}

}  // namespace vision3d
