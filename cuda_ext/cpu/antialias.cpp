#include "vision3d/antialias.h"

#include <algorithm>
#include <cstring>
#include <vector>
#include "cpu/meshes.h"
#include "cpu/outlines.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

void copy_rows(const void* from, void* to, int64_t begin, int64_t end, int64_t bytes) {
    std::memcpy(static_cast<char*>(to) + begin * bytes, static_cast<const char*>(from) + begin * bytes, (end - begin) * bytes);
}

}  // namespace

// Threads find the pairs, row by row; few pairs blend, and one thread adds them in image order, for bitwise reproducible sums.
template <typename T>
void antialias(Loops, const AntialiasArgs<T>& a) {
    const int64_t D = a.channels;
    Outlines<T> outlines(a);
    std::vector<std::vector<Blended>> found((a.height + PAIR_ROWS - 1) / PAIR_ROWS);
    for (int64_t image = 0; image < a.images; ++image) {
        outlines.load(image);
        parallel_for(a.height, PAIR_ROWS, [&](int64_t begin, int64_t end) {
            std::vector<Blended>& pairs = found[begin / PAIR_ROWS];
            pairs.clear();
            copy_rows(a.colors, a.out_colors, image * a.height + begin, image * a.height + end, a.width * D * sizeof(T));
            outlines.each_blend(begin, end, [&](const Blended& pair) { pairs.push_back(pair); });
        });
        for (const auto& pairs : found)
            for (const Blended& pair : pairs)
                for (int64_t c = 0; c < D; ++c)
                    a.out_colors[pair.target * D + c] += T(pair.weight) * (a.colors[pair.from * D + c] - a.colors[pair.target * D + c]);
    }
}

template <typename T>
void antialias_vjp(Loops, const AntialiasArgs<T>& a) {
    struct Share {
        Blended pair;
        int64_t corners[2];  // counted over all images
        double v[2][4];
    };
    const int64_t D = a.channels, rows = a.images * a.height;
    std::vector<std::vector<Share>> found((rows + PAIR_ROWS - 1) / PAIR_ROWS);
    parallel_for(rows, PAIR_ROWS, [&](int64_t begin, int64_t end) {
        copy_rows(a.v_out_colors, a.v_colors, begin, end, a.width * D * sizeof(T));
        for (int64_t i = begin * a.width; i < end * a.width; ++i) {
            if (a.pairs[i] == 0) continue;
            const int64_t image = i / a.width / a.height;
            const int x = int(i % a.width), y = int(i / a.width % a.height);
            for (const bool vertical : {false, true}) {
                if (!is_marked(a, image, x, y, vertical)) continue;
                const PairBlend blend = blend_pair(a, image, x, y, vertical);
                if (blend.target < 0) continue;
                Share share{blended(blend, i, i + (vertical ? a.width : 1)), {}, {}};
                int32_t corners[2];
                blend_pair_vjp(a, image, x, y, vertical, blend, corners, share.v);
                for (int k = 0; k < 2; ++k) share.corners[k] = image * a.vertices + corners[k];
                found[begin / PAIR_ROWS].push_back(share);
            }
        }
    });
    for (const auto& shares : found)
        for (const Share& share : shares) {
            for (int64_t c = 0; c < D; ++c) {
                const T v = T(share.pair.weight) * a.v_out_colors[share.pair.target * D + c];
                a.v_colors[share.pair.target * D + c] -= v;
                a.v_colors[share.pair.from * D + c] += v;
            }
            for (int k = 0; k < 8; ++k) a.v_positions[4 * share.corners[k / 4] + k % 4] += T(share.v[k / 4][k % 4]);
        }
}

template void antialias(Loops, const AntialiasArgs<float>&);
template void antialias(Loops, const AntialiasArgs<double>&);
template void antialias_vjp(Loops, const AntialiasArgs<float>&);
template void antialias_vjp(Loops, const AntialiasArgs<double>&);

}  // namespace vision3d::cpu
