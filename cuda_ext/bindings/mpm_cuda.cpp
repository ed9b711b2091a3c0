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
                               double time, double max_dt) {
        return cuda::mpm_advance(target.where, step, tracers, world, duration, time, max_dt);
    }
    template <typename W, typename T>
    static double energy(const W& target, mpm::Step<T>& step, const mpm::World& world, double last_dt) {
        return cuda::mpm_elastic_energy(target.where, step, world, last_dt);
    }
};

}  // namespace

void bind_mpm_cuda(nb::module_& m) {
    bind_mpm<CudaTarget<float>, Gpu>(m);
    bind_mpm<CudaTarget<double>, Gpu>(m);
}
