#include "bindings/cuda.h"
#include "bindings/scans.h"
#include "cuda/scans.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Gpu {
    template <typename W, typename Args>
    static void scan(const W& target, const Args& args) {
        cuda::scan(target.where, args);
    }
};

}  // namespace

void bind_scans_cuda(nb::module_& m) {
    bind_scans<CudaTarget<float>, Gpu>(m);
    bind_scans<CudaTarget<double>, Gpu>(m);
}
