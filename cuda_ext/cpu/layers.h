#pragma once
#include "vision3d/layers_args.h"

// Layers of sequence operators on all cores; bitwise equal for any number of threads.
namespace vision3d::cpu {

void rms_norm(const layers::NormArgs& args);
void rms_norm_vjp(const layers::NormVjpArgs& args);
void group_conv(const layers::ConvArgs& args);
void group_conv_weights(const layers::ConvWeightsArgs& args);
void silu_gate(const layers::GateArgs& args);
void silu_gate_vjp(const layers::GateVjpArgs& args);
void softplus(const layers::SoftplusArgs& args);
void attend(const layers::HeadArgs& args);
void attend_vjp(const layers::HeadVjpArgs& args);

}  // namespace vision3d::cpu
