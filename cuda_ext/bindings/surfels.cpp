#include "bindings/arrays.h"
#include "cpu/surfels.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace vision3d;
using namespace vision3d::arrays;

namespace {

DiscArgs disc_args(const In<float, 3>& means, const In<float, 3>& quats, const In<float, 3>& scales, const In<float, 4>& viewmats,
                   const In<float, 4>& Ks, float width, float height) {
    DiscArgs a{};
    a.batches = viewmats.shape(0); a.cameras = viewmats.shape(1); a.count = means.shape(1);
    const int64_t B = a.batches, C = a.cameras, N = a.count;
    a.means = pointer("means", means, {B, N, 3});
    a.quats = pointer("quats", quats, {B, N, 4});
    a.scales = pointer("scales", scales, {B, N, 3});
    a.viewmats = pointer("viewmats", viewmats, {B, C, 4, 4});
    a.Ks = pointer("Ks", Ks, {B, C, 3, 3});
    a.width = width; a.height = height;
    return a;
}

void bind_project(nb::module_& m) {
    m.def("project_discs", [](In<float, 3> means, In<float, 3> quats, In<float, 3> scales, MaybeIn<float, 2> opacities,
                              In<float, 4> viewmats, In<float, 4> Ks, float width, float height, float near_plane, float far_plane,
                              float radius_clip, Out<int32_t, 4> radii, Out<float, 4> means2d, Out<float, 3> depths,
                              Out<float, 5> transforms, Out<float, 4> normals) {
        DiscArgs a = disc_args(means, quats, scales, viewmats, Ks, width, height);
        const int64_t B = a.batches, C = a.cameras, N = a.count;
        a.near_plane = near_plane; a.far_plane = far_plane; a.radius_clip = radius_clip;
        a.opacities = pointer("opacities", opacities, {B, N});
        a.radii = pointer("radii", radii, {B, C, N, 2});
        a.means2d = pointer("means2d", means2d, {B, C, N, 2});
        a.depths = pointer("depths", depths, {B, C, N});
        a.transforms = pointer("transforms", transforms, {B, C, N, 3, 3});
        a.normals = pointer("normals", normals, {B, C, N, 3});
        nb::gil_scoped_release release;
        cpu::project_discs(a);
    }, "means"_a.noconvert(), "quats"_a.noconvert(), "scales"_a.noconvert(), "opacities"_a.none().noconvert(), "viewmats"_a.noconvert(),
       "Ks"_a.noconvert(), "width"_a, "height"_a, "near_plane"_a, "far_plane"_a, "radius_clip"_a, "radii"_a.noconvert(),
       "means2d"_a.noconvert(), "depths"_a.noconvert(), "transforms"_a.noconvert(), "normals"_a.noconvert());

    m.def("project_discs_vjp", [](In<float, 3> means, In<float, 3> quats, In<float, 3> scales, In<float, 4> viewmats, In<float, 4> Ks,
                                  float width, float height, In<int64_t, 1> gaussian_ids, In<int64_t, 1> offsets,
                                  In<float, 4> v_means2d, In<float, 3> v_depths, In<float, 5> v_transforms, In<float, 4> v_normals,
                                  Out<float, 3> v_means, Out<float, 3> v_quats, Out<float, 3> v_scales, MaybeOut<float, 3> v_views) {
        DiscVjpArgs a{};
        a.forward = disc_args(means, quats, scales, viewmats, Ks, width, height);
        const int64_t B = a.forward.batches, C = a.forward.cameras, N = a.forward.count;
        check("offsets", offsets, {B * C + 1});
        a.gaussian_ids = gaussian_ids.data();
        a.v_means2d = pointer("v_means2d", v_means2d, {B, C, N, 2});
        a.v_depths = pointer("v_depths", v_depths, {B, C, N});
        a.v_transforms = pointer("v_transforms", v_transforms, {B, C, N, 3, 3});
        a.v_normals = pointer("v_normals", v_normals, {B, C, N, 3});
        a.v_means = pointer("v_means", v_means, {B, N, 3});
        a.v_quats = pointer("v_quats", v_quats, {B, N, 4});
        a.v_scales = pointer("v_scales", v_scales, {B, N, 3});
        const int64_t chunks = v_views ? int64_t(v_views->shape(1)) : 0;
        a.v_views = pointer("v_views", v_views, {B * C, chunks, 12});
        nb::gil_scoped_release release;
        cpu::project_discs_vjp(a, offsets.data(), chunks);
    }, "means"_a.noconvert(), "quats"_a.noconvert(), "scales"_a.noconvert(), "viewmats"_a.noconvert(), "Ks"_a.noconvert(), "width"_a,
       "height"_a, "gaussian_ids"_a.noconvert(), "offsets"_a.noconvert(), "v_means2d"_a.noconvert(), "v_depths"_a.noconvert(),
       "v_transforms"_a.noconvert(), "v_normals"_a.noconvert(), "v_means"_a.noconvert(), "v_quats"_a.noconvert(),
       "v_scales"_a.noconvert(), "v_views"_a.none().noconvert());
}

struct Maps {  // what blending writes, an image each
    Out<float, 4> colors;
    Out<float, 3> transmittances;
    Out<float, 4> normals;
    Out<float, 3> distortions, moments, medians;
    Out<int32_t, 3> last_ids, median_ids;
};

DiscBlendArgs blend_args(const In<float, 2>& records, const In<float, 2>& colors, const MaybeIn<float, 2>& backgrounds,
                         const MaybeIn<bool, 3>& masks, const In<int32_t, 3>& offsets, const In<int32_t, 1>& ids, int width, int height,
                         int tile_size, float alpha_max, bool distortion, const Maps& maps) {
    DiscBlendArgs d{};
    BlendArgs& a = d.base;
    a.images = offsets.shape(0); a.tiles_y = int(offsets.shape(1)); a.tiles_x = int(offsets.shape(2));
    a.channels = colors.shape(1); a.splats = colors.shape(0); a.records = ids.shape(0);
    a.width = width; a.height = height; a.tile_size = tile_size; a.alpha_max = alpha_max;
    if (tile_size != 4 && tile_size != 8 && tile_size != 16) throw std::invalid_argument("tile_size: want 4, 8 or 16");
    if (a.channels < 1 || a.channels > 32) throw std::invalid_argument("colors: want 1 to 32 channels in one call");
    check("records", records, {a.splats, int64_t(sizeof(DiscRecord) / sizeof(float))});
    d.discs = reinterpret_cast<const DiscRecord*>(records.data());
    d.distortion = distortion;
    a.colors = colors.data();
    a.backgrounds = pointer("backgrounds", backgrounds, {a.images, a.channels});
    a.masks = pointer("masks", masks, {a.images, a.tiles_y, a.tiles_x});
    a.offsets = offsets.data(); a.ids = ids.data();
    a.out_colors = pointer("colors", maps.colors, {a.images, height, width, a.channels});
    a.out_transmittances = pointer("transmittances", maps.transmittances, {a.images, height, width});
    a.last_ids = pointer("last_ids", maps.last_ids, {a.images, height, width});
    d.normals = pointer("normals", maps.normals, {a.images, height, width, 3});
    d.distortions = pointer("distortions", maps.distortions, {a.images, height, width});
    d.moments = pointer("moments", maps.moments, {a.images, height, width});
    d.medians = pointer("medians", maps.medians, {a.images, height, width});
    d.median_ids = pointer("median_ids", maps.median_ids, {a.images, height, width});
    return d;
}

void bind_blend(nb::module_& m) {
    nb::class_<Maps>(m, "DiscMaps")
        .def("__init__", [](Maps* self, Out<float, 4> colors, Out<float, 3> transmittances, Out<float, 4> normals,
                            Out<float, 3> distortions, Out<float, 3> moments, Out<float, 3> medians, Out<int32_t, 3> last_ids,
                            Out<int32_t, 3> median_ids) {
            new (self) Maps{colors, transmittances, normals, distortions, moments, medians, last_ids, median_ids};
        }, "colors"_a.noconvert(), "transmittances"_a.noconvert(), "normals"_a.noconvert(), "distortions"_a.noconvert(),
           "moments"_a.noconvert(), "medians"_a.noconvert(), "last_ids"_a.noconvert(), "median_ids"_a.noconvert());

    m.def("make_disc_records", [](In<float, 2> means2d, In<float, 3> transforms, In<float, 1> opacities, In<float, 2> normals,
                                  In<float, 2> colors, Out<float, 2> records) {
        const int64_t n = int64_t(opacities.shape(0));
        check("means2d", means2d, {n, 2});
        check("transforms", transforms, {n, 3, 3});
        check("normals", normals, {n, 3});
        check("records", records, {n, int64_t(sizeof(DiscRecord) / sizeof(float))});
        nb::gil_scoped_release release;
        cpu::make_disc_records(n, means2d.data(), transforms.data(), opacities.data(), normals.data(), colors.data(),
                               int64_t(colors.shape(1)), reinterpret_cast<DiscRecord*>(records.data()));
    }, "means2d"_a.noconvert(), "transforms"_a.noconvert(), "opacities"_a.noconvert(), "normals"_a.noconvert(),
       "colors"_a.noconvert(), "records"_a.noconvert());

    m.def("blend_discs", [](In<float, 2> records, In<float, 2> colors, MaybeIn<float, 2> backgrounds, MaybeIn<bool, 3> masks,
                            In<int32_t, 3> offsets, In<int32_t, 1> ids, int width, int height, int tile_size, float alpha_max,
                            bool distortion, const Maps& maps) {
        const DiscBlendArgs d =
            blend_args(records, colors, backgrounds, masks, offsets, ids, width, height, tile_size, alpha_max, distortion, maps);
        nb::gil_scoped_release release;
        cpu::blend_discs(d);
    }, "records"_a.noconvert(), "colors"_a.noconvert(), "backgrounds"_a.none().noconvert(), "masks"_a.none().noconvert(),
       "offsets"_a.noconvert(), "ids"_a.noconvert(), "width"_a, "height"_a, "tile_size"_a, "alpha_max"_a, "distortion"_a, "maps"_a);

    m.def("blend_discs_vjp", [](In<float, 2> records, In<float, 2> colors, MaybeIn<float, 2> backgrounds, MaybeIn<bool, 3> masks,
                                In<int32_t, 3> offsets, In<int32_t, 1> ids, int width, int height, int tile_size, float alpha_max,
                                bool distortion, const Maps& maps, In<float, 2> means2d, In<float, 3> transforms,
                                In<float, 1> opacities, In<float, 4> v_colors_out, In<float, 3> v_transmittances,
                                In<float, 4> v_normals_out, In<float, 3> v_distortions, In<float, 3> v_medians, Out<float, 2> v_records,
                                Out<float, 2> v_means2d, Out<float, 3> v_transforms, Out<float, 2> v_colors, Out<float, 1> v_opacities,
                                Out<float, 2> v_normals) {
        DiscBlendVjpArgs v{};
        v.forward = blend_args(records, colors, backgrounds, masks, offsets, ids, width, height, tile_size, alpha_max, distortion, maps);
        const BlendArgs& a = v.forward.base;
        const int64_t n = a.splats, D = a.channels;
        v.v_colors = pointer("v_colors_out", v_colors_out, {a.images, height, width, D});
        v.v_transmittances = pointer("v_transmittances", v_transmittances, {a.images, height, width});
        v.v_normals = pointer("v_normals_out", v_normals_out, {a.images, height, width, 3});
        v.v_distortions = pointer("v_distortions", v_distortions, {a.images, height, width});
        v.v_medians = pointer("v_medians", v_medians, {a.images, height, width});
        v.v_records = pointer("v_records", v_records, {a.records, DISC_ROW + D});
        DiscReduceArgs r{};
        r.means2d = pointer("means2d", means2d, {n, 2});
        r.transforms = pointer("transforms", transforms, {n, 3, 3});
        r.opacities = pointer("opacities", opacities, {n});
        r.v_means2d = pointer("v_means2d", v_means2d, {n, 2});
        r.v_transforms = pointer("v_transforms", v_transforms, {n, 3, 3});
        r.v_colors = pointer("v_colors", v_colors, {n, D});
        r.v_opacities = pointer("v_opacities", v_opacities, {n});
        r.v_normals = pointer("v_normals", v_normals, {n, 3});
        nb::gil_scoped_release release;
        cpu::blend_discs_vjp(v, r);
    }, "records"_a.noconvert(), "colors"_a.noconvert(), "backgrounds"_a.none().noconvert(), "masks"_a.none().noconvert(),
       "offsets"_a.noconvert(), "ids"_a.noconvert(), "width"_a, "height"_a, "tile_size"_a, "alpha_max"_a, "distortion"_a, "maps"_a,
       "means2d"_a.noconvert(), "transforms"_a.noconvert(), "opacities"_a.noconvert(), "v_colors_out"_a.noconvert(),
       "v_transmittances"_a.noconvert(), "v_normals_out"_a.noconvert(), "v_distortions"_a.noconvert(), "v_medians"_a.noconvert(),
       "v_records"_a.noconvert(), "v_means2d"_a.noconvert(), "v_transforms"_a.noconvert(), "v_colors"_a.noconvert(),
       "v_opacities"_a.noconvert(), "v_normals"_a.noconvert());
}

}  // namespace

void bind_surfels(nb::module_& m) {
    bind_project(m);
    bind_blend(m);
    m.attr("DISC_RECORD") = sizeof(DiscRecord) / sizeof(float);
    m.attr("DISC_ROW") = DISC_ROW;
}
