#include "cuda/scans.h"
#include "cuda/kernels/scans.h"

// One thread for each channel or value of each group: plain, not tuned.
namespace vision3d::cuda {
namespace {

template <typename T>
__global__ void selective_kernel(scans::SelectiveArgs<T> args, int64_t count) {
    const int64_t task = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (task < count) bodies::selective(args, task);
}

template <typename T>
__global__ void selective_vjp_kernel(scans::SelectiveVjpArgs<T> args, int64_t count) {
    const int64_t task = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (task < count) bodies::selective_vjp(args, task);
}

template <typename T>
__global__ void attention_kernel(scans::AttentionArgs<T> args, int64_t count) {
    const int64_t task = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (task < count) bodies::attention(args, task);
}

template <typename T>
__global__ void attention_vjp_kernel(scans::AttentionVjpArgs<T> args, int64_t count) {
    const int64_t task = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (task < count) bodies::attention_vjp(args, task);
}

template <typename T>
__global__ void delta_kernel(scans::DeltaArgs<T> args, int64_t count) {
    const int64_t task = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (task < count) bodies::delta(args, task);
}

template <typename T>
__global__ void delta_vjp_kernel(scans::DeltaVjpArgs<T> args, int64_t count) {
    const int64_t task = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (task < count) bodies::delta_vjp(args, task);
}

}  // namespace

template <typename T>
void selective(const Stream& where, const scans::SelectiveArgs<T>& args) {
    const int64_t count = args.groups.count * args.channels;
    launch("selective", where, blocks_of(count), THREADS, selective_kernel<T>, args, count);
}

template <typename T>
void selective_vjp(const Stream& where, const scans::SelectiveVjpArgs<T>& args) {
    const int64_t count = args.groups.count * args.channels;
    launch("selective_vjp", where, blocks_of(count), THREADS, selective_vjp_kernel<T>, args, count);
}

template <typename T>
void attention(const Stream& where, const scans::AttentionArgs<T>& args) {
    const int64_t count = args.groups.count * args.heads * args.values;
    launch("attention", where, blocks_of(count), THREADS, attention_kernel<T>, args, count);
}

template <typename T>
void attention_vjp(const Stream& where, const scans::AttentionVjpArgs<T>& args) {
    const int64_t count = args.groups.count * args.heads * args.values;
    launch("attention_vjp", where, blocks_of(count), THREADS, attention_vjp_kernel<T>, args, count);
}

template <typename T>
void delta(const Stream& where, const scans::DeltaArgs<T>& args) {
    const int64_t count = args.groups.count * args.heads * args.values;
    launch("delta", where, blocks_of(count), THREADS, delta_kernel<T>, args, count);
}

template <typename T>
void delta_vjp(const Stream& where, const scans::DeltaVjpArgs<T>& args) {
    const int64_t count = args.groups.count * args.heads * args.values;
    launch("delta_vjp", where, blocks_of(count), THREADS, delta_vjp_kernel<T>, args, count);
}

template void selective(const Stream&, const scans::SelectiveArgs<float>&);
template void selective(const Stream&, const scans::SelectiveArgs<double>&);
template void selective_vjp(const Stream&, const scans::SelectiveVjpArgs<float>&);
template void selective_vjp(const Stream&, const scans::SelectiveVjpArgs<double>&);
template void attention(const Stream&, const scans::AttentionArgs<float>&);
template void attention(const Stream&, const scans::AttentionArgs<double>&);
template void attention_vjp(const Stream&, const scans::AttentionVjpArgs<float>&);
template void attention_vjp(const Stream&, const scans::AttentionVjpArgs<double>&);
template void delta(const Stream&, const scans::DeltaArgs<float>&);
template void delta(const Stream&, const scans::DeltaArgs<double>&);
template void delta_vjp(const Stream&, const scans::DeltaVjpArgs<float>&);
template void delta_vjp(const Stream&, const scans::DeltaVjpArgs<double>&);

}  // namespace vision3d::cuda
