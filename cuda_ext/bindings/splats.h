#pragma once
#include "bindings/define.h"
#include "cuda/kernels/choose.h"
#include "vision3d/args.h"

// Bindings of the splat kernels, for any target.
namespace vision3d::arrays {

struct Camera {
    int model;
    double width, height, eps2d, near_plane, far_plane, radius_clip;
    bool antialiased;
};

inline void bind_camera(nb::module_& m) {
    nb::class_<Camera>(m, "Camera")
        .def(nb::init<int, double, double, double, double, double, double, bool>(), nb::arg("model"), nb::arg("width"), nb::arg("height"),
             nb::arg("eps2d"), nb::arg("near_plane"), nb::arg("far_plane"), nb::arg("radius_clip"), nb::arg("antialiased"));
}

inline void bind_constants(nb::module_& m) {
    m.attr("PAIR_CHUNK") = PAIR_CHUNK;
    m.attr("RECORD") = sizeof(Record<float>) / sizeof(float);
    m.attr("RECORD_2DGS") = sizeof(Record2dgs<float>) / sizeof(float);
    m.attr("ROW_2DGS") = ROW_2DGS;
}

// Rows of partial sums written by the kernels of pairs.
inline int64_t pair_chunks(int64_t count) { return count <= PAIR_CHUNK ? 1 : (count + PAIR_CHUNK - 1) / PAIR_CHUNK; }

template <typename W>
ProjectArgs<typename W::Scalar> project_args(const In<W, 3>& means, const MaybeIn<W, 3>& quats, const MaybeIn<W, 3>& scales,
                                             const MaybeIn<W, 3>& covars, const In<W, 4>& viewmats, const In<W, 4>& Ks,
                                             const Camera& camera) {
    using T = typename W::Scalar;
    ProjectArgs<T> a{};
    a.batches = viewmats.shape(0);
    a.cameras = viewmats.shape(1);
    a.count = means.shape(1);
    const int64_t B = a.batches, C = a.cameras, N = a.count;
    a.means = pointer("means", means, {B, N, 3});
    a.quats = pointer("quats", quats, {B, N, 4});
    a.scales = pointer("scales", scales, {B, N, 3});
    a.covars = pointer("covars", covars, {B, N, 6});
    require(bool(covars) != (quats && scales), "quats, scales, covars: want quats and scales, or covars");
    require(camera.model >= 0 && camera.model <= 2, "model: want 0, 1 or 2");
    a.viewmats = pointer("viewmats", viewmats, {B, C, 4, 4});
    a.Ks = pointer("Ks", Ks, {B, C, 3, 3});
    a.model = camera.model;
    a.eps2d = T(camera.eps2d);
    a.antialiased = camera.antialiased;
    a.limits = {T(camera.width), T(camera.height), T(camera.near_plane), T(camera.far_plane), T(camera.radius_clip)};
    return a;
}

template <typename W>
void bind_project(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "project", "means quats scales covars opacities viewmats Ks camera radii means2d depths conics compensations",
           [](In<W, 3> means, MaybeIn<W, 3> quats, MaybeIn<W, 3> scales, MaybeIn<W, 3> covars, MaybeIn<W, 2> opacities, In<W, 4> viewmats,
              In<W, 4> Ks, const Camera& camera, Out<W, 4, int32_t> radii, Out<W, 4> means2d, Out<W, 3> depths, Out<W, 4> conics,
              Out<W, 3> compensations, int device, uint64_t stream) {
        ProjectArgs<T> a = project_args<W>(means, quats, scales, covars, viewmats, Ks, camera);
        const int64_t B = a.batches, C = a.cameras, N = a.count;
        a.opacities = pointer("opacities", opacities, {B, N});
        a.radii = pointer("radii", radii, {B, C, N, 2});
        a.means2d = pointer("means2d", means2d, {B, C, N, 2});
        a.depths = pointer("depths", depths, {B, C, N});
        a.conics = pointer("conics", conics, {B, C, N, 3});
        a.compensations = pointer("compensations", compensations, {B, C, N});
        nb::gil_scoped_release release;
        project(W(device, stream).where, a);
    });

