#include "bindings/arrays.h"
#include "cpu/intersect.h"
#include "cpu/splats.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

struct Camera {
    int model;
    float width, height, eps2d, near_plane, far_plane, radius_clip;
    bool antialiased;
};

ProjectArgs project_args(const In<float, 3>& means, const MaybeIn<float, 3>& quats, const MaybeIn<float, 3>& scales,
                         const MaybeIn<float, 3>& covars, const In<float, 4>& viewmats, const In<float, 4>& Ks, const Camera& camera) {
    ProjectArgs a{};
    a.batches = viewmats.shape(0); a.cameras = viewmats.shape(1); a.count = means.shape(1);
    const int64_t B = a.batches, C = a.cameras, N = a.count;
    a.means = pointer("means", means, {B, N, 3});
    a.quats = pointer("quats", quats, {B, N, 4});
    a.scales = pointer("scales", scales, {B, N, 3});
    a.covars = pointer("covars", covars, {B, N, 6});
    if (!covars && !(quats && scales)) throw std::invalid_argument("want quats and scales, or covars");
    a.viewmats = pointer("viewmats", viewmats, {B, C, 4, 4});
    a.Ks = pointer("Ks", Ks, {B, C, 3, 3});
    a.model = camera.model; a.width = camera.width; a.height = camera.height; a.eps2d = camera.eps2d;
    a.near_plane = camera.near_plane; a.far_plane = camera.far_plane; a.radius_clip = camera.radius_clip;
    a.antialiased = camera.antialiased;
    return a;
}

void bind_project(nb::module_& m) {
    nb::class_<Camera>(m, "Camera")
        .def(nb::init<int, float, float, float, float, float, float, bool>(), "model"_a, "width"_a, "height"_a, "eps2d"_a,
             "near_plane"_a, "far_plane"_a, "radius_clip"_a, "antialiased"_a);

    m.def("project", [](In<float, 3> means, MaybeIn<float, 3> quats, MaybeIn<float, 3> scales, MaybeIn<float, 3> covars,
                        MaybeIn<float, 2> opacities, In<float, 4> viewmats, In<float, 4> Ks, const Camera& camera, Out<int32_t, 4> radii,
                        Out<float, 4> means2d, Out<float, 3> depths, Out<float, 4> conics, Out<float, 3> compensations) {
        ProjectArgs a = project_args(means, quats, scales, covars, viewmats, Ks, camera);
        const int64_t B = a.batches, C = a.cameras, N = a.count;
        a.opacities = pointer("opacities", opacities, {B, N});
        a.radii = pointer("radii", radii, {B, C, N, 2});
        a.means2d = pointer("means2d", means2d, {B, C, N, 2});
        a.depths = pointer("depths", depths, {B, C, N});
        a.conics = pointer("conics", conics, {B, C, N, 3});
        a.compensations = pointer("compensations", compensations, {B, C, N});
        nb::gil_scoped_release release;
        cpu::project(a);
    }, "means"_a.noconvert(), "quats"_a.none().noconvert(), "scales"_a.none().noconvert(), "covars"_a.none().noconvert(),
       "opacities"_a.none().noconvert(), "viewmats"_a.noconvert(), "Ks"_a.noconvert(), "camera"_a, "radii"_a.noconvert(),
       "means2d"_a.noconvert(), "depths"_a.noconvert(), "conics"_a.noconvert(), "compensations"_a.noconvert());

    m.def("project_vjp", [](In<float, 3> means, MaybeIn<float, 3> quats, MaybeIn<float, 3> scales, MaybeIn<float, 3> covars,
                            In<float, 4> viewmats, In<float, 4> Ks, const Camera& camera, In<int64_t, 1> gaussian_ids,
                            In<int64_t, 1> offsets, bool packed, In<float, 2> v_means2d, In<float, 1> v_depths, In<float, 2> v_conics,
                            In<float, 1> v_compensations, Out<float, 3> v_means,
                            MaybeOut<float, 3> v_quats, MaybeOut<float, 3> v_scales, MaybeOut<float, 3> v_covars,
                            MaybeOut<float, 3> v_views) {
        ProjectVjpArgs a{};
        a.forward = project_args(means, quats, scales, covars, viewmats, Ks, camera);
        const int64_t B = a.forward.batches, C = a.forward.cameras, N = a.forward.count;
        const int64_t rows = packed ? int64_t(gaussian_ids.shape(0)) : B * C * N;
        check("offsets", offsets, {B * C + 1});
        a.gaussian_ids = gaussian_ids.data();
        a.packed = packed;
        a.v_means2d = pointer("v_means2d", v_means2d, {rows, 2});
        a.v_depths = pointer("v_depths", v_depths, {rows});
        a.v_conics = pointer("v_conics", v_conics, {rows, 3});
        a.v_compensations = pointer("v_compensations", v_compensations, {rows});
        a.v_means = pointer("v_means", v_means, {B, N, 3});
        a.v_quats = pointer("v_quats", v_quats, {B, N, 4});
        a.v_scales = pointer("v_scales", v_scales, {B, N, 3});
        a.v_covars = pointer("v_covars", v_covars, {B, N, 6});
        const int64_t chunks = v_views ? int64_t(v_views->shape(1)) : 0;
        a.v_views = pointer("v_views", v_views, {B * C, chunks, 12});
        nb::gil_scoped_release release;
        cpu::project_vjp(a, offsets.data(), chunks);
    }, "means"_a.noconvert(), "quats"_a.none().noconvert(), "scales"_a.none().noconvert(), "covars"_a.none().noconvert(),
       "viewmats"_a.noconvert(), "Ks"_a.noconvert(), "camera"_a, "gaussian_ids"_a.noconvert(), "offsets"_a.noconvert(), "packed"_a,
       "v_means2d"_a.noconvert(), "v_depths"_a.noconvert(), "v_conics"_a.noconvert(), "v_compensations"_a.noconvert(), "v_means"_a.noconvert(),
       "v_quats"_a.none().noconvert(), "v_scales"_a.none().noconvert(), "v_covars"_a.none().noconvert(),
       "v_views"_a.none().noconvert());
    m.attr("PAIR_CHUNK") = PAIR_CHUNK;
}

