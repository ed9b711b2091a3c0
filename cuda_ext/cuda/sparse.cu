#include "cuda/sparse.h"
#include "cuda/kernels/block.h"

// One thread per output.
namespace vision3d::cuda {
namespace {

V3D_BODY int64_t thread_of_grid() { return blockIdx.x * int64_t(blockDim.x) + threadIdx.x; }

__global__ void find_neighbors_kernel(sparse::NeighborArgs args) {
    const int64_t n = thread_of_grid();
    if (n < args.count * args.size[0] * args.size[1] * args.size[2])
        args.neighbors[n] = sparse::neighbor_of(args, n % args.count, int(n / args.count));
}

template <typename T>
__global__ void submanifold_conv_kernel(sparse::ConvArgs<T> args) {
    const int64_t n = thread_of_grid();
    if (n < args.count * args.c_out) args.out[n] = sparse::conv_value(args, n / args.c_out, n % args.c_out);
}

template <typename T>
__global__ void submanifold_conv_weights_kernel(sparse::ConvWeightsArgs<T> args) {
    const int64_t n = thread_of_grid(), row = n / args.c_out;
    if (n < args.offsets * args.c_in * args.c_out)
        args.v_weights[n] = sparse::conv_weight_vjp(args, row / args.c_in, row % args.c_in, n % args.c_out);
}

template <typename T>
__global__ void segment_sum_kernel(sparse::SegmentArgs<T> args) {
    const int64_t n = thread_of_grid();
    if (n < args.segments * args.channels) args.out[n] = sparse::segment_sum(args, n / args.channels, n % args.channels);
}

template <typename T>
__global__ void segment_max_kernel(sparse::SegmentArgs<T> args) {
    const int64_t n = thread_of_grid();
    if (n >= args.segments * args.channels) return;
    const int64_t place = sparse::segment_max(args, n / args.channels, n % args.channels, args.out[n]);
    if (args.places) args.places[n] = place;
}

}  // namespace

void find_neighbors(const Stream& where, const sparse::NeighborArgs& args) {
    const int64_t count = args.count * args.size[0] * args.size[1] * args.size[2];
    launch("voxel_neighbors", where, blocks_of(count), THREADS, find_neighbors_kernel, args);
}

template <typename T>
void submanifold_conv(const Stream& where, const sparse::ConvArgs<T>& args) {
    launch("submanifold_conv", where, blocks_of(args.count * args.c_out), THREADS, submanifold_conv_kernel<T>, args);
}

template <typename T>
void submanifold_conv_weights(const Stream& where, const sparse::ConvWeightsArgs<T>& args) {
    const int64_t count = args.offsets * args.c_in * args.c_out;
    launch("submanifold_conv_weights", where, blocks_of(count), THREADS, submanifold_conv_weights_kernel<T>, args);
}

template <typename T>
void segment_sum(const Stream& where, const sparse::SegmentArgs<T>& args) {
    launch("segment_sum", where, blocks_of(args.segments * args.channels), THREADS, segment_sum_kernel<T>, args);
}

template <typename T>
void segment_max(const Stream& where, const sparse::SegmentArgs<T>& args) {
    launch("segment_max", where, blocks_of(args.segments * args.channels), THREADS, segment_max_kernel<T>, args);
}

template void submanifold_conv(const Stream&, const sparse::ConvArgs<float>&);
template void submanifold_conv(const Stream&, const sparse::ConvArgs<double>&);
template void submanifold_conv_weights(const Stream&, const sparse::ConvWeightsArgs<float>&);
template void submanifold_conv_weights(const Stream&, const sparse::ConvWeightsArgs<double>&);
template void segment_sum(const Stream&, const sparse::SegmentArgs<float>&);
template void segment_sum(const Stream&, const sparse::SegmentArgs<double>&);
template void segment_max(const Stream&, const sparse::SegmentArgs<float>&);
template void segment_max(const Stream&, const sparse::SegmentArgs<double>&);

}  // namespace vision3d::cuda
