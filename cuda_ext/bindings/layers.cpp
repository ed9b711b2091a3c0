#include <cmath>
#include "bindings/scans.h"
#include "cpu/layers.h"

namespace nb = nanobind;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

using Cpu = CpuTarget<float>;

template <typename Args>
void fill(Args& args, const In<Cpu, 2>& x, const In<Cpu, 1, int64_t>& starts, bool reverse, int64_t width) {
    require(width >= 1, "weight: got width 0, want at least 1");
    args.groups = groups_of<Cpu>(starts, int64_t(x.shape(0)), reverse);
    args.channels = int64_t(x.shape(1));
    args.width = width;
    args.x = x.data();
}

// Rows of contiguous numbers, which may be parts of longer rows.
using Rows = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;

const float* rows_of(const char* name, const Rows& values, std::initializer_list<int64_t> want, int64_t& stride) {
    check(name, values, want);
    stride = int64_t(values.stride(0));
    require(values.shape(1) <= 1 || values.stride(1) == 1, "gate, x: the channels of a row are not contiguous");
    return values.data();
}

template <typename Args>
void fill_gate(Args& args, const Rows& gate, const Rows& x) {
    args.rows = int64_t(gate.shape(0));
    args.channels = int64_t(gate.shape(1));
    args.gate = rows_of("gate", gate, {args.rows, args.channels}, args.gate_stride);
    args.x = rows_of("x", x, {args.rows, args.channels}, args.x_stride);
}

template <typename Args>
void fill_heads(Args& args, const In<Cpu, 3>& q, const In<Cpu, 3>& k, const In<Cpu, 3>& v, int64_t heads) {
    args.batch = int64_t(q.shape(0));
    args.queries = int64_t(q.shape(1));
    args.keys = int64_t(k.shape(1));
    args.heads = heads;
    require(heads >= 1 && args.keys >= 1, "attend: got no heads or no keys, want at least one");
    require(heads * layers::HEAD_WIDTH == int64_t(q.shape(2)), "attend: heads have 8 features");
    args.scale = 1.f / std::sqrt(float(layers::HEAD_WIDTH));
    args.q = q.data();
    args.k = pointer("k", k, {args.batch, args.keys, heads * layers::HEAD_WIDTH});
    args.v = pointer("v", v, {args.batch, args.keys, heads * layers::HEAD_WIDTH});
}

}  // namespace

