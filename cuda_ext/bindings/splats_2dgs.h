#pragma once
#include "bindings/splats.h"

// Bindings of the 2D Gaussian kernels, for any target.
namespace vision3d::arrays {

template <typename W>
Project2dgsArgs<typename W::Scalar> project_2dgs_args(const In<W, 3>& means, const In<W, 3>& quats, const In<W, 3>& scales,
                                                      const In<W, 4>& viewmats, const In<W, 4>& Ks, double width, double height) {
    using T = typename W::Scalar;
    Project2dgsArgs<T> a{};
    a.batches = viewmats.shape(0);
    a.cameras = viewmats.shape(1);
    a.count = means.shape(1);
    const int64_t B = a.batches, C = a.cameras, N = a.count;
    a.means = pointer("means", means, {B, N, 3});
    a.quats = pointer("quats", quats, {B, N, 4});
    a.scales = pointer("scales", scales, {B, N, 3});
    a.viewmats = pointer("viewmats", viewmats, {B, C, 4, 4});
    a.Ks = pointer("Ks", Ks, {B, C, 3, 3});
    a.limits.width = T(width);
    a.limits.height = T(height);
    return a;
}

template <typename W>
void bind_project_2dgs(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "project_2dgs",
           "means quats scales opacities viewmats Ks width height near_plane far_plane radius_clip radii means2d depths transforms normals",
           [](In<W, 3> means, In<W, 3> quats, In<W, 3> scales, MaybeIn<W, 2> opacities, In<W, 4> viewmats, In<W, 4> Ks, double width,
              double height, double near_plane, double far_plane, double radius_clip, Out<W, 4, int32_t> radii, Out<W, 4> means2d,
              Out<W, 3> depths, Out<W, 5> transforms, Out<W, 4> normals, int device, uint64_t stream) {
        Project2dgsArgs<T> a = project_2dgs_args<W>(means, quats, scales, viewmats, Ks, width, height);
        const int64_t B = a.batches, C = a.cameras, N = a.count;
        a.limits.near_plane = T(near_plane);
        a.limits.far_plane = T(far_plane);
        a.limits.radius_clip = T(radius_clip);
        a.opacities = pointer("opacities", opacities, {B, N});
        a.radii = pointer("radii", radii, {B, C, N, 2});
        a.means2d = pointer("means2d", means2d, {B, C, N, 2});
        a.depths = pointer("depths", depths, {B, C, N});
        a.transforms = pointer("transforms", transforms, {B, C, N, 3, 3});
        a.normals = pointer("normals", normals, {B, C, N, 3});
        nb::gil_scoped_release release;
        project_2dgs(W(device, stream).where, a);
    });

    define(m, "project_2dgs_vjp",
           "means quats scales viewmats Ks width height gaussian_ids offsets v_means2d v_depths v_transforms v_normals v_means v_quats "
           "v_scales v_views",
           [](In<W, 3> means, In<W, 3> quats, In<W, 3> scales, In<W, 4> viewmats, In<W, 4> Ks, double width, double height,
              In<W, 1, int64_t> gaussian_ids, In<W, 1, int64_t> offsets, In<W, 4> v_means2d, In<W, 3> v_depths, In<W, 5> v_transforms,
              In<W, 4> v_normals, Out<W, 3> v_means, Out<W, 3> v_quats, Out<W, 3> v_scales, MaybeOut<W, 3> v_views, int device,
              uint64_t stream) {
        Project2dgsVjpArgs<T> a{};
        a.forward = project_2dgs_args<W>(means, quats, scales, viewmats, Ks, width, height);
        const int64_t B = a.forward.batches, C = a.forward.cameras, N = a.forward.count;
        a.offsets = pointer("offsets", offsets, {B * C + 1});
        check_offsets<W>("offsets", offsets, int64_t(gaussian_ids.shape(0)), N);
        check_range<W>("gaussian_ids", gaussian_ids, 0, N);
        a.gaussian_ids = gaussian_ids.data();
        a.chunks = pair_chunks(N);
        a.v_means2d = pointer("v_means2d", v_means2d, {B, C, N, 2});
        a.v_depths = pointer("v_depths", v_depths, {B, C, N});
        a.v_transforms = pointer("v_transforms", v_transforms, {B, C, N, 3, 3});
        a.v_normals = pointer("v_normals", v_normals, {B, C, N, 3});
        a.v_means = pointer("v_means", v_means, {B, N, 3});
        a.v_quats = pointer("v_quats", v_quats, {B, N, 4});
        a.v_scales = pointer("v_scales", v_scales, {B, N, 3});
        a.v_views = pointer("v_views", v_views, {B * C, a.chunks, 12});
        nb::gil_scoped_release release;
        project_2dgs_vjp(W(device, stream).where, a);
    });
}

