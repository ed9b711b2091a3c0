#include "cpu/mpm.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "cpu/dispatch.h"
#include "cpu/mpm_sort.h"
#include "cpu/parallel.h"

namespace vision3d::cpu {
namespace {

using namespace mpm;

constexpr double SORT_AGAIN = 0.98;  // cells a particle may move before they are sorted again

void take(const Particles& particles, Step<float>& step) {
    step.rows = particles.rows;
    step.stride = particles.stride;
    step.count = particles.count;
    step.body = particles.ids;
    step.motion = particles.ids + particles.stride;
}

Step<float>& step_of(const Particles& particles, const World& world, std::unique_ptr<Step<float>>& memory) {
    memory = std::make_unique<Step<float>>();
    Step<float>& step = *memory;
    take(particles, step);
    step.grid = particles.grid;
    step.lacking = particles.lacking;
    set_world(world, step);
    return step;
}

Found extremes(const Particles& particles) {
    Found found;
    for (int64_t p = 0; p < particles.count; ++p) {
        Found one;
        for (int k = 0; k < 3; ++k) {
            const double v = particles.rows[(V_ROW + k) * particles.stride + p];
            one.speed2 += v * v;
        }
        for (int k = 0; k < 9; ++k) {
            const double c = particles.rows[(C_ROW + k) * particles.stride + p];
            one.gradient2 += c * c;
        }
        one.is_finite = one.speed2 + one.gradient2 < std::numeric_limits<double>::infinity();
        found.add(one);
    }
    return found;
}

// Calls body(found, begin, end) on chunks and accumulates `found` in the same order for any number of threads.
template <typename Body>
Found reduce(int64_t count, int64_t chunk, Body body) {
    std::vector<Found> parts(size_t((count + chunk - 1) / chunk));
    parallel_for(count, chunk, [&](int64_t begin, int64_t end) { body(parts[size_t(begin / chunk)], begin, end); });
    Found found;
    for (const Found& part : parts) found.add(part);
    return found;
}

// Calls visit(row, i, j, k, length) for the lines along z of a block of nodes.
template <typename Visit>
void for_each_line(const SortedParticles& sorted, const Step<float>& step, int64_t block, Visit visit) {
    const int64_t at[3] = {block / (sorted.width(1) * sorted.width(2)), block / sorted.width(2) % sorted.width(1), block % sorted.width(2)};
    int64_t low[3], high[3];
    for (int a = 0; a < 3; ++a) {
        low[a] = at[a] << SortedParticles::SHIFTS[a];
        high[a] = std::min(step.size[a], (at[a] + 1) << SortedParticles::SHIFTS[a]);
    }
    for (int64_t i = low[0]; i < high[0]; ++i)
        for (int64_t j = low[1]; j < high[1]; ++j) visit(step.grid + 4 * node_index(step, i, j, low[2]), i, j, low[2], high[2] - low[2]);
}

// Calls visit(i, j, k) for the nodes of a block.
template <typename Visit>
void for_each_node(const SortedParticles& sorted, const Step<float>& step, int64_t block, Visit visit) {
    for_each_line(sorted, step, block, [&](float*, int64_t i, int64_t j, int64_t k, int64_t length) {
        for (int64_t m = 0; m < length; ++m) visit(i, j, k + m);
    });
}

// Directions of the shortest way out of a solid in a block of nodes, one bit each; distances are 1-Lipschitz.
uint8_t find_ways(const SortedParticles& sorted, const Step<float>& step, const Solid<float>& solid, int64_t block) {
    const int64_t at[3] = {block / (sorted.width(1) * sorted.width(2)), block / sorted.width(2) % sorted.width(1), block % sorted.width(2)};
    float middle[3], normal[3];
    for (int a = 0; a < 3; ++a) middle[a] = (float(at[a] << SortedParticles::SHIFTS[a]) + (a == 2 ? 3.5f : 1.5f)) * step.spacing;
    const float reach = 4.2f * step.spacing;
    if (solid.shape == FIELD) {
        if (field_bound(solid, middle) > reach) return 0;
    } else if (!(solid_distance(solid, middle, normal) < reach)) {
        return 0;
    }
    uint8_t ways = 0;
    for_each_node(sorted, step, block, [&](int64_t i, int64_t j, int64_t k) {
        const int way = way_out_at(step, solid, i, j, k);
        if (way >= 0) ways = uint8_t(ways | 1 << way);
    });
    return ways;
}

bool is_at_side(const SortedParticles& sorted, const Step<float>& step, int64_t block) {
    const int64_t at[3] = {block / (sorted.width(1) * sorted.width(2)), block / sorted.width(2) % sorted.width(1), block % sorted.width(2)};
    bool found = false;
    for (int a = 0; a < 3; ++a) {
        const int64_t low = at[a] << SortedParticles::SHIFTS[a], high = (at[a] + 1) << SortedParticles::SHIFTS[a];
        found = found || low < step.padding || high > step.size[a] - step.padding;
    }
    return found;
}

class Solver {
  public:
    Solver(const Particles& particles, const Particles& tracers, const World& world)
        : particles_(particles), tracers_(tracers), world_(world) {}

