#pragma once
#include "vision3d/scalar.h"
#include "vision3d/scans_args.h"

// Linear recurrences over the rows of a group: one step of one element of the state, forward and backward. T is a number or a
// vector of numbers. v_ is the gradient of the loss by a value.
//   selective (Mamba):    h = exp(delta A) h + (delta x) B,  y = sum_n C h + skip x
//   attention (RetNet, GLA, RWKV-6, mLSTM):  S = decay S + k v,  o = sum_k q S
//   delta (DeltaNet, gated, DeltaProduct):   S = decay S;  r = v - sum_k k S;  S = S + k beta r;  o = sum_k q S
namespace vision3d::scans {

V3D_HD int64_t token_of(const Groups& groups, int64_t group, int64_t index) {
    return groups.reverse ? groups.starts[group + 1] - 1 - index : groups.starts[group] + index;
}

V3D_HD int64_t length_of(const Groups& groups, int64_t group) { return groups.starts[group + 1] - groups.starts[group]; }

// Tokens between kept states, for tokens of several steps.
V3D_HD int64_t chunk_of(int64_t steps) { return steps < CHUNK ? CHUNK / steps : 1; }

// Kept states of all groups, and the first of a group: no division per group is needed beforehand.
V3D_HD int64_t kept_chunks(int64_t rows, int64_t groups, int64_t chunk) { return rows / chunk + groups; }
V3D_HD int64_t kept_chunk(const Groups& groups, int64_t group, int64_t chunk) { return groups.starts[group] / chunk + group; }

// Numbers of scratch of a value of a head in the backward pass of the delta rule.
V3D_HD int64_t delta_scratch(int64_t keys, int64_t steps) { return chunk_of(steps) * ((steps + 1) * keys + steps); }

V3D_HD int64_t padded(int64_t count) { return (count + BLOCK - 1) / BLOCK * BLOCK; }

constexpr float LOG2_E = 1.4426950408889634f;

// exp(delta A) for a rate A times log2(e). The order of the arguments of max keeps NaN.
template <typename T>
V3D_HD T decay_of(T delta, T rate) {
    return exp2(max(T(-126.f), delta * rate));
}
V3D_HD double decay_of(double delta, double rate) { return exp2(delta * rate); }

// The new state, which is added to the output with weight q.
template <typename T>
V3D_HD T step(T state, T decay, T key, T value, T q, T& out) {
    const T now = fma(decay, state, key * value);
    out = fma(q, now, out);
    return now;
}

}  // namespace vision3d::scans
