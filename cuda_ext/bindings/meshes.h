#pragma once
#include "bindings/define.h"
#include "vision3d/mesh_args.h"

// Python bindings of the mesh kernels; targets as in bindings/splats.h.
namespace vision3d::arrays {

template <typename W>
MeshArgs<typename W::Scalar> mesh_args(const In<W, 3>& positions, const In<W, 2, int32_t>& triangles, int64_t height, int64_t width) {
    MeshArgs<typename W::Scalar> a{};
    a.images = positions.shape(0);
    a.vertices = positions.shape(1);
    a.faces = triangles.shape(0);
    check("positions", positions, {a.images, a.vertices, 4});
    a.triangles = pointer("triangles", triangles, {a.faces, 3});
    check_range<W>("triangles", triangles, 0, a.vertices);
    a.height = int(height);
    a.width = int(width);
    a.positions = positions.data();
    return a;
}

template <typename W>
void bind_mesh_rasterize(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "rasterize_mesh", "positions triangles near_plane far_plane face_ids barycentrics depths keys queue",
           [](In<W, 3> positions, In<W, 2, int32_t> triangles, double near_plane, double far_plane, Out<W, 3, int32_t> face_ids,
              Out<W, 4> barycentrics, Out<W, 3> depths, Out<W, 3, int64_t> keys, Out<W, 2, int32_t> queue, int device, uint64_t stream) {
        const int64_t height = face_ids.shape(1), width = face_ids.shape(2);
        MeshArgs<T> a = mesh_args<W>(positions, triangles, height, width);
        a.near_plane = near_plane;
        a.far_plane = far_plane;
        a.face_ids = pointer("face_ids", face_ids, {a.images, height, width});
        a.barycentrics = pointer("barycentrics", barycentrics, {a.images, height, width, 3});
        a.depths = pointer("depths", depths, {a.images, height, width});
        a.keys = reinterpret_cast<uint64_t*>(pointer("keys", keys, {a.images, height, width}));
        a.queue = pointer("queue", queue, {a.images, a.faces + 1});
        nb::gil_scoped_release release;
        rasterize(W(device, stream).where, a);
    });

    define(m, "rasterize_mesh_vjp", "positions triangles face_ids v_barycentrics v_depths v_positions",
           [](In<W, 3> positions, In<W, 2, int32_t> triangles, In<W, 3, int32_t> face_ids, MaybeIn<W, 4> v_barycentrics,
              MaybeIn<W, 3> v_depths, Out<W, 3> v_positions, int device, uint64_t stream) {
        const int64_t height = face_ids.shape(1), width = face_ids.shape(2);
        MeshVjpArgs<T> a{};
        MeshArgs<T>& f = a.forward = mesh_args<W>(positions, triangles, height, width);
        f.face_ids = const_cast<int32_t*>(pointer("face_ids", face_ids, {f.images, height, width}));  // only read here
        check_range<W>("face_ids", face_ids, -1, f.faces);
        a.v_barycentrics = pointer("v_barycentrics", v_barycentrics, {f.images, height, width, 3});
        a.v_depths = pointer("v_depths", v_depths, {f.images, height, width});
        a.v_positions = pointer("v_positions", v_positions, {f.images, f.vertices, 4});
        nb::gil_scoped_release release;
        rasterize_vjp(W(device, stream).where, a);
    });
}

template <typename W>
InterpolateArgs<typename W::Scalar> interpolate_args(const In<W, 3>& attributes, const In<W, 2, int32_t>& triangles,
                                                     const In<W, 3, int32_t>& face_ids, const In<W, 4>& barycentrics) {
    InterpolateArgs<typename W::Scalar> a{};
    a.images = face_ids.shape(0);
    a.sets = attributes.shape(0);
    a.vertices = attributes.shape(1);
    a.channels = attributes.shape(2);
    a.faces = triangles.shape(0);
    a.pixels = int64_t(face_ids.shape(1)) * int64_t(face_ids.shape(2));
    a.height = face_ids.shape(1);
    if (a.sets != 1 && a.sets != a.images) throw std::invalid_argument("attributes: want one set, or one an image");
    a.attributes = attributes.data();
    a.face_ids = face_ids.data();
    a.triangles = pointer("triangles", triangles, {a.faces, 3});
    check_range<W>("triangles", triangles, 0, a.vertices);
    check_range<W>("face_ids", face_ids, -1, a.faces);
    a.barycentrics = pointer("barycentrics", barycentrics, {a.images, int64_t(face_ids.shape(1)), int64_t(face_ids.shape(2)), 3});
    return a;
}

