#include "bindings/cuda.h"
#include "bindings/skin.h"
#include "cuda/skin.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Gpu {
    template <typename W, typename T>
    static void forward(const W& target, const skin::Args<T>& args, int mode) {
        cuda::skin_vertices(target.where, args, mode);
    }
    template <typename W, typename T>
    static void vjp(const W& target, const skin::VjpArgs<T>& args, int mode) {
        cuda::skin_vertices_vjp(target.where, args, mode);
    }
};

}  // namespace

void bind_skin_cuda(nb::module_& m) {
    bind_skin<CudaTarget<float>, Gpu>(m);
    bind_skin<CudaTarget<double>, Gpu>(m);
}
