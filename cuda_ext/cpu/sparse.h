#pragma once
#include "vision3d/sparse.h"

// Sparse grids on all cores; bitwise equal for any number of threads.
namespace vision3d::cpu {

// Index of the first voxel outside of the grid or not after the one before it, or -1.
int64_t find_unsorted(const int64_t* coords, int64_t count, const sparse::Grid& grid);

// Stable; keys are not negative.
void sort_keys(const int64_t* keys, int64_t count, int64_t* sorted, int64_t* order);

void find_neighbors(const sparse::NeighborArgs& args);
template <typename T> void submanifold_conv(const sparse::ConvArgs<T>& args);
template <typename T> void submanifold_conv_weights(const sparse::ConvWeightsArgs<T>& args);
template <typename T> void segment_sum(const sparse::SegmentArgs<T>& args);
template <typename T> void segment_max(const sparse::SegmentArgs<T>& args);

}  // namespace vision3d::cpu
