#include "cuda/expansion.h"
#include "cuda/kernels/block.h"

// One thread per feature of a sample: the threads of a warp read neighboring columns of the weights.
namespace vision3d::cuda {
namespace {

template <typename T>
__global__ void sampled_expansion_kernel(expansion::Args<T> args) {
    const int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x, point = n / args.c_out;
    if (point < args.images * args.points)
        args.out[n] = expansion::sample_of(args, point / args.points, point % args.points, n % args.c_out);
}

}  // namespace

template <typename T>
void sampled_expansion(const Stream& where, const expansion::Args<T>& args) {
    launch("sampled_expansion", where, blocks_of(args.images * args.points * args.c_out), THREADS, sampled_expansion_kernel<T>, args);
}

template void sampled_expansion(const Stream&, const expansion::Args<float>&);
template void sampled_expansion(const Stream&, const expansion::Args<double>&);

}  // namespace vision3d::cuda
