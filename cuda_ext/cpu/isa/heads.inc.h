#pragma once
#include <cmath>
#include <vector>
#include "cpu/isa/scan_rows.h"
#include "vision3d/layers_args.h"

// Attention with narrow heads: LANES queries at a time, or LANES keys where the gradients of keys and values are added up.
namespace vision3d::V3D_ISA {
namespace {

using namespace layers;

constexpr float LOG2_E = 1.44269504f;
constexpr int WIDTH = HEAD_WIDTH;

// Columns of up to LANES rows, `stride` numbers apart, times a factor; 0 beyond the last row.
V3D_INLINE void columns_of(const float* rows, int64_t stride, int64_t count, float factor, F (&columns)[WIDTH]) {
    float values[WIDTH * LANES] = {};
    for (int64_t row = 0; row < least(count, LANES); ++row)
        for (int d = 0; d < WIDTH; ++d) values[d * LANES + row] = factor * rows[row * stride + d];
    for (int d = 0; d < WIDTH; ++d) columns[d] = simd::load(values + d * LANES);
}

V3D_INLINE void store_columns(const F (&columns)[WIDTH], int64_t stride, int64_t count, float factor, float* rows) {
    float values[WIDTH * LANES];
    for (int d = 0; d < WIDTH; ++d) simd::store(values + d * LANES, columns[d]);
    for (int64_t row = 0; row < least(count, LANES); ++row)
        for (int d = 0; d < WIDTH; ++d) rows[row * stride + d] = factor * values[d * LANES + row];
}

V3D_INLINE F product(const F (&columns)[WIDTH], const float* row) {
    F even = columns[0] * F(row[0]), odd = columns[1] * F(row[1]);  // two shorter chains
    for (int d = 2; d < WIDTH; d += 2) {
        even = fma(columns[d], F(row[d]), even);
        odd = fma(columns[d + 1], F(row[d + 1]), odd);
    }
    return even + odd;
}

V3D_INLINE F power(F exponent) { return simd::exp2(simd::max(F(-126.f), exponent)); }  // in this order NaN stays

void attend_head(const HeadArgs& a, int64_t batch, int64_t head) {
    const int64_t stride = a.heads * WIDTH;
    const float *k = a.k + batch * a.keys * stride + head * WIDTH, *v = a.v + batch * a.keys * stride + head * WIDTH;
    for (int64_t first = 0; first < a.queries; first += LANES) {
        const int64_t count = a.queries - first, at = (batch * a.queries + first) * stride + head * WIDTH;
        F q[WIDTH], o[WIDTH];
        columns_of(a.q + at, stride, count, a.scale * LOG2_E, q);
        F most = product(q, k), total(0.f);
        for (int64_t j = 1; j < a.keys; ++j) most = simd::max(most, product(q, k + j * stride));
        for (int d = 0; d < WIDTH; ++d) o[d] = F(0.f);
        for (int64_t j = 0; j < a.keys; ++j) {
            const F share = power(product(q, k + j * stride) - most);
            total = total + share;
            for (int d = 0; d < WIDTH; ++d) o[d] = fma(share, F(v[j * stride + d]), o[d]);
        }
        for (int d = 0; d < WIDTH; ++d) o[d] = o[d] / total;
        store_columns(o, stride, count, 1.f, a.o + at);
        float sums[LANES], largest[LANES];
        simd::store(sums, total);
        simd::store(largest, most);
        for (int64_t row = 0; row < least(count, LANES); ++row)
            a.lse[(batch * a.heads + head) * a.queries + first + row] = largest[row] + std::log2(sums[row]);
    }
}

// With p = 2^(s - lse): v_v = p^T v_o, v_s = p (v_o v^T - v_o o), v_q = scale v_s k, v_k = scale v_s^T q.
void attend_head_vjp(const HeadVjpArgs& a, int64_t batch, int64_t head) {
    const int64_t stride = a.heads * WIDTH, own = head * WIDTH;
    const float *q = a.q + batch * a.queries * stride + own, *v_o = a.v_o + batch * a.queries * stride + own;
    const float *k = a.k + batch * a.keys * stride + own, *v = a.v + batch * a.keys * stride + own;
    const float* lse = a.lse + (batch * a.heads + head) * a.queries;
    const float* o = a.o + batch * a.queries * stride + own;
    std::vector<float> alongs(size_t(a.queries));
    for (int64_t first = 0; first < a.queries; first += LANES) {
        const int64_t count = a.queries - first;
        F query[WIDTH], v_out[WIDTH], out[WIDTH], v_query[WIDTH], along(0.f);
        columns_of(q + first * stride, stride, count, a.scale * LOG2_E, query);
        columns_of(v_o + first * stride, stride, count, 1.f, v_out);
        columns_of(o + first * stride, stride, count, 1.f, out);
        for (int d = 0; d < WIDTH; ++d) along = fma(v_out[d], out[d], along);
        const F sum = Part(count).load(lse + first);
        Part(count).store(alongs.data() + first, along);
        for (int d = 0; d < WIDTH; ++d) v_query[d] = F(0.f);
        for (int64_t j = 0; j < a.keys; ++j) {
            const F v_score = power(product(query, k + j * stride) - sum) * (product(v_out, v + j * stride) - along);
            for (int d = 0; d < WIDTH; ++d) v_query[d] = fma(v_score, F(k[j * stride + d]), v_query[d]);
        }
        store_columns(v_query, stride, count, a.scale, a.v_q + batch * a.queries * stride + own + first * stride);
    }
    for (int64_t first = 0; first < a.keys; first += LANES) {
        const int64_t count = a.keys - first, at = (batch * a.keys + first) * stride + own;
        F key[WIDTH], value[WIDTH], v_key[WIDTH], v_value[WIDTH];
        columns_of(k + first * stride, stride, count, a.scale * LOG2_E, key);
        columns_of(v + first * stride, stride, count, 1.f, value);
        for (int d = 0; d < WIDTH; ++d) v_key[d] = v_value[d] = F(0.f);
        for (int64_t i = 0; i < a.queries; ++i) {
            const float *query = q + i * stride, *v_out = v_o + i * stride;
            const F share = power(product(key, query) - F(lse[i]));
            const F v_score = share * (product(value, v_out) - F(alongs[size_t(i)]));
            for (int d = 0; d < WIDTH; ++d) {
                v_value[d] = fma(share, F(v_out[d]), v_value[d]);
                v_key[d] = fma(v_score, F(query[d]), v_key[d]);
            }
        }
        store_columns(v_key, stride, count, a.scale, a.v_k + at);
        store_columns(v_value, stride, count, 1.f, a.v_v + at);
    }
}

}  // namespace
}  // namespace vision3d::V3D_ISA
