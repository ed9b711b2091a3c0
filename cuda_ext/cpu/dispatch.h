#pragma once
#include <cstdint>
#include <string>
#include <vector>
#include "cpu/adam.h"
#include "cpu/mesh_tile.h"
#include "cpu/mpm_loops.h"
#include "cpu/scan_loops.h"
#include "cpu/ssim.h"
#include "vision3d/args.h"
#include "vision3d/expansion.h"
#include "vision3d/group_kernel.h"
#include "vision3d/layers_args.h"
#include "vision3d/row_ops.h"
#include "vision3d/skin_args.h"
#include "vision3d/sparse.h"

namespace vision3d {

// Loops over images and parameters; see cpu/isa/images.inc.h.
template <typename T>
struct ImageKernels {
    void (*ssim_row)(const SsimImage<T>& image, int64_t row, T* scratch);
    void (*ssim_vjp_row)(const SsimImageVjp<T>& image, int64_t row, T* scratch);
    void (*adam_range)(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, const AdamFactors<T>& factors, int64_t count);
};

// A row operation on rows [begin, end).
struct RowKernels {
    void (*forward)(const float* in, float* out, int64_t begin, int64_t end);
    void (*vjp)(const float* in, const float* out, const float* v_out, float* v_in, int64_t begin, int64_t end);
};

// Submanifold convolution of voxels [begin, end), with rows of weights and outputs of `stride` numbers.
template <typename T>
struct SparseKernels {
    void (*conv)(const sparse::ConvArgs<T>&, const T* weights, T* out, int64_t stride, int64_t begin, int64_t end);
    void (*conv_weights)(const sparse::ConvWeightsArgs<T>&, const T* v_out, T* v_weights, int64_t stride, int64_t begin, int64_t end);
};

// Kernels compiled once per instruction set. Each set fills one table in cpu/isa/kernels.cpp.
struct Kernels {
    const char* name;
    int lanes;  // floats in a vector

    // Gaussians [begin, end) of one image; the backward pass also returns the sum of the camera's gradient over them.
    void (*project)(const ProjectArgs<float>&, int64_t image, int64_t begin, int64_t end);
    void (*project_vjp)(const ProjectVjpArgs<float>&, int64_t image, int64_t begin, int64_t end, float* v_view);
    // Visible pairs [begin, end), all of one image.
    void (*sh_colors)(const ShArgs<float>&, int64_t image, int64_t begin, int64_t end, float* v_center);
    void (*sh_colors_vjp)(const ShArgs<float>&, int64_t image, int64_t begin, int64_t end, float* v_center);
    // One tile, counted over all images.
    void (*blend)(const BlendArgs<float>&, int64_t tile);
    void (*blend_vjp)(const BlendVjpArgs<float>&, int64_t tile);

    // The same for 2D Gaussians.
    void (*project_2dgs)(const Project2dgsArgs<float>&, int64_t image, int64_t begin, int64_t end);
    void (*project_2dgs_vjp)(const Project2dgsVjpArgs<float>&, int64_t image, int64_t begin, int64_t end, float* v_view);
    void (*blend_2dgs)(const Blend2dgsArgs<float>&, int64_t tile);
    void (*blend_2dgs_vjp)(const Blend2dgsVjpArgs<float>&, int64_t tile);

    ImageKernels<float> images;
    ImageKernels<double> images64;
    // Pairs of samples [begin, end) of a kernel on a group, from transposed weights.
    void (*group_kernel)(const GroupKernelArgs<float>&, const float* const* weights, const float* const* biases, int64_t begin,
                         int64_t end);
    void (*group_kernel64)(const GroupKernelArgs<double>&, const double* const* weights, const double* const* biases, int64_t begin,
                           int64_t end);
    // Columns [first, first + columns) of the samples of an image.
    void (*expansion)(const expansion::Args<float>&, int64_t image, int64_t first, int64_t columns);
    void (*expansion64)(const expansion::Args<double>&, int64_t image, int64_t first, int64_t columns);
    RowKernels rows[rows::COUNT];
    SparseKernels<float> sparse;
    SparseKernels<double> sparse64;
    // Vertices [begin, end) in all poses; the backward pass adds to v_rows, which belongs to this range.
    void (*skin_vertices)(const skin::Args<float>&, int mode, int64_t begin, int64_t end);
    void (*skin_vertices_vjp)(const skin::VjpArgs<float>&, int mode, int64_t begin, int64_t end, float* v_rows);
    bool (*finite_range)(const float* values, int64_t count);
    MeshKernels meshes;
    mpm::Loops mpm;
    scans::Loops scans;
    layers::Loops layers;
};

// The table in use: the widest set supported by this CPU, unless changed by set_isa.
const Kernels& kernels();

// Its loops for float or double.
template <typename T>
const ImageKernels<T>& image_kernels() {
    if constexpr (sizeof(T) == sizeof(float))
        return kernels().images;
    else
        return kernels().images64;
}

template <typename T>
const SparseKernels<T>& sparse_kernels() {
    if constexpr (sizeof(T) == sizeof(float))
        return kernels().sparse;
    else
        return kernels().sparse64;
}

template <typename T>
auto group_kernel_loop() {
    if constexpr (sizeof(T) == sizeof(float))
        return kernels().group_kernel;
    else
        return kernels().group_kernel64;
}

template <typename T>
auto expansion_loop() {
    if constexpr (sizeof(T) == sizeof(float))
        return kernels().expansion;
    else
        return kernels().expansion64;
}

// Names of the sets that are compiled in and supported here, narrowest first.
std::vector<std::string> available_isas();

// Throws std::invalid_argument with the valid names.
void set_isa(const std::string& name);

}  // namespace vision3d
