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

inline void rotation_by(const double spin[3], double time, double R[9]) {
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
Solid<T> solid_at(const World& world, const double* row, double age) {
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

// Sets the time-dependent values.
template <typename T>
void set_time(const World& world, double time, double dt, Step<T>& step) {
    step.dt = T(dt);
    step.num_solids = step.num_winds = 0;
    for (int n = 0; n < world.num_solids; ++n) {
        const double* row = world.solids + n * SOLID_NUMBERS;
        if (row[24] <= time && time < row[25]) step.solids[step.num_solids++] = solid_at<T>(world, row, time - row[24]);
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
inline double stable_dt(const World& world, const Found& found) {
    const double lengths[3] = {0.5 * world.spacing, 0.4 * world.spacing, 0.5};
    const double rates[3] = {std::sqrt(found.speed2), world.sound, std::sqrt(found.gradient2)};
    double dt = std::numeric_limits<double>::infinity();
    for (int k = 0; k < 3; ++k)
        if (rates[k] > 0 && lengths[k] / rates[k] < dt) dt = lengths[k] / rates[k];
    return dt;
}

constexpr double MAX_STEPS = 1e7;   // maximum per call
constexpr int TRACE_EVERY = 8;      // time steps between two moves of tracers
constexpr double TRACE_WAY = 0.25;  // maximum distance in cells of the fastest particle in between

// Calls substep(step) -> Found with stable steps until `duration` has passed, and trace(step) -> Found occasionally, with the time
// since the last call as the step's dt. `found` is of the particles at the start. Tracers use the velocity at their position
// before the last step and move with the mean over all steps, assuming it changed linearly: no lag in free fall.
template <typename T, typename Substep, typename Trace>
Report advance(const World& world, double duration, double time, double max_dt, Found found, Step<T>& step, Substep substep, Trace trace) {
    Report report;
    set_world(world, step);
    double done = 0, traced = 0;
    int untraced = 0;
    while (duration - done > 1e-9 * duration) {
        report.is_finite = found.is_finite;
        if (!report.is_finite) return report;
        const double left = duration - done, longest = std::fmin(stable_dt(world, found), max_dt);
        const double count = std::ceil(left / longest - 1e-9);
        if (!(count < MAX_STEPS)) throw std::invalid_argument("duration, max_dt: would take more than 10^7 time steps in one call");
        const double dt = left / (count > 1 ? count : 1);
        set_time(world, time + done, dt, step);
        found = substep(step);
        done += dt;
        ++report.steps;
        report.kept += found.kept;
        report.work += found.work;
        report.last_dt = dt;
        report.shortest_dt = std::fmin(report.shortest_dt, dt);
        const bool is_last = !(duration - done > 1e-9 * duration);
        if (is_last || ++untraced == TRACE_EVERY || (done - traced) * std::sqrt(found.speed2) > TRACE_WAY * world.spacing) {
            set_time(world, time + traced, done - traced, step);
            step.skipped = T(done - traced - dt);
            found.is_finite = trace(step).is_finite && found.is_finite;
            step.skipped = T(0);
            traced = done;
            untraced = 0;
        }
    }
    report.is_finite = found.is_finite;
    return report;
}

}  // namespace vision3d::mpm
