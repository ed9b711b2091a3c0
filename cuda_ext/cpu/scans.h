#pragma once
#include "vision3d/scans_args.h"

// Linear recurrences on all cores: a task is a group and a block of channels, or a group and a head. Bitwise equal for any number of
// threads.
namespace vision3d::cpu {

void selective(const scans::SelectiveArgs<float>& args);
void selective_vjp(const scans::SelectiveVjpArgs<float>& args);
void attention(const scans::AttentionArgs<float>& args);
void attention_vjp(const scans::AttentionVjpArgs<float>& args);
void delta(const scans::DeltaArgs<float>& args);
void delta_vjp(const scans::DeltaVjpArgs<float>& args);

}  // namespace vision3d::cpu