template <typename W>
void bind_mesh_interpolate(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "interpolate_mesh", "attributes triangles face_ids barycentrics values",
           [](In<W, 3> attributes, In<W, 2, int32_t> triangles, In<W, 3, int32_t> face_ids, In<W, 4> barycentrics, Out<W, 4> values,
              int device, uint64_t stream) {
        InterpolateArgs<T> a = interpolate_args<W>(attributes, triangles, face_ids, barycentrics);
        a.values = pointer("values", values, {a.images, int64_t(face_ids.shape(1)), int64_t(face_ids.shape(2)), a.channels});
        nb::gil_scoped_release release;
        interpolate(W(device, stream).where, a);
    });

    define(m, "interpolate_mesh_vjp", "attributes triangles face_ids barycentrics v_values v_attributes v_barycentrics",
           [](In<W, 3> attributes, In<W, 2, int32_t> triangles, In<W, 3, int32_t> face_ids, In<W, 4> barycentrics, In<W, 4> v_values,
              Out<W, 3> v_attributes, Out<W, 4> v_barycentrics, int device, uint64_t stream) {
        InterpolateArgs<T> a = interpolate_args<W>(attributes, triangles, face_ids, barycentrics);
        const int64_t height = face_ids.shape(1), width = face_ids.shape(2);
        a.v_values = pointer("v_values", v_values, {a.images, height, width, a.channels});
        a.v_attributes = pointer("v_attributes", v_attributes, {a.sets, a.vertices, a.channels});
        a.v_barycentrics = pointer("v_barycentrics", v_barycentrics, {a.images, height, width, 3});
        nb::gil_scoped_release release;
        interpolate_vjp(W(device, stream).where, a);
    });
}

// The levels of a texture are stored one after the other; `sizes` is where the kernel runs, and on a GPU the caller checks its sum.
template <typename W>
TextureArgs<typename W::Scalar> texture_args(const In<W, 3>& textures, const In<W, 2, int64_t>& sizes, const In<W, 4>& uvs,
                                             const MaybeIn<W, 3>& lods, const MaybeIn<W, 3, bool>& masks, bool repeat) {
    TextureArgs<typename W::Scalar> a{};
    const int64_t height = uvs.shape(1), width = uvs.shape(2);
    a.images = uvs.shape(0);
    a.sets = textures.shape(0);
    a.texels = textures.shape(1);
    a.channels = textures.shape(2);
    a.pixels = height * width;
    a.levels = sizes.shape(0);
    a.repeat = repeat;
    if (a.sets != 1 && a.sets != a.images) throw std::invalid_argument("textures: want one, or one an image");
    a.sizes = pointer("sizes", sizes, {a.levels, 2});
    require(a.levels > 0, "sizes: want at least one level");
    if constexpr (on_cpu<W>) {
        int64_t texels = 0;
        for (int64_t l = 0; l < a.levels && texels >= 0; ++l) {
            const int64_t rows = a.sizes[2 * l], columns = a.sizes[2 * l + 1], left = a.texels - texels;
            texels = rows < 1 || columns < 1 || rows > left || columns > left / rows ? -1 : texels + rows * columns;
        }
        if (texels != a.texels)
            throw std::invalid_argument("sizes: want levels of at least one texel, " + std::to_string(a.texels) + " in all");
    }
    a.textures = textures.data();
    a.uvs = pointer("uvs", uvs, {a.images, height, width, 2});
    a.lods = pointer("lods", lods, {a.images, height, width});
    a.masks = pointer("masks", masks, {a.images, height, width});
    return a;
}

