#include "cuda/scans.h"
#include "cuda/kernels/scans.h"

// One thread for each channel or value of each group: plain, not tuned.
namespace vision3d::cuda {
namespace {

template <typename Args>
__global__ void scan_kernel(Args args, int64_t count) {
    const int64_t task = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (task < count) bodies::scan(args, task);
}

}  // namespace

template <typename Args>
void scan(const Stream& where, const Args& args) {
    const int64_t count = scans::tasks(args);
    launch("scan", where, blocks_of(count), THREADS, scan_kernel<Args>, args, count);
}

template void scan(const Stream&, const scans::SelectiveArgs<float>&);
template void scan(const Stream&, const scans::SelectiveArgs<double>&);
template void scan(const Stream&, const scans::SelectiveVjpArgs<float>&);
template void scan(const Stream&, const scans::SelectiveVjpArgs<double>&);
template void scan(const Stream&, const scans::AttentionArgs<float>&);
template void scan(const Stream&, const scans::AttentionArgs<double>&);
template void scan(const Stream&, const scans::AttentionVjpArgs<float>&);
template void scan(const Stream&, const scans::AttentionVjpArgs<double>&);
template void scan(const Stream&, const scans::DeltaArgs<float>&);
template void scan(const Stream&, const scans::DeltaArgs<double>&);
template void scan(const Stream&, const scans::DeltaVjpArgs<float>&);
template void scan(const Stream&, const scans::DeltaVjpArgs<double>&);

}  // namespace vision3d::cuda