    Found substep(Step<float>& step) {
        const Loops& loops = kernels().mpm;
        if (!is_sorted_ || drift_ > SORT_AGAIN * world_.spacing) {
            clear(step);  // nodes no longer reached must be empty for tracers
            sorted_.sort(particles_.rows, particles_.ids, particles_.stride, particles_.count, step, world_.num_materials);
            is_sorted_ = true;
            drift_ = 0;
        }
        const auto& active = sorted_.active();
        clear(step);
        for (int color = 0; color < 8; ++color) {
            const auto& blocks = sorted_.colored(color);
            parallel_for(int64_t(blocks.size()), 1, [&](int64_t begin, int64_t end) {
                for (int64_t n = begin; n < end; ++n)
                    for_each_segment(blocks[size_t(n)], [&](const Segment& s) {
                        const Material<float>& material = step.materials[s.body];
                        loops.particles_to_grid[material.law](step, material, s.begin, s.end);
                    });
            });
        }
        const auto over_nodes = [&](auto visit) {
            return reduce(int64_t(active.size()), 32, [&](Found& part, int64_t begin, int64_t end) {
                for (int64_t n = begin; n < end; ++n) visit(part, n, active[size_t(n)]);
            });
        };
        Found found = over_nodes([&](Found& part, int64_t, int64_t block) {
            for_each_line(sorted_, step, block, [&](float* line, int64_t i, int64_t j, int64_t k, int64_t length) {
                for (int64_t m = 0; m < length; ++m) part.work += step_node(step, i, j, k + m, line + 4 * m);
            });
        });
        std::vector<std::vector<uint8_t>> ways_of(size_t(step.num_solids), std::vector<uint8_t>(active.size()));
        for (int s = 0; s < step.num_solids; ++s)
            over_nodes(
                [&](Found&, int64_t n, int64_t block) { ways_of[size_t(s)][size_t(n)] = find_ways(sorted_, step, step.solids[s], block); });
        if (step.lacking) friction_to_grid(step, ways_of);
        for (int s = 0; s < step.num_solids; ++s) {
            const Solid<float>& solid = step.solids[s];
            const auto& ways = ways_of[size_t(s)];
            uint8_t all = 0;
            for (const uint8_t some : ways) all = uint8_t(all | some);
            for (int way = 0; way < 6; ++way) {  // pairs of one direction share no nodes
                if (!(all >> way & 1)) continue;
                found.add(over_nodes([&](Found& part, int64_t n, int64_t block) {
                    if (ways[size_t(n)] >> way & 1)
                        for_each_node(sorted_, step, block,
                                      [&](int64_t i, int64_t j, int64_t k) { part.work += meet_node(step, solid, way, i, j, k); });
                }));
            }
        }
        found.add(over_nodes([&](Found& part, int64_t, int64_t block) {
            if (is_at_side(sorted_, step, block))
                for_each_node(sorted_, step, block, [&](int64_t i, int64_t j, int64_t k) { part.work += side_node(step, i, j, k); });
        }));
        found.add(reduce(int64_t(sorted_.blocks().size()), 4, [&](Found& part, int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; ++n)
                for_each_segment(int(n), [&](const Segment& s) {
                    loops.grid_to_particles(step, step.materials[s.body].law == STATIONARY, s.begin, s.end, part);
                });
        }));
        drift_ += std::sqrt(found.speed2) * step.dt;
        return found;
    }

    // Tracers move with the grid velocities of the last step.
    Found trace(const Step<float>& now) {
        if (tracers_.count == 0) return {};
        const auto copy = std::make_unique<Step<float>>(now);
        Step<float>& step = *copy;
        take(tracers_, step);
        if (!(trace_drift_ < world_.spacing)) {  // only for memory locality: tracers write nothing to the grid
            sorted_tracers_.sort_if_mixed(step.rows, tracers_.ids, step.stride, step.count, step, world_.num_materials);
            trace_drift_ = 0;
        }
        const Loops& loops = kernels().mpm;
        const auto& segments = sorted_tracers_.segments();
        const Found found = reduce(int64_t(segments.size()), 4, [&](Found& part, int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; ++n) {
                const Segment& s = segments[size_t(n)];
                loops.grid_to_particles(step, step.materials[s.body].law == STATIONARY, s.begin, s.end, part);
                loops.deform(step, s.begin, s.end);
            }
        });
        trace_drift_ += std::sqrt(found.speed2) * step.dt;
        return found;
    }

