#include "bindings/cuda.h"
#include "bindings/mpm.h"
#include "cuda/mpm.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Gpu {
    template <typename W, typename T>
    static mpm::Report advance(const W& target, mpm::Step<T>& step, mpm::Step<T>& tracers, const mpm::World& world, double duration,
                               double time, double max_dt, uint8_t* scratch) {
        return cuda::mpm_advance(target.where, step, tracers, world, duration, time, max_dt, scratch);
    }
    template <typename W, typename T>
    static double energy(const W& target, mpm::Step<T>& step, const mpm::World& world, double last_dt, uint8_t* scratch) {
        return cuda::mpm_elastic_energy(target.where, step, world, last_dt, scratch);
    }
    template <typename W, typename T>
    static int64_t scratch(const W& target, const mpm::Step<T>& step) {
        return cuda::mpm_scratch<T>(target.where, step.count);
    }
};

}  // namespace

void bind_mpm_cuda(nb::module_& m) {
    bind_mpm<CudaTarget<float>, Gpu>(m);
    bind_mpm<CudaTarget<double>, Gpu>(m);
}
