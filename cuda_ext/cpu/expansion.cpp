#include "cpu/expansion.h"

#include <algorithm>
#include "cpu/dispatch.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {

// A task is an image and a block of columns, so that one image has work for several cores.
template <typename T>
void sampled_expansion(const expansion::Args<T>& args) {
    constexpr int64_t BLOCK = 4 * expansion_padding<T>();
    const int64_t blocks = (args.c_out + BLOCK - 1) / BLOCK;
    parallel_for(args.images * blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
            const int64_t first = task % blocks * BLOCK;
            expansion_loop<T>()(args, task / blocks, first, std::min(BLOCK, args.c_out - first));
        }
    });
}

template void sampled_expansion(const expansion::Args<float>&);
template void sampled_expansion(const expansion::Args<double>&);

}  // namespace vision3d::cpu
