#pragma once
#include "bindings/define.h"
#include "vision3d/scans.h"

// Binds the recurrences over groups; Loops has a function of each name, overloaded for its arguments, for target W.
namespace vision3d::arrays {

template <typename W>
scans::Groups groups_of(const In<W, 1, int64_t>& starts, int64_t rows, bool reverse) {
    if (starts.shape(0) < 1) throw std::invalid_argument("starts: got no value, want the first row of each group and the number of rows");
    check_offsets<W>("starts", starts, rows, rows);
    if constexpr (on_cpu<W>) {
        const int64_t first = starts.data()[0], last = starts.data()[starts.shape(0) - 1];
        if (first != 0 || last != rows)
            throw std::invalid_argument("starts: got " + std::to_string(first) + " to " + std::to_string(last) + ", want 0 to " +
                                        std::to_string(rows) + ", the number of rows");
    }
    return {starts.data(), int64_t(starts.shape(0)) - 1, rows, reverse};
}

template <typename Array>
auto kept_pointer(const std::optional<Array>& kept, int64_t size) -> decltype(kept->data()) {
    return pointer("kept", kept, {size});
}

template <typename W, typename T = typename W::Scalar>
void fill(scans::SelectiveArgs<T>& a, const In<W, 2>& x, const In<W, 2>& delta, const In<W, 2>& A, const In<W, 2>& B, const In<W, 2>& C,
          const In<W, 1>& skip, const In<W, 3>& first, const In<W, 1, int64_t>& starts, bool reverse) {
    const int64_t rows = int64_t(x.shape(0));
    a.groups = groups_of<W>(starts, rows, reverse);
    a.channels = int64_t(x.shape(1));
    a.states = int64_t(A.shape(1));
    a.x = x.data();
    a.delta = pointer("delta", delta, {rows, a.channels});
    a.A = pointer("A", A, {a.channels, a.states});
    a.B = pointer("B", B, {rows, a.states});
    a.C = pointer("C", C, {rows, a.states});
    a.skip = pointer("skip", skip, {a.channels});
    a.first = pointer("first", first, {a.groups.count, a.channels, a.states});
}

template <typename T>
int64_t kept_size(const scans::SelectiveArgs<T>& a) {
    return scans::kept_chunks(a.groups.rows, a.groups.count, scans::CHUNK) * scans::padded(a.channels) * a.states;
}

// Of attention and the delta rule.
template <typename Args>
int64_t kept_size(const Args& a, int64_t chunk) {
    return scans::kept_chunks(a.groups.rows, a.groups.count, chunk) * a.heads * a.keys * scans::padded(a.values);
}

template <typename W, typename T = typename W::Scalar>
void fill(scans::AttentionArgs<T>& a, const In<W, 3>& q, const In<W, 3>& k, const In<W, 3>& v, const In<W, 3>& decay, const In<W, 4>& first,
          const In<W, 1, int64_t>& starts, bool reverse, bool exclusive) {
    const int64_t rows = int64_t(q.shape(0));
    a.groups = groups_of<W>(starts, rows, reverse);
    a.heads = int64_t(q.shape(1));
    a.keys = int64_t(q.shape(2));
    a.values = int64_t(v.shape(2));
    a.decays = int64_t(decay.shape(2));
    a.exclusive = exclusive;
    if (a.decays != 1 && a.decays != a.keys)
        throw std::invalid_argument("decay: got " + std::to_string(a.decays) + " numbers a head, want 1 or " + std::to_string(a.keys));
    a.q = q.data();
    a.k = pointer("k", k, {rows, a.heads, a.keys});
    a.v = pointer("v", v, {rows, a.heads, a.values});
    a.decay = pointer("decay", decay, {rows, a.heads, a.decays});
    a.first = pointer("first", first, {a.groups.count, a.heads, a.keys, a.values});
}

template <typename W, typename T = typename W::Scalar>
void fill(scans::DeltaArgs<T>& a, const In<W, 3>& q, const In<W, 4>& k, const In<W, 4>& v, const In<W, 3>& beta, const In<W, 2>& decay,
          const In<W, 4>& first, const In<W, 1, int64_t>& starts, bool reverse) {
    const int64_t rows = int64_t(q.shape(0));
    a.groups = groups_of<W>(starts, rows, reverse);
    a.heads = int64_t(q.shape(1));
    a.keys = int64_t(q.shape(2));
    a.values = int64_t(v.shape(3));
    a.steps = int64_t(k.shape(1));
    if (a.steps < 1) throw std::invalid_argument("k: got 0 steps a token, want at least 1");
    a.q = q.data();
    a.k = pointer("k", k, {rows, a.steps, a.heads, a.keys});
    a.v = pointer("v", v, {rows, a.steps, a.heads, a.values});
    a.beta = pointer("beta", beta, {rows, a.steps, a.heads});
    a.decay = pointer("decay", decay, {rows, a.heads});
    a.first = pointer("first", first, {a.groups.count, a.heads, a.keys, a.values});
}

template <typename W, typename Loops>
void bind_selective(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "selective_scan", "x delta A B C skip first starts reverse y last kept",
           [](In<W, 2> x, In<W, 2> delta, In<W, 2> A, In<W, 2> B, In<W, 2> C, In<W, 1> skip, In<W, 3> first, In<W, 1, int64_t> starts,
              bool reverse, Out<W, 2> y, Out<W, 3> last, MaybeOut<W, 1> kept, int device, uint64_t stream) {
        scans::SelectiveArgs<T> a{};
        fill<W>(a, x, delta, A, B, C, skip, first, starts, reverse);
        a.y = pointer("y", y, {a.groups.rows, a.channels});
        a.last = pointer("last", last, {a.groups.count, a.channels, a.states});
        a.kept = kept_pointer(kept, kept_size(a));
        nb::gil_scoped_release release;
        Loops::scan(W(device, stream), a);
    });
    define(m, "selective_scan_vjp",
           "x delta A B C skip first starts reverse kept v_y v_last v_x v_delta v_A v_B v_C v_skip v_first scratch",
           [](In<W, 2> x, In<W, 2> delta, In<W, 2> A, In<W, 2> B, In<W, 2> C, In<W, 1> skip, In<W, 3> first, In<W, 1, int64_t> starts,
              bool reverse, Out<W, 1> kept, In<W, 2> v_y, In<W, 3> v_last, Out<W, 2> v_x, Out<W, 2> v_delta, Out<W, 3> v_A, Out<W, 3> v_B,
              Out<W, 3> v_C, Out<W, 2> v_skip, Out<W, 3> v_first, Out<W, 1> scratch, int device, uint64_t stream) {
        scans::SelectiveVjpArgs<T> a{};
        fill<W>(a, x, delta, A, B, C, skip, first, starts, reverse);
        const int64_t blocks = scans::padded(a.channels) / scans::BLOCK;
        a.kept = pointer("kept", kept, {kept_size(a)});
        a.v_y = pointer("v_y", v_y, {a.groups.rows, a.channels});
        a.v_last = pointer("v_last", v_last, {a.groups.count, a.channels, a.states});
        a.v_x = pointer("v_x", v_x, {a.groups.rows, a.channels});
        a.v_delta = pointer("v_delta", v_delta, {a.groups.rows, a.channels});
        a.v_A = pointer("v_A", v_A, {a.groups.count, a.channels, a.states});
        a.v_B = pointer("v_B", v_B, {blocks, a.groups.rows, a.states});
        a.v_C = pointer("v_C", v_C, {blocks, a.groups.rows, a.states});
        a.v_skip = pointer("v_skip", v_skip, {a.groups.count, a.channels});
        a.v_first = pointer("v_first", v_first, {a.groups.count, a.channels, a.states});
        a.scratch = pointer("scratch", scratch, {a.groups.count * a.channels * scans::CHUNK * a.states});
        nb::gil_scoped_release release;
        Loops::scan(W(device, stream), a);
    });
}

