#include "cuda/host_mpm.h"

#include <algorithm>
#include <memory>
#include "cuda/kernels/mpm.h"

namespace vision3d::host {
namespace {

// A kernel with blocks of `threads` for `count` values.
template <typename Body>
void launch_blocks(int64_t count, int threads, Body body) {
    for (int64_t block = 0; block * threads < count; ++block) body(Block{block, threads});
}

constexpr int THREADS = 256;

}  // namespace

template <typename T>
mpm::Report mpm_advance(mpm::Step<T>& step, mpm::Step<T>& tracers, const mpm::World& world, double duration, double time, double max_dt) {
    mpm::set_world(world, step);
    const auto staged = std::make_unique<bodies::StagedParticles<T>>();
    const int64_t nodes = step.size[0] * step.size[1] * step.line;
    const auto substep = [&](mpm::Step<T>& now) {
        bodies::Totals totals{};
        std::fill(now.grid, now.grid + 4 * nodes, T(0));
        if (now.lacking) std::fill(now.lacking, now.lacking + nodes, T(0));
        launch_blocks(now.count, bodies::P2G_THREADS, [&](const Block& block) { bodies::particles_to_grid(block, now, *staged); });
        launch_blocks(nodes, THREADS, [&](const Block& block) { bodies::grid_nodes(block, now, totals); });
        for (int solid = 0; solid < now.num_solids; ++solid) {
            int way, last;
            for (mpm::ways_of(now.solids[solid], way, last); way <= last; ++way)
                launch_blocks(nodes, THREADS, [&](const Block& block) { bodies::contact_nodes(block, now, solid, way, totals); });
        }
        launch_blocks(nodes, THREADS, [&](const Block& block) { bodies::side_nodes(block, now, totals); });
        launch_blocks(now.count, THREADS, [&](const Block& block) { bodies::grid_to_particles(block, now, totals); });
        return totals.found();
    };
    const auto trace = [&](mpm::Step<T>& now) {
        bodies::Totals totals{};
        const auto moved = std::make_unique<mpm::Step<T>>(mpm::with_particles(now, tracers));
        launch_blocks(moved->count, THREADS, [&](const Block& block) { bodies::trace_particles(block, *moved, totals); });
        return totals.found();
    };
    bodies::Totals totals{};
    launch_blocks(step.count, THREADS, [&](const Block& block) { bodies::extremes(block, step, totals); });
    return mpm::advance(world, duration, time, max_dt, totals.found(), step, substep, trace);
}

template <typename T>
double mpm_elastic_energy(mpm::Step<T>& step, const mpm::World& world, double last_dt) {
    mpm::set_world(world, step);
    step.dt = T(last_dt);
    bodies::Totals totals{};
    launch_blocks(step.count, THREADS, [&](const Block& block) { bodies::elastic_energy(block, step, totals); });
    return totals.work;
}

template mpm::Report mpm_advance(mpm::Step<float>&, mpm::Step<float>&, const mpm::World&, double, double, double);
template mpm::Report mpm_advance(mpm::Step<double>&, mpm::Step<double>&, const mpm::World&, double, double, double);
template double mpm_elastic_energy(mpm::Step<float>&, const mpm::World&, double);
template double mpm_elastic_energy(mpm::Step<double>&, const mpm::World&, double);

}  // namespace vision3d::host
