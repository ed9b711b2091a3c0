#include "cuda/host_scans.h"
#include "cuda/kernels/scans.h"

namespace vision3d::host {

template <typename T>
void selective(const scans::SelectiveArgs<T>& args) {
    for (int64_t task = 0; task < args.groups.count * args.channels; ++task) bodies::selective(args, task);
}

template <typename T>
void selective_vjp(const scans::SelectiveVjpArgs<T>& args) {
    for (int64_t task = 0; task < args.groups.count * args.channels; ++task) bodies::selective_vjp(args, task);
}

template <typename T>
void attention(const scans::AttentionArgs<T>& args) {
    for (int64_t task = 0; task < args.groups.count * args.heads * args.values; ++task) bodies::attention(args, task);
}

template <typename T>
void attention_vjp(const scans::AttentionVjpArgs<T>& args) {
    for (int64_t task = 0; task < args.groups.count * args.heads * args.values; ++task) bodies::attention_vjp(args, task);
}

template <typename T>
void delta(const scans::DeltaArgs<T>& args) {
    for (int64_t task = 0; task < args.groups.count * args.heads * args.values; ++task) bodies::delta(args, task);
}

template <typename T>
void delta_vjp(const scans::DeltaVjpArgs<T>& args) {
    for (int64_t task = 0; task < args.groups.count * args.heads * args.values; ++task) bodies::delta_vjp(args, task);
}

template void selective(const scans::SelectiveArgs<float>&);
template void selective(const scans::SelectiveArgs<double>&);
template void selective_vjp(const scans::SelectiveVjpArgs<float>&);
template void selective_vjp(const scans::SelectiveVjpArgs<double>&);
template void attention(const scans::AttentionArgs<float>&);
template void attention(const scans::AttentionArgs<double>&);
template void attention_vjp(const scans::AttentionVjpArgs<float>&);
template void attention_vjp(const scans::AttentionVjpArgs<double>&);
template void delta(const scans::DeltaArgs<float>&);
template void delta(const scans::DeltaArgs<double>&);
template void delta_vjp(const scans::DeltaVjpArgs<float>&);
template void delta_vjp(const scans::DeltaVjpArgs<double>&);

}  // namespace vision3d::host
