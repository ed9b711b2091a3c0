#pragma once
#include "vision3d/mpm_args.h"

namespace vision3d::mpm {

// Loops over sorted particles [begin, end), all of one body; see cpu/isa/mpm.cpp.
struct Loops {
    void (*particles_to_grid[LAWS])(const Step<float>&, const Material<float>&, int64_t begin, int64_t end);
    void (*friction_to_grid)(const Step<float>&, float lacking, int64_t begin, int64_t end);  // mass times `lacking`
    void (*deform)(const Step<float>&, int64_t begin, int64_t end);                           // by their C; for tracers
    void (*grid_to_particles)(const Step<float>&, bool rests, int64_t begin, int64_t end, Found& found);
    double (*elastic_energy[LAWS])(const Step<float>&, const Material<float>&, int64_t begin, int64_t end, float ahead);
};

}  // namespace vision3d::mpm
