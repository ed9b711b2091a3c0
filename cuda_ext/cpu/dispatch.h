#pragma once
#include <cstdint>
#include <string>
#include <vector>
#include "cpu/surfels.h"

namespace vision3d {

// The kernels that exist once an instruction set. Each set fills one table in cpu/isa/kernels.cpp.
struct Kernels {
    const char* name;
    int lanes;  // floats in a vector

    // Gaussians [begin, end) of one image; the backward also gives the sum over them of the camera's gradient.
    void (*project)(const ProjectArgs&, int64_t image, int64_t begin, int64_t end);
    void (*project_vjp)(const ProjectVjpArgs&, int64_t image, int64_t begin, int64_t end, float* v_view);
    // Visible pairs [begin, end), all of one image.
    void (*sh_colors)(const ShArgs&, int64_t image, int64_t begin, int64_t end, float* v_center);
    void (*sh_colors_vjp)(const ShArgs&, int64_t image, int64_t begin, int64_t end, float* v_center);
    // One tile, counted over all images.
    void (*blend)(const BlendArgs&, int64_t tile);
    void (*blend_vjp)(const BlendVjpArgs&, int64_t tile);

    // The same for 2D Gaussians.
    void (*project_discs)(const DiscArgs&, int64_t image, int64_t begin, int64_t end);
    void (*project_discs_vjp)(const DiscVjpArgs&, int64_t image, int64_t begin, int64_t end, float* v_view);
    void (*blend_discs)(const DiscBlendArgs&, int64_t tile);
    void (*blend_discs_vjp)(const DiscBlendVjpArgs&, int64_t tile);
};

// The table in use: the widest set that this processor runs, until set_isa says otherwise.
const Kernels& kernels();

// Names of the sets that are compiled in and run here, narrowest first.
std::vector<std::string> available_isas();

// Throws std::invalid_argument with the valid names.
void set_isa(const std::string& name);

}  // namespace vision3d
