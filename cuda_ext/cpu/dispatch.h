#pragma once
#include <string>
#include <vector>

namespace vision3d {

// The kernels that exist once an instruction set. Each set fills one table in cpu/isa/kernels.cpp.
struct Kernels {
    const char* name;
    int lanes;  // floats in a vector
};

// The table in use: the widest set that this processor runs, until set_isa says otherwise.
const Kernels& kernels();

// Names of the sets that are compiled in and run here, narrowest first.
std::vector<std::string> available_isas();

// Throws std::invalid_argument with the valid names.
void set_isa(const std::string& name);

}  // namespace vision3d
