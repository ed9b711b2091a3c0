#pragma once
#include "vision3d/scans_args.h"

// The bodies of the GPU kernels on a CPU, one thread after the other: the float64 implementation, compared by tests with the vector
// loops.
namespace vision3d::host {

template <typename T> void selective(const scans::SelectiveArgs<T>& args);
template <typename T> void selective_vjp(const scans::SelectiveVjpArgs<T>& args);
template <typename T> void attention(const scans::AttentionArgs<T>& args);
template <typename T> void attention_vjp(const scans::AttentionVjpArgs<T>& args);
template <typename T> void delta(const scans::DeltaArgs<T>& args);
template <typename T> void delta_vjp(const scans::DeltaVjpArgs<T>& args);

}  // namespace vision3d::host
