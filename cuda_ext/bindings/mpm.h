#pragma once
#include <nanobind/stl/tuple.h>
#include <cmath>
#include <memory>
#include <tuple>
#include <type_traits>
#include "bindings/define.h"
#include "vision3d/mpm_world.h"

// Binds mpm_advance and mpm_elastic_energy; Loops has advance and energy for target W.
namespace vision3d::arrays {

using Numbers = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

inline mpm::World world_of(const Numbers& materials, const Numbers& solids, const Numbers& fields, const Numbers& winds,
                           const Numbers& motions, const float* field_values, int64_t num_field_values, const Numbers& numbers) {
    mpm::World world{};
    const auto table = [](const char* name, const Numbers& rows, int width, const double*& data, int& count) {
        check(name, rows, {int64_t(rows.shape(0)), width});
        if (int64_t(rows.shape(0)) > mpm::MOST)
            throw std::invalid_argument(std::string(name) + ": got " + std::to_string(rows.shape(0)) + ", want at most 64");
        data = rows.data();
        count = int(rows.shape(0));
    };
    table("materials", materials, mpm::MATERIAL_NUMBERS, world.materials, world.num_materials);
    table("solids", solids, mpm::SOLID_NUMBERS, world.solids, world.num_solids);
    table("fields", fields, mpm::FIELD_NUMBERS, world.fields, world.num_fields);
    table("winds", winds, mpm::WIND_NUMBERS, world.winds, world.num_winds);
    table("motions", motions, mpm::MOTION_NUMBERS, world.motions, world.num_motions);
    world.field_values = field_values;
    check("numbers", numbers, {1, 9});
    const double* n = numbers.data();
    const auto is_count = [](double value, double low, double high) { return value >= low && value <= high && value == std::floor(value); };
    require(n[3] > 0 && n[3] < 1e300, "numbers: want a spacing of the grid > 0");
    for (int k = 5; k < 8; ++k) require(is_count(n[k], 3, 1 << 20), "numbers: want a grid of 3 to 2^20 nodes an axis");
    require(is_count(n[8], 0, 1 << 20), "numbers: want a padding of 0 to 2^20 nodes");
    for (int i = 0; i < world.num_materials; ++i)
        require(is_count(world.materials[i * mpm::MATERIAL_NUMBERS], 0, mpm::LAWS - 1),
                "materials: want a law from 0 to 8 first in each row");
    for (int i = 0; i < world.num_fields; ++i) {
        const double* row = world.fields + i * mpm::FIELD_NUMBERS;
        bool fits = is_count(row[0], 0, double(num_field_values));
        for (int k = 1; k < 4; ++k) fits = fits && is_count(row[k], 2, 1 << 20);
        require(fits && row[0] + row[1] * row[2] * row[3] <= double(num_field_values),
                "fields: want at least 2 values an axis, all of them in field_values");
    }
    for (int i = 0; i < world.num_solids; ++i) {
        const double* row = world.solids + i * mpm::SOLID_NUMBERS;
        require(is_count(row[0], 0, 3) && is_count(row[1], 0, 2),
                "solids: want a shape from 0 to 3 and a contact from 0 to 2 first in each row");
        require(row[0] != mpm::FIELD || is_count(row[26], 0, world.num_fields - 1), "solids: a mesh names a field that is not there");
    }
    for (int k = 0; k < 3; ++k) {
        world.gravity[k] = n[k];
        world.size[k] = int64_t(n[5 + k]);
    }
    world.spacing = n[3];
    world.sound = n[4];
    world.padding = int(n[8]);
    return world;
}

// Particles and grid in the layout of a step.
template <typename W, typename T = typename W::Scalar>
std::unique_ptr<mpm::Step<T>> step_of(const Out<W, 2>& rows, const Out<W, 2, int32_t>& ids, int64_t count, const Out<W, 4>& grid,
                                      const mpm::World& world, const MaybeOut<W, 3>& lacking = {}) {
    const int64_t stride = int64_t(rows.shape(1));
    constexpr int64_t LANES = 16;  // the loops read up to this many particles past the end
    if (count < 0 || count > stride - LANES)
        throw std::invalid_argument("count: got " + std::to_string(count) + ", want 0 to " + std::to_string(stride - LANES));
    auto step = std::make_unique<mpm::Step<T>>();
    step->rows = pointer("rows", rows, {mpm::ROWS, stride});
    step->stride = stride;
    step->count = count;
    int32_t* all = const_cast<int32_t*>(pointer("ids", ids, {3, stride}));
    step->body = all;
    step->motion = all + stride;
    step->grid = pointer("grid", grid, {world.size[0], world.size[1], world.size[2] + 1, 4});
    step->lacking = pointer("lacking", lacking, {world.size[0], world.size[1], world.size[2] + 1});
    mpm::set_world(world, *step);
    if constexpr (on_cpu<W>) {
        const int64_t other = cpu::find_outside(all, count, 0, world.num_materials);
        if (other >= 0)
            throw std::invalid_argument("ids: got body " + std::to_string(all[other]) + ", want 0 to " +
                                        std::to_string(world.num_materials - 1));
        for (int k = 0; k < 3; ++k) {
            const T* x = step->rows + k * stride;
            bool inside = true;
            for (int64_t p = 0; p < count; ++p) inside &= x[p] >= step->low[k] && x[p] <= step->high[k];
            require(inside, "rows: a position is outside of the grid or not finite");
        }
    }
    return step;
}

// Scratch memory of mpm_scratch bytes, none on a CPU.
template <typename W, typename Loops>
uint8_t* scratch_of(const W& target, const mpm::Step<typename W::Scalar>& step, const Out<W, 1, uint8_t>& scratch) {
    const int64_t want = Loops::scratch(target, step);
    if (int64_t(scratch.shape(0)) < want)
        throw std::invalid_argument("scratch: got " + std::to_string(scratch.shape(0)) + " bytes, want " + std::to_string(want));
    return scratch.data();
}

template <typename W, typename Loops>
void bind_mpm(nb::module_& m) {
    using Fields = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, typename W::Device>;
    define(m, "mpm_scratch", "rows count", [](Out<W, 2> rows, int64_t count, int device, uint64_t stream) {
        require(count >= 0 && count <= int64_t(rows.shape(1)), "count: want 0 to the particles in rows");
        mpm::Step<typename W::Scalar> step{};
        step.count = count;
        return Loops::scratch(W(device, stream), step);
    });
    define(m, "mpm_advance",
           "rows ids count tracer_rows tracer_ids tracer_count grid lacking materials solids fields winds motions field_values numbers "
           "duration time max_dt scratch",
           [](Out<W, 2> rows, Out<W, 2, int32_t> ids, int64_t count, Out<W, 2> tracer_rows, Out<W, 2, int32_t> tracer_ids,
              int64_t tracer_count, Out<W, 4> grid, MaybeOut<W, 3> lacking, Numbers materials, Numbers solids, Numbers fields,
              Numbers winds, Numbers motions, Fields field_values, Numbers numbers, double duration, double time, double max_dt,
              Out<W, 1, uint8_t> scratch, int device, uint64_t stream) {
        const mpm::World world = world_of(materials, solids, fields, winds, motions, field_values.data(), int64_t(field_values.shape(0)),
                                          numbers);
        require(max_dt > 0 && duration >= 0, "max_dt, duration: want max_dt > 0 and duration >= 0");
        const auto step = step_of<W>(rows, ids, count, grid, world, lacking);
        const auto tracers = step_of<W>(tracer_rows, tracer_ids, tracer_count, grid, world);
        const W target(device, stream);
        uint8_t* const memory = scratch_of<W, Loops>(target, *step, scratch);
        nb::gil_scoped_release release;
        const mpm::Report r = Loops::advance(target, *step, *tracers, world, duration, time, max_dt, memory);
        return std::make_tuple(r.steps, r.kept, r.shortest_dt, r.last_dt, r.work, r.is_finite);
    });
    define(m, "mpm_elastic_energy", "rows ids count grid materials solids fields winds motions field_values numbers last_dt scratch",
           [](Out<W, 2> rows, Out<W, 2, int32_t> ids, int64_t count, Out<W, 4> grid, Numbers materials, Numbers solids, Numbers fields,
              Numbers winds, Numbers motions, Fields field_values, Numbers numbers, double last_dt, Out<W, 1, uint8_t> scratch, int device,
              uint64_t stream) {
        const mpm::World world = world_of(materials, solids, fields, winds, motions, field_values.data(), int64_t(field_values.shape(0)),
                                          numbers);
        const auto step = step_of<W>(rows, ids, count, grid, world);
        const W target(device, stream);
        uint8_t* const memory = scratch_of<W, Loops>(target, *step, scratch);
        nb::gil_scoped_release release;
        return Loops::energy(target, *step, world, last_dt, memory);
    });
}

}  // namespace vision3d::arrays
