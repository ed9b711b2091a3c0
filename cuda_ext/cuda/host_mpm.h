#pragma once
#include "vision3d/mpm_world.h"

// The bodies of the GPU kernels on a CPU, one particle after the other: the float64 implementation, compared by tests with the
// vector loops. `step` and `tracers` have rows and ids, `step` also the grid.
namespace vision3d::host {

template <typename T>
mpm::Report mpm_advance(mpm::Step<T>& step, mpm::Step<T>& tracers, const mpm::World& world, double duration, double time, double max_dt);
template <typename T> double mpm_elastic_energy(mpm::Step<T>& step, const mpm::World& world, double last_dt);

}  // namespace vision3d::host
