#include "cpu/layers.h"

#include "cpu/dispatch.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

template <typename Args>
void for_blocks(const Args& args, void (*loop)(const Args&, int64_t group, int64_t block)) {
    const int64_t blocks = (args.channels + scans::BLOCK - 1) / scans::BLOCK;
    parallel_for(args.groups.count * blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) loop(args, task / blocks, task % blocks);
    });
}

}  // namespace

void rms_norm(const layers::NormArgs& args) {
    parallel_for(args.rows, layers::NORM_ROWS, [&](int64_t begin, int64_t end) { kernels().layers.norm(args, begin, end); });
}

void rms_norm_vjp(const layers::NormVjpArgs& args) {
    parallel_for((args.rows + layers::NORM_ROWS - 1) / layers::NORM_ROWS, 1, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) kernels().layers.norm_vjp(args, block);
    });
}

void group_conv(const layers::ConvArgs& args) { for_blocks(args, kernels().layers.conv); }
void group_conv_weights(const layers::ConvWeightsArgs& args) { for_blocks(args, kernels().layers.conv_weights); }

void silu_gate(const layers::GateArgs& args) {
    parallel_for(args.rows, layers::NORM_ROWS, [&](int64_t begin, int64_t end) { kernels().layers.gate(args, begin, end); });
}

void silu_gate_vjp(const layers::GateVjpArgs& args) {
    parallel_for(args.rows, layers::NORM_ROWS, [&](int64_t begin, int64_t end) { kernels().layers.gate_vjp(args, begin, end); });
}

void softplus(const layers::SoftplusArgs& args) {
    parallel_for(args.count, 16384, [&](int64_t begin, int64_t end) { kernels().layers.softplus(args, begin, end); });
}

void attend(const layers::HeadArgs& args) {
    parallel_for(args.batch * args.heads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) kernels().layers.attend(args, task / args.heads, task % args.heads);
    });
}

void attend_vjp(const layers::HeadVjpArgs& args) {
    parallel_for(args.batch * args.heads, 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) kernels().layers.attend_vjp(args, task / args.heads, task % args.heads);
    });
}

}  // namespace vision3d::cpu
