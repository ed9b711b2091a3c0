#pragma once
#include "cuda/launch.h"
#include "vision3d/scans_args.h"

namespace vision3d::cuda {

template <typename T> void selective(const Stream& where, const scans::SelectiveArgs<T>& args);
template <typename T> void selective_vjp(const Stream& where, const scans::SelectiveVjpArgs<T>& args);
template <typename T> void attention(const Stream& where, const scans::AttentionArgs<T>& args);
template <typename T> void attention_vjp(const Stream& where, const scans::AttentionVjpArgs<T>& args);
template <typename T> void delta(const Stream& where, const scans::DeltaArgs<T>& args);
template <typename T> void delta_vjp(const Stream& where, const scans::DeltaVjpArgs<T>& args);

}  // namespace vision3d::cuda