    define(m, "project_vjp",
           "means quats scales covars viewmats Ks camera gaussian_ids offsets packed v_means2d v_depths v_conics v_compensations v_means "
           "v_quats v_scales v_covars v_views",
           [](In<W, 3> means, MaybeIn<W, 3> quats, MaybeIn<W, 3> scales, MaybeIn<W, 3> covars, In<W, 4> viewmats, In<W, 4> Ks,
              const Camera& camera, In<W, 1, int64_t> gaussian_ids, In<W, 1, int64_t> offsets, bool packed, In<W, 2> v_means2d,
              In<W, 1> v_depths, In<W, 2> v_conics, In<W, 1> v_compensations, Out<W, 3> v_means, MaybeOut<W, 3> v_quats,
              MaybeOut<W, 3> v_scales, MaybeOut<W, 3> v_covars, MaybeOut<W, 3> v_views, int device, uint64_t stream) {
        ProjectVjpArgs<T> a{};
        a.forward = project_args<W>(means, quats, scales, covars, viewmats, Ks, camera);
        const int64_t B = a.forward.batches, C = a.forward.cameras, N = a.forward.count;
        const int64_t rows = packed ? int64_t(gaussian_ids.shape(0)) : B * C * N;
        a.offsets = pointer("offsets", offsets, {B * C + 1});
        check_offsets<W>("offsets", offsets, int64_t(gaussian_ids.shape(0)), N);
        check_range<W>("gaussian_ids", gaussian_ids, 0, N);
        a.gaussian_ids = gaussian_ids.data();
        a.packed = packed;
        a.chunks = pair_chunks(N);
        a.v_means2d = pointer("v_means2d", v_means2d, {rows, 2});
        a.v_depths = pointer("v_depths", v_depths, {rows});
        a.v_conics = pointer("v_conics", v_conics, {rows, 3});
        a.v_compensations = pointer("v_compensations", v_compensations, {rows});
        a.v_means = pointer("v_means", v_means, {B, N, 3});
        require(v_quats.has_value() == quats.has_value() && v_scales.has_value() == scales.has_value() &&
                    v_covars.has_value() == covars.has_value(),
                "v_quats, v_scales, v_covars: want those that were given");
        a.v_quats = pointer("v_quats", v_quats, {B, N, 4});
        a.v_scales = pointer("v_scales", v_scales, {B, N, 3});
        a.v_covars = pointer("v_covars", v_covars, {B, N, 6});
        a.v_views = pointer("v_views", v_views, {B * C, a.chunks, 12});
        nb::gil_scoped_release release;
        project_vjp(W(device, stream).where, a);
    });
}

template <typename W>
ShArgs<typename W::Scalar> sh_args(const In<W, 3>& means, const In<W, 5>& sh, const In<W, 3>& centers,
                                   const In<W, 1, int64_t>& gaussian_ids, const In<W, 1, int64_t>& offsets, int degree) {
    ShArgs<typename W::Scalar> a{};
    const int64_t B = means.shape(0), N = means.shape(1), C = centers.shape(1), K = sh.shape(3);
    a.images = B * C;
    a.count = N;
    a.K = K;
    a.degree = degree;
    a.cameras = C;
    a.per_camera = sh.shape(1) != 1;
    a.chunks = pair_chunks(N);
    a.means = pointer("means", means, {B, N, 3});
    a.sh = pointer("sh", sh, {B, a.per_camera ? C : 1, N, K, 3});
    a.centers = pointer("centers", centers, {B, C, 3});
    a.gaussian_ids = gaussian_ids.data();
    a.offsets = pointer("offsets", offsets, {B * C + 1});
    check_offsets<W>("offsets", offsets, int64_t(gaussian_ids.shape(0)), N);
    check_range<W>("gaussian_ids", gaussian_ids, 0, N);
    if (degree < 0 || degree > 4 || (degree + 1) * (degree + 1) > K) throw std::invalid_argument("degree does not fit the coefficients");
    return a;
}

template <typename W>
void bind_sh(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "sh_colors", "means sh centers gaussian_ids offsets degree colors",
           [](In<W, 3> means, In<W, 5> sh, In<W, 3> centers, In<W, 1, int64_t> gaussian_ids, In<W, 1, int64_t> offsets, int degree,
              Out<W, 2> colors, int device, uint64_t stream) {
        ShArgs<T> a = sh_args<W>(means, sh, centers, gaussian_ids, offsets, degree);
        a.colors = pointer("colors", colors, {int64_t(gaussian_ids.shape(0)), 3});
        nb::gil_scoped_release release;
        sh_colors(W(device, stream).where, a);
    });

    define(m, "sh_colors_vjp", "means sh centers gaussian_ids offsets degree v_colors v_means v_sh v_centers",
           [](In<W, 3> means, In<W, 5> sh, In<W, 3> centers, In<W, 1, int64_t> gaussian_ids, In<W, 1, int64_t> offsets, int degree,
              In<W, 2> v_colors, Out<W, 3> v_means, Out<W, 5> v_sh, MaybeOut<W, 3> v_centers, int device, uint64_t stream) {
        ShArgs<T> a = sh_args<W>(means, sh, centers, gaussian_ids, offsets, degree);
        a.v_colors = pointer("v_colors", v_colors, {int64_t(gaussian_ids.shape(0)), 3});
        a.v_means = pointer("v_means", v_means, {int64_t(means.shape(0)), a.count, 3});
        a.v_sh = pointer("v_sh", v_sh, {int64_t(sh.shape(0)), int64_t(sh.shape(1)), a.count, a.K, 3});
        a.v_centers = pointer("v_centers", v_centers, {a.images, a.chunks, 3});
        nb::gil_scoped_release release;
        sh_colors_vjp(W(device, stream).where, a);
    });
}

