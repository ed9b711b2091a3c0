#pragma once
#include "cuda/launch.h"
#include "vision3d/sparse.h"

namespace vision3d::cuda {

void find_neighbors(const Stream& where, const sparse::NeighborArgs& args);
template <typename T> void submanifold_conv(const Stream& where, const sparse::ConvArgs<T>& args);
template <typename T> void submanifold_conv_weights(const Stream& where, const sparse::ConvWeightsArgs<T>& args);
template <typename T> void segment_sum(const Stream& where, const sparse::SegmentArgs<T>& args);
template <typename T> void segment_max(const Stream& where, const sparse::SegmentArgs<T>& args);

}  // namespace vision3d::cuda
