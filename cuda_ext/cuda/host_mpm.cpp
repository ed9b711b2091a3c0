#include "cuda/host_mpm.h"

#include <algorithm>
#include <memory>
#include "cuda/kernels/mpm.h"

namespace vision3d::host {
namespace {

double value_of(uint64_t bits) {
    double value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

template <typename T>
mpm::Found extremes(const mpm::Step<T>& step) {
    mpm::Found found;
    for (int64_t p = 0; p < step.count; ++p) {
        T v[3], C[9];
        bodies::load_row(step, mpm::V_ROW, 3, p, v);
        bodies::load_row(step, mpm::C_ROW, 9, p, C);
        mpm::Found one;
        for (T a : v) one.speed2 += double(a) * double(a);
        for (T a : C) one.gradient2 += double(a) * double(a);
        one.is_finite = one.speed2 + one.gradient2 < 1e300;
        found.add(one);
    }
    return found;
}

}  // namespace

template <typename T>
mpm::Report mpm_advance(mpm::Step<T>& step, mpm::Step<T>& tracers, const mpm::World& world, double duration, double time, double max_dt) {
    mpm::set_world(world, step);
    const auto substep = [](mpm::Step<T>& now) {
        bodies::Totals totals{};
        const int64_t nodes = now.size[0] * now.size[1] * now.size[2];
        std::fill(now.grid, now.grid + 4 * now.size[0] * now.size[1] * now.line, T(0));
        if (now.lacking) std::fill(now.lacking, now.lacking + now.size[0] * now.size[1] * now.line, T(0));
        for (int64_t p = 0; p < now.count; ++p) bodies::particle_to_grid(now, p);
        for (int64_t n = 0; n < nodes; ++n) bodies::grid_node(now, n, totals);
        for (int solid = 0; solid < now.num_solids; ++solid) {
            int way, last;
            for (mpm::ways_of(now.solids[solid], way, last); way <= last; ++way)
                for (int64_t n = 0; n < nodes; ++n) bodies::contact_node(now, n, solid, way, totals);
        }
        for (int64_t n = 0; n < nodes; ++n) bodies::side_node(now, n, totals);
        for (int64_t p = 0; p < now.count; ++p) bodies::grid_to_particle(now, p, totals);
        return mpm::Found{totals.work, value_of(totals.speed2), value_of(totals.gradient2), totals.kept, totals.bad == 0};
    };
    const auto trace = [&](mpm::Step<T>& now) {
        bodies::Totals totals{};
        const auto moved = std::make_unique<mpm::Step<T>>(mpm::with_particles(now, tracers));
        for (int64_t p = 0; p < moved->count; ++p) bodies::trace_particle(*moved, p, totals);
        return mpm::Found{0, 0, 0, 0, totals.bad == 0};
    };
    return mpm::advance(world, duration, time, max_dt, extremes(step), step, substep, trace);
}

template <typename T>
double mpm_elastic_energy(mpm::Step<T>& step, const mpm::World& world, double last_dt) {
    mpm::set_world(world, step);
    step.dt = T(last_dt);
    double sum = 0;
    for (int64_t p = 0; p < step.count; ++p) bodies::particle_energy(step, p, sum);
    return sum;
}

template mpm::Report mpm_advance(mpm::Step<float>&, mpm::Step<float>&, const mpm::World&, double, double, double);
template mpm::Report mpm_advance(mpm::Step<double>&, mpm::Step<double>&, const mpm::World&, double, double, double);
template double mpm_elastic_energy(mpm::Step<float>&, const mpm::World&, double);
template double mpm_elastic_energy(mpm::Step<double>&, const mpm::World&, double);

}  // namespace vision3d::host
