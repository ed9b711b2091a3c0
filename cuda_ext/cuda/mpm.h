#pragma once
#include "cuda/launch.h"
#include "vision3d/mpm_world.h"

namespace vision3d::cuda {

// As in cuda/host_mpm.h; rows, ids, grid and the distance fields are on the device, the other tables of the world are not.
template <typename T>
mpm::Report mpm_advance(const Stream& where, mpm::Step<T>& step, mpm::Step<T>& tracers, const mpm::World& world, double duration,
                        double time, double max_dt);
template <typename T> double mpm_elastic_energy(const Stream& where, mpm::Step<T>& step, const mpm::World& world, double last_dt);

}  // namespace vision3d::cuda
