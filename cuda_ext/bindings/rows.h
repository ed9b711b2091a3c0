#pragma once
#include "bindings/define.h"
#include "vision3d/row_ops.h"

// Binds Op::NAME(rows, out) and Op::NAME_vjp(rows, [out,] v_out, v_rows). Loops has forward<Op> and vjp<Op> for target W.
namespace vision3d::arrays {

template <typename W, typename Loops>
void bind_rows(nb::module_& m) {
    rows::for_each([&](int index, auto op) {
        using Op = decltype(op);
        const std::string vjp_name = std::string(Op::NAME) + "_vjp";
        define(m, Op::NAME, "rows out", [index](In<W, 2> in, Out<W, 2> out, int device, uint64_t stream) {
            const int64_t count = int64_t(in.shape(0));
            check("rows", in, {count, Op::IN});
            check("out", out, {count, Op::OUT});
            nb::gil_scoped_release release;
            Loops::template forward<Op>(W(device, stream), index, in.data(), out.data(), count);
        });
        define(m, vjp_name.c_str(), "rows out v_out v_rows",
               [index](In<W, 2> in, MaybeIn<W, 2> out, In<W, 2> v_out, Out<W, 2> v_in, int device, uint64_t stream) {
            const int64_t count = int64_t(in.shape(0));
            check("rows", in, {count, Op::IN});
            check("v_out", v_out, {count, Op::OUT});
            check("v_rows", v_in, {count, Op::IN});
            const auto* kept = pointer("out", out, {count, Op::OUT});
            if (Op::KEEPS_OUTPUT && !out) throw std::invalid_argument("out: got None, want what the forward gave");
            nb::gil_scoped_release release;
            Loops::template vjp<Op>(W(device, stream), index, in.data(), kept, v_out.data(), v_in.data(), count);
        });
    });
}

}  // namespace vision3d::arrays