// torch has only signed keys; the sort treats their bits as unsigned.
template <typename W, typename Key>
void bind_sort(nb::module_& m) {
    using Signed = std::make_signed_t<Key>;
    define(m, "sort_scratch", "keys", [](In<W, 1, Signed> keys, int device, uint64_t stream) {
        return sort_scratch(W(device, stream).where, reinterpret_cast<const Key*>(keys.data()), int64_t(keys.shape(0)));
    });

    define(m, "sort_pairs", "keys ids bits sorted_keys sorted_ids scratch",
           [](In<W, 1, Signed> keys, In<W, 1, int32_t> ids, int bits, Out<W, 1, Signed> sorted_keys, Out<W, 1, int32_t> sorted_ids,
              Out<W, 1, uint8_t> scratch, int device, uint64_t stream) {
        const int64_t count = int64_t(keys.shape(0));
        check("ids", ids, {count});
        check("sorted_keys", sorted_keys, {count});
        check("sorted_ids", sorted_ids, {count});
        require(bits >= 0 && bits <= int(8 * sizeof(Key)), "bits: want at least 0, and no more than a key has");
        nb::gil_scoped_release release;
        sort_pairs(W(device, stream).where, count, bits, reinterpret_cast<const Key*>(keys.data()), ids.data(),
                   reinterpret_cast<Key*>(sorted_keys.data()), sorted_ids.data(), static_cast<void*>(scratch.data()),
                   int64_t(scratch.shape(0)));
    });
}

template <typename W>
TileArgs<typename W::Scalar> tile_args(const In<W, 2>& means2d, const In<W, 2, int32_t>& radii, const In<W, 1>& depths,
                                       const MaybeIn<W, 2>& conics, const In<W, 1>& opacities, int width, int height, int tile_size) {
    const int64_t n = int64_t(depths.shape(0));
    require(width > 0 && height > 0 && tile_size > 0, "width, height, tile_size: want at least 1");
    return {n,
            pointer("means2d", means2d, {n, 2}),
            depths.data(),
            pointer("opacities", opacities, {n}),
            pointer("conics", conics, {n, 3}),
            pointer("radii", radii, {n, 2}),
            {width, height, tile_size}};
}

