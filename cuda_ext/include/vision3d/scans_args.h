#pragma once
#include <cstdint>

// Recurrences over groups of rows; see scans.h. State of a group: one row for each key (or state n), contiguous along values (or,
// for the selective scan, one row for each channel, contiguous along n).
namespace vision3d::scans {

// The state in front of every CHUNK-th token is kept for the backward pass, which recomputes those between.
constexpr int CHUNK = 16, BLOCK = 16;  // BLOCK: channels that add to the same partial sums

struct Groups {
    const int64_t* starts;  // (count + 1)
    int64_t count, rows;
    bool reverse;  // from the last row of a group to the first
};

template <typename T>
struct SelectiveArgs {
    Groups groups;
    int64_t channels, states;                       // D, N
    const T *x, *delta, *A, *B, *C, *skip, *first;  // (T,D) (T,D) (D,N) (T,N) (T,N) (D) (G,D,N)
    T *y, *last;                                    // (T,D) (G,D,N)
    T* kept;                                        // kept_chunks x padded D x N, or null
};

template <typename T>
struct SelectiveVjpArgs : SelectiveArgs<T> {
    const T *v_y, *v_last;
    T *v_x, *v_delta;  // (T,D)
    T *v_A, *v_skip;   // (G,D,N) (G,D)
    T *v_B, *v_C;      // (blocks of D,T,N), cleared
    T* v_first;        // (G,D,N)
    T* scratch;        // G x D x CHUNK x N
};

template <typename T>
struct AttentionArgs {
    Groups groups;
    int64_t heads, keys, values;         // H, K, V
    int64_t decays;                      // decays of a head: K or 1
    bool exclusive;                      // outputs read the state in front of their token
    const T *q, *k, *v, *decay, *first;  // (T,H,K) (T,H,K) (T,H,V) (T,H,K or 1) (G,H,K,V)
    T *o, *last;                         // (T,H,V) (G,H,K,V)
    T* kept;                             // kept_chunks x H x K x padded V, or null
};

template <typename T>
struct AttentionVjpArgs : AttentionArgs<T> {
    const T *v_o, *v_last;
    T *v_q, *v_k, *v_log_decay;  // cleared
    T *v_v, *v_first;
    T* scratch;  // G x H x V x CHUNK x K
};

template <typename T>
struct DeltaArgs {
    Groups groups;
    int64_t heads, keys, values, steps;         // H, K, V; steps n of a token
    const T *q, *k, *v, *beta, *decay, *first;  // (T,H,K) (T,n,H,K) (T,n,H,V) (T,n,H) (T,H) (G,H,K,V)
    T *o, *last;                                // (T,H,V) (G,H,K,V)
    T* kept;                                    // kept_chunks x H x K x padded V, or null
};

template <typename T>
struct DeltaVjpArgs : DeltaArgs<T> {
    const T *v_o, *v_last;
    T *v_q, *v_k, *v_beta, *v_log_decay;  // cleared
    T *v_v, *v_first;
    T* scratch;  // G x H x V x delta_scratch
};

// Threads of a GPU: one for each channel, or for each value of a head, of each group.
template <typename T>
int64_t tasks(const SelectiveArgs<T>& args) {
    return args.groups.count * args.channels;
}

template <typename T>
int64_t tasks(const AttentionArgs<T>& args) {
    return args.groups.count * args.heads * args.values;
}

template <typename T>
int64_t tasks(const DeltaArgs<T>& args) {
    return args.groups.count * args.heads * args.values;
}

}  // namespace vision3d::scans
