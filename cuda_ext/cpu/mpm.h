#pragma once
#include <cstdint>
#include "vision3d/mpm_world.h"

namespace vision3d::cpu {

// Particles in the layout of the loops; every call may change their order, tracked by ids.
struct Particles {
    float* rows;   // (mpm::ROWS, stride)
    int32_t* ids;  // (3, stride): body, motion, number
    int64_t stride, count;
    float* grid;  // see mpm::Step
    float* lacking;
};

// Simulates particles for `duration` seconds, including tracers, which have no mass.
mpm::Report mpm_advance(const Particles& particles, const Particles& tracers, const mpm::World& world, double duration, double time,
                        double max_dt);

// Elastic energy in the middle of the last step, of `last_dt` seconds [J].
double mpm_elastic_energy(const Particles& particles, const mpm::World& world, double last_dt);

}  // namespace vision3d::cpu
