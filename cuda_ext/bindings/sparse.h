#pragma once
#include "bindings/define.h"
#include "vision3d/sparse.h"

// Binds the operations on sparse grids; Loops has neighbors, conv, conv_weights, segment_sum and segment_max for target W.
namespace vision3d::arrays {

// Not overloaded: its arrays are integers.
template <typename W, typename Loops, typename Check>
void bind_neighbors(nb::module_& m, Check check_sorted) {
    define(m, "voxel_neighbors", "coords grid_x grid_y grid_z size_x size_y size_z neighbors",
           [check_sorted](In<W, 2, int64_t> coords, int64_t grid_x, int64_t grid_y, int64_t grid_z, int size_x, int size_y, int size_z,
                          Out<W, 2, int32_t> neighbors, int device, uint64_t stream) {
        sparse::NeighborArgs args{};
        args.count = int64_t(coords.shape(0));
        args.coords = pointer("coords", coords, {args.count, 4});
        args.grid = {grid_x, grid_y, grid_z};
        const int sizes[3] = {size_x, size_y, size_z};
        for (int k = 0; k < 3; ++k) {
            require(sizes[k] % 2 == 1 && sizes[k] >= 1 && sizes[k] <= sparse::MAX_SIZE, "size: want odd numbers from 1 to 7");
            args.size[k] = sizes[k];
        }
        args.neighbors = pointer("neighbors", neighbors, {int64_t(size_x) * size_y * size_z, args.count});
        check_sorted(args);
        nb::gil_scoped_release release;
        Loops::neighbors(W(device, stream), args);
    });
}

template <typename W, typename T = typename W::Scalar>
void fill(sparse::ConvArgs<T>& args, const In<W, 2>& features, const In<W, 2, int32_t>& neighbors, int64_t c_out) {
    args.count = int64_t(features.shape(0));
    args.c_in = int64_t(features.shape(1));
    args.c_out = c_out;
    args.offsets = int64_t(neighbors.shape(0));
    args.features = features.data();
    args.neighbors = pointer("neighbors", neighbors, {args.offsets, args.count});
    check_range<W>("neighbors", neighbors, -1, args.count);
}

template <typename W, typename T = typename W::Scalar>
void fill(sparse::SegmentArgs<T>& args, const In<W, 2>& values, const In<W, 1, int64_t>& order, const In<W, 1, int64_t>& starts,
          const Out<W, 2>& out) {
    args.rows = int64_t(values.shape(0));
    args.channels = int64_t(values.shape(1));
    require(starts.shape(0) >= 1, "starts: got no number, want at least one");
    args.segments = int64_t(starts.shape(0)) - 1;
    args.values = values.data();
    args.order = order.data();
    args.starts = starts.data();
    args.out = pointer("out", out, {args.segments, args.channels});
    check_range<W>("order", order, 0, args.rows);
    check_offsets<W>("starts", starts, int64_t(order.shape(0)), int64_t(order.shape(0)));
}

template <typename W, typename Loops>
void bind_sparse(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "submanifold_conv", "features neighbors weights out",
           [](In<W, 2> features, In<W, 2, int32_t> neighbors, In<W, 3> weights, Out<W, 2> out, int device, uint64_t stream) {
        sparse::ConvArgs<T> args{};
        fill<W>(args, features, neighbors, int64_t(weights.shape(2)));
        args.weights = pointer("weights", weights, {args.offsets, args.c_in, args.c_out});
        args.out = pointer("out", out, {args.count, args.c_out});
        nb::gil_scoped_release release;
        Loops::conv(W(device, stream), args);
    });
    define(m, "submanifold_conv_weights", "features neighbors v_out v_weights",
           [](In<W, 2> features, In<W, 2, int32_t> neighbors, In<W, 2> v_out, Out<W, 3> v_weights, int device, uint64_t stream) {
        sparse::ConvWeightsArgs<T> args{};
        fill<W>(args, features, neighbors, int64_t(v_out.shape(1)));
        args.v_out = pointer("v_out", v_out, {args.count, args.c_out});
        args.v_weights = pointer("v_weights", v_weights, {args.offsets, args.c_in, args.c_out});
        nb::gil_scoped_release release;
        Loops::conv_weights(W(device, stream), args);
    });
    define(m, "segment_sum", "values order starts out",
           [](In<W, 2> values, In<W, 1, int64_t> order, In<W, 1, int64_t> starts, Out<W, 2> out, int device, uint64_t stream) {
        sparse::SegmentArgs<T> args{};
        fill<W>(args, values, order, starts, out);
        nb::gil_scoped_release release;
        Loops::segment_sum(W(device, stream), args);
    });
    define(m, "segment_max", "values order starts out places",
           [](In<W, 2> values, In<W, 1, int64_t> order, In<W, 1, int64_t> starts, Out<W, 2> out, MaybeOut<W, 2, int64_t> places, int device,
              uint64_t stream) {
        sparse::SegmentArgs<T> args{};
        fill<W>(args, values, order, starts, out);
        args.places = pointer("places", places, {args.segments, args.channels});
        if constexpr (on_cpu<W>)
            for (int64_t m = 0; m < args.segments; ++m)
                if (args.starts[m] == args.starts[m + 1])
                    throw std::invalid_argument("starts: segment " + std::to_string(m) + " has no rows, want at least one");
        nb::gil_scoped_release release;
        Loops::segment_max(W(device, stream), args);
    });
}

}  // namespace vision3d::arrays
