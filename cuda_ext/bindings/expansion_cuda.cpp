#include "bindings/cuda.h"
#include "bindings/expansion.h"
#include "cuda/expansion.h"

using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Gpu {
    template <typename W, typename Args>
    static void run(const W& target, const Args& args) {
        cuda::sampled_expansion(target.where, args);
    }
};

}  // namespace

void bind_expansion_cuda(nb::module_& m) {
    bind_expansion<CudaTarget<float>, Gpu>(m, 1);
    bind_expansion<CudaTarget<double>, Gpu>(m, 1);
}
