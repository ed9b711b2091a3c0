#pragma once
#include "vision3d/scans_args.h"

// Layers of sequence operators for which torch has no fast loop on a CPU.
namespace vision3d::layers {

constexpr int64_t NORM_ROWS = 512;  // rows whose weight gradients are added up in one row of partial sums

// y = x weight / sqrt(mean(x^2) + eps) for each row.
struct NormArgs {
    int64_t rows, channels;
    float eps;
    const float *x, *weight;  // (N,C) (C)
    float *y, *scales;        // (N,C) (N), 1 / sqrt(.)
};

struct NormVjpArgs {
    int64_t rows, channels;
    const float *x, *weight, *scales, *v_y;
    float *v_x, *v_weight;  // (N,C) (blocks of NORM_ROWS,C)
};

// Depthwise convolution inside groups: y_t = bias + sum_k weight_k x_{t - k}; t + k if reversed.
struct ConvArgs {
    scans::Groups groups;
    int64_t channels, width;
    const float *x, *weight, *bias;  // (T,D) (width,D) (D)
    float* y;                        // (T,D)
};

// The gradients by the weights: sum over a group of v_y_t x_{t - k}, and of v_y_t.
struct ConvWeightsArgs {
    scans::Groups groups;
    int64_t channels, width;
    const float *x, *v_y;
    float *v_weight, *v_bias;  // (G,width,D) (G,D)
};

// y = x SiLU(gate) with SiLU(g) = g / (1 + e^-g). Rows of gate and x may be parts of longer ones, `*_stride` numbers apart.
struct GateArgs {
    int64_t rows, channels, gate_stride, x_stride;
    const float *gate, *x;
    float* y;  // (N,C)
};

struct GateVjpArgs {
    int64_t rows, channels, gate_stride, x_stride;
    const float *gate, *x, *v_y;
    float *v_gate, *v_x;  // (N,C)
};

// y = log(1 + e^x), or v_x = v_y / (1 + e^-x) if v_y is not null.
struct SoftplusArgs {
    int64_t count;
    const float *x, *v_y;
    float* out;
};

constexpr int HEAD_WIDTH = 8;  // torch is faster for wider heads

// Attention of queries to keys in each head, o = softmax(q k^T scale) v: rows of HEADS x 8 numbers, as linear layers make them.
struct HeadArgs {
    int64_t batch, queries, keys, heads;
    float scale;
    const float *q, *k, *v;  // (B,N,8H) (B,M,8H) (B,M,8H)
    float *o, *lse;          // (B,N,8H) (B,H,N): log2 of the sum of 2^(log2(e) scale q k)
};

struct HeadVjpArgs {
    int64_t batch, queries, keys, heads;
    float scale;
    const float *q, *k, *v, *o, *lse, *v_o;
    float *v_q, *v_k, *v_v;
};

// Tasks are blocks of rows, or a group and a block of scans::BLOCK channels.
struct Loops {
    void (*norm)(const NormArgs&, int64_t begin, int64_t end);
    void (*norm_vjp)(const NormVjpArgs&, int64_t block);
    void (*conv)(const ConvArgs&, int64_t group, int64_t block);
    void (*conv_weights)(const ConvWeightsArgs&, int64_t group, int64_t block);
    void (*gate)(const GateArgs&, int64_t begin, int64_t end);
    void (*gate_vjp)(const GateVjpArgs&, int64_t begin, int64_t end);
    void (*softplus)(const SoftplusArgs&, int64_t begin, int64_t end);
    void (*attend)(const HeadArgs&, int64_t batch, int64_t head);
    void (*attend_vjp)(const HeadVjpArgs&, int64_t batch, int64_t head);
};

}  // namespace vision3d::layers
