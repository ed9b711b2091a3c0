#include "cpu/noise.h"

#include "cpu/parallel.h"

namespace vision3d::cpu {

constexpr int64_t ROWS = 4096;  // per task: about 0.1 ms

template <typename T>
void add_noise(const NoiseArgs<T>& args) {
    parallel_for(args.count, ROWS, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) vision3d::add_noise(args, row);
    });
}

template void add_noise(const NoiseArgs<float>&);
template void add_noise(const NoiseArgs<double>&);

void normals(uint64_t seed, uint64_t step, int64_t count, float* out) {
    parallel_for(count, ROWS, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) vision3d::normals(seed, step, uint64_t(row), out + 3 * row);
    });
}

}  // namespace vision3d::cpu
