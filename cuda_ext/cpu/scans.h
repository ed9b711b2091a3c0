#pragma once
#include "vision3d/scans_args.h"

// Linear recurrences on all cores: a task is a group and a block of channels, or a group and a head. Bitwise equal for any number of
// threads.
namespace vision3d::cpu {

void scan(const scans::SelectiveArgs<float>& args);
void scan(const scans::SelectiveVjpArgs<float>& args);
void scan(const scans::AttentionArgs<float>& args);
void scan(const scans::AttentionVjpArgs<float>& args);
void scan(const scans::DeltaArgs<float>& args);
void scan(const scans::DeltaVjpArgs<float>& args);

}  // namespace vision3d::cpu
