#include "bindings/boxes.h"
#include "cpu/boxes.h"

using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Cpu {
    template <typename W, typename Args>
    static void iou(const W&, const Args& args) {
        cpu::box_iou(args);
    }
    template <typename W, typename Args>
    static void vjp(const W&, const Args& args) {
        cpu::box_iou_vjp(args);
    }
    template <typename W, typename Args>
    static void nms(const W&, const Args& args) {
        cpu::box_nms(args);
    }
};

}  // namespace

void bind_boxes(nb::module_& m) {
    bind_boxes<CpuTarget<float>, Cpu>(m);
    bind_boxes<CpuTarget<double>, Cpu>(m);
}