ShArgs sh_args(const In<float, 3>& means, const In<float, 5>& sh, const In<float, 3>& centers, const In<int64_t, 1>& gaussian_ids,
               const In<int64_t, 1>& offsets, int degree) {
    ShArgs a{};
    const int64_t B = means.shape(0), N = means.shape(1), C = centers.shape(1), K = sh.shape(3);
    a.count = N; a.K = K; a.degree = degree; a.cameras = C; a.per_camera = sh.shape(1) != 1;
    a.means = pointer("means", means, {B, N, 3});
    a.sh = pointer("sh", sh, {B, a.per_camera ? C : 1, N, K, 3});
    a.centers = pointer("centers", centers, {B, C, 3});
    a.gaussian_ids = gaussian_ids.data();
    check("offsets", offsets, {B * C + 1});
    if (degree < 0 || degree > 4 || (degree + 1) * (degree + 1) > K) throw std::invalid_argument("degree does not fit the coefficients");
    return a;
}

void bind_sh(nb::module_& m) {
    m.def("sh_colors", [](In<float, 3> means, In<float, 5> sh, In<float, 3> centers, In<int64_t, 1> gaussian_ids, In<int64_t, 1> offsets,
                          int degree, Out<float, 2> colors) {
        ShArgs a = sh_args(means, sh, centers, gaussian_ids, offsets, degree);
        a.colors = pointer("colors", colors, {int64_t(gaussian_ids.shape(0)), 3});
        nb::gil_scoped_release release;
        cpu::sh_colors(a, int64_t(offsets.shape(0)) - 1, offsets.data());
    }, "means"_a.noconvert(), "sh"_a.noconvert(), "centers"_a.noconvert(), "gaussian_ids"_a.noconvert(), "offsets"_a.noconvert(),
       "degree"_a, "colors"_a.noconvert());

    m.def("sh_colors_vjp", [](In<float, 3> means, In<float, 5> sh, In<float, 3> centers, In<int64_t, 1> gaussian_ids,
                              In<int64_t, 1> offsets, int degree, In<float, 2> v_colors, Out<float, 3> v_means, Out<float, 5> v_sh,
                              MaybeOut<float, 3> v_centers) {
        ShArgs a = sh_args(means, sh, centers, gaussian_ids, offsets, degree);
        a.v_colors = pointer("v_colors", v_colors, {int64_t(gaussian_ids.shape(0)), 3});
        a.v_means = pointer("v_means", v_means, {int64_t(means.shape(0)), a.count, 3});
        a.v_sh = pointer("v_sh", v_sh, {int64_t(sh.shape(0)), int64_t(sh.shape(1)), a.count, a.K, 3});
        const int64_t images = int64_t(offsets.shape(0)) - 1, chunks = v_centers ? int64_t(v_centers->shape(1)) : 0;
        float* centers_out = pointer("v_centers", v_centers, {images, chunks, 3});
        nb::gil_scoped_release release;
        cpu::sh_colors_vjp(a, images, offsets.data(), centers_out, chunks);
    }, "means"_a.noconvert(), "sh"_a.noconvert(), "centers"_a.noconvert(), "gaussian_ids"_a.noconvert(), "offsets"_a.noconvert(),
       "degree"_a, "v_colors"_a.noconvert(), "v_means"_a.noconvert(), "v_sh"_a.noconvert(), "v_centers"_a.none().noconvert());
}

