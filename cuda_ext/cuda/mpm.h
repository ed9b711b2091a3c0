#pragma once
#include "cuda/launch.h"
#include "vision3d/mpm_world.h"

namespace vision3d::cuda {

// Bytes of scratch memory on the device for a world with this many particles, which the functions below take.
template <typename T> int64_t mpm_scratch(const Stream& where, int64_t count);

// As in cuda/host_mpm.h, but changes the order of the particles; rows, ids, grid and the distance fields are on the device, the other
// tables of the world are not. Waits for the device once before the first time step and once every 16 to 64.
template <typename T>
mpm::Report mpm_advance(const Stream& where, mpm::Step<T>& step, mpm::Step<T>& tracers, const mpm::World& world, double duration,
                        double time, double max_dt, uint8_t* scratch);
template <typename T>
double mpm_elastic_energy(const Stream& where, mpm::Step<T>& step, const mpm::World& world, double last_dt, uint8_t* scratch);

}  // namespace vision3d::cuda
