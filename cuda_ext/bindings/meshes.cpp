#include "bindings/meshes.h"
#include "cpu/meshes.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

void bind_meshes(nb::module_& m) {
    arrays::bind_meshes<CpuTarget<float, cpu::Loops>>(m);
    arrays::bind_meshes<CpuTarget<double, cpu::Loops>>(m);
}