void bind_intersect(nb::module_& m) {
    nb::class_<cpu::Intersections>(m, "Intersections")
        .def("__init__", [](cpu::Intersections* self, In<int64_t, 1> offsets, In<float, 2> means2d, In<int32_t, 2> radii,
                            In<float, 1> depths, MaybeIn<float, 2> conics, In<float, 1> opacities, int width, int height,
                            int tile_size) {
            const int64_t n = int64_t(depths.shape(0));
            check("means2d", means2d, {n, 2});
            check("radii", radii, {n, 2});
            const float* conics_in = pointer("conics", conics, {n, 3});
            check("opacities", opacities, {n});
            nb::gil_scoped_release release;
            new (self) cpu::Intersections(int64_t(offsets.shape(0)) - 1, offsets.data(), means2d.data(), radii.data(), depths.data(),
                                          conics_in, opacities.data(), width, height, tile_size);
        }, "offsets"_a.noconvert(), "means2d"_a.noconvert(), "radii"_a.noconvert(), "depths"_a.noconvert(), "conics"_a.none().noconvert(),
           "opacities"_a.noconvert(), "width"_a, "height"_a, "tile_size"_a,
           // fill() reads these again
           nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 5>(), nb::keep_alive<1, 6>(), nb::keep_alive<1, 7>())
        .def_prop_ro("total", &cpu::Intersections::total)
        .def("fill", [](const cpu::Intersections& self, Out<int32_t, 1> tiles_per_gauss, Out<int64_t, 1> isect_ids,
                        Out<int32_t, 1> flatten_ids, Out<int32_t, 3> isect_offsets) {
            check("isect_ids", isect_ids, {self.total()});
            check("flatten_ids", flatten_ids, {self.total()});
            nb::gil_scoped_release release;
            self.fill(tiles_per_gauss.data(), isect_ids.data(), flatten_ids.data(), isect_offsets.data());
        }, "tiles_per_gauss"_a.noconvert(), "isect_ids"_a.noconvert(), "flatten_ids"_a.noconvert(), "isect_offsets"_a.noconvert());
}

BlendArgs blend_args(const In<float, 2>& records, const In<float, 2>& colors, const MaybeIn<float, 2>& backgrounds,
                     const MaybeIn<bool, 3>& masks, const In<int32_t, 3>& offsets, const In<int32_t, 1>& ids, int width, int height,
                     int tile_size, float alpha_max) {
    BlendArgs a{};
    a.images = offsets.shape(0); a.tiles_y = int(offsets.shape(1)); a.tiles_x = int(offsets.shape(2));
    a.channels = colors.shape(1); a.splats = colors.shape(0); a.records = ids.shape(0);
    a.width = width; a.height = height; a.tile_size = tile_size; a.alpha_max = alpha_max;
    if (tile_size != 4 && tile_size != 8 && tile_size != 16) throw std::invalid_argument("tile_size: want 4, 8 or 16");
    if (a.channels > 32) throw std::invalid_argument("colors: at most 32 channels in one call");
    check("records", records, {a.splats, 16});
    a.packed = reinterpret_cast<const Record*>(records.data());
    a.colors = colors.data();
    a.backgrounds = pointer("backgrounds", backgrounds, {a.images, a.channels});
    a.masks = pointer("masks", masks, {a.images, a.tiles_y, a.tiles_x});
    a.offsets = offsets.data(); a.ids = ids.data();
    return a;
}

