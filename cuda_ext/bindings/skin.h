#pragma once
#include "bindings/define.h"
#include "vision3d/skin.h"
#include "vision3d/skin_args.h"

// Binds skin and skin_vjp; Loops has skin and vjp for target W.
namespace vision3d::arrays {

template <typename W, typename T = typename W::Scalar>
void fill(skin::Args<T>& args, int mode, const In<W, 2>& vertices, const In<W, 2>& weights, const In<W, 2, int64_t>& indices,
          const In<W, 3>& rows) {
    if (!skin::with_mode(mode, [](auto) {})) throw std::invalid_argument("mode: got " + std::to_string(mode) + ", want 1, 2, 3, 6 or 7");
    args.vertices_count = int64_t(vertices.shape(0));
    args.influences = int(weights.shape(1));
    args.batch = int64_t(rows.shape(0));
    args.joints = int64_t(rows.shape(1));
    if (args.influences < 1) throw std::invalid_argument("weights: got no influence a vertex, want at least 1");
    args.vertices = pointer("vertices", vertices, {args.vertices_count, 3});
    args.weights = pointer("weights", weights, {args.vertices_count, args.influences});
    args.indices = pointer("indices", indices, {args.vertices_count, args.influences});
    args.rows = pointer("rows", rows, {args.batch, args.joints, skin::ROW});
    check_range<W>("indices", indices, 0, args.joints);
}

template <typename W, typename Loops>
void bind_skin(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "skin", "vertices weights indices rows mode out",
           [](In<W, 2> vertices, In<W, 2> weights, In<W, 2, int64_t> indices, In<W, 3> rows, int mode, Out<W, 3> out, int device,
              uint64_t stream) {
        skin::Args<T> args{};
        fill<W>(args, mode, vertices, weights, indices, rows);
        args.out = pointer("out", out, {args.batch, args.vertices_count, 3});
        nb::gil_scoped_release release;
        Loops::forward(W(device, stream), args, mode);
    });
    define(m, "skin_vjp", "vertices weights indices rows mode v_out v_vertices v_weights v_rows",
           [](In<W, 2> vertices, In<W, 2> weights, In<W, 2, int64_t> indices, In<W, 3> rows, int mode, In<W, 3> v_out, Out<W, 2> v_vertices,
              Out<W, 2> v_weights, Out<W, 3> v_rows, int device, uint64_t stream) {
        skin::VjpArgs<T> args{};
        fill<W>(args, mode, vertices, weights, indices, rows);
        args.v_out = pointer("v_out", v_out, {args.batch, args.vertices_count, 3});
        args.v_vertices = pointer("v_vertices", v_vertices, {args.vertices_count, 3});
        args.v_weights = pointer("v_weights", v_weights, {args.vertices_count, args.influences});
        args.v_rows = pointer("v_rows", v_rows, {args.batch, args.joints, skin::ROW});
        nb::gil_scoped_release release;
        Loops::vjp(W(device, stream), args, mode);
    });
}

}  // namespace vision3d::arrays
