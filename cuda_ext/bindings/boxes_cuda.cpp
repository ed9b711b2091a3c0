#include "bindings/boxes.h"
#include "bindings/cuda.h"
#include "cuda/boxes.h"

using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Gpu {
    template <typename W, typename Args>
    static void iou(const W& target, const Args& args) {
        cuda::box_iou(target.where, args);
    }
    template <typename W, typename Args>
    static void vjp(const W& target, const Args& args) {
        cuda::box_iou_vjp(target.where, args);
    }
    template <typename W, typename Args>
    static void nms(const W& target, const Args& args) {
        cuda::box_nms(target.where, args);
    }
};

}  // namespace

void bind_boxes_cuda(nb::module_& m) {
    bind_boxes<CudaTarget<float>, Gpu>(m);
    bind_boxes<CudaTarget<double>, Gpu>(m);
}
