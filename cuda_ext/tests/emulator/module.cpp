#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "bindings/splats.h"
#include "emulator.h"

// The bindings of the CUDA kernels, for tensors on the CPU: the same functions as vision3d._native has for tensors on a GPU.
namespace nb = nanobind;
void bind_cuda(nb::module_& m);
namespace vision3d::cuda {
void run_faulty(const std::string& name);
}

NB_MODULE(_emulated, m) {
    vision3d::arrays::bind_camera(m);
    vision3d::arrays::bind_constants(m);
    bind_cuda(m);
    m.def("run_faulty", &vision3d::cuda::run_faulty, nb::arg("name"), "Run a kernel of faulty.cu.");
    m.def("launches", &emulator::launches, "Number of kernels launched so far.");
}