template <typename W>
void bind_tiles(nb::module_& m) {
    using T = typename W::Scalar;
    using Key = DepthKey<T>;
    define(m, "count_tiles", "means2d radii depths conics opacities width height tile_size tiles_per_gauss depth_keys ids",
           [](In<W, 2> means2d, In<W, 2, int32_t> radii, In<W, 1> depths, MaybeIn<W, 2> conics, In<W, 1> opacities, int width, int height,
              int tile_size, Out<W, 1, int32_t> tiles_per_gauss, Out<W, 1, std::make_signed_t<Key>> depth_keys, Out<W, 1, int32_t> ids,
              int device, uint64_t stream) {
        const TileArgs<T> a = tile_args<W>(means2d, radii, depths, conics, opacities, width, height, tile_size);
        check("tiles_per_gauss", tiles_per_gauss, {a.count});
        check("depth_keys", depth_keys, {a.count});
        check("ids", ids, {a.count});
        nb::gil_scoped_release release;
        count_tiles(W(device, stream).where, a, tiles_per_gauss.data(), reinterpret_cast<Key*>(depth_keys.data()), ids.data());
    });

    define(m, "fill_tiles", "means2d radii depths conics opacities width height tile_size order ends image_ids tile_keys ids",
           [](In<W, 2> means2d, In<W, 2, int32_t> radii, In<W, 1> depths, MaybeIn<W, 2> conics, In<W, 1> opacities, int width, int height,
              int tile_size, In<W, 1, int32_t> order, In<W, 1, int64_t> ends, In<W, 1, int64_t> image_ids, Out<W, 1, int32_t> tile_keys,
              Out<W, 1, int32_t> ids, int device, uint64_t stream) {
        const TileArgs<T> a = tile_args<W>(means2d, radii, depths, conics, opacities, width, height, tile_size);
        check("order", order, {a.count});
        check("ends", ends, {a.count});
        check("image_ids", image_ids, {a.count});
        check_range<W>("order", order, 0, a.count);
        check_offsets<W>("ends", ends, int64_t(tile_keys.shape(0)), int64_t(tile_keys.shape(0)));
        check("ids", ids, {int64_t(tile_keys.shape(0))});
        nb::gil_scoped_release release;
        fill_tiles(W(device, stream).where, a, order.data(), ends.data(), image_ids.data(), reinterpret_cast<uint32_t*>(tile_keys.data()),
                   ids.data());
    });

    define(m, "finish_tiles", "depths width height tile_size tile_keys ids isect_ids isect_offsets",
           [](In<W, 1> depths, int width, int height, int tile_size, In<W, 1, int32_t> tile_keys, In<W, 1, int32_t> ids,
              Out<W, 1, int64_t> isect_ids, Out<W, 3, int32_t> isect_offsets, int device, uint64_t stream) {
        require(width > 0 && height > 0 && tile_size > 0, "width, height, tile_size: want at least 1");
        const TileGrid<T> grid(width, height, tile_size);
        const int64_t records = int64_t(ids.shape(0)), images = int64_t(isect_offsets.shape(0));
        check("tile_keys", tile_keys, {records});
        check("isect_ids", isect_ids, {records});
        check("isect_offsets", isect_offsets, {images, grid.tiles_y, grid.tiles_x});
        check_range<W>("ids", ids, 0, int64_t(depths.shape(0)));
        check_range<W>("tile_keys", tile_keys, 0, images * grid.tiles_y * grid.tiles_x);
        nb::gil_scoped_release release;
        finish_tiles(W(device, stream).where, grid, images, records, reinterpret_cast<const uint32_t*>(tile_keys.data()), ids.data(),
                     depths.data(), isect_ids.data(), isect_offsets.data());
    });
}

template <typename W>
BlendArgs<typename W::Scalar> blend_args(const In<W, 2>& colors, const MaybeIn<W, 2>& backgrounds, const MaybeIn<W, 3, bool>& masks,
                                         const In<W, 3, int32_t>& offsets, const In<W, 1, int32_t>& ids, int width, int height,
                                         int tile_size, double alpha_max) {
    BlendArgs<typename W::Scalar> a{};
    a.images = offsets.shape(0);
    a.tiles_y = int(offsets.shape(1));
    a.tiles_x = int(offsets.shape(2));
    a.channels = colors.shape(1);
    a.splats = colors.shape(0);
    a.records = ids.shape(0);
    a.width = width;
    a.height = height;
    a.tile_size = tile_size;
    a.alpha_max = typename W::Scalar(alpha_max);
    if (tile_size != 4 && tile_size != 8 && tile_size != 16) throw std::invalid_argument("tile_size: want 4, 8 or 16");
    check("offsets", offsets, {a.images, (height + tile_size - 1) / tile_size, (width + tile_size - 1) / tile_size});
    require(width > 0 && height > 0, "width, height: want at least 1");
    require(alpha_max > 0 && alpha_max <= 1 - STOP_TRANSMITTANCE, "alpha_max: want a number above 0 and at most 0.9999");
    if (a.channels < 1 || a.channels > 32) throw std::invalid_argument("colors: want 1 to 32 channels in one call");
    a.colors = colors.data();
    a.backgrounds = pointer("backgrounds", backgrounds, {a.images, a.channels});
    a.masks = pointer("masks", masks, {a.images, a.tiles_y, a.tiles_x});
    check_offsets<W>("offsets", offsets, a.records, a.records);
    check_range<W>("ids", ids, 0, a.splats);
    a.offsets = offsets.data();
    a.ids = ids.data();
    return a;
}

// Rows for the sums of the backward pass: a CPU stores those of each (tile, Gaussian) separately, a GPU adds them immediately.
template <typename W, typename T>
int64_t sum_rows(const BlendArgs<T>& a) {
    return on_cpu<W> ? a.records : a.splats;
}

