// Compiled once an instruction set, with V3D_ISA as the name of its namespace.
#include "cpu/dispatch.h"
#include "cpu/isa/simd.h"
#include "cpu/isa/images.inc.h"

#define V3D_STRING_(x) #x
#define V3D_STRING(x) V3D_STRING_(x)

namespace vision3d::V3D_ISA {

const Kernels& table() {
    static const Kernels kernels{V3D_STRING(V3D_ISA),
                                 simd::LANES,
                                 {ssim_row<float>, ssim_vjp_row<float>, adam_range<float>},
                                 {ssim_row<double>, ssim_vjp_row<double>, adam_range<double>},
                                 finite_range};
    return kernels;
}

}  // namespace vision3d::V3D_ISA
