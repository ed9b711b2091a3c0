#include "bindings/meshes.h"
#include "cpu/meshes.h"
#include "cuda/host_meshes.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

void bind_meshes(nb::module_& m) {
    arrays::bind_meshes<CpuTarget<float, cpu::Loops>>(m);
    arrays::bind_meshes<CpuTarget<double, cpu::Loops>>(m);
    bind_draw_mesh<CpuTarget<float, cpu::Loops>>(m);
    bind_draw_mesh<CpuTarget<double, cpu::Loops>>(m);
    nb::module_ bodies = nb::borrow<nb::module_>(m.attr("kernel_bodies"));
    arrays::bind_meshes<CpuTarget<float, host::Host>>(bodies);
    arrays::bind_meshes<CpuTarget<double, host::Host>>(bodies);
}
