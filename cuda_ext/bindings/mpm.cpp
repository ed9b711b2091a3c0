#include "bindings/mpm.h"
#include "cpu/mpm.h"
#include "cuda/host_mpm.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

cpu::Particles particles_of(const mpm::Step<float>& step) {
    return {step.rows, const_cast<int32_t*>(step.body), step.stride, step.count, step.grid, step.lacking};
}

struct Vectors {
    template <typename W>
    static mpm::Report advance(const W&, mpm::Step<float>& step, mpm::Step<float>& tracers, const mpm::World& world, double duration,
                               double time, double max_dt, uint8_t*) {
        return cpu::mpm_advance(particles_of(step), particles_of(tracers), world, duration, time, max_dt);
    }
    template <typename W>
    static double energy(const W&, mpm::Step<float>& step, const mpm::World& world, double last_dt, uint8_t*) {
        return cpu::mpm_elastic_energy(particles_of(step), world, last_dt);
    }
    template <typename W, typename T>
    static int64_t scratch(const W&, const mpm::Step<T>&) {
        return 0;
    }
};

// The bodies of the CUDA kernels, one thread after the other.
struct Shim {
    template <typename W, typename T>
    static mpm::Report advance(const W&, mpm::Step<T>& step, mpm::Step<T>& tracers, const mpm::World& world, double duration, double time,
                               double max_dt, uint8_t*) {
        return host::mpm_advance(step, tracers, world, duration, time, max_dt);
    }
    template <typename W, typename T>
    static double energy(const W&, mpm::Step<T>& step, const mpm::World& world, double last_dt, uint8_t*) {
        return host::mpm_elastic_energy(step, world, last_dt);
    }
    template <typename W, typename T>
    static int64_t scratch(const W&, const mpm::Step<T>&) {
        return 0;
    }
};

}  // namespace

void bind_mpm(nb::module_& m) {
    bind_mpm<CpuTarget<float>, Vectors>(m);
    bind_mpm<CpuTarget<double>, Shim>(m);
    nb::module_ bodies = nb::borrow<nb::module_>(m.attr("kernel_bodies"));
    bind_mpm<CpuTarget<float>, Shim>(bodies);
    bind_mpm<CpuTarget<double>, Shim>(bodies);
}
