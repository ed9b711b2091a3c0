#pragma once
#include "cuda/kernels/block.h"
#include "vision3d/skin.h"
#include "vision3d/skin_args.h"

// Work of one GPU thread: one vertex, of one pose in the forward pass and of all poses in the backward pass. Indices beyond the
// joints are ignored; on a CPU they are rejected earlier.
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

template <int MODE, typename T>
V3D_BODY void skin_vertex_vjp(const skin::VjpArgs<T>& args, int64_t vertex) {
    const int64_t pivot = pivot_of<T>(args, vertex);
    T sums[skin::ROW], v_sums[skin::ROW], v_v[3], v_vertex[3] = {T(0), T(0), T(0)};
    for (int k = 0; k < args.influences; ++k) args.v_weights[vertex * args.influences + k] = T(0);
    for (int64_t b = 0; b < args.batch; ++b) {
        const T* rows = args.rows + b * args.joints * skin::ROW;
        T* v_rows = args.v_rows + b * args.joints * skin::ROW;
        sum_rows<MODE, T>(args, rows, vertex, sums);
        skin::place_vjp<MODE>(sums, args.vertices + 3 * vertex, args.v_out + 3 * (b * args.vertices_count + vertex), v_sums, v_v);
        for (int i = 0; i < 3; ++i) v_vertex[i] += v_v[i];
        for (int k = 0; k < args.influences; ++k) {
            const int64_t at = vertex * args.influences + k, joint = args.indices[at];
            if (!is_joint(args, joint)) continue;
            const T *row = rows + skin::ROW * joint, w = args.weights[at];
            const T side = (MODE & skin::DUAL) && is_joint(args, pivot) ? side_of(row, rows + skin::ROW * pivot) : T(1);
            T v_weight(0);
            for (int j = 0; j < skin::BLEND + 1; ++j) {
                if (MODE == skin::LINEAR && (j < skin::MAP || j >= skin::STRETCHES)) continue;
                if (MODE == skin::DUAL && j >= skin::MAP) continue;
                const T v = (j < skin::MAP ? side : T(1)) * v_sums[j];
                v_weight += row[j] * v;
                add(v_rows[skin::ROW * joint + j], w * v, true);
            }
            args.v_weights[at] += v_weight;
        }
    }
    for (int i = 0; i < 3; ++i) args.v_vertices[3 * vertex + i] = v_vertex[i];
}

}  // namespace vision3d::bodies
