#include "bindings/sparse.h"
#include "cpu/sparse.h"

using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Cpu {
    template <typename W>
    static void neighbors(const W&, const sparse::NeighborArgs& args) {
        cpu::find_neighbors(args);
    }
    template <typename W, typename Args>
    static void conv(const W&, const Args& args) {
        cpu::submanifold_conv(args);
    }
    template <typename W, typename Args>
    static void conv_weights(const W&, const Args& args) {
        cpu::submanifold_conv_weights(args);
    }
    template <typename W, typename Args>
    static void segment_sum(const W&, const Args& args) {
        cpu::segment_sum(args);
    }
    template <typename W, typename Args>
    static void segment_max(const W&, const Args& args) {
        cpu::segment_max(args);
    }
};

void check_sorted(const sparse::NeighborArgs& args) {
    const int64_t place = cpu::find_unsorted(args.coords, args.count, args.grid);
    if (place < 0) return;
    const int64_t* c = args.coords + 4 * place;
    throw std::invalid_argument("coords: voxel " + std::to_string(place) + " is (" + std::to_string(c[0]) + ", " + std::to_string(c[1]) +
                                ", " + std::to_string(c[2]) + ", " + std::to_string(c[3]) + "), want unique voxels in the grid " +
                                std::to_string(args.grid.x) + " x " + std::to_string(args.grid.y) + " x " + std::to_string(args.grid.z) +
                                ", sorted by batch, x, y, z");
}

}  // namespace

void bind_sparse(nb::module_& m) {
    define(m, "sort_keys", "keys sorted order",
           [](In<CpuTarget<int64_t>, 1> keys, Out<CpuTarget<int64_t>, 1> sorted, Out<CpuTarget<int64_t>, 1> order) {
        const int64_t count = int64_t(keys.shape(0));
        check("sorted", sorted, {count});
        check("order", order, {count});
        check_range<CpuTarget<int64_t>>("keys", keys, 0, INT64_MAX);
        nb::gil_scoped_release release;
        cpu::sort_keys(keys.data(), count, sorted.data(), order.data());
    });
    bind_neighbors<CpuTarget<int64_t>, Cpu>(m, check_sorted);
    bind_sparse<CpuTarget<float>, Cpu>(m);
    bind_sparse<CpuTarget<double>, Cpu>(m);
}
