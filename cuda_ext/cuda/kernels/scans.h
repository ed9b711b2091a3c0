#pragma once
#include "cuda/kernels/block.h"
#include "vision3d/scans.h"

// Work of one GPU thread: one channel, or one value of a head, of one group. The running state and its gradient are in the outputs of
// that name, in global memory, so the number of keys is not limited. Threads share the gradients of queries, keys and decays.
namespace vision3d::bodies {

using namespace scans;

template <typename T>
V3D_BODY T keyed_decay(T delta, T rate) {
    return decay_of(delta, rate * T(1.4426950408889634));
}

// Thread `task` of groups x channels.
template <typename T>
V3D_BODY void scan(const SelectiveArgs<T>& a, int64_t task) {
    const int64_t group = task / a.channels, c = task % a.channels, length = length_of(a.groups, group), N = a.states;
    const int64_t row = padded(a.channels) * N, first_chunk = kept_chunk(a.groups, group, CHUNK);
    const T* A = a.A + c * N;
    T* h = a.last + task * N;
    for (int64_t n = 0; n < N; ++n) h[n] = a.first[task * N + n];
    for (int64_t i = 0; i < length; ++i) {
        const int64_t t = token_of(a.groups, group, i), at = t * a.channels + c;
        if (a.kept && i % CHUNK == 0)
            for (int64_t n = 0; n < N; ++n) a.kept[(first_chunk + i / CHUNK) * row + c * N + n] = h[n];
        const T x = a.x[at], delta = a.delta[at];
        T out = a.skip[c] * x;
        for (int64_t n = 0; n < N; ++n) h[n] = step(h[n], keyed_decay(delta, A[n]), a.B[t * N + n], delta * x, a.C[t * N + n], out);
        a.y[at] = out;
    }
}

template <typename T>
V3D_BODY void scan(const SelectiveVjpArgs<T>& a, int64_t task) {
    const int64_t group = task / a.channels, c = task % a.channels, length = length_of(a.groups, group), N = a.states;
    const int64_t row = padded(a.channels) * N, first_chunk = kept_chunk(a.groups, group, CHUNK);
    const T* A = a.A + c * N;
    T *v_h = a.v_first + task * N, *v_A = a.v_A + task * N, *before = a.scratch + task * CHUNK * N, v_skip(0);
    for (int64_t n = 0; n < N; ++n) {
        v_h[n] = a.v_last[task * N + n];
        v_A[n] = T(0);
    }
    for (int64_t chunk = (length + CHUNK - 1) / CHUNK; chunk-- > 0;) {
        const int64_t begin = chunk * CHUNK, count = length - begin < CHUNK ? length - begin : CHUNK;
        for (int64_t n = 0; n < N; ++n) before[n] = a.kept[(first_chunk + chunk) * row + c * N + n];
        for (int64_t i = 0; i + 1 < count; ++i) {
            const int64_t t = token_of(a.groups, group, begin + i), at = t * a.channels + c;
            for (int64_t n = 0; n < N; ++n)
                before[(i + 1) * N + n] = fma(keyed_decay(a.delta[at], A[n]), before[i * N + n], a.B[t * N + n] * (a.delta[at] * a.x[at]));
        }
        for (int64_t i = count; i-- > 0;) {
            const int64_t t = token_of(a.groups, group, begin + i), at = t * a.channels + c;
            const int64_t sums = (c / BLOCK * a.groups.rows + t) * N;
            const T x = a.x[at], delta = a.delta[at], v_y = a.v_y[at], u = delta * x;
            T v_u(0), v_delta(0);
            for (int64_t n = 0; n < N; ++n) {
                const T B = a.B[t * N + n], decay = keyed_decay(delta, A[n]), old = before[i * N + n];
                const T g = fma(a.C[t * N + n], v_y, v_h[n]);
                add(a.v_C[sums + n], fma(decay, old, B * u) * v_y, true);
                add(a.v_B[sums + n], g * u, true);
                v_u = fma(g, B, v_u);
                v_h[n] = g * decay;
                const T through = v_h[n] * old;  // by delta A
                v_delta = fma(through, A[n], v_delta);
                v_A[n] = fma(through, delta, v_A[n]);
            }
            a.v_x[at] = fma(a.skip[c], v_y, v_u * delta);
            a.v_delta[at] = fma(v_u, x, v_delta);
            v_skip = fma(v_y, x, v_skip);
        }
    }
    a.v_skip[task] = v_skip;
}

// Where a thread of groups x heads x values finds its numbers.
struct Column {
    int64_t group, head, value, length, state, kept, kept_row;
    template <typename Args>
    V3D_BODY Column(const Args& a, int64_t task, int64_t chunk)
        : group(task / (a.heads * a.values)),
          head(task / a.values % a.heads),
          value(task % a.values),
          length(length_of(a.groups, group)),
          state((group * a.heads + head) * a.keys * a.values + value),
          kept((kept_chunk(a.groups, group, chunk) * a.heads + head) * a.keys * padded(a.values) + value),
          kept_row(a.heads * a.keys * padded(a.values)) {}
};

template <typename T>
V3D_BODY void scan(const AttentionArgs<T>& a, int64_t task) {
    const Column at(a, task, CHUNK);
    T* S = a.last + at.state;
    for (int64_t n = 0; n < a.keys; ++n) S[n * a.values] = a.first[at.state + n * a.values];
    for (int64_t i = 0; i < at.length; ++i) {
        const int64_t t = token_of(a.groups, at.group, i) * a.heads + at.head;
        if (a.kept && i % CHUNK == 0)
            for (int64_t n = 0; n < a.keys; ++n) a.kept[at.kept + i / CHUNK * at.kept_row + n * padded(a.values)] = S[n * a.values];
        const T *q = a.q + t * a.keys, *k = a.k + t * a.keys, *decay = a.decay + t * a.decays, v = a.v[t * a.values + at.value];
        T out(0);
        for (int64_t n = 0; n < a.keys; ++n) {
            const T old = S[n * a.values];
            S[n * a.values] = step(old, decay[a.decays == 1 ? 0 : n], k[n], v, a.exclusive ? T(0) : q[n], out);
            if (a.exclusive) out = fma(q[n], old, out);
        }
        a.o[t * a.values + at.value] = out;
    }
}

template <typename T>
V3D_BODY void scan(const AttentionVjpArgs<T>& a, int64_t task) {
    const Column at(a, task, CHUNK);
    T *v_S = a.v_first + at.state, *before = a.scratch + task * CHUNK * a.keys;
    for (int64_t n = 0; n < a.keys; ++n) v_S[n * a.values] = a.v_last[at.state + n * a.values];
    for (int64_t chunk = (at.length + CHUNK - 1) / CHUNK; chunk-- > 0;) {
        const int64_t begin = chunk * CHUNK, count = at.length - begin < CHUNK ? at.length - begin : CHUNK;
        for (int64_t n = 0; n < a.keys; ++n) before[n] = a.kept[at.kept + chunk * at.kept_row + n * padded(a.values)];
        for (int64_t i = 0; i + 1 < count; ++i) {
            const int64_t t = token_of(a.groups, at.group, begin + i) * a.heads + at.head;
            for (int64_t n = 0; n < a.keys; ++n)
                before[(i + 1) * a.keys + n] = fma(a.decay[t * a.decays + (a.decays == 1 ? 0 : n)], before[i * a.keys + n],
                                                   a.k[t * a.keys + n] * a.v[t * a.values + at.value]);
        }
        for (int64_t i = count; i-- > 0;) {
            const int64_t t = token_of(a.groups, at.group, begin + i) * a.heads + at.head;
            const T v = a.v[t * a.values + at.value], v_o = a.v_o[t * a.values + at.value];
            T v_v(0);
            for (int64_t n = 0; n < a.keys; ++n) {
                const int64_t keyed = t * a.decays + (a.decays == 1 ? 0 : n);
                const T q = a.q[t * a.keys + n], k = a.k[t * a.keys + n], decay = a.decay[keyed], old = before[i * a.keys + n];
                const T g = a.exclusive ? v_S[n * a.values] : fma(q, v_o, v_S[n * a.values]);
                add(a.v_q[t * a.keys + n], (a.exclusive ? old : fma(decay, old, k * v)) * v_o, true);
                add(a.v_k[t * a.keys + n], g * v, true);
                v_v = fma(k, g, v_v);
                add(a.v_log_decay[keyed], decay * g * old, true);
                v_S[n * a.values] = a.exclusive ? fma(q, v_o, decay * g) : decay * g;
            }
            a.v_v[t * a.values + at.value] = v_v;
        }
    }
}

// r = v - sum_k k S for a state with this stride
template <typename T>
V3D_BODY T error_of(const T* k, const T* S, int64_t stride, T v, int64_t keys) {
    for (int64_t n = 0; n < keys; ++n) v = fnma(k[n], S[n * stride], v);
    return v;
}

template <typename T>
V3D_BODY void scan(const DeltaArgs<T>& a, int64_t task) {
    const int64_t chunk = chunk_of(a.steps);
    const Column at(a, task, chunk);
    T* S = a.last + at.state;
    for (int64_t n = 0; n < a.keys; ++n) S[n * a.values] = a.first[at.state + n * a.values];
    for (int64_t i = 0; i < at.length; ++i) {
        const int64_t token = token_of(a.groups, at.group, i), t = token * a.heads + at.head;
        if (a.kept && i % chunk == 0)
            for (int64_t n = 0; n < a.keys; ++n) a.kept[at.kept + i / chunk * at.kept_row + n * padded(a.values)] = S[n * a.values];
        for (int64_t n = 0; n < a.keys; ++n) S[n * a.values] *= a.decay[t];
        for (int64_t j = 0; j < a.steps; ++j) {
            const int64_t row = (token * a.steps + j) * a.heads + at.head;
            const T* k = a.k + row * a.keys;
            const T e = a.beta[row] * error_of(k, S, a.values, a.v[row * a.values + at.value], a.keys);
            for (int64_t n = 0; n < a.keys; ++n) S[n * a.values] = fma(k[n], e, S[n * a.values]);
        }
        T out(0);
        for (int64_t n = 0; n < a.keys; ++n) out = fma(a.q[t * a.keys + n], S[n * a.values], out);
        a.o[t * a.values + at.value] = out;
    }
}

// As on a CPU: of each token of a chunk, the faded state, the states behind its steps and their errors are in the scratch.
template <typename T>
V3D_BODY void scan(const DeltaVjpArgs<T>& a, int64_t task) {
    const int64_t chunk_size = chunk_of(a.steps), K = a.keys, per_token = (a.steps + 1) * K;
    const Column at(a, task, chunk_size);
    T *v_S = a.v_first + at.state, *states = a.scratch + task * delta_scratch(K, a.steps), *errors = states + chunk_size * per_token;
    for (int64_t n = 0; n < K; ++n) v_S[n * a.values] = a.v_last[at.state + n * a.values];
    for (int64_t chunk = (at.length + chunk_size - 1) / chunk_size; chunk-- > 0;) {
        const int64_t begin = chunk * chunk_size, count = at.length - begin < chunk_size ? at.length - begin : chunk_size;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t token = token_of(a.groups, at.group, begin + i), t = token * a.heads + at.head;
            T* S = states + i * per_token;
            for (int64_t n = 0; n < K; ++n)
                S[n] = a.decay[t] * (i == 0 ? a.kept[at.kept + chunk * at.kept_row + n * padded(a.values)] : S[n - K]);
            for (int64_t j = 0; j < a.steps; ++j, S += K) {
                const int64_t row = (token * a.steps + j) * a.heads + at.head;
                const T *k = a.k + row * K, r = error_of(k, S, 1, a.v[row * a.values + at.value], K);
                errors[i * a.steps + j] = r;
                for (int64_t n = 0; n < K; ++n) S[K + n] = fma(k[n], a.beta[row] * r, S[n]);
            }
        }
        for (int64_t i = count; i-- > 0;) {
            const int64_t token = token_of(a.groups, at.group, begin + i), t = token * a.heads + at.head;
            const T *S = states + i * per_token + a.steps * K, v_o = a.v_o[t * a.values + at.value];
            for (int64_t n = 0; n < K; ++n) {
                add(a.v_q[t * K + n], S[n] * v_o, true);
                v_S[n * a.values] = fma(a.q[t * K + n], v_o, v_S[n * a.values]);
            }
            for (int64_t j = a.steps; j-- > 0;) {
                S -= K;
                const int64_t row = (token * a.steps + j) * a.heads + at.head;
                const T *k = a.k + row * K, r = errors[i * a.steps + j], e = a.beta[row] * r;
                const T v_e = -error_of(k, v_S, a.values, T(0), K), v_r = a.beta[row] * v_e;
                add(a.v_beta[row], v_e * r, true);
                a.v_v[row * a.values + at.value] = v_r;
                for (int64_t n = 0; n < K; ++n) {
                    const T g = v_S[n * a.values];
                    add(a.v_k[row * K + n], fnma(S[n], v_r, g * e), true);
                    v_S[n * a.values] = fnma(k[n], v_r, g);
                }
            }
            T through(0);
            for (int64_t n = 0; n < K; ++n) {
                through = fma(v_S[n * a.values], S[n], through);
                v_S[n * a.values] *= a.decay[t];
            }
            add(a.v_log_decay[t], through, true);
        }
    }
}

}  // namespace vision3d::bodies