void bind_layers(nb::module_& m) {
    define(m, "rms_norm", "x weight eps y scales", [](In<Cpu, 2> x, In<Cpu, 1> weight, float eps, Out<Cpu, 2> y, Out<Cpu, 1> scales) {
        layers::NormArgs args{};
        args.rows = int64_t(x.shape(0));
        args.channels = int64_t(x.shape(1));
        args.eps = eps;
        args.x = x.data();
        args.weight = pointer("weight", weight, {args.channels});
        args.y = pointer("y", y, {args.rows, args.channels});
        args.scales = pointer("scales", scales, {args.rows});
        nb::gil_scoped_release release;
        cpu::rms_norm(args);
    });
    define(m, "rms_norm_vjp", "x weight scales v_y v_x v_weight",
           [](In<Cpu, 2> x, In<Cpu, 1> weight, In<Cpu, 1> scales, In<Cpu, 2> v_y, Out<Cpu, 2> v_x, Out<Cpu, 2> v_weight) {
        layers::NormVjpArgs args{};
        args.rows = int64_t(x.shape(0));
        args.channels = int64_t(x.shape(1));
        args.x = x.data();
        args.weight = pointer("weight", weight, {args.channels});
        args.scales = pointer("scales", scales, {args.rows});
        args.v_y = pointer("v_y", v_y, {args.rows, args.channels});
        args.v_x = pointer("v_x", v_x, {args.rows, args.channels});
        args.v_weight = pointer("v_weight", v_weight, {(args.rows + layers::NORM_ROWS - 1) / layers::NORM_ROWS, args.channels});
        nb::gil_scoped_release release;
        cpu::rms_norm_vjp(args);
    });
    define(m, "group_conv", "x weight bias starts reverse y",
           [](In<Cpu, 2> x, In<Cpu, 2> weight, In<Cpu, 1> bias, In<Cpu, 1, int64_t> starts, bool reverse, Out<Cpu, 2> y) {
        layers::ConvArgs args{};
        fill(args, x, starts, reverse, int64_t(weight.shape(0)));
        args.weight = pointer("weight", weight, {args.width, args.channels});
        args.bias = pointer("bias", bias, {args.channels});
        args.y = pointer("y", y, {args.groups.rows, args.channels});
        nb::gil_scoped_release release;
        cpu::group_conv(args);
    });
    define(m, "group_conv_weights", "x v_y starts reverse v_weight v_bias",
           [](In<Cpu, 2> x, In<Cpu, 2> v_y, In<Cpu, 1, int64_t> starts, bool reverse, Out<Cpu, 3> v_weight, Out<Cpu, 2> v_bias) {
        layers::ConvWeightsArgs args{};
        fill(args, x, starts, reverse, int64_t(v_weight.shape(1)));
        args.v_y = pointer("v_y", v_y, {args.groups.rows, args.channels});
        args.v_weight = pointer("v_weight", v_weight, {args.groups.count, args.width, args.channels});
        args.v_bias = pointer("v_bias", v_bias, {args.groups.count, args.channels});
        nb::gil_scoped_release release;
        cpu::group_conv_weights(args);
    });
    define(m, "silu_gate", "gate x y", [](Rows gate, Rows x, Out<Cpu, 2> y) {
        layers::GateArgs args{};
        fill_gate(args, gate, x);
        args.y = pointer("y", y, {args.rows, args.channels});
        nb::gil_scoped_release release;
        cpu::silu_gate(args);
    });
    define(m, "silu_gate_vjp", "gate x v_y v_gate v_x", [](Rows gate, Rows x, In<Cpu, 2> v_y, Out<Cpu, 2> v_gate, Out<Cpu, 2> v_x) {
        layers::GateVjpArgs args{};
        fill_gate(args, gate, x);
        args.v_y = pointer("v_y", v_y, {args.rows, args.channels});
        args.v_gate = pointer("v_gate", v_gate, {args.rows, args.channels});
        args.v_x = pointer("v_x", v_x, {args.rows, args.channels});
        nb::gil_scoped_release release;
        cpu::silu_gate_vjp(args);
    });
    define(m, "attend", "q k v heads o lse", [](In<Cpu, 3> q, In<Cpu, 3> k, In<Cpu, 3> v, int64_t heads, Out<Cpu, 3> o, Out<Cpu, 3> lse) {
        layers::HeadArgs args{};
        fill_heads(args, q, k, v, heads);
        args.o = pointer("o", o, {args.batch, args.queries, heads * layers::HEAD_WIDTH});
        args.lse = pointer("lse", lse, {args.batch, heads, args.queries});
        nb::gil_scoped_release release;
        cpu::attend(args);
    });
    define(m, "attend_vjp", "q k v heads o lse v_o v_q v_k v_v",
           [](In<Cpu, 3> q, In<Cpu, 3> k, In<Cpu, 3> v, int64_t heads, In<Cpu, 3> o, In<Cpu, 3> lse, In<Cpu, 3> v_o, Out<Cpu, 3> v_q,
              Out<Cpu, 3> v_k, Out<Cpu, 3> v_v) {
        layers::HeadVjpArgs args{};
        fill_heads(args, q, k, v, heads);
        const std::initializer_list<int64_t> queries = {args.batch, args.queries, heads * layers::HEAD_WIDTH};
        const std::initializer_list<int64_t> keys = {args.batch, args.keys, heads * layers::HEAD_WIDTH};
        args.o = pointer("o", o, queries);
        args.lse = pointer("lse", lse, {args.batch, heads, args.queries});
        args.v_o = pointer("v_o", v_o, queries);
        args.v_q = pointer("v_q", v_q, queries);
        args.v_k = pointer("v_k", v_k, keys);
        args.v_v = pointer("v_v", v_v, keys);
        nb::gil_scoped_release release;
        cpu::attend_vjp(args);
    });
    define(m, "softplus", "x v_y out", [](In<Cpu, 1> x, MaybeIn<Cpu, 1> v_y, Out<Cpu, 1> out) {
        layers::SoftplusArgs args{};
        args.count = int64_t(x.shape(0));
        args.x = x.data();
        args.v_y = pointer("v_y", v_y, {args.count});
        args.out = pointer("out", out, {args.count});
        nb::gil_scoped_release release;
        cpu::softplus(args);
    });
}
