#include <vector>
#include "cpu/meshes.h"
#include "cpu/parallel.h"
#include "vision3d/texture.h"

namespace vision3d::cpu {
namespace {

// One row of texels to which a pixel adds, with its weights.
template <typename T>
struct RowShare {
    int64_t pixel, begin, columns[2];
    T weights[2];
};

template <typename T, typename Visit>
void each_row_share(const TextureArgs<T>& a, int64_t begin, int64_t end, Visit visit) {
    for (int64_t i = begin; i < end; ++i) {
        if (a.masks != nullptr && !a.masks[i]) continue;
        const LevelMix<T> mix = mix_levels(a, i);
        for (int m = 0; m < mix.count; ++m) {
            Texels<T> t;
            if (!place(a, i, mix.levels[m], t)) break;
            for (int r = 0; r < 2; ++r) {
                const T share = (m == 0 ? T(1) - mix.share : mix.share) * (r ? t.fy : T(1) - t.fy);
                visit(t.rows[r], RowShare<T>{i, t.begins[r], {t.columns[0], t.columns[1]}, {share * (T(1) - t.fx), share * t.fx}});
            }
        }
    }
}

// Pixels [begin, end) to one texture: sorted by row, so that threads share no row and every sum has a fixed order.
template <typename T>
void scatter(const TextureArgs<T>& a, int64_t begin, int64_t end, T* v_texture) {
    int64_t rows = 0;
    for (int64_t l = 0; l < a.levels; ++l) rows += a.sizes[2 * l];
    std::vector<int64_t> begins(rows + 1, 0);
    each_row_share(a, begin, end, [&](int64_t row, const RowShare<T>&) { ++begins[row + 1]; });
    for (int64_t r = 0; r < rows; ++r) begins[r + 1] += begins[r];
    std::vector<RowShare<T>> shares(begins[rows]);
    std::vector<int64_t> next(begins.begin(), begins.end() - 1);
    each_row_share(a, begin, end, [&](int64_t row, const RowShare<T>& share) { shares[next[row]++] = share; });
    parallel_for(rows, 1, [&](int64_t row, int64_t) {
        if (begins[row] == begins[row + 1]) return;
        int64_t width = 0;
        for (int64_t l = 0, first = 0; first <= row; first += a.sizes[2 * l++]) width = a.sizes[2 * l + 1];
        // In double, as all pixels may show one texel.
        std::vector<double> sums(width * a.channels, 0.);
        for (int64_t n = begins[row]; n < begins[row + 1]; ++n) {
            const RowShare<T>& share = shares[n];
            const T* v_value = a.v_values + share.pixel * a.channels;
            for (int k = 0; k < 2; ++k) {
                double* texel = sums.data() + share.columns[k] * a.channels;
                for (int64_t c = 0; c < a.channels; ++c) texel[c] += double(share.weights[k]) * double(v_value[c]);
            }
        }
        T* texels = v_texture + shares[begins[row]].begin * a.channels;
        for (size_t n = 0; n < sums.size(); ++n) texels[n] += T(sums[n]);
    });
}

}  // namespace

template <typename T>
void texture(Loops, const TextureArgs<T>& a) {
    parallel_for(a.images * a.pixels, 4096, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) texture_pixel(a, i);
    });
}

template <typename T>
void texture_vjp(Loops, const TextureArgs<T>& a) {
    parallel_for(a.images * a.pixels, 4096, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) texture_pixel_vjp(a, i);
    });
    for (int64_t image = 0; image < a.images; ++image) {
        T* v_texture = a.v_textures + (a.sets == 1 ? 0 : image) * a.texels * a.channels;
        scatter(a, image * a.pixels, (image + 1) * a.pixels, v_texture);
    }
}

template void texture(Loops, const TextureArgs<float>&);
template void texture(Loops, const TextureArgs<double>&);
template void texture_vjp(Loops, const TextureArgs<float>&);
template void texture_vjp(Loops, const TextureArgs<double>&);

}  // namespace vision3d::cpu
