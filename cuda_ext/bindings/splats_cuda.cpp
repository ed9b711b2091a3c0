#include "bindings/cuda.h"
#include "bindings/splats_2dgs.h"
#include "bindings/splats.h"
#include "cuda/splats.h"

namespace nb = nanobind;
using namespace vision3d::arrays;

void bind_splats_cuda(nb::module_& m) {
    bind_renderer<CudaTarget<float>>(m);
    bind_renderer<CudaTarget<double>>(m);
    bind_tiles<CudaTarget<float>>(m);
    bind_tiles<CudaTarget<double>>(m);
    bind_sort<CudaTarget<float>, uint32_t>(m);
    bind_sort<CudaTarget<float>, uint64_t>(m);
}
