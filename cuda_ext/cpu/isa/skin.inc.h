// Skinning, LANES vertices at a time. The rows of a vertex's joints are summed as vectors along the row; the sums of LANES
// vertices are then transposed, so that the maths is vectorized over vertices.
#include "cpu/isa/rows.inc.h"
#include "cpu/isa/simd.h"
#include "vision3d/skin.h"
#include "vision3d/skin_args.h"

namespace vision3d::V3D_ISA {

// The vectors of a row that a mode reads.
template <int MODE>
struct SkinSpan {
    static constexpr int FIRST = (MODE == skin::LINEAR ? 8 : 0) / simd::LANES;
    static constexpr int END = ((MODE == skin::LINEAR ? 20 : MODE == skin::DUAL ? 8 : skin::ROW) + simd::LANES - 1) / simd::LANES;
};

alignas(64) constexpr float IN_DUAL[skin::ROW] = {1, 1, 1, 1, 1, 1, 1, 1};

// `weight` along a row, but `signed_weight` for the dual quaternion.
V3D_INLINE simd::F along_row(int vector, float weight, float signed_weight) {
    if ((vector + 1) * simd::LANES <= 8) return simd::F(signed_weight);
    if (vector * simd::LANES >= 8) return simd::F(weight);
    return simd::fma(simd::F(signed_weight - weight), simd::load(IN_DUAL + vector * simd::LANES), simd::F(weight));
}

V3D_INLINE float on_side_of(const float* row, const float* pivot) {
    return row[0] * pivot[0] + row[1] * pivot[1] + row[2] * pivot[2] + row[3] * pivot[3] < 0.f ? -1.f : 1.f;
}

V3D_INLINE int64_t pivot_of(const float* weights, const int64_t* indices, int influences) {
    int best = 0;
    for (int k = 1; k < influences; ++k)
        if (weights[k] > weights[best]) best = k;
    return indices[best];
}

template <int MODE>
V3D_INLINE void sum_rows(const skin::Args<float>& args, const float* rows, int64_t begin, int used, simd::F* sums) {
    constexpr int FIRST = SkinSpan<MODE>::FIRST, END = SkinSpan<MODE>::END, N = simd::LANES;
    alignas(64) float buffer[N][skin::ROW];
    for (int lane = 0; lane < used; ++lane) {
        const float* w = args.weights + (begin + lane) * args.influences;
        const int64_t* joints = args.indices + (begin + lane) * args.influences;
        const float* pivot = rows + skin::ROW * pivot_of(w, joints, args.influences);
        simd::F total[END - FIRST];
        for (int v = FIRST; v < END; ++v) total[v - FIRST] = simd::F(0.f);
        for (int k = 0; k < args.influences; ++k) {
            const float* row = rows + skin::ROW * joints[k];
            const float turned = (MODE & skin::DUAL) ? w[k] * on_side_of(row, pivot) : w[k];
            for (int v = FIRST; v < END; ++v)
                total[v - FIRST] = simd::fma(along_row(v, w[k], turned), simd::load(row + v * N), total[v - FIRST]);
        }
        for (int v = FIRST; v < END; ++v) simd::store(buffer[lane] + v * N, total[v - FIRST]);
    }
    alignas(64) float turned[N];
    const int last = used < 1 ? 0 : used - 1;  // lanes past the end repeat the last vertex
    for (int j = FIRST * N; j < END * N; ++j) {
        for (int lane = 0; lane < N; ++lane) turned[lane] = buffer[lane < last ? lane : last][j];
        sums[j] = simd::load(turned);
    }
}

template <int MODE>
void skin_range(const skin::Args<float>& args, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += simd::LANES) {
        const int used = end - i < simd::LANES ? int(end - i) : simd::LANES;
        simd::F v[3], sums[skin::ROW], out[3];
        load_rows<3>(args.vertices + 3 * i, used, v);
        for (int64_t b = 0; b < args.batch; ++b) {
            sum_rows<MODE>(args, args.rows + b * args.joints * skin::ROW, i, used, sums);
            skin::place<MODE>(sums, v, out);
            store_rows<3>(args.out + 3 * (b * args.vertices_count + i), used, out);
        }
    }
}

// Adds the gradients of rows to v_rows (B, J, ROW), which belongs to this range only.
template <int MODE>
void skin_range_vjp(const skin::VjpArgs<float>& args, int64_t begin, int64_t end, float* v_rows) {
    constexpr int FIRST = SkinSpan<MODE>::FIRST, END = SkinSpan<MODE>::END, N = simd::LANES;
    for (int64_t n = begin * args.influences; n < end * args.influences; ++n) args.v_weights[n] = 0.f;
    for (int64_t i = begin; i < end; i += N) {
        const int used = end - i < N ? int(end - i) : N;
        simd::F v[3], sums[skin::ROW], v_out[3], v_sums[skin::ROW], v_v[3], v_vertex[3] = {simd::F(0.f), simd::F(0.f), simd::F(0.f)};
        load_rows<3>(args.vertices + 3 * i, used, v);
        for (int64_t b = 0; b < args.batch; ++b) {
            const float* rows = args.rows + b * args.joints * skin::ROW;
            float* v_of = v_rows + b * args.joints * skin::ROW;
            sum_rows<MODE>(args, rows, i, used, sums);
            load_rows<3>(args.v_out + 3 * (b * args.vertices_count + i), used, v_out);
            skin::place_vjp<MODE>(sums, v, v_out, v_sums, v_v);
            for (int k = 0; k < 3; ++k) v_vertex[k] = v_vertex[k] + v_v[k];
            alignas(64) float buffer[N][skin::ROW], turned[N];
            for (int j = FIRST * N; j < END * N; ++j) {
                simd::store(turned, v_sums[j]);
                for (int lane = 0; lane < N; ++lane) buffer[lane][j] = turned[lane];
            }
            for (int lane = 0; lane < used; ++lane) {
                const int64_t first = (i + lane) * args.influences;
                const float* w = args.weights + first;
                const int64_t* joints = args.indices + first;
                const float* pivot = rows + skin::ROW * pivot_of(w, joints, args.influences);
                for (int k = 0; k < args.influences; ++k) {
                    const float* row = rows + skin::ROW * joints[k];
                    float* v_row = v_of + skin::ROW * joints[k];
                    const float side = (MODE & skin::DUAL) ? on_side_of(row, pivot) : 1.f;
                    simd::F v_weight(0.f);
                    for (int j = FIRST; j < END; ++j) {
                        const simd::F signed_v = along_row(j, 1.f, side) * simd::load(buffer[lane] + j * N);
                        v_weight = simd::fma(simd::load(row + j * N), signed_v, v_weight);
                        simd::store(v_row + j * N, simd::fma(simd::F(w[k]), signed_v, simd::load(v_row + j * N)));
                    }
                    args.v_weights[first + k] += simd::sum(v_weight);
                }
            }
        }
        store_rows<3>(args.v_vertices + 3 * i, used, v_vertex);
    }
}

inline void skin_vertices(const skin::Args<float>& args, int mode, int64_t begin, int64_t end) {
    skin::with_mode(mode, [&](auto m) { skin_range<decltype(m)::value>(args, begin, end); });
}

inline void skin_vertices_vjp(const skin::VjpArgs<float>& args, int mode, int64_t begin, int64_t end, float* v_rows) {
    skin::with_mode(mode, [&](auto m) { skin_range_vjp<decltype(m)::value>(args, begin, end, v_rows); });
}

}  // namespace vision3d::V3D_ISA
