#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "bindings/define.h"
#include "cpu/adam.h"
#include "cpu/ssim.h"

namespace nb = nanobind;

namespace {

template <typename T, int Dims> using In = nb::ndarray<const T, nb::ndim<Dims>, nb::c_contig, nb::device::cpu>;
template <typename T, int Dims> using Out = nb::ndarray<T, nb::ndim<Dims>, nb::c_contig, nb::device::cpu>;

using vision3d::arrays::check;
using vision3d::arrays::define;
using vision3d::arrays::require;

template <typename T>
vision3d::SsimSize<T> size_of(const In<T, 4>& a, const In<T, 4>& b, const In<T, 1>& weights, int64_t margin) {
    const int64_t window = int64_t(weights.shape(0)), height = int64_t(a.shape(1)), width = int64_t(a.shape(2));
    require(window >= 1 && window <= std::min(height, width), "weights: want 1 to as many as the smaller side of the images has pixels");
    require(margin == 0 || (margin == window / 2 && window % 2 == 1), "margin: want 0, or half an odd window");
    check("b", b, {int64_t(a.shape(0)), height, width, int64_t(a.shape(3))});
    return {int64_t(a.shape(0)),
            height,
            width,
            int64_t(a.shape(3)),
            height + 2 * margin - window + 1,
            width + 2 * margin - window + 1,
            margin,
            int(window),
            weights.data()};
}

template <typename T>
void bind(nb::module_& m) {
    // derivatives: (4 or 0, images, out_height, out_width, channels), by the windowed means of a, b, aa + bb and ab
    define(m, "ssim", "a b weights margin c1 c2 values derivatives",
           [](In<T, 4> a, In<T, 4> b, In<T, 1> weights, int64_t margin, double c1, double c2, Out<T, 4> values, Out<T, 5> derivatives) {
        vision3d::SsimImage<T> s{
            size_of<T>(a, b, weights, margin), a.data(), b.data(), T(c1), T(c2), values.data(), nullptr, nullptr, nullptr, nullptr};
        check("values", values, {s.images, s.out_height, s.out_width, s.channels});
        check("derivatives", derivatives, {derivatives.shape(0) ? 4 : 0, s.images, s.out_height, s.out_width, s.channels});
        if (derivatives.shape(0) == 4) {
            const int64_t map = s.images * s.out_height * s.out_width * s.channels;
            s.v_means_a = derivatives.data();
            s.v_means_b = derivatives.data() + map;
            s.v_squares = derivatives.data() + 2 * map;
            s.v_products = derivatives.data() + 3 * map;
        }
        nb::gil_scoped_release release;
        vision3d::cpu::ssim(s);
    });

    define(m, "ssim_vjp", "a b weights margin v_values v_means v_squares v_products v_a",
           [](In<T, 4> a, In<T, 4> b, In<T, 1> weights, int64_t margin, In<T, 4> v_values, In<T, 4> v_means, In<T, 4> v_squares,
              In<T, 4> v_products, Out<T, 4> v_a) {
        const vision3d::SsimImageVjp<T> s{size_of<T>(a, b, weights, margin),
                                          a.data(),
                                          b.data(),
                                          v_values.data(),
                                          v_means.data(),
                                          v_squares.data(),
                                          v_products.data(),
                                          v_a.data()};
        for (const auto& [name, map] :
             {std::pair{"v_values", &v_values}, {"v_means", &v_means}, {"v_squares", &v_squares}, {"v_products", &v_products}})
            check(name, *map, {s.images, s.out_height, s.out_width, s.channels});
        check("v_a", v_a, {s.images, s.height, s.width, s.channels});
        nb::gil_scoped_release release;
        vision3d::cpu::ssim_vjp(s);
    });

    define(m, "adam_step", "param grad exp_avg exp_avg_sq visible learning_rate beta1 beta2 eps step",
           [](Out<T, 2> param, In<T, 2> grad, Out<T, 2> exp_avg, Out<T, 2> exp_avg_sq, std::optional<In<bool, 1>> visible,
              double learning_rate, double beta1, double beta2, double eps, int64_t step) {
        const int64_t count = int64_t(param.shape(0)), size = int64_t(param.shape(1));
        check("grad", grad, {count, size});
        check("exp_avg", exp_avg, {count, size});
        check("exp_avg_sq", exp_avg_sq, {count, size});
        if (visible) check("visible", *visible, {count});
        const vision3d::AdamFactors<T> factors(learning_rate, beta1, beta2, eps, double(step));
        const auto* rows = visible ? reinterpret_cast<const uint8_t*>(visible->data()) : nullptr;
        nb::gil_scoped_release release;
        vision3d::cpu::adam_step(param.data(), grad.data(), exp_avg.data(), exp_avg_sq.data(), rows, count, size, factors);
    });
}

}  // namespace

void bind_images(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
    define(m, "all_finite", "values", [](In<float, 1> values) {
        nb::gil_scoped_release release;
        return vision3d::cpu::all_finite(values.data(), int64_t(values.shape(0)));
    });
}
