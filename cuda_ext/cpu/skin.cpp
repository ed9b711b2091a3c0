#include "cpu/skin.h"

#include <algorithm>
#include <vector>
#include "cpu/dispatch.h"
#include "cpu/parallel.h"
#include "vision3d/skin.h"

namespace vision3d::cpu {
namespace {

constexpr int64_t CHUNK = 1024;
constexpr int64_t LEAST = 256, MOST_CHUNKS = 32, MOST_SUMS = 1 << 24;  // backward pass: vertices, chunks, numbers in total

}  // namespace

void skin_vertices(const skin::Args<float>& args, int mode) {
    parallel_for(args.vertices_count, CHUNK, [&](int64_t begin, int64_t end) { kernels().skin_vertices(args, mode, begin, end); });
}

// Each chunk of vertices sums its own gradients of rows; chunks are then added in order. The number of chunks depends only on
// the sizes.
void skin_vertices_vjp(const skin::VjpArgs<float>& args, int mode) {
    const int64_t numbers = args.batch * args.joints * skin::ROW;
    const int64_t most = std::clamp<int64_t>(MOST_SUMS / std::max<int64_t>(numbers, 1), 1, MOST_CHUNKS);
    const int64_t chunk = std::max(LEAST, (args.vertices_count + most - 1) / most);
    const int64_t chunks = (args.vertices_count + chunk - 1) / chunk;
    std::vector<float> sums(size_t(chunks * numbers));
    parallel_for(args.vertices_count, chunk, [&](int64_t begin, int64_t end) {
        kernels().skin_vertices_vjp(args, mode, begin, end, sums.data() + begin / chunk * numbers);
    });
    parallel_for(numbers, 1 << 14, [&](int64_t begin, int64_t end) {
        std::fill(args.v_rows + begin, args.v_rows + end, 0.f);
        for (int64_t c = 0; c < chunks; ++c)
            for (int64_t n = begin; n < end; ++n) args.v_rows[n] += sums[c * numbers + n];
    });
}

}  // namespace vision3d::cpu