    double elastic_energy(const Step<float>& step, double last_dt) {
        const Loops& loops = kernels().mpm;
        sorted_.sort(particles_.rows, particles_.ids, particles_.stride, particles_.count, step, world_.num_materials);
        std::vector<double> parts(sorted_.segments().size());
        parallel_for(int64_t(parts.size()), 4, [&](int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; ++n) {
                const Segment& s = sorted_.segments()[size_t(n)];
                const Material<float>& material = step.materials[s.body];
                parts[size_t(n)] = loops.elastic_energy[material.law](step, material, s.begin, s.end, float(last_dt));
            }
        });
        double sum = 0;
        for (double part : parts) sum += part;
        return sum;
    }

  private:
    void clear(const Step<float>& step) {
        over_lines(step, [](float* line, int64_t, int64_t, int64_t, int64_t length) { std::fill(line, line + 4 * length, 0.f); });
    }

    template <typename Visit>
    void over_lines(const Step<float>& step, Visit visit) {
        const auto& active = sorted_.active();
        parallel_for(int64_t(active.size()), 64, [&](int64_t begin, int64_t end) {
            for (int64_t n = begin; n < end; ++n) for_each_line(sorted_, step, active[size_t(n)], visit);
        });
    }

    // 1 minus the friction of the materials, at the nodes touched by solids and the next ones outwards: all particles that reach
    // these are in a block with such nodes, or in an adjacent one.
    void friction_to_grid(const Step<float>& step, const std::vector<std::vector<uint8_t>>& ways_of) {
        over_lines(step, [&](float*, int64_t i, int64_t j, int64_t k, int64_t length) {
            float* const line = step.lacking + node_index(step, i, j, k);
            std::fill(line, line + length, 0.f);
        });
        const auto& active = sorted_.active();
        const int64_t widths[3] = {sorted_.width(0), sorted_.width(1), sorted_.width(2)};
        is_met_.assign(size_t(widths[0] * widths[1] * widths[2]), 0);
        for (const auto& ways : ways_of)
            for (size_t n = 0; n < active.size(); ++n)
                if (ways[n]) is_met_[size_t(active[n])] = 1;
        const auto is_near_met = [&](const Block& block) {
            int64_t low[3], high[3];
            for (int a = 0; a < 3; ++a) {
                low[a] = std::max<int64_t>(block.at[a] - 1, 0);
                high[a] = std::min<int64_t>(block.at[a] + 1, widths[a] - 1);
            }
            for (int64_t i = low[0]; i <= high[0]; ++i)
                for (int64_t j = low[1]; j <= high[1]; ++j)
                    for (int64_t k = low[2]; k <= high[2]; ++k)
                        if (is_met_[size_t((i * widths[1] + j) * widths[2] + k)]) return true;
            return false;
        };
        const Loops& loops = kernels().mpm;
        for (int color = 0; color < 8; ++color) {
            const auto& blocks = sorted_.colored(color);
            parallel_for(int64_t(blocks.size()), 1, [&](int64_t begin, int64_t end) {
                for (int64_t n = begin; n < end; ++n)
                    if (is_near_met(sorted_.blocks()[size_t(blocks[size_t(n)])]))
                        for_each_segment(blocks[size_t(n)], [&](const Segment& s) {
                            const float lacking = 1 - step.materials[s.body].friction;
                            if (lacking != 0) loops.friction_to_grid(step, lacking, s.begin, s.end);
                        });
            });
        }
    }

    template <typename Visit>
    void for_each_segment(int block, Visit visit) const {
        const Block& b = sorted_.blocks()[size_t(block)];
        for (int s = b.first_segment; s < b.last_segment; ++s) visit(sorted_.segments()[size_t(s)]);
    }

    const Particles &particles_, &tracers_;
    const World& world_;
    SortedParticles sorted_, sorted_tracers_;
    std::vector<uint8_t> is_met_;
    bool is_sorted_ = false;
    double drift_ = 0, trace_drift_ = std::numeric_limits<double>::infinity();
};

}  // namespace

Report mpm_advance(const Particles& particles, const Particles& tracers, const World& world, double duration, double time, double max_dt) {
    std::unique_ptr<Step<float>> memory;
    Step<float>& step = step_of(particles, world, memory);
    Solver solver(particles, tracers, world);
    std::fill(step.grid, step.grid + 4 * step.size[0] * step.size[1] * step.line, 0.f);
    return advance(world, duration, time, max_dt, extremes(particles), step, [&](Step<float>& now) { return solver.substep(now); },
                   [&](Step<float>& now) { return solver.trace(now); });
}

double mpm_elastic_energy(const Particles& particles, const World& world, double last_dt) {
    std::unique_ptr<Step<float>> memory;
    const Particles none{nullptr, nullptr, 0, 0, nullptr, nullptr};
    return Solver(particles, none, world).elastic_energy(step_of(particles, world, memory), last_dt);
}

}  // namespace vision3d::cpu
