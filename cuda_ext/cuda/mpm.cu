#include "cuda/mpm.h"

#include <cstring>
#include <memory>
#include "cuda/kernels/mpm.h"

namespace vision3d::cuda {
namespace {

using bodies::Totals;
using mpm::Step;

// A step exceeds the size limit of kernel arguments, so it is in memory.
template <typename T>
struct OnDevice {
    Step<T> step;
    Totals totals;
    double energy;
};

template <typename T>
__global__ void extremes_kernel(OnDevice<T>* all) {
    const int64_t p = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (p >= all->step.count) return;
    T v[3], C[9];
    bodies::load_row(all->step, mpm::V_ROW, 3, p, v);
    bodies::load_row(all->step, mpm::C_ROW, 9, p, C);
    double speed2 = 0, gradient2 = 0;
    for (int k = 0; k < 3; ++k) speed2 += double(v[k]) * double(v[k]);
    for (int k = 0; k < 9; ++k) gradient2 += double(C[k]) * double(C[k]);
    if (speed2 + gradient2 < 1e300) {
        bodies::keep_most(all->totals.speed2, speed2);
        bodies::keep_most(all->totals.gradient2, gradient2);
    } else {
        bodies::count_one(all->totals.bad);
    }
}

template <typename T>
__global__ void particle_to_grid_kernel(OnDevice<T>* all) {
    const int64_t p = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (p < all->step.count) bodies::particle_to_grid(all->step, p);
}

template <typename T>
__global__ void grid_kernel(OnDevice<T>* all) {
    const int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (n < all->step.size[0] * all->step.size[1] * all->step.size[2]) bodies::grid_node(all->step, n, all->totals);
}

template <typename T>
__global__ void contact_kernel(OnDevice<T>* all, int solid, int way) {
    const int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (n < all->step.size[0] * all->step.size[1] * all->step.size[2]) bodies::contact_node(all->step, n, solid, way, all->totals);
}

template <typename T>
__global__ void sides_kernel(OnDevice<T>* all) {
    const int64_t n = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (n < all->step.size[0] * all->step.size[1] * all->step.size[2]) bodies::side_node(all->step, n, all->totals);
}

template <typename T>
__global__ void grid_to_particle_kernel(OnDevice<T>* all) {
    const int64_t p = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (p < all->step.count) bodies::grid_to_particle(all->step, p, all->totals);
}

template <typename T>
__global__ void trace_kernel(OnDevice<T>* all) {
    const int64_t p = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (p < all->step.count) bodies::trace_particle(all->step, p, all->totals);
}

template <typename T>
__global__ void energy_kernel(OnDevice<T>* all) {
    const int64_t p = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (p < all->step.count) bodies::particle_energy(all->step, p, all->energy);
}

// Memory of one call.
template <typename T>
class Buffer {
  public:
    explicit Buffer(const Stream& where) : where_(where), guard_(where) {
        check(cudaMallocAsync(reinterpret_cast<void**>(&data_), sizeof(OnDevice<T>), where.stream), "memory of a time step");
    }
    ~Buffer() { cudaFreeAsync(data_, where_.stream); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    OnDevice<T>* put(const Step<T>& step) {
        check(cudaMemcpyAsync(&data_->step, &step, sizeof step, cudaMemcpyHostToDevice, where_.stream), "time step");
        check(cudaMemsetAsync(&data_->totals, 0, sizeof(Totals) + sizeof(double), where_.stream), "time step");
        return data_;
    }
    mpm::Found found() {
        Totals totals;
        get(&totals, &data_->totals, sizeof totals);
        double speed2, gradient2;
        memcpy(&speed2, &totals.speed2, sizeof speed2);
        memcpy(&gradient2, &totals.gradient2, sizeof gradient2);
        return {totals.work, speed2, gradient2, totals.kept, totals.bad == 0};
    }
    double energy() {
        double value;
        get(&value, &data_->energy, sizeof value);
        return value;
    }

  private:
    void get(void* target, const void* source, size_t size) {
        check(cudaMemcpyAsync(target, source, size, cudaMemcpyDeviceToHost, where_.stream), "results of a time step");
        check(cudaStreamSynchronize(where_.stream), "time step");
    }

    Stream where_;
    DeviceGuard guard_;
    OnDevice<T>* data_ = nullptr;
};

}  // namespace

template <typename T>
mpm::Report mpm_advance(const Stream& where, Step<T>& step, Step<T>& tracers, const mpm::World& world, double duration, double time,
                        double max_dt) {
    mpm::set_world(world, step);
    Buffer<T> buffer(where);
    const int64_t particles = blocks_of(step.count), nodes = blocks_of(step.size[0] * step.size[1] * step.size[2]);
    launch("mpm extremes", where, particles, THREADS, extremes_kernel<T>, buffer.put(step));
    const auto substep = [&](Step<T>& now) {
        OnDevice<T>* const all = buffer.put(now);
        check(cudaMemsetAsync(now.grid, 0, size_t(4 * now.size[0] * now.size[1] * now.line) * sizeof(T), where.stream),
              "clearing the grid");
        if (now.lacking)
            check(cudaMemsetAsync(now.lacking, 0, size_t(now.size[0] * now.size[1] * now.line) * sizeof(T), where.stream),
                  "clearing the grid");
        launch("particles to grid", where, particles, THREADS, particle_to_grid_kernel<T>, all);
        launch("grid", where, nodes, THREADS, grid_kernel<T>, all);
        for (int solid = 0; solid < now.num_solids; ++solid) {
            int way, last;
            for (mpm::ways_of(now.solids[solid], way, last); way <= last; ++way)
                launch("contact", where, nodes, THREADS, contact_kernel<T>, all, solid, way);
        }
        launch("sides", where, nodes, THREADS, sides_kernel<T>, all);
        launch("grid to particles", where, particles, THREADS, grid_to_particle_kernel<T>, all);
        return buffer.found();
    };
    const auto trace = [&](Step<T>& now) {
        if (tracers.count == 0) return mpm::Found{};
        const auto moved = std::make_unique<Step<T>>(mpm::with_particles(now, tracers));
        launch("tracers", where, blocks_of(tracers.count), THREADS, trace_kernel<T>, buffer.put(*moved));
        return buffer.found();
    };
    const mpm::Found at_first = buffer.found();
    return mpm::advance(world, duration, time, max_dt, at_first, step, substep, trace);
}

template <typename T>
double mpm_elastic_energy(const Stream& where, Step<T>& step, const mpm::World& world, double last_dt) {
    mpm::set_world(world, step);
    step.dt = T(last_dt);
    Buffer<T> buffer(where);
    launch("elastic energy", where, blocks_of(step.count), THREADS, energy_kernel<T>, buffer.put(step));
    return buffer.energy();
}

template mpm::Report mpm_advance(const Stream&, Step<float>&, Step<float>&, const mpm::World&, double, double, double);
template mpm::Report mpm_advance(const Stream&, Step<double>&, Step<double>&, const mpm::World&, double, double, double);
template double mpm_elastic_energy(const Stream&, Step<float>&, const mpm::World&, double);
template double mpm_elastic_energy(const Stream&, Step<double>&, const mpm::World&, double);

}  // namespace vision3d::cuda
