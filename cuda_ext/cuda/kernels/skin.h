#pragma once
#include "cuda/kernels/block.h"
#include "vision3d/skin.h"
#include "vision3d/skin_args.h"

// Indices beyond the joints are ignored; on a CPU they are rejected earlier.
namespace vision3d::bodies {

template <typename T>
V3D_BODY int64_t pivot_of(const skin::Args<T>& args, int64_t vertex) {
    const T* w = args.weights + vertex * args.influences;
    int best = 0;
    for (int k = 1; k < args.influences; ++k)
        if (w[k] > w[best]) best = k;
    return args.indices[vertex * args.influences + best];
}

template <typename T>
V3D_BODY T side_of(const T* row, const T* pivot) {
    return row[0] * pivot[0] + row[1] * pivot[1] + row[2] * pivot[2] + row[3] * pivot[3] < T(0) ? T(-1) : T(1);
}

template <typename T>
V3D_BODY bool is_joint(const skin::Args<T>& args, int64_t joint) {
    return joint >= 0 && joint < args.joints;
}

// The sum of a vertex's rows.
template <int MODE, typename T>
V3D_BODY void sum_rows(const skin::Args<T>& args, const T* rows, int64_t vertex, T* sums) {
    for (int j = 0; j < skin::ROW; ++j) sums[j] = T(0);
    const int64_t pivot = pivot_of(args, vertex);
    for (int k = 0; k < args.influences; ++k) {
        const int64_t at = vertex * args.influences + k, joint = args.indices[at];
        if (!is_joint(args, joint)) continue;
        const T w = args.weights[at], *row = rows + skin::ROW * joint;
        const T turned = (MODE & skin::DUAL) && is_joint(args, pivot) ? w * side_of(row, rows + skin::ROW * pivot) : w;
        for (int j = 0; j < skin::ROW; ++j) sums[j] += (j < skin::MAP ? turned : w) * row[j];
    }
}

template <int MODE, typename T>
V3D_BODY void skin_vertex(const skin::Args<T>& args, int64_t b, int64_t vertex) {
    T sums[skin::ROW];
    sum_rows<MODE>(args, args.rows + b * args.joints * skin::ROW, vertex, sums);
    skin::place<MODE>(sums, args.vertices + 3 * vertex, args.out + 3 * (b * args.vertices_count + vertex));
}

// The values of a row that a mode uses.
template <int MODE> struct Used {
    static constexpr int FIRST = MODE == skin::LINEAR ? skin::MAP : 0;
    static constexpr int COUNT = MODE == skin::LINEAR ? skin::STRETCHES - skin::MAP : MODE == skin::DUAL ? skin::MAP : skin::BLEND + 1;
};

// The joint after `last` in the order of joints, of those of a vertex; args.joints at the end.
template <typename T>
V3D_BODY int64_t next_joint(const skin::Args<T>& args, int64_t vertex, int64_t last) {
    int64_t next = args.joints;
    for (int k = 0; k < args.influences; ++k) {
        const int64_t joint = args.indices[vertex * args.influences + k];
        if (joint > last && joint < next) next = joint;
    }
    return next;
}

// One vertex per thread, for all poses. Adjacent vertices have few joints between them, so the threads of a warp take the same joint
// at a time, and add their sum.
template <int MODE, typename T>
V3D_BODY void skin_vjp(const Block& block, const skin::VjpArgs<T>& args) {
    constexpr int FIRST = Used<MODE>::FIRST, N = Used<MODE>::COUNT;
    const int64_t begin = block.index * block.threads;
    PerThread<T[3]> v_vertices(block.threads);
    PerThread<T[skin::ROW]> v_sums(block.threads);
    PerThread<T[8]> parts(block.threads);
    PerThread<T> weights(block.threads), sides(block.threads);
    PerThread<bool> counts(block.threads);
    block.each([&](int t) {
        for (int i = 0; i < 3; ++i) v_vertices[t][i] = T(0);
        for (int k = 0; begin + t < args.vertices_count && k < args.influences; ++k)
            args.v_weights[(begin + t) * args.influences + k] = T(0);
    });
    for (int64_t b = 0; b < args.batch; ++b) {
        const T* rows = args.rows + b * args.joints * skin::ROW;
        block.each([&](int t) {
            const int64_t vertex = begin + t;
            if (vertex >= args.vertices_count) return;
            T sums[skin::ROW], v_v[3];
            sum_rows<MODE, T>(args, rows, vertex, sums);
            skin::place_vjp<MODE>(sums, args.vertices + 3 * vertex, args.v_out + 3 * (b * args.vertices_count + vertex), v_sums[t], v_v);
            for (int i = 0; i < 3; ++i) v_vertices[t][i] += v_v[i];
        });
        for (int64_t joint = -1;;) {
            joint = block.least(
                [&](int t) { return begin + t < args.vertices_count ? next_joint<T>(args, begin + t, joint) : args.joints; });
            if (joint == args.joints) break;
            const T* row = rows + skin::ROW * joint;
            block.each([&](int t) {
                const int64_t vertex = begin + t;
                counts[t] = false;
                weights[t] = T(0);
                sides[t] = T(1);
                if (vertex >= args.vertices_count) return;
                for (int k = 0; k < args.influences; ++k) {
                    const int64_t at = vertex * args.influences + k;
                    if (args.indices[at] != joint) continue;
                    if (MODE & skin::DUAL) {
                        const int64_t pivot = pivot_of<T>(args, vertex);
                        if (is_joint<T>(args, pivot)) sides[t] = side_of(row, rows + skin::ROW * pivot);
                    }
                    T v_weight(0);
                    V3D_UNROLL
                    for (int j = 0; j < N; ++j)
                        v_weight += row[FIRST + j] * ((FIRST + j < skin::MAP ? sides[t] : T(1)) * v_sums[t][FIRST + j]);
                    args.v_weights[at] += v_weight;
                    weights[t] += args.weights[at];
                    counts[t] = true;
                }
            });
            V3D_UNROLL
            for (int first = 0; first < N; first += 8) {  // few registers
                block.each([&](int t) {
                    V3D_UNROLL
                    for (int j = 0; j < 8; ++j)
                        parts[t][j] = counts[t] && first + j < N
                                          ? weights[t] * ((FIRST + first + j < skin::MAP ? sides[t] : T(1)) * v_sums[t][FIRST + first + j])
                                          : T(0);
                });
                block.add_sums(parts, counts, N - first < 8 ? N - first : 8,
                               args.v_rows + (b * args.joints + joint) * skin::ROW + FIRST + first);
            }
        }
    }
    block.each([&](int t) {
        for (int i = 0; begin + t < args.vertices_count && i < 3; ++i) args.v_vertices[3 * (begin + t) + i] = v_vertices[t][i];
    });
}

}  // namespace vision3d::bodies
