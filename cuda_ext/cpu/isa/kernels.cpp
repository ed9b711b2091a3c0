// Compiled once an instruction set, with V3D_ISA as the name of its namespace.
#include "cpu/dispatch.h"
#include "cpu/isa/blend.inc.h"
#include "cpu/isa/project.inc.h"
#include "cpu/isa/simd.h"

#define V3D_STRING_(x) #x
#define V3D_STRING(x) V3D_STRING_(x)

namespace vision3d::V3D_ISA {

const Kernels& table() {
    static constexpr Kernels kernels{V3D_STRING(V3D_ISA), simd::LANES,      project,        project_vjp,
                                     sh_colors<false>,    sh_colors<true>, blend_forward, blend_backward};
    return kernels;
}

}  // namespace vision3d::V3D_ISA
