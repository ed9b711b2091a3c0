#pragma once
#include "bindings/define.h"
#include "vision3d/group_kernel.h"

namespace vision3d::arrays {

// Binds group_kernel, with `kernel(args, where)` as its loop on target W.
template <typename W, typename Kernel>
void bind_group_kernel(nb::module_& m, Kernel kernel) {
    using T = typename W::Scalar;
    define(m, "group_kernel", "inverses elements out_factors in_factors w1 b1 w2 b2 w3 b3 w4 b4 sym mask wave extent values",
           [kernel](In<W, 3> inverses, MaybeIn<W, 3> elements, In<W, 1> out_factors, In<W, 1> in_factors, In<W, 2> w1, In<W, 1> b1,
                    In<W, 2> w2, In<W, 1> b2, In<W, 2> w3, In<W, 1> b3, In<W, 2> w4, In<W, 1> b4, int sym, int mask, int wave,
                    double extent, Out<W, 6> values, int device, uint64_t stream) {
        GroupKernelArgs<T> a{};
        a.outputs = int64_t(inverses.shape(0));
        a.inputs = int64_t(in_factors.shape(0));
        a.c_out = int64_t(values.shape(0));
        a.c_in = int64_t(values.shape(2));
        a.size = int(values.shape(4));
        a.sym = elements ? sym : -1;
        a.mask = mask;
        a.wave = wave;
        a.extent = T(extent);
        const int64_t width = int64_t(w1.shape(0)), dims = kernel_dims(a), count = a.c_out * a.c_in;
        if (width > KERNEL_WIDTH) throw std::invalid_argument("w1: got " + std::to_string(width) + " units, want at most 64");
        if (sym != 0 && sym != 2 && sym != 3) throw std::invalid_argument("sym: want 0, 2 or 3");
        if (!elements && a.inputs != 1) throw std::invalid_argument("in_factors: want 1 on the plane alone");
        a.width = int(width);
        a.inverses = pointer("inverses", inverses, {a.outputs, 2, 2});
        a.elements = pointer("elements", elements, {a.inputs, 2, 2});
        a.out_factors = pointer("out_factors", out_factors, {a.outputs});
        a.in_factors = in_factors.data();
        a.weights[0] = pointer("w1", w1, {width, dims});
        a.weights[1] = pointer("w2", w2, {width, width});
        a.weights[2] = pointer("w3", w3, {width, width});
        a.weights[3] = pointer("w4", w4, {count, width});
        a.biases[0] = pointer("b1", b1, {width});
        a.biases[1] = pointer("b2", b2, {width});
        a.biases[2] = pointer("b3", b3, {width});
        a.biases[3] = pointer("b4", b4, {count});
        a.values = pointer("values", values, {a.c_out, a.outputs, a.c_in, a.inputs, a.size, a.size});
        nb::gil_scoped_release release;
        kernel(a, W(device, stream).where);
    });
}

}  // namespace vision3d::arrays
