#include "bindings/skin.h"
#include "cpu/skin.h"
#include "cuda/host_skin.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Vectors {
    template <typename W>
    static void forward(const W&, const skin::Args<float>& args, int mode) {
        cpu::skin_vertices(args, mode);
    }
    template <typename W>
    static void vjp(const W&, const skin::VjpArgs<float>& args, int mode) {
        cpu::skin_vertices_vjp(args, mode);
    }
};

// The bodies of the CUDA kernels, one thread after the other.
struct Shim {
    template <typename W, typename T>
    static void forward(const W&, const skin::Args<T>& args, int mode) {
        host::skin_vertices(args, mode);
    }
    template <typename W, typename T>
    static void vjp(const W&, const skin::VjpArgs<T>& args, int mode) {
        host::skin_vertices_vjp(args, mode);
    }
};

}  // namespace

void bind_skin(nb::module_& m) {
    bind_skin<CpuTarget<float>, Vectors>(m);
    bind_skin<CpuTarget<double>, Shim>(m);
    nb::module_ bodies = nb::borrow<nb::module_>(m.attr("kernel_bodies"));
    bind_skin<CpuTarget<float>, Shim>(bodies);
    bind_skin<CpuTarget<double>, Shim>(bodies);
}
