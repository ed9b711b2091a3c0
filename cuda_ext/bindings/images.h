#pragma once
#include <algorithm>
#include <initializer_list>
#include "bindings/define.h"
#include "cpu/ssim.h"
#include "vision3d/adam.h"
#include "vision3d/noise.h"

// Binds ssim, ssim_vjp, adam_step and add_noise; Loops has the four for target W.
namespace vision3d::arrays {

template <typename W, typename Image>
void fill(Image& s, const In<W, 4>& a, const In<W, 4>& b, const In<W, 1>& weights, int64_t margin) {
    const int64_t window = int64_t(weights.shape(0)), shrink = window - 1 - 2 * margin;
    s.images = int64_t(a.shape(0));
    s.height = int64_t(a.shape(1));
    s.width = int64_t(a.shape(2));
    s.channels = int64_t(a.shape(3));
    require(window >= 1 && window <= std::min(s.height, s.width),
            "weights: want 1 to as many as the smaller side of the images has pixels");
    require(margin == 0 || (margin == window / 2 && window % 2 == 1), "margin: want 0, or half an odd window");
    s.out_height = s.height - shrink;
    s.out_width = s.width - shrink;
    s.margin = margin;
    s.window = int(window);
    s.weights = weights.data();
    s.a = a.data();
    s.b = pointer("b", b, {s.images, s.height, s.width, s.channels});
}

template <typename W, typename Loops>
void bind_images(nb::module_& m) {
    using T = typename W::Scalar;
    // derivatives: (4 or 0, images, out_height, out_width, channels), by the windowed means of a, b, aa + bb and ab
    define(m, "ssim", "a b weights margin c1 c2 values derivatives",
           [](In<W, 4> a, In<W, 4> b, In<W, 1> weights, int64_t margin, double c1, double c2, Out<W, 4> values, Out<W, 5> derivatives,
              int device, uint64_t stream) {
        SsimImage<T> s{};
        fill<W>(s, a, b, weights, margin);
        s.c1 = T(c1);
        s.c2 = T(c2);
        s.values = pointer("values", values, {s.images, s.out_height, s.out_width, s.channels});
        check("derivatives", derivatives, {derivatives.shape(0) ? 4 : 0, s.images, s.out_height, s.out_width, s.channels});
        if (derivatives.shape(0) == 4) {
            const int64_t map = s.images * s.out_height * s.out_width * s.channels;
            s.v_means_a = derivatives.data();
            s.v_means_b = derivatives.data() + map;
            s.v_squares = derivatives.data() + 2 * map;
            s.v_products = derivatives.data() + 3 * map;
        }
        nb::gil_scoped_release release;
        Loops::ssim(W(device, stream), s);
    });

    define(m, "ssim_vjp", "a b weights margin v_values v_means v_squares v_products v_a",
           [](In<W, 4> a, In<W, 4> b, In<W, 1> weights, int64_t margin, In<W, 4> v_values, In<W, 4> v_means, In<W, 4> v_squares,
              In<W, 4> v_products, Out<W, 4> v_a, int device, uint64_t stream) {
        SsimImageVjp<T> s{};
        fill<W>(s, a, b, weights, margin);
        const auto map = [&](const char* name, const In<W, 4>& array) {
            return pointer(name, array, {s.images, s.out_height, s.out_width, s.channels});
        };
        s.v_values = map("v_values", v_values);
        s.v_means = map("v_means", v_means);
        s.v_squares = map("v_squares", v_squares);
        s.v_products = map("v_products", v_products);
        s.v_a = pointer("v_a", v_a, {s.images, s.height, s.width, s.channels});
        nb::gil_scoped_release release;
        Loops::ssim_vjp(W(device, stream), s);
    });

    define(m, "adam_step", "param grad exp_avg exp_avg_sq visible learning_rate beta1 beta2 eps step",
           [](Out<W, 2> param, In<W, 2> grad, Out<W, 2> exp_avg, Out<W, 2> exp_avg_sq, MaybeIn<W, 1, bool> visible, double learning_rate,
              double beta1, double beta2, double eps, int64_t step, int device, uint64_t stream) {
        const int64_t count = int64_t(param.shape(0)), size = int64_t(param.shape(1));
        check("grad", grad, {count, size});
        check("exp_avg", exp_avg, {count, size});
        check("exp_avg_sq", exp_avg_sq, {count, size});
        const auto* rows = reinterpret_cast<const uint8_t*>(pointer("visible", visible, {count}));
        const AdamFactors<T> factors(learning_rate, beta1, beta2, eps, double(step));
        nb::gil_scoped_release release;
        Loops::adam_step(W(device, stream), param.data(), grad.data(), exp_avg.data(), exp_avg_sq.data(), rows, count, size, factors);
    });

    define(m, "add_noise", "means log_scales quats opacity_logits seed step strength max_logit",
           [](Out<W, 2> means, In<W, 2> log_scales, In<W, 2> quats, In<W, 1> opacity_logits, uint64_t seed, uint64_t step, double strength,
              double max_logit, int device, uint64_t stream) {
        const int64_t count = int64_t(means.shape(0));
        check("means", means, {count, 3});
        check("log_scales", log_scales, {count, 3});
        check("quats", quats, {count, 4});
        check("opacity_logits", opacity_logits, {count});
        const NoiseArgs<T> args{count, means.data(), log_scales.data(), quats.data(), opacity_logits.data(),
                                seed,  step,         T(strength),       T(max_logit)};
        nb::gil_scoped_release release;
        Loops::add_noise(W(device, stream), args);
    });
}

}  // namespace vision3d::arrays
