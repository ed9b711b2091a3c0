// Linear recurrences over the rows of groups, LANES channels or values at a time. Compiled once per instruction set.
//
// A task goes through the tokens of a group one after the other, with a block of rows of the state in registers: two or three
// multiply-adds for each element of the state and token, which matrix products over chunks of tokens need, too. The backward pass
// goes from the last chunk of tokens to the first and recomputes the states of a chunk from the kept one in front of it.
#include "cpu/isa/heads.inc.h"
#include "cpu/isa/layers.inc.h"
#include "cpu/isa/scans_attention.inc.h"
#include "cpu/isa/scans_delta.inc.h"
#include "cpu/isa/scans_selective.inc.h"
#include "cpu/scan_loops.h"

namespace vision3d::V3D_ISA {

const scans::Loops& scan_table() {
    static const scans::Loops loops = {selective, selective_vjp, attention, attention_vjp, delta_rule, delta_rule_vjp};
    return loops;
}

const layers::Loops& layer_table() {
    static const layers::Loops loops = {norm_rows,     norm_vjp_rows,  conv_rows,   conv_weights_rows, gate_rows,
                                        gate_vjp_rows, softplus_range, attend_head, attend_head_vjp};
    return loops;
}

}  // namespace vision3d::V3D_ISA
