// Compiled once per instruction set, with V3D_ISA as the name of its namespace.
#include "cpu/dispatch.h"
#include "cpu/isa/blend.inc.h"
#include "cpu/isa/expansion.inc.h"
#include "cpu/isa/group_kernel.inc.h"
#include "cpu/isa/images.inc.h"
#include "cpu/isa/project.inc.h"
#include "cpu/isa/rows.inc.h"
#include "cpu/isa/simd.h"
#include "cpu/isa/skin.inc.h"
#include "cpu/isa/sparse.inc.h"
#include "cpu/isa/blend_2dgs.inc.h"

#define V3D_STRING_(x) #x
#define V3D_STRING(x) V3D_STRING_(x)

namespace vision3d::V3D_ISA {

const MeshKernels& mesh_table();   // meshes.cpp
const mpm::Loops& mpm_table();     // mpm.cpp
const scans::Loops& scan_table();  // scans.cpp
const layers::Loops& layer_table();

const Kernels& table() {
    static const Kernels kernels = [] {
        Kernels k{};
        k.name = V3D_STRING(V3D_ISA);
        k.lanes = simd::LANES;
        k.project = project;
        k.project_vjp = project_vjp;
        k.sh_colors = sh_colors<false>;
        k.sh_colors_vjp = sh_colors<true>;
        k.blend = blend_any;
        k.blend_vjp = blend_any_vjp;
        k.project_2dgs = project_2dgs;
        k.project_2dgs_vjp = project_2dgs_vjp;
        k.blend_2dgs = blend_2dgs;
        k.blend_2dgs_vjp = blend_2dgs_vjp;
        k.images = {ssim_row<float>, ssim_vjp_row<float>, adam_range<float>};
        k.images64 = {ssim_row<double>, ssim_vjp_row<double>, adam_range<double>};
        k.group_kernel = group_kernel<float>;
        k.group_kernel64 = group_kernel<double>;
        rows::for_each([&](int index, auto op) { k.rows[index] = {rows_forward<decltype(op)>, rows_vjp<decltype(op)>}; });
        k.sparse = {submanifold_conv<float>, submanifold_conv_weights<float>};
        k.sparse64 = {submanifold_conv<double>, submanifold_conv_weights<double>};
        k.expansion = sampled_expansion<float>;
        k.expansion64 = sampled_expansion<double>;
        k.skin_vertices = skin_vertices;
        k.skin_vertices_vjp = skin_vertices_vjp;
        k.finite_range = finite_range;
        k.meshes = mesh_table();
        k.mpm = mpm_table();
        k.scans = scan_table();
        k.layers = layer_table();
        return k;
    }();
    return kernels;
}

}  // namespace vision3d::V3D_ISA
