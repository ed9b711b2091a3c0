#include "cuda/mpm.h"

#include <algorithm>
#include <memory>
#include <vector>
#include "cuda/kernels/mpm.h"
#include "cuda/splats.h"

// The loop over time steps is on the device (tick_kernel): the CPU launches the kernels of many steps, which do nothing after the end.
namespace vision3d::cuda {
namespace {

using bodies::Totals;
using mpm::Step;

// Time steps that are launched at once: until the fastest particle has moved by half a cell. Then particles are sorted again.
constexpr double MIN_STEPS = 16, MAX_STEPS = 64, DRIFT = 0.5;

// A step exceeds the size limit of kernel arguments, so it is in memory.
template <typename T>
struct OnDevice {
    Step<T> step, tracers;
    mpm::World world;
    mpm::Clock clock;
    Totals totals;
    int place_of[mpm::MOST];  // of a solid of the world among those of the step, or -1
    double tables[mpm::MOST * (mpm::SOLID_NUMBERS + mpm::FIELD_NUMBERS + mpm::WIND_NUMBERS + mpm::MOTION_NUMBERS)];
};

template <typename T>
__global__ void __launch_bounds__(THREADS) extremes_kernel(OnDevice<T>* all) {
    bodies::extremes(Block(), all->step, all->totals);
}

// Between two time steps, with tracers in two parts: ends the last step; ends the move of the tracers and begins the next step.
template <typename T>
__global__ void tick_kernel(OnDevice<T>* all, bool is_first, bool ends, bool begins) {
    mpm::Clock& clock = all->clock;
    if (clock.is_over) return;
    if (is_first) clock.found = all->totals.found();
    if (ends) mpm::end_step(all->world, clock, all->totals.found(), all->step);
    if (ends && clock.is_tracing && !begins) {
        Step<T>& to = all->tracers;
        to.dt = all->step.dt;
        to.skipped = all->step.skipped;
        to.num_leads = all->step.num_leads;
        for (int n = 0; n < to.num_leads; ++n) to.leads[n] = all->step.leads[n];
    }
    if (begins) {
        if (clock.is_tracing) mpm::end_trace(clock, ends || all->totals.bad == 0, all->step);
        mpm::begin_step(all->world, clock, all->step);
        for (int n = 0, place = 0; n < all->world.num_solids; ++n)
            all->place_of[n] = mpm::solid_is_on(all->world, n, clock.time + clock.done) ? place++ : -1;
    }
    all->totals = Totals{};
}

template <typename T>
__global__ void __launch_bounds__(THREADS) first_nodes_kernel(const OnDevice<T>* all, uint32_t* keys, int32_t* order) {
    const int64_t p = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (p >= all->step.count) return;
    keys[p] = bodies::first_node(all->step, p);
    order[p] = int32_t(p);
}

// to[row][p] = from[row][order[p]], or [p] without an order.
template <typename T>
__global__ void __launch_bounds__(THREADS)
    move_rows_kernel(int64_t count, int rows, const int32_t* order, const T* from, int64_t from_stride, T* to, int64_t to_stride) {
    const int64_t p = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (p >= count) return;
    const int64_t source = order ? order[p] : p;
    for (int row = 0; row < rows; ++row) to[row * to_stride + p] = from[row * from_stride + source];
}

template <typename T>
__global__ void __launch_bounds__(bodies::P2G_THREADS) particles_to_grid_kernel(OnDevice<T>* all) {
    V3D_SHARED(bodies::StagedParticles<T>, staged);
    if (!all->clock.is_over) bodies::particles_to_grid(Block(), all->step, staged);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) grid_kernel(OnDevice<T>* all) {
    if (!all->clock.is_over) bodies::grid_nodes(Block(), all->step, all->totals);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) contact_kernel(OnDevice<T>* all, int solid, int way) {
    const int place = all->place_of[solid];
    if (!all->clock.is_over && place >= 0) bodies::contact_nodes(Block(), all->step, place, way, all->totals);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) sides_kernel(OnDevice<T>* all) {
    if (!all->clock.is_over) bodies::side_nodes(Block(), all->step, all->totals);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) grid_to_particles_kernel(OnDevice<T>* all) {
    if (!all->clock.is_over) bodies::grid_to_particles(Block(), all->step, all->totals);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) trace_kernel(OnDevice<T>* all) {
    if (all->clock.is_tracing) bodies::trace_particles(Block(), all->tracers, all->totals);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) energy_kernel(OnDevice<T>* all) {
    bodies::elastic_energy(Block(), all->step, all->totals);
}

// The scratch memory of a call.
template <typename T>
struct Scratch {
    OnDevice<T>* all;
    uint32_t *keys, *sorted_keys;
    int32_t *order, *sorted_order, *ids;
    T* rows;
    uint8_t* sort;
    int64_t sort_bytes, bytes = 0;

