#include "cuda/host_scans.h"
#include "cuda/kernels/scans.h"

namespace vision3d::host {

template <typename Args>
void scan(const Args& args) {
    for (int64_t task = 0; task < scans::tasks(args); ++task) bodies::scan(args, task);
}

template void scan(const scans::SelectiveArgs<float>&);
template void scan(const scans::SelectiveArgs<double>&);
template void scan(const scans::SelectiveVjpArgs<float>&);
template void scan(const scans::SelectiveVjpArgs<double>&);
template void scan(const scans::AttentionArgs<float>&);
template void scan(const scans::AttentionArgs<double>&);
template void scan(const scans::AttentionVjpArgs<float>&);
template void scan(const scans::AttentionVjpArgs<double>&);
template void scan(const scans::DeltaArgs<float>&);
template void scan(const scans::DeltaArgs<double>&);
template void scan(const scans::DeltaVjpArgs<float>&);
template void scan(const scans::DeltaVjpArgs<double>&);

}  // namespace vision3d::host