template <typename W, typename Loops>
void bind_attention(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "decayed_attention", "q k v decay first starts reverse exclusive o last kept",
           [](In<W, 3> q, In<W, 3> k, In<W, 3> v, In<W, 3> decay, In<W, 4> first, In<W, 1, int64_t> starts, bool reverse, bool exclusive,
              Out<W, 3> o, Out<W, 4> last, MaybeOut<W, 1> kept, int device, uint64_t stream) {
        scans::AttentionArgs<T> a{};
        fill<W>(a, q, k, v, decay, first, starts, reverse, exclusive);
        a.o = pointer("o", o, {a.groups.rows, a.heads, a.values});
        a.last = pointer("last", last, {a.groups.count, a.heads, a.keys, a.values});
        a.kept = kept_pointer(kept, kept_size(a, scans::CHUNK));
        nb::gil_scoped_release release;
        Loops::scan(W(device, stream), a);
    });
    define(m, "decayed_attention_vjp", "q k v decay first starts reverse exclusive kept v_o v_last v_q v_k v_v v_log_decay v_first scratch",
           [](In<W, 3> q, In<W, 3> k, In<W, 3> v, In<W, 3> decay, In<W, 4> first, In<W, 1, int64_t> starts, bool reverse, bool exclusive,
              Out<W, 1> kept, In<W, 3> v_o, In<W, 4> v_last, Out<W, 3> v_q, Out<W, 3> v_k, Out<W, 3> v_v, Out<W, 3> v_log_decay,
              Out<W, 4> v_first, Out<W, 1> scratch, int device, uint64_t stream) {
        scans::AttentionVjpArgs<T> a{};
        fill<W>(a, q, k, v, decay, first, starts, reverse, exclusive);
        a.kept = pointer("kept", kept, {kept_size(a, scans::CHUNK)});
        a.v_o = pointer("v_o", v_o, {a.groups.rows, a.heads, a.values});
        a.v_last = pointer("v_last", v_last, {a.groups.count, a.heads, a.keys, a.values});
        a.v_q = pointer("v_q", v_q, {a.groups.rows, a.heads, a.keys});
        a.v_k = pointer("v_k", v_k, {a.groups.rows, a.heads, a.keys});
        a.v_v = pointer("v_v", v_v, {a.groups.rows, a.heads, a.values});
        a.v_log_decay = pointer("v_log_decay", v_log_decay, {a.groups.rows, a.heads, a.decays});
        a.v_first = pointer("v_first", v_first, {a.groups.count, a.heads, a.keys, a.values});
        a.scratch = pointer("scratch", scratch, {a.groups.count * a.heads * a.values * scans::CHUNK * a.keys});
        nb::gil_scoped_release release;
        Loops::scan(W(device, stream), a);
    });
}