    Scratch(const Stream& where, int64_t count, uint8_t* memory) : sort_bytes(sort_scratch<uint32_t>(where, nullptr, count)) {
        const auto take = [&](auto*& pointer, int64_t values) {
            pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(memory + bytes);
            bytes += (values * int64_t(sizeof *pointer) + 255) / 256 * 256;
        };
        take(all, 1);
        take(keys, count);
        take(sorted_keys, count);
        take(order, count);
        take(sorted_order, count);
        take(ids, 3 * count);
        take(rows, mpm::ROWS * count);
        take(sort, sort_bytes);
    }
};

template <typename T>
class Solver {
  public:
    Solver(const Stream& where, Step<T>& step, const mpm::World& world, uint8_t* scratch)
        : where_(where), guard_(where), world_(world), scratch_(where, step.count, scratch), image_(std::make_unique<OnDevice<T>>()) {
        mpm::set_world(world, step);
        image_->step = step;
        nodes_ = step.size[0] * step.size[1] * step.line;
        if (nodes_ > int64_t(UINT32_MAX)) throw std::length_error("CUDA, grid: more than 2^32 nodes");
    }

    OnDevice<T>& image() { return *image_; }

    // The world with its tables on the device, and the rest of the image.
    void put() {
        image_->world = world_;
        double* next = image_->tables;
        const auto table = [&](const double*& data, int count, int width) {
            std::copy(data, data + count * width, next);
            data = scratch_.all->tables + (next - image_->tables);
            next += count * width;
        };
        mpm::World& world = image_->world;
        table(world.solids, world.num_solids, mpm::SOLID_NUMBERS);
        table(world.fields, world.num_fields, mpm::FIELD_NUMBERS);
        table(world.winds, world.num_winds, mpm::WIND_NUMBERS);
        table(world.motions, world.num_motions, mpm::MOTION_NUMBERS);
        check(cudaMemcpyAsync(scratch_.all, image_.get(), sizeof(OnDevice<T>), cudaMemcpyHostToDevice, where_.stream), "world");
    }

    template <typename Value>
    Value get(const Value OnDevice<T>::* member) {
        Value value;
        check(cudaMemcpyAsync(&value, &(scratch_.all->*member), sizeof value, cudaMemcpyDeviceToHost, where_.stream), "results");
        check(cudaStreamSynchronize(where_.stream), "time step");
        return value;
    }

    template <typename Kernel, typename... Arguments>
    void run(const char* name, int64_t blocks, Kernel kernel, Arguments... arguments) {
        launch(name, where_, blocks, THREADS, kernel, scratch_.all, arguments...);
    }

    void tick(bool is_first, bool ends, bool begins) { launch("tick", where_, 1, 1, tick_kernel<T>, scratch_.all, is_first, ends, begins); }

    // Sorts the particles by their first node.
    void sort() {
        const Step<T>& s = image_->step;
        const int64_t blocks = blocks_of(s.count);
        if (s.count == 0) return;
        run("first nodes", blocks, first_nodes_kernel<T>, scratch_.keys, scratch_.order);
        sort_pairs(where_, s.count, bits_of(nodes_), scratch_.keys, scratch_.order, scratch_.sorted_keys, scratch_.sorted_order,
                   scratch_.sort, scratch_.sort_bytes);
        int32_t* const ids = const_cast<int32_t*>(s.body);
        move(mpm::ROWS, scratch_.sorted_order, s.rows, s.stride, scratch_.rows, s.count);
        move(mpm::ROWS, nullptr, scratch_.rows, s.count, s.rows, s.stride);
        move(3, scratch_.sorted_order, ids, s.stride, scratch_.ids, s.count);
        move(3, nullptr, scratch_.ids, s.count, ids, s.stride);
    }

