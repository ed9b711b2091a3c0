#include "bindings/scans.h"
#include "cpu/scans.h"
#include "cuda/host_scans.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Vectors {
    template <typename W, typename Args>
    static void scan(const W&, const Args& args) {
        cpu::scan(args);
    }
};

// The bodies of the CUDA kernels, one thread after the other.
struct Shim {
    template <typename W, typename Args>
    static void scan(const W&, const Args& args) {
        host::scan(args);
    }
};

}  // namespace

void bind_scans(nb::module_& m) {
    bind_scans<CpuTarget<float>, Vectors>(m);
    bind_scans<CpuTarget<double>, Shim>(m);
    nb::module_ bodies = nb::borrow<nb::module_>(m.attr("kernel_bodies"));
    bind_scans<CpuTarget<float>, Shim>(bodies);
    bind_scans<CpuTarget<double>, Shim>(bodies);
}
