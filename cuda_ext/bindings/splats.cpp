#include "bindings/splats.h"
#include "bindings/splats_2dgs.h"
#include "cpu/intersect.h"
#include "cpu/splats.h"
#include "cuda/host_shim.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

using Vector = CpuTarget<float, cpu::Simd>;
template <typename T> using Shim = CpuTarget<T, host::Host>;

void bind_intersections(nb::module_& m) {
    using W = Vector;
    nb::class_<cpu::Intersections> type(m, "Intersections");
    type.def_prop_ro("total", &cpu::Intersections::total);
    const auto make = [](cpu::Intersections* self, In<W, 1, int64_t> offsets, In<W, 2> means2d, In<W, 2, int32_t> radii, In<W, 1> depths,
                         MaybeIn<W, 2> conics, In<W, 1> opacities, int width, int height, int tile_size) {
        const TileArgs<float> a = tile_args<W>(means2d, radii, depths, conics, opacities, width, height, tile_size);
        require(offsets.shape(0) > 0, "offsets: want one more than there are images");
        check_offsets<W>("offsets", offsets, a.count, a.count);
        nb::gil_scoped_release release;
        new (self) cpu::Intersections(int64_t(offsets.shape(0)) - 1, offsets.data(), a.means2d, a.radii, a.depths, a.conics, a.opacities,
                                      width, height, tile_size);
    };
    with_arguments<1>("__init__", "offsets means2d radii depths conics opacities width height tile_size", make, [&](auto... arguments) {
        type.def("__init__", make, arguments...,
                 // fill() reads these again
                 nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 5>(), nb::keep_alive<1, 6>(), nb::keep_alive<1, 7>());
    });
    const auto fill = [](const cpu::Intersections& self, Out<W, 1, int32_t> tiles_per_gauss, Out<W, 1, int64_t> isect_ids,
                         Out<W, 1, int32_t> flatten_ids, Out<W, 3, int32_t> isect_offsets) {
        check("isect_ids", isect_ids, {self.total()});
        check("flatten_ids", flatten_ids, {self.total()});
        check("tiles_per_gauss", tiles_per_gauss, {self.count()});
        check("isect_offsets", isect_offsets, {self.images(), self.grid().tiles_y, self.grid().tiles_x});
        nb::gil_scoped_release release;
        self.fill(tiles_per_gauss.data(), isect_ids.data(), flatten_ids.data(), isect_offsets.data());
    };
    with_arguments<1>("fill", "tiles_per_gauss isect_ids flatten_ids isect_offsets", fill,
                      [&](auto... arguments) { type.def("fill", fill, arguments...); });
}

}  // namespace

void bind_splats(nb::module_& m) {
    bind_camera(m);
    bind_constants(m);
    bind_intersections(m);
    bind_renderer<Vector>(m);
    bind_renderer<Shim<double>>(m);
    for (nb::module_ to : {m, nb::borrow<nb::module_>(m.def_submodule("kernel_bodies", "The CUDA kernels as loops on the CPU."))}) {
        bind_tiles<Shim<float>>(to);
        bind_tiles<Shim<double>>(to);
        bind_sort<Shim<float>, uint32_t>(to);
        bind_sort<Shim<float>, uint64_t>(to);
    }
    nb::module_ bodies = nb::borrow<nb::module_>(m.attr("kernel_bodies"));
    bind_constants(bodies);
    for (const char* name : {"Camera", "Intersections"}) bodies.attr(name) = m.attr(name);
    bind_renderer<Shim<float>>(bodies);
    bind_renderer<Shim<double>>(bodies);
}
