#pragma once
#include "bindings/define.h"
#include "vision3d/expansion.h"

// Binds sampled_expansion; Loops::run computes it for target W. On a CPU the columns must be a multiple of `padding`.
namespace vision3d::arrays {

template <typename W, typename Loops>
void bind_expansion(nb::module_& m, int64_t padding) {
    using T = typename W::Scalar;
    define(m, "sampled_expansion", "features weights shift positions places out",
           [padding](In<W, 4> features, In<W, 3> weights, In<W, 1> shift, In<W, 2> positions, In<W, 3> places, Out<W, 3> out, int device,
                     uint64_t stream) {
        expansion::Args<T> args{};
        args.images = int64_t(features.shape(0));
        args.height = int64_t(features.shape(1));
        args.width = int64_t(features.shape(2));
        args.c_in = int64_t(features.shape(3));
        args.c_out = int64_t(shift.shape(0));
        args.points = int64_t(places.shape(1));
        while (args.step * args.step < int64_t(weights.shape(0))) ++args.step;
        require(args.step > 0 && args.height > 0 && args.width > 0, "features, weights: got no cells, want at least one");
        require(args.c_out % padding == 0, "shift: the number of features is not a multiple of a vector");
        const int64_t texels = args.height * args.width * args.step * args.step;
        args.features = features.data();
        args.weights = pointer("weights", weights, {args.step * args.step, args.c_in, args.c_out});
        args.shift = shift.data();
        args.positions = pointer("positions", positions, {texels, args.c_out});
        args.places = pointer("places", places, {args.images, args.points, 2});
        args.out = pointer("out", out, {args.images, args.points, args.c_out});
        nb::gil_scoped_release release;
        Loops::run(W(device, stream), args);
    });
}

}  // namespace vision3d::arrays
