#pragma once
#include <cmath>
#include "cpu/isa/scan_rows.h"
#include "vision3d/layers_args.h"

// RMS norm of rows and depthwise convolution inside groups, LANES channels at a time.
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

}  // namespace
}  // namespace vision3d::V3D_ISA
