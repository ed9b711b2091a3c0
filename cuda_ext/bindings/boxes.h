#pragma once
#include "bindings/define.h"
#include "vision3d/boxes.h"

// Binds box_iou, box_iou_vjp and box_nms; Loops has iou, vjp and nms for target W.
namespace vision3d::arrays {

template <typename W, typename T = typename W::Scalar>
void fill(boxes::IouArgs<T>& args, const In<W, 2>& first, const In<W, 2>& second, bool is_3d, bool is_paired) {
    args.rows = int64_t(first.shape(0));
    args.columns = int64_t(second.shape(0));
    args.first = pointer("first", first, {args.rows, boxes::SIZE});
    args.second = pointer("second", second, {is_paired ? args.rows : args.columns, boxes::SIZE});
    args.is_3d = is_3d;
    args.is_paired = is_paired;
}

template <typename T>
int64_t pairs_of(const boxes::IouArgs<T>& args) {
    return args.is_paired ? args.rows : args.rows * args.columns;
}

template <typename W, typename Loops>
void bind_boxes(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "box_iou", "first second is_3d is_paired out",
           [](In<W, 2> first, In<W, 2> second, bool is_3d, bool is_paired, Out<W, 1> out, int device, uint64_t stream) {
        boxes::IouArgs<T> args{};
        fill<W>(args, first, second, is_3d, is_paired);
        args.out = pointer("out", out, {pairs_of(args)});
        nb::gil_scoped_release release;
        Loops::iou(W(device, stream), args);
    });
    define(m, "box_iou_vjp", "first second is_3d is_paired v_out v_first v_second",
           [](In<W, 2> first, In<W, 2> second, bool is_3d, bool is_paired, In<W, 1> v_out, Out<W, 2> v_first, Out<W, 2> v_second,
              int device, uint64_t stream) {
        boxes::IouVjpArgs<T> args{};
        fill<W>(args, first, second, is_3d, is_paired);
        args.v_out = pointer("v_out", v_out, {pairs_of(args)});
        args.v_first = pointer("v_first", v_first, {args.rows, boxes::SIZE});
        args.v_second = pointer("v_second", v_second, {args.columns, boxes::SIZE});
        nb::gil_scoped_release release;
        Loops::vjp(W(device, stream), args);
    });
    define(m, "box_nms", "boxes groups threshold is_3d max_kept kept scratch",
           [](In<W, 2> boxes, In<W, 1, int64_t> groups, double threshold, bool is_3d, int64_t max_kept, Out<W, 1, uint8_t> kept,
              MaybeOut<W, 1, int64_t> scratch, int device, uint64_t stream) {
        boxes::NmsArgs<T> args{};
        args.count = int64_t(boxes.shape(0));
        args.boxes = pointer("boxes", boxes, {args.count, boxes::SIZE});
        args.groups = pointer("groups", groups, {args.count});
        args.threshold = threshold;
        args.is_3d = is_3d;
        args.max_kept = max_kept;
        args.kept = pointer("kept", kept, {args.count});
        require(on_cpu<W> || scratch, "scratch: got None, want an array");
        args.scratch = reinterpret_cast<uint64_t*>(pointer("scratch", scratch, {(args.count + 1) * ((args.count + 63) / 64)}));
        nb::gil_scoped_release release;
        Loops::nms(W(device, stream), args);
    });
}

}  // namespace vision3d::arrays
