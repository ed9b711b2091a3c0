#pragma once
#include <cmath>
#include "vision3d/macros.h"

namespace vision3d {

// One Adam step (Kingma and Ba 2015, algorithm 1) of one value. All factors are computed in double: 1 - 0.999f would be
// wrong in the fifth digit.
template <typename T>
struct AdamFactors {
    AdamFactors(double learning_rate, double beta1, double beta2, double eps, double step)
        : rate(T(learning_rate / (1 - std::pow(beta1, step)))),
          root(T(1 / std::sqrt(1 - std::pow(beta2, step)))),
          new1(T(1 - beta1)),
          keep2(T(beta2)),
          new2(T(1 - beta2)),
          eps(T(eps)) {}

    T rate, root;         // with the bias corrections
    T new1, keep2, new2;  // 1 - beta1, beta2, 1 - beta2
    T eps;
};

template <typename T>
V3D_HD void adam_step(T& param, T grad, T& exp_avg, T& exp_avg_sq, const AdamFactors<T>& f) {
    exp_avg += f.new1 * (grad - exp_avg);
    exp_avg_sq = f.keep2 * exp_avg_sq + f.new2 * grad * grad;
    param -= f.rate * exp_avg / (std::sqrt(exp_avg_sq) * f.root + f.eps);
}

}  // namespace vision3d
