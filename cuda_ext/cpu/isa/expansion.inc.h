#pragma once
#include <algorithm>
#include <vector>
#include "cpu/isa/sparse.inc.h"
#include "vision3d/expansion.h"

namespace vision3d::V3D_ISA {
namespace {

// Columns [first, first + columns) of all samples of an image. Texels at the same place in their cells share weights, so that they are
// multiplied together; a texel of several samples is computed once.
template <typename T>
void sampled_expansion(const expansion::Args<T>& a, int64_t image, int64_t first, int64_t columns) {
    constexpr int LANES = BYTES / sizeof(T);
    struct Texel {
        int place;
        int64_t index, cell;
        bool operator<(const Texel& other) const { return place != other.place ? place < other.place : index < other.index; }
        bool operator==(const Texel& other) const { return index == other.index; }
    };
    const int64_t samples = a.points * expansion::CORNERS;
    std::vector<expansion::Corner<T>> corners;
    std::vector<Texel> texels;
    corners.reserve(size_t(samples));
    texels.reserve(size_t(samples));
    for (int64_t n = 0; n < samples; ++n) {
        const T* place = a.places + (image * a.points + n / expansion::CORNERS) * 2;
        corners.push_back(expansion::corner_of(a, place, int(n % expansion::CORNERS)));
        texels.push_back({corners.back().place, corners.back().texel, corners.back().cell});
    }
    std::sort(texels.begin(), texels.end());
    texels.erase(std::unique(texels.begin(), texels.end()), texels.end());
    const int64_t count = int64_t(texels.size());
    std::vector<T> values(size_t(count * columns), T(0));
    std::vector<const T*> in(size_t(count), nullptr);
    std::vector<T*> out(size_t(count), nullptr);
    for (int64_t n = 0; n < count; ++n) {
        in[size_t(n)] = a.features + (image * a.height * a.width + texels[size_t(n)].cell) * a.c_in;
        out[size_t(n)] = values.data() + n * columns;
        std::copy(a.shift + first, a.shift + first + columns, out[size_t(n)]);
    }
    for (int64_t begin = 0, end = 0; begin < count; begin = end) {
        while (end < count && texels[size_t(end)].place == texels[size_t(begin)].place) ++end;
        const T* weights = a.weights + texels[size_t(begin)].place * a.c_in * a.c_out + first;
        in_blocks<COLUMN_BLOCK>(columns / LANES, [&](auto vectors, int64_t vector) {
            in_blocks<ROW_BLOCK>(end - begin, [&](auto rows, int64_t r) {
                multiply_rows<decltype(rows)::value, decltype(vectors)::value>(in.data() + begin + r, out.data() + begin + r, weights,
                                                                               a.c_in, a.c_out, vector * LANES);
            });
        });
    }
    for (int64_t n = 0; n < count; ++n) {
        const T* positions = a.positions + texels[size_t(n)].index * a.c_out + first;
        for (int64_t c = 0; c < columns; ++c) out[size_t(n)][c] = expansion::positive(out[size_t(n)][c]) + positions[c];
    }
    for (int64_t j = 0; j < a.points; ++j) {
        T* sums = a.out + (image * a.points + j) * a.c_out + first;
        std::fill(sums, sums + columns, T(0));
        for (int k = 0; k < expansion::CORNERS; ++k) {
            const expansion::Corner<T>& corner = corners[size_t(j * expansion::CORNERS + k)];
            const auto found = std::lower_bound(texels.begin(), texels.end(), Texel{corner.place, corner.texel, corner.cell});
            const T* row = values.data() + (found - texels.begin()) * columns;
            for (int64_t c = 0; c < columns; ++c) sums[c] += corner.weight * row[c];
        }
    }
}

}  // namespace
}  // namespace vision3d::V3D_ISA
