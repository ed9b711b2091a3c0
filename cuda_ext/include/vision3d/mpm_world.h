#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>
#include "vision3d/mpm_args.h"

// Shared by the drivers of all targets: the world as given by Python, its state at one time, and the loop over time steps.
namespace vision3d::mpm {

// Values per row of each table; stages/simulate/engines/native.py writes them in the order in which they are read below.
constexpr int MATERIAL_NUMBERS = 12, SOLID_NUMBERS = 28, FIELD_NUMBERS = 8, WIND_NUMBERS = 12, MOTION_NUMBERS = 11;

struct World {
    const double *materials, *solids, *fields, *winds, *motions;
    int num_materials, num_solids, num_fields, num_winds, num_motions;
    const float* field_values;
    double gravity[3], spacing, sound;  // sound: largest speed of pressure waves [m/s]
    int64_t size[3];
    int padding;
};

struct Report {
    int64_t steps = 0, kept = 0;
    double shortest_dt = std::numeric_limits<double>::infinity(), last_dt = 0, work = 0;
    bool is_finite = true;
};

V3D_HD void rotation_by(const double spin[3], double time, double R[9]) {
    const double rotvec[3] = {spin[0] * time, spin[1] * time, spin[2] * time};
    so3_exp(rotvec, R);
}

template <typename T>
std::vector<Material<T>> materials_of(const World& world) {
    std::vector<Material<T>> out(size_t(world.num_materials));
    for (int n = 0; n < world.num_materials; ++n) {
        const double* row = world.materials + n * MATERIAL_NUMBERS;
        out[size_t(n)] = {int(row[0]), T(row[1]), T(row[2]), T(row[3]), T(row[4]),  T(row[5]),
                          T(row[6]),   T(row[7]), T(row[8]), T(row[9]), T(row[10]), T(row[11])};
    }
    return out;
}

template <typename T>
V3D_HD Solid<T> solid_at(const World& world, const double* row, double age) {
    Solid<T> out{};
    out.shape = int(row[0]);
    out.contact = int(row[1]);
    out.hollow = int(row[2]);
    out.friction = T(row[3]);
    out.radius = T(row[4]);
    double turn[9], own[9], quat[4];
    rotation_by(row + 17, age, turn);
    for (int k = 0; k < 3; ++k) {
        out.velocity[k] = T(row[14 + k]);
        out.center[k] = T(row[5 + k] + age * row[14 + k]);
        out.half_size[k] = T(row[11 + k]);
        out.spin[k] = T(row[17 + k]);
    }
    if (out.shape == PLANE) {
        for (int i = 0; i < 3; ++i) out.axes[i] = T(turn[3 * i] * row[8] + turn[3 * i + 1] * row[9] + turn[3 * i + 2] * row[10]);
        return out;
    }
    for (int k = 0; k < 4; ++k) quat[k] = row[20 + k];
    quat_to_rotmat(quat, own);
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            out.axes[3 * i + j] = T(turn[3 * i] * own[j] + turn[3 * i + 1] * own[3 + j] + turn[3 * i + 2] * own[6 + j]);
    if (out.shape == FIELD) {
        const double* field = world.fields + int(row[26]) * FIELD_NUMBERS;
        out.field.values = world.field_values + int64_t(field[0]);
        for (int k = 0; k < 3; ++k) {
            out.field.size[k] = int64_t(field[1 + k]);
            out.field.origin[k] = T(field[4 + k]);
        }
        out.field.inverse_spacing = T(1 / field[7]);
    }
    return out;
}

V3D_HD bool solid_is_on(const World& world, int n, double time) {
    const double* row = world.solids + n * SOLID_NUMBERS;
    return row[24] <= time && time < row[25];
}

// Sets the time-dependent values.
template <typename T>
V3D_HD void set_time(const World& world, double time, double dt, Step<T>& step) {
    step.dt = T(dt);
    step.num_solids = step.num_winds = 0;
    for (int n = 0; n < world.num_solids; ++n) {
        const double* row = world.solids + n * SOLID_NUMBERS;
        if (solid_is_on(world, n, time)) step.solids[step.num_solids++] = solid_at<T>(world, row, time - row[24]);
    }
    for (int n = 0; n < world.num_winds; ++n) {
        const double* row = world.winds + n * WIND_NUMBERS;
        if (!(row[10] <= time && time < row[11])) continue;
        Wind<T>& wind = step.winds[step.num_winds++];
        for (int k = 0; k < 3; ++k) {
            wind.velocity[k] = T(row[k]);
            wind.low[k] = T(row[4 + k]);
            wind.high[k] = T(row[7 + k]);
        }
        wind.share = T(-std::expm1(-row[3] * dt));
    }
    step.num_leads = 0;
    for (int n = 0; n < world.num_motions; ++n) {
        const double* row = world.motions + n * MOTION_NUMBERS;
        Lead<T>& led = step.leads[n];
        led.is_on = row[9] <= time && time < row[10];
        if (!led.is_on) continue;
        step.num_leads = world.num_motions;
        double turn[9];
        rotation_by(row + 3, dt, turn);
        for (int k = 0; k < 3; ++k) {
            led.velocity[k] = T(row[k]);
            led.spin[k] = T(row[3 + k]);
            led.center[k] = T(row[6 + k] + (time - row[9]) * row[k]);
            led.next_center[k] = T(row[6 + k] + (time + dt - row[9]) * row[k]);
        }
        for (int k = 0; k < 9; ++k) led.turn[k] = T(turn[k]);
    }
}

// Sets the constant values. Particles stay where all 27 nodes around them exist.
template <typename T>
void set_world(const World& world, Step<T>& step) {
    step.padding = world.padding;
    step.spacing = T(world.spacing);
    step.skipped = T(0);
    const auto materials = materials_of<T>(world);
    for (size_t n = 0; n < materials.size(); ++n) step.materials[n] = materials[n];
    for (int k = 0; k < 3; ++k) {
        step.size[k] = world.size[k];
        step.line = world.size[2] + 1;
        step.gravity[k] = T(world.gravity[k]);
        // Not exactly half a cell: multiplied by the rounded inverse of the spacing, that is too small for one spacing in seven.
        step.low[k] = T(0.5) * step.spacing * (T(1) + T(4) * std::numeric_limits<T>::epsilon());
        const T end = (T(world.size[k]) - T(1.5)) * step.spacing;
        step.high[k] = end - T(4) * std::numeric_limits<T>::epsilon() * T(world.size[k]) * step.spacing;
    }
}

// The same time, for other particles.
template <typename T>
Step<T> with_particles(const Step<T>& step, const Step<T>& particles) {
    Step<T> out = step;
    out.rows = particles.rows;
    out.stride = particles.stride;
    out.count = particles.count;
    out.body = particles.body;
    out.motion = particles.motion;
    return out;
}

// The longest stable time step: stages/simulate/world/time_step.py.
V3D_HD double stable_dt(const World& world, const Found& found) {
    const double lengths[3] = {0.5 * world.spacing, 0.4 * world.spacing, 0.5};
    const double rates[3] = {std::sqrt(found.speed2), world.sound, std::sqrt(found.gradient2)};
    double dt = HUGE_VAL;
    for (int k = 0; k < 3; ++k)
        if (rates[k] > 0 && lengths[k] / rates[k] < dt) dt = lengths[k] / rates[k];
    return dt;
}

constexpr double MAX_STEPS = 1e7;   // maximum per call
constexpr int TRACE_EVERY = 8;      // time steps between two moves of tracers
constexpr double TRACE_WAY = 0.25;  // maximum distance in cells of the fastest particle in between

// Progress of the loop over time steps. On a GPU it is in memory of the device, so that steps need not wait for the CPU.
struct Clock {
    double duration, time, max_dt;
    double done = 0, traced = 0;
    int untraced = 0;
    bool is_over = false, is_tracing = false, is_too_long = false;
    Found found{};  // of the last step; of the particles at the start
    Report report{};
};

// Begins the next time step with the longest stable dt; false at the end.
template <typename T>
V3D_HD bool begin_step(const World& world, Clock& clock, Step<T>& step) {
    Report& report = clock.report;
    const double left = clock.duration - clock.done;
    report.is_finite = clock.found.is_finite;
    clock.is_over = !report.is_finite || !(left > 1e-9 * clock.duration);
    if (clock.is_over) return false;
    const double count = std::ceil(left / std::fmin(stable_dt(world, clock.found), clock.max_dt) - 1e-9);
    clock.is_too_long = clock.is_over = !(count < MAX_STEPS);
    if (clock.is_over) return false;
    report.last_dt = left / (count > 1 ? count : 1);
    set_time(world, clock.time + clock.done, report.last_dt, step);
    return true;
}

// Ends a time step; returns whether the tracers move now, with the time since their last move as the step's dt. They use the velocity
// at their position before the last step and move with the mean over all steps, assuming it changed linearly: no lag in free fall.
template <typename T>
V3D_HD bool end_step(const World& world, Clock& clock, const Found& found, Step<T>& step) {
    Report& report = clock.report;
    const double dt = report.last_dt;
    clock.found = found;
    clock.done += dt;
    ++report.steps;
    report.kept += found.kept;
    report.work += found.work;
    report.shortest_dt = std::fmin(report.shortest_dt, dt);
    const bool is_last = !(clock.duration - clock.done > 1e-9 * clock.duration);
    const double since = clock.done - clock.traced;
    clock.is_tracing = is_last || ++clock.untraced == TRACE_EVERY || since * std::sqrt(found.speed2) > TRACE_WAY * world.spacing;
    if (!clock.is_tracing) return false;
    set_time(world, clock.time + clock.traced, since, step);
    step.skipped = T(since - dt);
    return true;
}

template <typename T>
V3D_HD void end_trace(Clock& clock, bool is_finite, Step<T>& step) {
    clock.found.is_finite = is_finite && clock.found.is_finite;
    clock.traced = clock.done;
    clock.untraced = 0;
    clock.is_tracing = false;
    step.skipped = T(0);
}

inline void check_length(const Clock& clock) {
    if (clock.is_too_long) throw std::invalid_argument("duration, max_dt: would take more than 10^7 time steps in one call");
}

// Calls substep(step) -> Found with stable steps until `duration` has passed, and trace(step) -> Found occasionally. `found` is of the
// particles at the start.
template <typename T, typename Substep, typename Trace>
Report advance(const World& world, double duration, double time, double max_dt, Found found, Step<T>& step, Substep substep, Trace trace) {
    Clock clock{duration, time, max_dt};
    clock.found = found;
    set_world(world, step);
    while (begin_step(world, clock, step))
        if (end_step(world, clock, substep(step), step)) end_trace(clock, trace(step).is_finite, step);
    check_length(clock);
    return clock.report;
}

}  // namespace vision3d::mpm
