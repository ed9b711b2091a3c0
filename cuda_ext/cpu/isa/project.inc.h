#pragma once
// Projection and spherical harmonics of LANES Gaussians at a time; fisheye cameras one at a time (they need an arctangent).
#include "cpu/isa/simd.h"
#include "vision3d/args.h"
#include "vision3d/sh.h"

namespace vision3d::V3D_ISA {

// Values of one Gaussian per lane: width 1 for float, LANES for F.
template <typename T> struct LaneCount {
    static constexpr int N = 1;
};
template <> struct LaneCount<simd::F> {
    static constexpr int N = simd::LANES;
};

V3D_INLINE float load_lanes(const float* p, float) { return *p; }
V3D_INLINE simd::F load_lanes(const float* p, simd::F) { return simd::load(p); }
V3D_INLINE void store_lanes(float* p, float a) { *p = a; }
V3D_INLINE void store_lanes(float* p, simd::F a) { simd::store(p, a); }

// Reads rows ids[0..N) of an array with `width` columns into one register per column, and writes or adds them back.
template <typename T, int WIDTH>
V3D_INLINE void gather(const float* rows, const int64_t* ids, T* out) {
    constexpr int N = LaneCount<T>::N;
    alignas(64) float buffer[WIDTH][N];
    for (int lane = 0; lane < N; ++lane)
        for (int j = 0; j < WIDTH; ++j) buffer[j][lane] = rows[ids[lane] * WIDTH + j];
    for (int j = 0; j < WIDTH; ++j) out[j] = load_lanes(buffer[j], T());
}

template <typename T, int WIDTH, bool ADD>
V3D_INLINE void scatter(float* rows, const int64_t* ids, int used, const T* values) {
    constexpr int N = LaneCount<T>::N;
    alignas(64) float buffer[WIDTH][N];
    for (int j = 0; j < WIDTH; ++j) store_lanes(buffer[j], values[j]);
    for (int lane = 0; lane < used; ++lane)
        for (int j = 0; j < WIDTH; ++j) {
            float& target = rows[ids[lane] * WIDTH + j];
            target = ADD ? target + buffer[j][lane] : buffer[j][lane];
        }
}

// Ids begin..begin+N; those past the end repeat the last one.
template <int N>
V3D_INLINE int lane_ids(int64_t begin, int64_t end, int64_t* ids) {
    const int used = int(end - begin < N ? end - begin : N);
    for (int lane = 0; lane < N; ++lane) ids[lane] = begin + (lane < used ? lane : used - 1);
    return used;
}

template <typename T, int MODEL, bool COVARS>
static void project_chunk(const ProjectArgs<float>& args, int64_t image, int64_t begin, int64_t end) {
    constexpr int N = LaneCount<T>::N;
    const simd::FlushToZero flush;
    const int64_t first = image / args.cameras * args.count, out = image * args.count;
    const View<float> view(args.viewmats + 16 * image, args.Ks + 9 * image, args.limits.width, args.limits.height);
    int32_t* radii = args.radii + 2 * out;
    for (int64_t i = begin; i < end; i += N) {
        int64_t ids[N];
        const int used = lane_ids<N>(i, end, ids);
        T mean[3];
        Projection<T> f;
        gather<T, 3>(args.means + 3 * first, ids, mean);
        if constexpr (COVARS) {
            T covar[6];
            gather<T, 6>(args.covars + 6 * first, ids, covar);
            project_covariance<MODEL>(view, mean, covar, T(args.eps2d), f);
        } else {
            T quat[4], scales[3];
            gather<T, 4>(args.quats + 4 * first, ids, quat);
            gather<T, 3>(args.scales + 3 * first, ids, scales);
            project_gaussian<MODEL>(view, mean, quat, scales, T(args.eps2d), f);
        }
        const T columns[10] = {f.mean2d[0], f.mean2d[1],    f.depth, f.conic[0], f.conic[1],
                               f.conic[2],  f.compensation, f.det,   f.cov2d[0], f.cov2d[2]};
        alignas(64) float value[10][N];
        for (int j = 0; j < 10; ++j) store_lanes(value[j], columns[j]);
        for (int lane = 0; lane < used; ++lane) {
            const int64_t g = ids[lane];
            const auto v = [&](int j) { return value[j][lane]; };
            const Projection<float> one{{v(0), v(1)}, v(2), {v(3), v(4), v(5)}, v(6), {v(8), 0.f, v(9)}, v(7)};
            const float extent = args.opacities ? seen_extent(args.opacities[first + g] * (args.antialiased ? v(6) : 1.f)) : 3.33f;
            const bool seen = splat_radii(one, extent, args.limits, radii + 2 * g);
            for (int j = 0; j < 2; ++j) args.means2d[2 * (out + g) + j] = seen ? v(j) : 0.f;
            args.depths[out + g] = seen ? v(2) : 0.f;
            for (int j = 0; j < 3; ++j) args.conics[3 * (out + g) + j] = seen ? v(3 + j) : 0.f;
            args.compensations[out + g] = seen ? v(6) : 0.f;
        }
    }
}

template <typename T, int MODEL, bool COVARS>
static void project_chunk_vjp(const ProjectVjpArgs<float>& vjp, int64_t image, int64_t begin, int64_t end, float* v_view_out) {
    constexpr int N = LaneCount<T>::N;
    const simd::FlushToZero flush;
    const ProjectArgs<float>& args = vjp.forward;
    const int64_t first = image / args.cameras * args.count, out = image * args.count;
    const View<float> view(args.viewmats + 16 * image, args.Ks + 9 * image, args.limits.width, args.limits.height);
    T v_view[12];
    for (T& v : v_view) v = T(0);
    for (int64_t i = begin; i < end; i += N) {
        int64_t places[N], ids[N];
        const int used = lane_ids<N>(i, end, places);
        for (int lane = 0; lane < N; ++lane) {
            ids[lane] = vjp.gaussian_ids[places[lane]];
            if (!vjp.packed) places[lane] = out + ids[lane];
        }
        T mean[3], v_mean2d[2], v_depth[1], v_conic[3], v_compensation[1], v_mean[3];
        gather<T, 3>(args.means + 3 * first, ids, mean);
        gather<T, 2>(vjp.v_means2d, places, v_mean2d);
        gather<T, 1>(vjp.v_depths, places, v_depth);
        gather<T, 3>(vjp.v_conics, places, v_conic);
        gather<T, 1>(vjp.v_compensations, places, v_compensation);
        if (used < N) {  // repeated lanes must not contribute to the camera's gradient
            alignas(64) float on[N];
            for (int lane = 0; lane < N; ++lane) on[lane] = lane < used ? 1.f : 0.f;
            const T m = load_lanes(on, T());
            for (T& v : v_mean2d) v = v * m;
            for (T& v : v_conic) v = v * m;
            v_depth[0] = v_depth[0] * m;
            v_compensation[0] = v_compensation[0] * m;
        }
        if constexpr (COVARS) {
            T covar[6], v_covar[6];
            gather<T, 6>(args.covars + 6 * first, ids, covar);
            project_covariance_vjp<MODEL>(view, mean, covar, T(args.eps2d), v_mean2d, v_depth[0], v_conic, v_compensation[0], v_mean,
                                          v_covar, v_view_out ? v_view : nullptr);
            scatter<T, 6, true>(vjp.v_covars + 6 * first, ids, used, v_covar);
        } else {
            T quat[4], scales[3], v_quat[4], v_scales[3];
            gather<T, 4>(args.quats + 4 * first, ids, quat);
            gather<T, 3>(args.scales + 3 * first, ids, scales);
            project_gaussian_vjp<MODEL>(view, mean, quat, scales, T(args.eps2d), v_mean2d, v_depth[0], v_conic, v_compensation[0], v_mean,
                                        v_quat, v_scales, v_view_out ? v_view : nullptr);
            scatter<T, 4, true>(vjp.v_quats + 4 * first, ids, used, v_quat);
            scatter<T, 3, true>(vjp.v_scales + 3 * first, ids, used, v_scales);
        }
        scatter<T, 3, true>(vjp.v_means + 3 * first, ids, used, v_mean);
    }
    if (v_view_out)
        for (int j = 0; j < 12; ++j) {
            alignas(64) float buffer[N];
            store_lanes(buffer, v_view[j]);
            float sum = 0.f;
            for (float v : buffer) sum += v;
            v_view_out[j] = sum;
        }
}

static void project(const ProjectArgs<float>& args, int64_t image, int64_t begin, int64_t end) {
    using simd::F;
    const bool covars = args.covars != nullptr;
    switch (args.model * 2 + covars) {
        case 2 * PINHOLE: return project_chunk<F, PINHOLE, false>(args, image, begin, end);
        case 2 * PINHOLE + 1: return project_chunk<F, PINHOLE, true>(args, image, begin, end);
        case 2 * ORTHO: return project_chunk<F, ORTHO, false>(args, image, begin, end);
        case 2 * ORTHO + 1: return project_chunk<F, ORTHO, true>(args, image, begin, end);
        case 2 * FISHEYE: return project_chunk<float, FISHEYE, false>(args, image, begin, end);
        default: return project_chunk<float, FISHEYE, true>(args, image, begin, end);
    }
}

static void project_vjp(const ProjectVjpArgs<float>& args, int64_t image, int64_t begin, int64_t end, float* v_view) {
    using simd::F;
    const bool covars = args.forward.covars != nullptr;
    switch (args.forward.model * 2 + covars) {
        case 2 * PINHOLE: return project_chunk_vjp<F, PINHOLE, false>(args, image, begin, end, v_view);
        case 2 * PINHOLE + 1: return project_chunk_vjp<F, PINHOLE, true>(args, image, begin, end, v_view);
        case 2 * ORTHO: return project_chunk_vjp<F, ORTHO, false>(args, image, begin, end, v_view);
        case 2 * ORTHO + 1: return project_chunk_vjp<F, ORTHO, true>(args, image, begin, end, v_view);
        case 2 * FISHEYE: return project_chunk_vjp<float, FISHEYE, false>(args, image, begin, end, v_view);
        default: return project_chunk_vjp<float, FISHEYE, true>(args, image, begin, end, v_view);
    }
}

template <int DEGREE, bool BACKWARD>
static void sh_chunk(const ShArgs<float>& args, int64_t image, int64_t begin, int64_t end, float* v_center_out) {
    using simd::F;
    constexpr int N = simd::LANES, K = (DEGREE + 1) * (DEGREE + 1);
    const simd::FlushToZero flush;
    const int64_t first = image / args.cameras * args.count, rows = args.per_camera ? image * args.count : first;
    const F center[3] = {args.centers[3 * image], args.centers[3 * image + 1], args.centers[3 * image + 2]};
    F v_center[3] = {0.f, 0.f, 0.f};
    alignas(64) float sh[3 * K][N], v_sh[3 * K][N];
    for (int64_t i = begin; i < end; i += N) {
        int64_t places[N], ids[N];
        const int used = lane_ids<N>(i, end, places);
        for (int lane = 0; lane < N; ++lane) {
            ids[lane] = args.gaussian_ids[places[lane]];
            const float* source = args.sh + (rows + ids[lane]) * args.K * 3;
            for (int j = 0; j < 3 * K; ++j) sh[j][lane] = source[j];
        }
        F mean[3], color[3];
        gather<F, 3>(args.means + 3 * first, ids, mean);
        const auto read = [&](int k, int c) { return simd::load(sh[3 * k + c]); };
        if constexpr (!BACKWARD) {
            sh_color<DEGREE>(mean, center, read, color);
            scatter<F, 3, false>(args.colors, places, used, color);
        } else {
            F v_mean[3];
            gather<F, 3>(args.v_colors, places, color);
            const auto write = [&](int k, int c, F value) { simd::store(v_sh[3 * k + c], value); };
            sh_color_vjp<DEGREE>(mean, center, read, color, write, v_mean);
            if (DEGREE > 0) scatter<F, 3, true>(args.v_means + 3 * first, ids, used, v_mean);
            for (int lane = 0; lane < used; ++lane) {
                float* target = args.v_sh + (rows + ids[lane]) * args.K * 3;
                for (int j = 0; j < 3 * K; ++j) target[j] += v_sh[j][lane];
            }
            alignas(64) float on[N];
            for (int lane = 0; lane < N; ++lane) on[lane] = lane < used ? -1.f : 0.f;
            for (int j = 0; j < 3; ++j) v_center[j] = fma(simd::load(on), v_mean[j], v_center[j]);
        }
    }
    if (BACKWARD && v_center_out)
        for (int j = 0; j < 3; ++j) v_center_out[j] = simd::sum(v_center[j]);
}

template <bool BACKWARD>
static void sh_colors(const ShArgs<float>& args, int64_t image, int64_t begin, int64_t end, float* v_center) {
    switch (args.degree) {
        case 0: return sh_chunk<0, BACKWARD>(args, image, begin, end, v_center);
        case 1: return sh_chunk<1, BACKWARD>(args, image, begin, end, v_center);
        case 2: return sh_chunk<2, BACKWARD>(args, image, begin, end, v_center);
        case 3: return sh_chunk<3, BACKWARD>(args, image, begin, end, v_center);
        default: return sh_chunk<4, BACKWARD>(args, image, begin, end, v_center);
    }
}

}  // namespace vision3d::V3D_ISA
