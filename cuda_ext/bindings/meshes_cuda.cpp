#include "bindings/cuda.h"
#include "bindings/meshes.h"
#include "cuda/meshes.h"

namespace nb = nanobind;
using namespace vision3d::arrays;

void bind_meshes_cuda(nb::module_& m) {
    vision3d::arrays::bind_meshes<CudaTarget<float>>(m);
    vision3d::arrays::bind_meshes<CudaTarget<double>>(m);
}
