#pragma once
#include "vision3d/scans_args.h"

namespace vision3d::scans {

// Loops over the tokens of one group; see cpu/isa/scans.cpp. A task is a block of channels, or a head.
struct Loops {
    void (*selective)(const SelectiveArgs<float>&, int64_t group, int64_t block);
    void (*selective_vjp)(const SelectiveVjpArgs<float>&, int64_t group, int64_t block);
    void (*attention)(const AttentionArgs<float>&, int64_t group, int64_t head);
    void (*attention_vjp)(const AttentionVjpArgs<float>&, int64_t group, int64_t head);
    void (*delta)(const DeltaArgs<float>&, int64_t group, int64_t head);
    void (*delta_vjp)(const DeltaVjpArgs<float>&, int64_t group, int64_t head);
};

}  // namespace vision3d::scans