template <typename W>
void bind_mesh_texture(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "texture_mesh", "textures sizes uvs lods masks repeat values",
           [](In<W, 3> textures, In<W, 2, int64_t> sizes, In<W, 4> uvs, MaybeIn<W, 3> lods, MaybeIn<W, 3, bool> masks, bool repeat,
              Out<W, 4> values, int device, uint64_t stream) {
        TextureArgs<T> a = texture_args<W>(textures, sizes, uvs, lods, masks, repeat);
        a.values = pointer("values", values, {a.images, int64_t(uvs.shape(1)), int64_t(uvs.shape(2)), a.channels});
        nb::gil_scoped_release release;
        texture(W(device, stream).where, a);
    });

    define(m, "texture_mesh_vjp", "textures sizes uvs lods masks repeat v_values v_textures v_uvs v_lods",
           [](In<W, 3> textures, In<W, 2, int64_t> sizes, In<W, 4> uvs, MaybeIn<W, 3> lods, MaybeIn<W, 3, bool> masks, bool repeat,
              In<W, 4> v_values, Out<W, 3> v_textures, Out<W, 4> v_uvs, MaybeOut<W, 3> v_lods, int device, uint64_t stream) {
        TextureArgs<T> a = texture_args<W>(textures, sizes, uvs, lods, masks, repeat);
        const int64_t height = uvs.shape(1), width = uvs.shape(2);
        a.v_values = pointer("v_values", v_values, {a.images, height, width, a.channels});
        a.v_textures = pointer("v_textures", v_textures, {a.sets, a.texels, a.channels});
        a.v_uvs = pointer("v_uvs", v_uvs, {a.images, height, width, 2});
        a.v_lods = pointer("v_lods", v_lods, {a.images, height, width});
        nb::gil_scoped_release release;
        texture_vjp(W(device, stream).where, a);
    });
}

template <typename W>
AntialiasArgs<typename W::Scalar> antialias_args(const In<W, 3>& positions, const In<W, 2, int32_t>& triangles,
                                                 const In<W, 2, int32_t>& neighbors, const In<W, 3, int32_t>& face_ids,
                                                 const In<W, 3>& depths, const In<W, 4>& colors, const Out<W, 3, uint8_t>& pairs) {
    AntialiasArgs<typename W::Scalar> a{};
    const int64_t height = face_ids.shape(1), width = face_ids.shape(2);
    a.images = positions.shape(0);
    a.vertices = positions.shape(1);
    a.faces = triangles.shape(0);
    a.channels = colors.shape(3);
    a.height = int(height);
    a.width = int(width);
    a.positions = pointer("positions", positions, {a.images, a.vertices, 4});
    a.triangles = pointer("triangles", triangles, {a.faces, 3});
    a.neighbors = pointer("neighbors", neighbors, {a.faces, 3});
    check_range<W>("triangles", triangles, 0, a.vertices);
    check_range<W>("neighbors", neighbors, -1, a.faces);
    check_range<W>("face_ids", face_ids, -1, a.faces);
    a.face_ids = pointer("face_ids", face_ids, {a.images, height, width});
    a.depths = pointer("depths", depths, {a.images, height, width});
    a.colors = pointer("colors", colors, {a.images, height, width, a.channels});
    a.pairs = pointer("pairs", pairs, {a.images, height, width});
    return a;
}

template <typename W>
void bind_mesh_antialias(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "antialias_mesh", "positions triangles neighbors face_ids depths colors pairs out_colors",
           [](In<W, 3> positions, In<W, 2, int32_t> triangles, In<W, 2, int32_t> neighbors, In<W, 3, int32_t> face_ids, In<W, 3> depths,
              In<W, 4> colors, Out<W, 3, uint8_t> pairs, Out<W, 4> out_colors, int device, uint64_t stream) {
        AntialiasArgs<T> a = antialias_args<W>(positions, triangles, neighbors, face_ids, depths, colors, pairs);
        a.out_colors = pointer("out_colors", out_colors, {a.images, a.height, a.width, a.channels});
        nb::gil_scoped_release release;
        antialias(W(device, stream).where, a);
    });

    define(m, "antialias_mesh_vjp", "positions triangles neighbors face_ids depths colors pairs v_out_colors v_colors v_positions",
           [](In<W, 3> positions, In<W, 2, int32_t> triangles, In<W, 2, int32_t> neighbors, In<W, 3, int32_t> face_ids, In<W, 3> depths,
              In<W, 4> colors, Out<W, 3, uint8_t> pairs, In<W, 4> v_out_colors, Out<W, 4> v_colors, Out<W, 3> v_positions, int device,
              uint64_t stream) {
        AntialiasArgs<T> a = antialias_args<W>(positions, triangles, neighbors, face_ids, depths, colors, pairs);
        a.v_out_colors = pointer("v_out_colors", v_out_colors, {a.images, a.height, a.width, a.channels});
        a.v_colors = pointer("v_colors", v_colors, {a.images, a.height, a.width, a.channels});
        a.v_positions = pointer("v_positions", v_positions, {a.images, a.vertices, 4});
        nb::gil_scoped_release release;
        antialias_vjp(W(device, stream).where, a);
    });
}

