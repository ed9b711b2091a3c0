#include "bindings/cuda.h"
#include "bindings/scans.h"
#include "cuda/scans.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Gpu {
    template <typename W, typename T>
    static void selective(const W& target, const scans::SelectiveArgs<T>& args) {
        cuda::selective(target.where, args);
    }
    template <typename W, typename T>
    static void selective_vjp(const W& target, const scans::SelectiveVjpArgs<T>& args) {
        cuda::selective_vjp(target.where, args);
    }
    template <typename W, typename T>
    static void attention(const W& target, const scans::AttentionArgs<T>& args) {
        cuda::attention(target.where, args);
    }
    template <typename W, typename T>
    static void attention_vjp(const W& target, const scans::AttentionVjpArgs<T>& args) {
        cuda::attention_vjp(target.where, args);
    }
    template <typename W, typename T>
    static void delta(const W& target, const scans::DeltaArgs<T>& args) {
        cuda::delta(target.where, args);
    }
    template <typename W, typename T>
    static void delta_vjp(const W& target, const scans::DeltaVjpArgs<T>& args) {
        cuda::delta_vjp(target.where, args);
    }
};

}  // namespace

void bind_scans_cuda(nb::module_& m) {
    bind_scans<CudaTarget<float>, Gpu>(m);
    bind_scans<CudaTarget<double>, Gpu>(m);
}
