#include "bindings/rows.h"
#include "cpu/rows.h"
#include "cuda/kernels/rows.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Vectors {
    template <typename Op, typename W, typename T>
    static void forward(const W&, int index, const T* in, T* out, int64_t count) {
        cpu::rows_forward<Op>(index, in, out, count);
    }
    template <typename Op, typename W, typename T>
    static void vjp(const W&, int index, const T* in, const T* out, const T* v_out, T* v_in, int64_t count) {
        cpu::rows_vjp<Op>(index, in, out, v_out, v_in, count);
    }
};

// The bodies of the CUDA kernels, one thread after the other.
struct Shim {
    template <typename Op, typename W, typename T>
    static void forward(const W&, int, const T* in, T* out, int64_t count) {
        for (int64_t i = 0; i < count; ++i) bodies::row_forward<Op>(in, out, i);
    }
    template <typename Op, typename W, typename T>
    static void vjp(const W&, int, const T* in, const T* out, const T* v_out, T* v_in, int64_t count) {
        for (int64_t i = 0; i < count; ++i) bodies::row_vjp<Op>(in, out, v_out, v_in, i);
    }
};

}  // namespace

void bind_rows(nb::module_& m) {
    bind_rows<CpuTarget<float>, Vectors>(m);
    bind_rows<CpuTarget<double>, Vectors>(m);
    nb::module_ bodies = nb::borrow<nb::module_>(m.attr("kernel_bodies"));
    bind_rows<CpuTarget<float>, Shim>(bodies);
    bind_rows<CpuTarget<double>, Shim>(bodies);
}