template <typename W, typename Loops>
void bind_delta(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "delta_rule", "q k v beta decay first starts reverse o last kept",
           [](In<W, 3> q, In<W, 4> k, In<W, 4> v, In<W, 3> beta, In<W, 2> decay, In<W, 4> first, In<W, 1, int64_t> starts, bool reverse,
              Out<W, 3> o, Out<W, 4> last, MaybeOut<W, 1> kept, int device, uint64_t stream) {
        scans::DeltaArgs<T> a{};
        fill<W>(a, q, k, v, beta, decay, first, starts, reverse);
        a.o = pointer("o", o, {a.groups.rows, a.heads, a.values});
        a.last = pointer("last", last, {a.groups.count, a.heads, a.keys, a.values});
        a.kept = kept_pointer(kept, kept_size(a, scans::chunk_of(a.steps)));
        nb::gil_scoped_release release;
        Loops::scan(W(device, stream), a);
    });
    define(m, "delta_rule_vjp", "q k v beta decay first starts reverse kept v_o v_last v_q v_k v_v v_beta v_log_decay v_first scratch",
           [](In<W, 3> q, In<W, 4> k, In<W, 4> v, In<W, 3> beta, In<W, 2> decay, In<W, 4> first, In<W, 1, int64_t> starts, bool reverse,
              Out<W, 1> kept, In<W, 3> v_o, In<W, 4> v_last, Out<W, 3> v_q, Out<W, 4> v_k, Out<W, 4> v_v, Out<W, 3> v_beta,
              Out<W, 2> v_log_decay, Out<W, 4> v_first, Out<W, 1> scratch, int device, uint64_t stream) {
        scans::DeltaVjpArgs<T> a{};
        fill<W>(a, q, k, v, beta, decay, first, starts, reverse);
        a.kept = pointer("kept", kept, {kept_size(a, scans::chunk_of(a.steps))});
        a.v_o = pointer("v_o", v_o, {a.groups.rows, a.heads, a.values});
        a.v_last = pointer("v_last", v_last, {a.groups.count, a.heads, a.keys, a.values});
        a.v_q = pointer("v_q", v_q, {a.groups.rows, a.heads, a.keys});
        a.v_k = pointer("v_k", v_k, {a.groups.rows, a.steps, a.heads, a.keys});
        a.v_v = pointer("v_v", v_v, {a.groups.rows, a.steps, a.heads, a.values});
        a.v_beta = pointer("v_beta", v_beta, {a.groups.rows, a.steps, a.heads});
        a.v_log_decay = pointer("v_log_decay", v_log_decay, {a.groups.rows, a.heads});
        a.v_first = pointer("v_first", v_first, {a.groups.count, a.heads, a.keys, a.values});
        a.scratch = pointer("scratch", scratch, {a.groups.count * a.heads * a.values * scans::delta_scratch(a.keys, a.steps)});
        nb::gil_scoped_release release;
        Loops::scan(W(device, stream), a);
    });
}

template <typename W, typename Loops>
void bind_scans(nb::module_& m) {
    bind_selective<W, Loops>(m);
    bind_attention<W, Loops>(m);
    bind_delta<W, Loops>(m);
}

}  // namespace vision3d::arrays