    void substep() {
        const Step<T>& s = image_->step;
        const int64_t particles = blocks_of(s.count), nodes = blocks_of(nodes_);
        check(cudaMemsetAsync(s.grid, 0, size_t(4 * nodes_) * sizeof(T), where_.stream), "clearing the grid");
        if (s.lacking) check(cudaMemsetAsync(s.lacking, 0, size_t(nodes_) * sizeof(T), where_.stream), "clearing the grid");
        launch("particles to grid", where_, (s.count + bodies::P2G_THREADS - 1) / bodies::P2G_THREADS, bodies::P2G_THREADS,
               particles_to_grid_kernel<T>, scratch_.all);
        run("grid", nodes, grid_kernel<T>);
        for (int n = 0; n < world_.num_solids; ++n) {
            const double* row = world_.solids + n * mpm::SOLID_NUMBERS;
            int way = 0, last = 5;
            if (row[17] == 0 && row[18] == 0 && row[19] == 0) mpm::ways_of(mpm::solid_at<T>(world_, row, 0), way, last);
            for (; way <= last; ++way) run("contact", nodes, contact_kernel<T>, n, way);
        }
        run("sides", nodes, sides_kernel<T>);
        run("grid to particles", particles, grid_to_particles_kernel<T>);
        if (image_->tracers.count == 0) return tick(false, true, true);
        tick(false, true, false);
        run("tracers", blocks_of(image_->tracers.count), trace_kernel<T>);
        tick(false, false, true);
    }

  private:
    template <typename Value>
    void move(int rows, const int32_t* order, const Value* from, int64_t from_stride, Value* to, int64_t to_stride) {
        const int64_t count = image_->step.count;
        launch("move rows", where_, blocks_of(count), THREADS, move_rows_kernel<Value>, count, rows, order, from, from_stride, to,
               to_stride);
    }

    Stream where_;
    DeviceGuard guard_;
    const mpm::World& world_;
    Scratch<T> scratch_;
    std::unique_ptr<OnDevice<T>> image_;
    int64_t nodes_;
};

}  // namespace

template <typename T>
int64_t mpm_scratch(const Stream& where, int64_t count) {
    return Scratch<T>(where, count, nullptr).bytes;
}

template <typename T>
mpm::Report mpm_advance(const Stream& where, Step<T>& step, Step<T>& tracers, const mpm::World& world, double duration, double time,
                        double max_dt, uint8_t* scratch) {
    Solver<T> solver(where, step, world, scratch);
    OnDevice<T>& image = solver.image();
    image.tracers = mpm::with_particles(step, tracers);
    image.clock = mpm::Clock{duration, time, max_dt};
    solver.put();
    solver.run("extremes", blocks_of(step.count), extremes_kernel<T>);
    solver.tick(true, false, true);
    for (;;) {
        const mpm::Clock clock = solver.get(&OnDevice<T>::clock);
        mpm::check_length(clock);
        if (clock.is_over) return clock.report;
        solver.sort();
        const double dt = clock.report.last_dt, left = std::ceil((duration - clock.done) / dt - 1e-9);
        const double calm = DRIFT * world.spacing / (std::sqrt(clock.found.speed2) * dt);  // infinite at rest
        const int steps = int(std::fmin(left, std::fmin(MAX_STEPS, std::fmax(MIN_STEPS, calm))));
        for (int n = 0; n < steps; ++n) solver.substep();
    }
}

template <typename T>
double mpm_elastic_energy(const Stream& where, Step<T>& step, const mpm::World& world, double last_dt, uint8_t* scratch) {
    Solver<T> solver(where, step, world, scratch);
    solver.image().step.dt = T(last_dt);
    solver.put();
    solver.run("elastic energy", blocks_of(step.count), energy_kernel<T>);
    return solver.get(&OnDevice<T>::totals).work;
}

#define V3D_INSTANTIATE(T)                                                                                                    \
    template int64_t mpm_scratch<T>(const Stream&, int64_t);                                                                  \
    template mpm::Report mpm_advance(const Stream&, Step<T>&, Step<T>&, const mpm::World&, double, double, double, uint8_t*); \
    template double mpm_elastic_energy(const Stream&, Step<T>&, const mpm::World&, double, uint8_t*);
V3D_INSTANTIATE(float)
V3D_INSTANTIATE(double)

}  // namespace vision3d::cuda
