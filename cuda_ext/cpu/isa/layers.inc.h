#pragma once
#include <cmath>
#include "cpu/isa/scan_rows.h"
#include "vision3d/layers_args.h"

// RMS norm of rows, depthwise convolution inside groups, gates and softplus, LANES channels at a time.
namespace vision3d::V3D_ISA {
namespace {

using namespace layers;

// Calls visit(part, first) for blocks of LANES channels.
template <typename Visit>
V3D_INLINE void in_lanes(int64_t begin, int64_t end, Visit visit) {
    for (int64_t c = begin; c < end; c += LANES) visit(Part(end - c), c);
}

void norm_rows(const NormArgs& a, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
        const float* x = a.x + row * a.channels;
        F squares(0.f);
        in_lanes(0, a.channels, [&](Part part, int64_t c) {
            const F value = part.load(x + c);
            squares = fma(value, value, squares);
        });
        const float scale = 1.f / std::sqrt(simd::sum(squares) / float(a.channels) + a.eps);
        a.scales[row] = scale;
        in_lanes(0, a.channels, [&](Part part, int64_t c) {
            part.store(a.y + row * a.channels + c, part.load(x + c) * F(scale) * part.load(a.weight + c));
        });
    }
}

// v_x = s (v_y w - x s^2 mean(v_y w x))
void norm_vjp_rows(const NormVjpArgs& a, int64_t block) {
    float* v_weight = a.v_weight + block * a.channels;
    std::memset(v_weight, 0, size_t(a.channels) * sizeof(float));
    for (int64_t row = block * NORM_ROWS; row < least(a.rows, (block + 1) * NORM_ROWS); ++row) {
        const float *x = a.x + row * a.channels, *v_y = a.v_y + row * a.channels;
        const float scale = a.scales[row];
        F products(0.f);
        in_lanes(0, a.channels, [&](Part part, int64_t c) {
            const F by_weight = part.load(v_y + c) * part.load(x + c);
            products = fma(by_weight, part.load(a.weight + c), products);
            part.store(v_weight + c, fma(by_weight, F(scale), part.load(v_weight + c)));
        });
        const F along(scale * scale * simd::sum(products) / float(a.channels));
        in_lanes(0, a.channels, [&](Part part, int64_t c) {
            const F across = fnma(part.load(x + c), along, part.load(v_y + c) * part.load(a.weight + c));
            part.store(a.v_x + row * a.channels + c, F(scale) * across);
        });
    }
}

// The k-th row in front of row t, or behind it if reversed.
template <typename Args>
V3D_INLINE const float* row_before(const Args& a, int64_t t, int64_t k) {
    return a.x + (a.groups.reverse ? t + k : t - k) * a.channels;
}

void conv_rows(const ConvArgs& a, int64_t group, int64_t block) {
    const int64_t length = length_of(a.groups, group);
    in_lanes(block * BLOCK, least((block + 1) * BLOCK, a.channels), [&](Part part, int64_t c) {
        const F bias = part.load(a.bias + c);
        for (int64_t i = 0; i < length; ++i) {
            const int64_t t = token_of(a.groups, group, i);
            F out = bias;
            for (int64_t k = 0; k < least(a.width, i + 1); ++k)
                out = fma(part.load(a.weight + k * a.channels + c), part.load(row_before(a, t, k) + c), out);
            part.store(a.y + t * a.channels + c, out);
        }
    });
}

void conv_weights_rows(const ConvWeightsArgs& a, int64_t group, int64_t block) {
    const int64_t length = length_of(a.groups, group);
    in_lanes(block * BLOCK, least((block + 1) * BLOCK, a.channels), [&](Part part, int64_t c) {
        F v_bias(0.f);
        for (int64_t k = 0; k < a.width; ++k) {
            F total(0.f);
            for (int64_t i = k; i < length; ++i) {
                const int64_t t = token_of(a.groups, group, i);
                total = fma(part.load(a.v_y + t * a.channels + c), part.load(row_before(a, t, k) + c), total);
            }
            part.store(a.v_weight + (group * a.width + k) * a.channels + c, total);
        }
        for (int64_t i = 0; i < length; ++i) v_bias = v_bias + part.load(a.v_y + (a.groups.starts[group] + i) * a.channels + c);
        part.store(a.v_bias + group * a.channels + c, v_bias);
    });
}

V3D_INLINE F sigmoid(F a) {
    const F s = F(1.f) / (F(1.f) + simd::exp(-a));
    return select(a <= a, s, a);  // exp loses NaN
}

void gate_rows(const GateArgs& a, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
        const float *gate = a.gate + row * a.gate_stride, *x = a.x + row * a.x_stride;
        in_lanes(0, a.channels, [&](Part part, int64_t c) {
            const F g = part.load(gate + c);
            part.store(a.y + row * a.channels + c, part.load(x + c) * (g * sigmoid(g)));
        });
    }
}

// SiLU'(g) = s (1 + g (1 - s)) with s = 1 / (1 + e^-g)
void gate_vjp_rows(const GateVjpArgs& a, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
        const float *gate = a.gate + row * a.gate_stride, *x = a.x + row * a.x_stride;
        in_lanes(0, a.channels, [&](Part part, int64_t c) {
            const int64_t at = row * a.channels + c;
            const F g = part.load(gate + c), s = sigmoid(g), v_y = part.load(a.v_y + at), along = v_y * s;
            part.store(a.v_x + at, along * g);
            part.store(a.v_gate + at, along * part.load(x + c) * fma(g, F(1.f) - s, F(1.f)));
        });
    }
}

// log(1 + e) for 0 <= e <= 1 as 2 atanh(t), t = e / (2 + e) <= 1/3: precise where e is small, too.
V3D_INLINE F log1p(F e) {
    const F t = e / (F(2.f) + e), z = t * t;
    F p(1.f / 15);
    for (const float term : {1.f / 13, 1.f / 11, 1.f / 9, 1.f / 7, 1.f / 5, 1.f / 3}) p = fma(z, p, F(term));
    return F(2.f) * fma(t * z, p, t);
}

void softplus_range(const SoftplusArgs& a, int64_t begin, int64_t end) {
    in_lanes(begin, end, [&](Part part, int64_t i) {
        const F x = part.load(a.x + i);
        if (a.v_y)
            part.store(a.out + i, part.load(a.v_y + i) * sigmoid(x));
        else
            part.store(a.out + i, select(x < F(0.f), F(0.f), x) + log1p(simd::exp(-abs(x))));
    });
}

}  // namespace
}  // namespace vision3d::V3D_ISA