template <typename W>
Blend2dgsArgs<typename W::Scalar> blend_2dgs_args(const In<W, 2>& records, const In<W, 2>& colors, const MaybeIn<W, 2>& backgrounds,
                                                  const MaybeIn<W, 3, bool>& masks, const In<W, 3, int32_t>& offsets,
                                                  const In<W, 1, int32_t>& ids, int width, int height, int tile_size, double alpha_max,
                                                  bool distortion) {
    using T = typename W::Scalar;
    Blend2dgsArgs<T> d{};
    d.base = blend_args<W>(colors, backgrounds, masks, offsets, ids, width, height, tile_size, alpha_max);
    d.packed = reinterpret_cast<const Record2dgs<T>*>(
        pointer("records", records, {d.base.splats, int64_t(sizeof(Record2dgs<T>) / sizeof(T))}));
    d.distortion = distortion;
    return d;
}

template <typename W>
void bind_blend_2dgs(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "make_records_2dgs", "means2d transforms opacities normals colors records",
           [](In<W, 2> means2d, In<W, 3> transforms, In<W, 1> opacities, In<W, 2> normals, In<W, 2> colors, Out<W, 2> records, int device,
              uint64_t stream) {
        const int64_t n = int64_t(opacities.shape(0)), D = int64_t(colors.shape(1));
        check("means2d", means2d, {n, 2});
        check("transforms", transforms, {n, 3, 3});
        check("normals", normals, {n, 3});
        check("colors", colors, {n, D});
        require(D > 0, "colors: want at least 1 channel");
        check("records", records, {n, int64_t(sizeof(Record2dgs<T>) / sizeof(T))});
        nb::gil_scoped_release release;
        make_records_2dgs(W(device, stream).where, n, D, means2d.data(), transforms.data(), opacities.data(), normals.data(), colors.data(),
                          reinterpret_cast<Record2dgs<T>*>(records.data()));
    });

    define(m, "blend_2dgs",
           "records colors backgrounds masks offsets ids width height tile_size alpha_max distortion max_depths out_colors transmittances "
           "normals distortions moments medians last_ids median_ids",
           [](In<W, 2> records, In<W, 2> colors, MaybeIn<W, 2> backgrounds, MaybeIn<W, 3, bool> masks, In<W, 3, int32_t> offsets,
              In<W, 1, int32_t> ids, int width, int height, int tile_size, double alpha_max, bool distortion, MaybeIn<W, 3> max_depths,
              Out<W, 4> out_colors, Out<W, 3> transmittances, Out<W, 4> normals, Out<W, 3> distortions, Out<W, 3> moments,
              Out<W, 3> medians, Out<W, 3, int32_t> last_ids, Out<W, 3, int32_t> median_ids, int device, uint64_t stream) {
        Blend2dgsArgs<T> d = blend_2dgs_args<W>(records, colors, backgrounds, masks, offsets, ids, width, height, tile_size, alpha_max,
                                                distortion);
        BlendArgs<T>& a = d.base;
        a.max_depths = pointer("max_depths", max_depths, {a.images, height, width});
        a.out_colors = pointer("out_colors", out_colors, {a.images, height, width, a.channels});
        a.out_transmittances = pointer("transmittances", transmittances, {a.images, height, width});
        a.last_ids = pointer("last_ids", last_ids, {a.images, height, width});
        d.normals = pointer("normals", normals, {a.images, height, width, 3});
        d.distortions = pointer("distortions", distortions, {a.images, height, width});
        d.moments = pointer("moments", moments, {a.images, height, width});
        d.medians = pointer("medians", medians, {a.images, height, width});
        d.median_ids = pointer("median_ids", median_ids, {a.images, height, width});
        nb::gil_scoped_release release;
        blend_2dgs(W(device, stream).where, d);
    });

    define(m, "blend_2dgs_vjp",
           "records colors backgrounds masks offsets ids width height tile_size alpha_max distortion transmittances moments last_ids "
           "median_ids means2d transforms opacities v_colors_out v_transmittances v_normals_out v_distortions v_medians sums v_means2d "
           "v_transforms v_colors v_opacities v_normals",
           [](In<W, 2> records, In<W, 2> colors, MaybeIn<W, 2> backgrounds, MaybeIn<W, 3, bool> masks, In<W, 3, int32_t> offsets,
              In<W, 1, int32_t> ids, int width, int height, int tile_size, double alpha_max, bool distortion, In<W, 3> transmittances,
              In<W, 3> moments, In<W, 3, int32_t> last_ids, In<W, 3, int32_t> median_ids, In<W, 2> means2d, In<W, 3> transforms,
              In<W, 1> opacities, In<W, 4> v_colors_out, In<W, 3> v_transmittances, In<W, 4> v_normals_out, In<W, 3> v_distortions,
              In<W, 3> v_medians, Out<W, 2> sums, Out<W, 2> v_means2d, Out<W, 3> v_transforms, Out<W, 2> v_colors, Out<W, 1> v_opacities,
              Out<W, 2> v_normals, int device, uint64_t stream) {
        Blend2dgsVjpArgs<T> v{};
        v.forward = blend_2dgs_args<W>(records, colors, backgrounds, masks, offsets, ids, width, height, tile_size, alpha_max, distortion);
        BlendArgs<T>& a = v.forward.base;
        const int64_t n = a.splats, D = a.channels;
        // The outputs of the forward pass are only read here.
        a.out_transmittances = const_cast<T*>(pointer("transmittances", transmittances, {a.images, height, width}));
        a.last_ids = const_cast<int32_t*>(pointer("last_ids", last_ids, {a.images, height, width}));
        v.forward.moments = const_cast<T*>(pointer("moments", moments, {a.images, height, width}));
        v.forward.median_ids = const_cast<int32_t*>(pointer("median_ids", median_ids, {a.images, height, width}));
        check_range<W>("last_ids", last_ids, -1, a.records);
        check_range<W>("median_ids", median_ids, -1, a.records);
        v.v_colors = pointer("v_colors_out", v_colors_out, {a.images, height, width, D});
        v.v_transmittances = pointer("v_transmittances", v_transmittances, {a.images, height, width});
        v.v_normals = pointer("v_normals_out", v_normals_out, {a.images, height, width, 3});
        v.v_distortions = pointer("v_distortions", v_distortions, {a.images, height, width});
        v.v_medians = pointer("v_medians", v_medians, {a.images, height, width});
        v.sums = pointer("sums", sums, {sum_rows<W>(a), ROW_2DGS + D});
        Blend2dgsFinishArgs<T> f{};
        f.means2d = pointer("means2d", means2d, {n, 2});
        f.transforms = pointer("transforms", transforms, {n, 3, 3});
        f.opacities = pointer("opacities", opacities, {n});
        f.v_means2d = pointer("v_means2d", v_means2d, {n, 2});
        f.v_transforms = pointer("v_transforms", v_transforms, {n, 3, 3});
        f.v_colors = pointer("v_colors", v_colors, {n, D});
        f.v_opacities = pointer("v_opacities", v_opacities, {n});
        f.v_normals = pointer("v_normals", v_normals, {n, 3});
        nb::gil_scoped_release release;
        blend_2dgs_vjp(W(device, stream).where, v, f);
    });
}

// All functions that render 3D and 2D Gaussians, except tile lists.
template <typename W>
void bind_renderer(nb::module_& m) {
    bind_project<W>(m);
    bind_sh<W>(m);
    bind_blend<W>(m);
    bind_project_2dgs<W>(m);
    bind_blend_2dgs<W>(m);
}

}  // namespace vision3d::arrays
