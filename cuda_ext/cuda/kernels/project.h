#pragma once
#include "cuda/kernels/block.h"
#include "vision3d/args.h"
#include "vision3d/sh.h"

// Projection and harmonics, one thread per Gaussian of an image or per visible pair.
namespace vision3d::bodies {

template <int WIDTH, typename T>
V3D_BODY void load(const T* from, T* to) {
    for (int j = 0; j < WIDTH; ++j) to[j] = from[j];
}

// value where visible, else 0.
template <int WIDTH, typename T>
V3D_BODY void store(T* to, const T* from, bool seen) {
    for (int j = 0; j < WIDTH; ++j) to[j] = seen ? from[j] : T(0);
}

// Index of the first Gaussian of an image's batch.
template <typename Args>
V3D_BODY int64_t first_of(const Args& args, int64_t image) {
    return int64_t(int(image) / int(args.cameras)) * args.count;
}

// The pair of a thread: block b processes PAIR_CHUNK pairs of image b / chunks.
struct PairBlock {
    int64_t image, begin, end;

    V3D_BODY PairBlock(const Block& block, const int64_t* offsets, int64_t chunks) : image(int(block.index) / int(chunks)) {
        begin = offsets[image] + int64_t(int(block.index) % int(chunks)) * block.threads;
        end = offsets[image + 1];
    }
};

template <int MODEL, bool COVARS, typename T>
V3D_BODY void project(const ProjectArgs<T>& args, int64_t image, int64_t id) {
    const int64_t i = image * args.count + id, g = first_of(args, image) + id;
    const View<T> view(args.viewmats + 16 * image, args.Ks + 9 * image, args.limits.width, args.limits.height);
    Projection<T> f;
    T mean[3];
    load<3>(args.means + 3 * g, mean);
    if constexpr (COVARS) {
        T covar[6];
        load<6>(args.covars + 6 * g, covar);
        project_covariance<MODEL>(view, mean, covar, args.eps2d, f);
    } else {
        T quat[4], scales[3];
        load<4>(args.quats + 4 * g, quat);
        load<3>(args.scales + 3 * g, scales);
        project_gaussian<MODEL>(view, mean, quat, scales, args.eps2d, f);
    }
    T extent(3.33);
    if (args.opacities) extent = seen_extent(args.opacities[g] * (args.antialiased ? f.compensation : T(1)));
    const bool seen = splat_radii(f, extent, args.limits, args.radii + 2 * i);
    store<2>(args.means2d + 2 * i, f.mean2d, seen);
    store<1>(args.depths + i, &f.depth, seen);
    store<3>(args.conics + 3 * i, f.conic, seen);
    store<1>(args.compensations + i, &f.compensation, seen);
}

template <int MODEL, bool COVARS, typename T>
V3D_BODY void project_vjp(const Block& block, const ProjectVjpArgs<T>& vjp) {
    const ProjectArgs<T>& args = vjp.forward;
    const PairBlock pairs(block, vjp.offsets, vjp.chunks);
    const int64_t image = pairs.image, first = first_of(args, image);
    const View<T> view(args.viewmats + 16 * image, args.Ks + 9 * image, args.limits.width, args.limits.height);
    const bool shared = args.cameras > 1;  // the cameras of a batch add to the same Gaussians
    PerThread<T[12]> v_view(block.threads);
    PerThread<bool> counts(block.threads);
    block.each([&](int t) {
        for (int j = 0; j < 12; ++j) v_view[t][j] = T(0);
        counts[t] = pairs.begin + t < pairs.end;
        if (!counts[t]) return;
        const int64_t i = pairs.begin + t, g = first + vjp.gaussian_ids[i];
        const int64_t at = vjp.packed ? i : image * args.count + vjp.gaussian_ids[i];
        T mean[3], v_mean2d[2], v_conic[3], v_mean[3];
        load<3>(args.means + 3 * g, mean);
        load<2>(vjp.v_means2d + 2 * at, v_mean2d);
        load<3>(vjp.v_conics + 3 * at, v_conic);
        T* v_view_sums = vjp.v_views ? v_view[t] : nullptr;
        if constexpr (COVARS) {
            T covar[6], v_covar[6];
            load<6>(args.covars + 6 * g, covar);
            project_covariance_vjp<MODEL>(view, mean, covar, args.eps2d, v_mean2d, vjp.v_depths[at], v_conic, vjp.v_compensations[at],
                                          v_mean, v_covar, v_view_sums);
            for (int j = 0; j < 6; ++j) add(vjp.v_covars[6 * g + j], v_covar[j], shared);
        } else {
            T quat[4], scales[3], v_quat[4], v_scales[3];
            load<4>(args.quats + 4 * g, quat);
            load<3>(args.scales + 3 * g, scales);
            project_gaussian_vjp<MODEL>(view, mean, quat, scales, args.eps2d, v_mean2d, vjp.v_depths[at], v_conic, vjp.v_compensations[at],
                                        v_mean, v_quat, v_scales, v_view_sums);
            for (int j = 0; j < 4; ++j) add(vjp.v_quats[4 * g + j], v_quat[j], shared);
            for (int j = 0; j < 3; ++j) add(vjp.v_scales[3 * g + j], v_scales[j], shared);
        }
        for (int j = 0; j < 3; ++j) add(vjp.v_means[3 * g + j], v_mean[j], shared);
    });
    if (vjp.v_views) block.add_sums(v_view, counts, 12, vjp.v_views + 12 * block.index);
}

template <int DEGREE, typename T>
V3D_BODY void sh_colors(const Block& block, const ShArgs<T>& args) {
    const PairBlock pairs(block, args.offsets, args.chunks);
    const int64_t image = pairs.image, first = first_of(args, image), rows = args.per_camera ? image * args.count : first;
    T center[3];
    load<3>(args.centers + 3 * image, center);
    block.each([&](int t) {
        const int64_t i = pairs.begin + t;
        if (i >= pairs.end) return;
        const int64_t id = args.gaussian_ids[i];
        const T* sh = args.sh + (rows + id) * args.K * 3;
        T mean[3], color[3];
        load<3>(args.means + 3 * (first + id), mean);
        sh_color<DEGREE>(mean, center, [&](int k, int c) { return sh[3 * k + c]; }, color);
        store<3>(args.colors + 3 * i, color, true);
    });
}

template <int DEGREE, typename T>
V3D_BODY void sh_colors_vjp(const Block& block, const ShArgs<T>& args) {
    const PairBlock pairs(block, args.offsets, args.chunks);
    const int64_t image = pairs.image, first = first_of(args, image), rows = args.per_camera ? image * args.count : first;
    const bool shared = args.cameras > 1, shared_sh = shared && !args.per_camera;
    T center[3];
    load<3>(args.centers + 3 * image, center);
    PerThread<T[3]> v_center(block.threads);
    PerThread<bool> counts(block.threads);
    block.each([&](int t) {
        for (int j = 0; j < 3; ++j) v_center[t][j] = T(0);
        const int64_t i = pairs.begin + t;
        counts[t] = i < pairs.end;
        if (!counts[t]) return;
        const int64_t id = args.gaussian_ids[i], at = (rows + id) * args.K * 3;
        const T* sh = args.sh + at;
        T* v_sh = args.v_sh + at;
        T mean[3], v_color[3], v_mean[3];
        load<3>(args.means + 3 * (first + id), mean);
        load<3>(args.v_colors + 3 * i, v_color);
        sh_color_vjp<DEGREE>(mean, center, [&](int k, int c) { return sh[3 * k + c]; }, v_color,
                             [&](int k, int c, T value) { add(v_sh[3 * k + c], value, shared_sh); }, v_mean);
        for (int j = 0; j < 3; ++j) {
            if (DEGREE > 0) add(args.v_means[3 * (first + id) + j], v_mean[j], shared);
            v_center[t][j] = -v_mean[j];
        }
    });
    if (args.v_centers) block.add_sums(v_center, counts, 3, args.v_centers + 3 * block.index);
}

template <typename T>
V3D_BODY void project_2dgs(const Project2dgsArgs<T>& args, int64_t image, int64_t id) {
    const int64_t i = image * args.count + id, g = first_of(args, image) + id;
    const View<T> view(args.viewmats + 16 * image, args.Ks + 9 * image, args.limits.width, args.limits.height);
    Splat2dgs<T> splat;
    T mean[3], quat[4], scales[3], transform[9], mean2d[2];
    load<3>(args.means + 3 * g, mean);
    load<4>(args.quats + 4 * g, quat);
    load<3>(args.scales + 3 * g, scales);
    make_2dgs(view, mean, quat, scales, splat, transform);
    center_2dgs(splat, mean2d);
    const T sign = facing(splat), normal[3] = {sign * splat.axes[2], sign * splat.axes[5], sign * splat.axes[8]};
    const T extent = args.opacities ? seen_extent(args.opacities[g]) : T(3.33);
    const bool seen = radii_2dgs(mean2d, splat.p[2], transform, normal, splat.anchor, splat.rows, extent, args.limits, args.radii + 2 * i);
    store<2>(args.means2d + 2 * i, mean2d, seen);
    store<1>(args.depths + i, splat.p + 2, seen);
    store<9>(args.transforms + 9 * i, transform, seen);
    store<3>(args.normals + 3 * i, normal, seen);
}

template <typename T>
V3D_BODY void project_2dgs_vjp(const Block& block, const Project2dgsVjpArgs<T>& vjp) {
    const Project2dgsArgs<T>& args = vjp.forward;
    const PairBlock pairs(block, vjp.offsets, vjp.chunks);
    const int64_t image = pairs.image, first = first_of(args, image);
    const View<T> view(args.viewmats + 16 * image, args.Ks + 9 * image, args.limits.width, args.limits.height);
    const bool shared = args.cameras > 1;
    PerThread<T[12]> v_view(block.threads);
    PerThread<bool> counts(block.threads);
    block.each([&](int t) {
        for (int j = 0; j < 12; ++j) v_view[t][j] = T(0);
        counts[t] = pairs.begin + t < pairs.end;
        if (!counts[t]) return;
        const int64_t id = vjp.gaussian_ids[pairs.begin + t], g = first + id, at = image * args.count + id;
        T mean[3], quat[4], scales[3], v_mean2d[2], v_transform[9], v_normal[3], v_mean[3], v_quat[4], v_scales[3];
        load<3>(args.means + 3 * g, mean);
        load<4>(args.quats + 4 * g, quat);
        load<3>(args.scales + 3 * g, scales);
        load<2>(vjp.v_means2d + 2 * at, v_mean2d);
        load<9>(vjp.v_transforms + 9 * at, v_transform);
        load<3>(vjp.v_normals + 3 * at, v_normal);
        vjp_2dgs(view, mean, quat, scales, v_mean2d, vjp.v_depths[at], v_transform, v_normal, v_mean, v_quat, v_scales,
                 vjp.v_views ? v_view[t] : nullptr);
        for (int j = 0; j < 3; ++j) {
            add(vjp.v_means[3 * g + j], v_mean[j], shared);
            add(vjp.v_scales[3 * g + j], v_scales[j], shared);
        }
        for (int j = 0; j < 4; ++j) add(vjp.v_quats[4 * g + j], v_quat[j], shared);
    });
    if (vjp.v_views) block.add_sums(v_view, counts, 12, vjp.v_views + 12 * block.index);
}

}  // namespace vision3d::bodies