void bind_blend(nb::module_& m) {
    m.def("make_records", [](In<float, 2> means2d, In<float, 2> conics, In<float, 2> colors, In<float, 1> opacities,
                             Out<float, 2> records) {
        const int64_t n = int64_t(opacities.shape(0));
        check("means2d", means2d, {n, 2});
        check("conics", conics, {n, 3});
        check("records", records, {n, 16});
        nb::gil_scoped_release release;
        cpu::make_records(n, int64_t(colors.shape(1)), means2d.data(), conics.data(), colors.data(), opacities.data(),
                          reinterpret_cast<Record*>(records.data()));
    }, "means2d"_a.noconvert(), "conics"_a.noconvert(), "colors"_a.noconvert(), "opacities"_a.noconvert(), "records"_a.noconvert());

    m.def("blend", [](In<float, 2> records, In<float, 2> colors, MaybeIn<float, 2> backgrounds, MaybeIn<bool, 3> masks,
                      In<int32_t, 3> offsets, In<int32_t, 1> ids, int width, int height, int tile_size, float alpha_max,
                      Out<float, 4> out_colors, Out<float, 3> out_transmittances, Out<int32_t, 3> last_ids) {
        BlendArgs a = blend_args(records, colors, backgrounds, masks, offsets, ids, width, height, tile_size, alpha_max);
        a.out_colors = pointer("out_colors", out_colors, {a.images, height, width, a.channels});
        a.out_transmittances = pointer("out_transmittances", out_transmittances, {a.images, height, width});
        a.last_ids = pointer("last_ids", last_ids, {a.images, height, width});
        nb::gil_scoped_release release;
        cpu::blend_forward(a);
    }, "records"_a.noconvert(), "colors"_a.noconvert(), "backgrounds"_a.none().noconvert(), "masks"_a.none().noconvert(),
       "offsets"_a.noconvert(), "ids"_a.noconvert(), "width"_a, "height"_a, "tile_size"_a, "alpha_max"_a, "out_colors"_a.noconvert(),
       "out_transmittances"_a.noconvert(), "last_ids"_a.noconvert());

    m.def("blend_vjp", [](In<float, 2> records, In<float, 2> conics, In<float, 2> colors, In<float, 1> opacities,
                          MaybeIn<float, 2> backgrounds, MaybeIn<bool, 3> masks, In<int32_t, 3> offsets, In<int32_t, 1> ids, int width,
                          int height, int tile_size, float alpha_max, In<float, 3> transmittances, In<int32_t, 3> last_ids,
                          In<float, 4> v_colors_out, In<float, 3> v_transmittances, Out<float, 2> v_records, Out<float, 2> v_means2d,
                          Out<float, 2> v_conics, Out<float, 2> v_colors, Out<float, 1> v_opacities, MaybeOut<float, 2> v_means2d_abs) {
        BlendVjpArgs v{};
        v.forward = blend_args(records, colors, backgrounds, masks, offsets, ids, width, height, tile_size, alpha_max);
        BlendArgs& a = v.forward;
        const int64_t n = a.splats, D = a.channels;
        v.absgrad = v_means2d_abs.has_value();
        a.out_transmittances = const_cast<float*>(pointer("transmittances", transmittances, {a.images, height, width}));
        a.last_ids = const_cast<int32_t*>(pointer("last_ids", last_ids, {a.images, height, width}));  // both are read only here
        v.v_colors = pointer("v_colors_out", v_colors_out, {a.images, height, width, D});
        v.v_transmittances = pointer("v_transmittances", v_transmittances, {a.images, height, width});
        v.v_records = pointer("v_records", v_records, {a.records, 6 + D + (v.absgrad ? 2 : 0)});
        ReduceArgs r{};
        r.vjp = &v;
        r.conics = pointer("conics", conics, {n, 3});
        r.opacities = pointer("opacities", opacities, {n});
        r.v_means2d = pointer("v_means2d", v_means2d, {n, 2});
        r.v_conics = pointer("v_conics", v_conics, {n, 3});
        r.v_colors = pointer("v_colors", v_colors, {n, D});
        r.v_opacities = pointer("v_opacities", v_opacities, {n});
        r.v_means2d_abs = pointer("v_means2d_abs", v_means2d_abs, {n, 2});
        nb::gil_scoped_release release;
        cpu::blend_backward(v, r);
    }, "records"_a.noconvert(), "conics"_a.noconvert(), "colors"_a.noconvert(), "opacities"_a.noconvert(),
       "backgrounds"_a.none().noconvert(), "masks"_a.none().noconvert(), "offsets"_a.noconvert(), "ids"_a.noconvert(), "width"_a,
       "height"_a, "tile_size"_a, "alpha_max"_a, "transmittances"_a.noconvert(), "last_ids"_a.noconvert(), "v_colors_out"_a.noconvert(),
       "v_transmittances"_a.noconvert(), "v_records"_a.noconvert(), "v_means2d"_a.noconvert(), "v_conics"_a.noconvert(),
       "v_colors"_a.noconvert(), "v_opacities"_a.noconvert(), "v_means2d_abs"_a.none().noconvert());
}

}  // namespace

void bind_splats(nb::module_& m) {
    bind_project(m);
    bind_sh(m);
    bind_intersect(m);
    bind_blend(m);
}