template <typename W>
MeshImageArgs<typename W::Scalar> mesh_image_args(const In<W, 3>& positions, const In<W, 2, int32_t>& triangles,
                                                  const In<W, 2, int32_t>& neighbors, const In<W, 3>& attributes,
                                                  const Out<W, 3, int32_t>& face_ids, const Out<W, 3>& depths,
                                                  const Out<W, 3, uint8_t>& pairs) {
    MeshImageArgs<typename W::Scalar> a{};
    const int64_t height = face_ids.shape(1), width = face_ids.shape(2);
    auto& m = a.mesh = mesh_args<W>(positions, triangles, height, width);
    a.sets = attributes.shape(0);
    a.channels = attributes.shape(2);
    if (a.sets != 1 && a.sets != m.images) throw std::invalid_argument("attributes: want one set, or one an image");
    a.attributes = pointer("attributes", attributes, {a.sets, m.vertices, a.channels});
    a.neighbors = pointer("neighbors", neighbors, {m.faces, 3});
    check_range<W>("neighbors", neighbors, -1, m.faces);
    m.face_ids = pointer("face_ids", face_ids, {m.images, height, width});
    m.depths = pointer("depths", depths, {m.images, height, width});
    a.pairs = pointer("pairs", pairs, {m.images, height, width});
    return a;
}

// CPU only.
template <typename W>
void bind_draw_mesh(nb::module_& m) {
    using T = typename W::Scalar;
    define(m, "draw_mesh", "positions triangles neighbors attributes near_plane far_plane face_ids depths pairs colors",
           [](In<W, 3> positions, In<W, 2, int32_t> triangles, In<W, 2, int32_t> neighbors, In<W, 3> attributes, double near_plane,
              double far_plane, Out<W, 3, int32_t> face_ids, Out<W, 3> depths, Out<W, 3, uint8_t> pairs, Out<W, 4> colors) {
        MeshImageArgs<T> a = mesh_image_args<W>(positions, triangles, neighbors, attributes, face_ids, depths, pairs);
        a.mesh.near_plane = near_plane;
        a.mesh.far_plane = far_plane;
        a.colors = pointer("colors", colors, {a.mesh.images, a.mesh.height, a.mesh.width, a.channels});
        nb::gil_scoped_release release;
        draw_mesh(W(0, 0).where, a);
    });

    define(
        m, "draw_mesh_vjp", "positions triangles neighbors attributes face_ids depths pairs v_colors v_positions v_attributes",
        [](In<W, 3> positions, In<W, 2, int32_t> triangles, In<W, 2, int32_t> neighbors, In<W, 3> attributes, Out<W, 3, int32_t> face_ids,
           Out<W, 3> depths, Out<W, 3, uint8_t> pairs, In<W, 4> v_colors, Out<W, 3> v_positions, Out<W, 3> v_attributes) {
        MeshImageArgs<T> a = mesh_image_args<W>(positions, triangles, neighbors, attributes, face_ids, depths, pairs);
        const MeshArgs<T>& f = a.mesh;
        check_range<W>("face_ids", face_ids, -1, f.faces);
        a.v_colors = pointer("v_colors", v_colors, {f.images, f.height, f.width, a.channels});
        a.v_positions = pointer("v_positions", v_positions, {f.images, f.vertices, 4});
        a.v_attributes = pointer("v_attributes", v_attributes, {a.sets, f.vertices, a.channels});
        nb::gil_scoped_release release;
        draw_mesh_vjp(W(0, 0).where, a);
    });
}

template <typename W>
void bind_meshes(nb::module_& m) {
    bind_mesh_rasterize<W>(m);
    bind_mesh_interpolate<W>(m);
    bind_mesh_texture<W>(m);
    bind_mesh_antialias<W>(m);
}

}  // namespace vision3d::arrays
