#pragma once
#include <cstdint>
#include "vision3d/macros.h"

// Inputs and outputs of the mesh kernels: contiguous arrays of the given shapes, on the device where the kernel runs.
namespace vision3d {

template <typename T>
struct MeshArgs {
    int64_t images, vertices, faces;  // I, V, F
    int width, height;
    double near_plane, far_plane;
    const T* positions;        // (I,V,4) homogeneous pixels X, Y, depth, W
    const int32_t* triangles;  // (F,3)
    int32_t* face_ids;         // (I,H,W)
    T *barycentrics, *depths;  // (I,H,W,3) (I,H,W)
    uint64_t* keys;            // (I,H,W), scratch of the GPU
    int32_t* queue;            // (I,F+1), likewise
};

template <typename T>
struct MeshVjpArgs {
    MeshArgs<T> forward;                 // only positions, triangles and face_ids are read
    const T *v_barycentrics, *v_depths;  // null: zero
    T* v_positions;                      // added to, starts at zero
};

template <typename T>
struct InterpolateArgs {
    int64_t images, sets, vertices, faces, pixels, channels;  // attributes are one set, or one per image; pixels of an image
    int64_t height;                                           // height of an image
    const T* attributes;                                      // (sets,V,D)
    const int32_t* triangles;                                 // (F,3)
    const int32_t* face_ids;                                  // (I,pixels)
    const T* barycentrics;                                    // (I,pixels,3)
    T* values;                                                // (I,pixels,D)
    const T* v_values;
    T *v_attributes, *v_barycentrics;  // the first is added to, starts at zero
};

template <typename T>
struct TextureArgs {
    int64_t images, sets, pixels, texels, channels, levels;  // one texture, or one per image; texels of all levels
    const int64_t* sizes;                                    // (levels,2) height and width
    bool repeat;                                             // otherwise border texels are repeated
    const T* textures;                                       // (sets,texels,D)
    const T* uvs;                                            // (I,pixels,2)
    const T* lods;                                           // (I,pixels) or null: the finest level
    const bool* masks;                                       // (I,pixels) or null
    T* values;                                               // (I,pixels,D)
    const T* v_values;
    T *v_textures, *v_uvs, *v_lods;  // the first is added to, starts at zero; the last may be null
};

template <typename T>
struct AntialiasArgs {
    int64_t images, vertices, faces, channels;
    int width, height;
    const T* positions;                    // (I,V,4)
    const int32_t *triangles, *neighbors;  // (F,3): corners; face on the other side of the edge opposite each, or -1
    const int32_t* face_ids;               // (I,H,W)
    const T *depths, *colors;              // (I,H,W) (I,H,W,D)
    uint8_t* pairs;                        // (I,H,W): pairs that blend, from the forward pass
    T* out_colors;                         // (I,H,W,D)
    const T* v_out_colors;
    T *v_colors, *v_positions;  // the second is added to, starts at zero
};

// Fragments, attributes and silhouettes in one call, on a CPU.
template <typename T>
struct MeshImageArgs {
    MeshArgs<T> mesh;          // barycentrics is not read; the backward pass reads the other outputs
    int64_t sets, channels;    // attributes are one set, or one per image
    const T* attributes;       // (sets,V,D)
    const int32_t* neighbors;  // (F,3), as above
    uint8_t* pairs;            // (I,H,W), as above
    T* colors;                 // (I,H,W,D)
    const T* v_colors;
    T *v_attributes, *v_positions;  // added to, start at zero
};

}  // namespace vision3d
