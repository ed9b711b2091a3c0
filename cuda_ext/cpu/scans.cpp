#include "cpu/scans.h"

#include "cpu/dispatch.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

template <typename Args>
void for_tasks(const Args& args, int64_t parts, void (*loop)(const Args&, int64_t group, int64_t part)) {
    parallel_for(args.groups.count * parts, 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) loop(args, task / parts, task % parts);
    });
}

int64_t blocks(int64_t channels) { return (channels + scans::BLOCK - 1) / scans::BLOCK; }

}  // namespace

void scan(const scans::SelectiveArgs<float>& args) { for_tasks(args, blocks(args.channels), kernels().scans.selective); }
void scan(const scans::SelectiveVjpArgs<float>& args) { for_tasks(args, blocks(args.channels), kernels().scans.selective_vjp); }
void scan(const scans::AttentionArgs<float>& args) { for_tasks(args, args.heads, kernels().scans.attention); }
void scan(const scans::AttentionVjpArgs<float>& args) { for_tasks(args, args.heads, kernels().scans.attention_vjp); }
void scan(const scans::DeltaArgs<float>& args) { for_tasks(args, args.heads, kernels().scans.delta); }
void scan(const scans::DeltaVjpArgs<float>& args) { for_tasks(args, args.heads, kernels().scans.delta_vjp); }

}  // namespace vision3d::cpu
