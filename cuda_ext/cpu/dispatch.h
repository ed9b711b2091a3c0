#pragma once
#include <string>
#include <vector>
#include "cpu/adam.h"
#include "cpu/ssim.h"

namespace vision3d {

// Loops over images and parameters; see cpu/isa/images.inc.h.
template <typename T>
struct ImageKernels {
    void (*ssim_row)(const SsimImage<T>& image, int64_t row, T* scratch);
    void (*ssim_vjp_row)(const SsimImageVjp<T>& image, int64_t row, T* scratch);
    void (*adam_range)(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, const AdamFactors<T>& factors, int64_t count);
};

// The kernels that exist once an instruction set. Each set fills one table in cpu/isa/kernels.cpp.
struct Kernels {
    const char* name;
    int lanes;  // floats in a vector
    ImageKernels<float> images;
    ImageKernels<double> images64;
    bool (*finite_range)(const float* values, int64_t count);
};

// The table in use: the widest set that this processor runs, until set_isa says otherwise.
const Kernels& kernels();

// Its loops for float or double.
template <typename T>
const ImageKernels<T>& image_kernels() {
    if constexpr (sizeof(T) == sizeof(float)) return kernels().images;
    else return kernels().images64;
}

// Names of the sets that are compiled in and run here, narrowest first.
std::vector<std::string> available_isas();

// Throws std::invalid_argument with the valid names.
void set_isa(const std::string& name);

}  // namespace vision3d
