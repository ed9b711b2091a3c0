#include "vision3d/antialias.h"

#include <vector>
#include "cpu/meshes.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {

template <typename T>
void antialias(Loops, const AntialiasArgs<T>& a) {
    parallel_for(a.images * a.height, 4, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin * a.width; i < end * a.width; ++i) antialias_pixel(a, i);
    });
}

template <typename T>
void antialias_vjp(Loops, const AntialiasArgs<T>& a) {
    struct Share {
        int64_t corner;  // counted over all images
        double v[4];
    };
    std::vector<std::vector<Share>> rows(a.images * a.height);
    parallel_for(a.images * a.height, 4, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
            for (int x = 0; x < a.width; ++x) {
                antialias_pixel_vjp(a, row * a.width + x);
                const int64_t image = row / a.height;
                const int y = int(row % a.height);
                for (const bool vertical : {false, true}) {
                    if (vertical ? y + 1 >= a.height : x + 1 >= a.width) continue;
                    const PairBlend blend = blend_pair(a, image, x, y, vertical);
                    if (blend.target < 0) continue;
                    int32_t corners[2];
                    double v[2][4] = {};
                    blend_pair_vjp(a, image, x, y, vertical, blend, corners, v);
                    for (int k = 0; k < 2; ++k) rows[row].push_back({image * a.vertices + corners[k], {v[k][0], v[k][1], v[k][2], v[k][3]}});
                }
            }
    });
    // Few pixels lie on silhouettes; adding in their order keeps the bits.
    for (const auto& row : rows)
        for (const Share& share : row)
            for (int k = 0; k < 4; ++k) a.v_positions[4 * share.corner + k] += T(share.v[k]);
}

template void antialias(Loops, const AntialiasArgs<float>&);
template void antialias(Loops, const AntialiasArgs<double>&);
template void antialias_vjp(Loops, const AntialiasArgs<float>&);
template void antialias_vjp(Loops, const AntialiasArgs<double>&);

}  // namespace vision3d::cpu
