#include "bindings/cuda.h"
#include "bindings/sparse.h"
#include "cuda/sparse.h"

using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Gpu {
    template <typename W>
    static void neighbors(const W& target, const sparse::NeighborArgs& args) {
        cuda::find_neighbors(target.where, args);
    }
    template <typename W, typename Args>
    static void conv(const W& target, const Args& args) {
        cuda::submanifold_conv(target.where, args);
    }
    template <typename W, typename Args>
    static void conv_weights(const W& target, const Args& args) {
        cuda::submanifold_conv_weights(target.where, args);
    }
    template <typename W, typename Args>
    static void segment_sum(const W& target, const Args& args) {
        cuda::segment_sum(target.where, args);
    }
    template <typename W, typename Args>
    static void segment_max(const W& target, const Args& args) {
        cuda::segment_max(target.where, args);
    }
};

}  // namespace

void bind_sparse_cuda(nb::module_& m) {
    bind_neighbors<CudaTarget<int64_t>, Gpu>(m, [](const sparse::NeighborArgs&) {});
    bind_sparse<CudaTarget<float>, Gpu>(m);
    bind_sparse<CudaTarget<double>, Gpu>(m);
}