template <typename W>
void bind_blend(nb::module_& m) {
    using T = typename W::Scalar;
    constexpr int64_t RECORD = sizeof(Record<T>) / sizeof(T);
    define(m, "make_records", "means2d conics colors opacities records",
           [](In<W, 2> means2d, In<W, 2> conics, In<W, 2> colors, In<W, 1> opacities, Out<W, 2> records, int device, uint64_t stream) {
        const int64_t n = int64_t(opacities.shape(0)), D = int64_t(colors.shape(1));
        check("means2d", means2d, {n, 2});
        check("conics", conics, {n, 3});
        check("records", records, {n, RECORD});
        check("colors", colors, {n, D});
        require(D > 0, "colors: want at least 1 channel");
        nb::gil_scoped_release release;
        make_records(W(device, stream).where, n, D, means2d.data(), conics.data(), colors.data(), opacities.data(),
                     reinterpret_cast<Record<T>*>(records.data()));
    });

    define(m, "blend",
           "records colors backgrounds masks offsets ids width height tile_size alpha_max depths max_depths out_colors out_transmittances "
           "last_ids",
           [](In<W, 2> records, In<W, 2> colors, MaybeIn<W, 2> backgrounds, MaybeIn<W, 3, bool> masks, In<W, 3, int32_t> offsets,
              In<W, 1, int32_t> ids, int width, int height, int tile_size, double alpha_max, MaybeIn<W, 1> depths, MaybeIn<W, 3> max_depths,
              Out<W, 4> out_colors, Out<W, 3> out_transmittances, Out<W, 3, int32_t> last_ids, int device, uint64_t stream) {
        BlendArgs<T> a = blend_args<W>(colors, backgrounds, masks, offsets, ids, width, height, tile_size, alpha_max);
        a.packed = reinterpret_cast<const Record<T>*>(pointer("records", records, {a.splats, RECORD}));
        a.depths = pointer("depths", depths, {a.splats});
        a.max_depths = pointer("max_depths", max_depths, {a.images, height, width});
        if (a.max_depths && !a.depths) throw std::invalid_argument("max_depths: want depths, too");
        a.out_colors = pointer("out_colors", out_colors, {a.images, height, width, a.channels});
        a.out_transmittances = pointer("out_transmittances", out_transmittances, {a.images, height, width});
        a.last_ids = pointer("last_ids", last_ids, {a.images, height, width});
        nb::gil_scoped_release release;
        blend(W(device, stream).where, a);
    });

    define(m, "blend_vjp",
           "records conics colors opacities backgrounds masks offsets ids width height tile_size alpha_max transmittances last_ids "
           "v_colors_out v_transmittances sums v_means2d v_conics v_colors v_opacities v_means2d_abs",
           [](In<W, 2> records, In<W, 2> conics, In<W, 2> colors, In<W, 1> opacities, MaybeIn<W, 2> backgrounds, MaybeIn<W, 3, bool> masks,
              In<W, 3, int32_t> offsets, In<W, 1, int32_t> ids, int width, int height, int tile_size, double alpha_max,
              In<W, 3> transmittances, In<W, 3, int32_t> last_ids, In<W, 4> v_colors_out, MaybeIn<W, 3> v_transmittances, Out<W, 2> sums,
              Out<W, 2> v_means2d, Out<W, 2> v_conics, Out<W, 2> v_colors, Out<W, 1> v_opacities, MaybeOut<W, 2> v_means2d_abs, int device,
              uint64_t stream) {
        BlendVjpArgs<T> v{};
        v.forward = blend_args<W>(colors, backgrounds, masks, offsets, ids, width, height, tile_size, alpha_max);
        BlendArgs<T>& a = v.forward;
        const int64_t n = a.splats, D = a.channels;
        a.packed = reinterpret_cast<const Record<T>*>(pointer("records", records, {n, RECORD}));
        a.out_transmittances = const_cast<T*>(pointer("transmittances", transmittances, {a.images, height, width}));
        a.last_ids = const_cast<int32_t*>(pointer("last_ids", last_ids, {a.images, height, width}));  // both are only read here
        check_range<W>("last_ids", last_ids, -1, a.records);
        v.absgrad = v_means2d_abs.has_value();
        v.v_colors = pointer("v_colors_out", v_colors_out, {a.images, height, width, D});
        v.v_transmittances = pointer("v_transmittances", v_transmittances, {a.images, height, width});
        v.sums = pointer("sums", sums, {sum_rows<W>(a), blend_row(v)});
        BlendFinishArgs<T> f{};
        f.conics = pointer("conics", conics, {n, 3});
        f.opacities = pointer("opacities", opacities, {n});
        f.v_means2d = pointer("v_means2d", v_means2d, {n, 2});
        f.v_conics = pointer("v_conics", v_conics, {n, 3});
        f.v_colors = pointer("v_colors", v_colors, {n, D});
        f.v_opacities = pointer("v_opacities", v_opacities, {n});
        f.v_means2d_abs = pointer("v_means2d_abs", v_means2d_abs, {n, 2});
        nb::gil_scoped_release release;
        blend_vjp(W(device, stream).where, v, f);
    });
}

}  // namespace vision3d::arrays
