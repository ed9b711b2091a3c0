#include "bindings/scans.h"
#include "cpu/scans.h"
#include "cuda/host_scans.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Vectors {
    template <typename W>
    static void selective(const W&, const scans::SelectiveArgs<float>& args) {
        cpu::selective(args);
    }
    template <typename W>
    static void selective_vjp(const W&, const scans::SelectiveVjpArgs<float>& args) {
        cpu::selective_vjp(args);
    }
    template <typename W>
    static void attention(const W&, const scans::AttentionArgs<float>& args) {
        cpu::attention(args);
    }
    template <typename W>
    static void attention_vjp(const W&, const scans::AttentionVjpArgs<float>& args) {
        cpu::attention_vjp(args);
    }
    template <typename W>
    static void delta(const W&, const scans::DeltaArgs<float>& args) {
        cpu::delta(args);
    }
    template <typename W>
    static void delta_vjp(const W&, const scans::DeltaVjpArgs<float>& args) {
        cpu::delta_vjp(args);
    }
};

// The bodies of the CUDA kernels, one thread after the other.
struct Shim {
    template <typename W, typename T>
    static void selective(const W&, const scans::SelectiveArgs<T>& args) {
        host::selective(args);
    }
    template <typename W, typename T>
    static void selective_vjp(const W&, const scans::SelectiveVjpArgs<T>& args) {
        host::selective_vjp(args);
    }
    template <typename W, typename T>
    static void attention(const W&, const scans::AttentionArgs<T>& args) {
        host::attention(args);
    }
    template <typename W, typename T>
    static void attention_vjp(const W&, const scans::AttentionVjpArgs<T>& args) {
        host::attention_vjp(args);
    }
    template <typename W, typename T>
    static void delta(const W&, const scans::DeltaArgs<T>& args) {
        host::delta(args);
    }
    template <typename W, typename T>
    static void delta_vjp(const W&, const scans::DeltaVjpArgs<T>& args) {
        host::delta_vjp(args);
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
