#pragma once
#include <algorithm>
#include <vector>
#include "cpu/parallel.h"
#include "vision3d/args.h"

// Loops over (image, Gaussian) pairs and their records, shared by the CPU drivers.
namespace vision3d::cpu {

// Calls body(image, begin, end, chunk) on the visible pairs, [offsets[i], offsets[i+1]) of image i. One image after the other:
// the cameras of a batch add to the same Gaussians.
template <typename Body>
void each_pair_chunk(int64_t images, const int64_t* offsets, int64_t size, Body body) {
    for (int64_t image = 0; image < images; ++image) {
        const int64_t first = offsets[image];
        parallel_for(offsets[image + 1] - first, size,
                     [&](int64_t begin, int64_t end) { body(image, first + begin, first + end, begin / size); });
    }
}

// Calls finish(id, sums) with the sum of the rows of each Gaussian. A chunk owns a range of Gaussians and reads all records: they
// are added in tile order, for any number of threads, in double, as a large Gaussian has a record in every tile.
template <typename T, typename Finish>
void sum_records(int64_t splats, int64_t records, const int32_t* ids, const T* rows, int64_t row, Finish finish) {
    const int64_t chunk = std::max<int64_t>(4096, (splats + 15) / 16);
    parallel_for(splats, chunk, [&](int64_t begin, int64_t end) {
        std::vector<double> sums((end - begin) * row, 0.);
        std::vector<T> rounded(row);
        for (int64_t i = 0; i < records; ++i) {
            const int64_t id = ids[i];
            if (id < begin || id >= end) continue;
            const T* from = rows + i * row;
            double* to = sums.data() + (id - begin) * row;
            for (int64_t k = 0; k < row; ++k) to[k] += double(from[k]);
        }
        for (int64_t i = begin; i < end; ++i) {
            const double* found = sums.data() + (i - begin) * row;
            std::transform(found, found + row, rounded.begin(), [](double value) { return T(value); });
            finish(i, rounded.data());
        }
    });
}

}  // namespace vision3d::cpu
