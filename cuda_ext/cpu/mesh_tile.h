#pragma once
#include <cstdint>
#include "vision3d/mesh.h"

namespace vision3d {

constexpr int MESH_TILE_W = 32, MESH_TILE_H = 16;  // pixels; a tile fits into the L1 cache

// Current content of the pixels of a tile. Rows are longer than the tile, so that a vector may end beyond it.
struct MeshTile {
    static constexpr int STRIDE = MESH_TILE_W + 8;
    int64_t image;
    int left, top, right, bottom;                                    // pixels, clipped to the image
    int64_t keys[MESH_TILE_H * STRIDE];                              // as fragment_key, ordered as signed numbers
    double e[3][MESH_TILE_H * STRIDE], depth[MESH_TILE_H * STRIDE];  // of the winner; depth before the division by their sum
};

constexpr int64_t NO_KEY = INT64_MAX;

// Faces of one image: their corners (V,4) in double, boxes, and other inputs of fragments.
struct MeshFaces {
    const double* vertices;
    const int32_t* triangles;
    const PixelBox* boxes;
    const int8_t* sides;   // sign of the area in the image for plain faces (cpu/mesh_setup.h), 0 for others
    const float* nearest;  // lower bound > 0 of the pixel depths for plain faces
    double near_plane, far_plane;
};

// Sums of a face over its pixels: rows of four numbers, one for each corner and an unused one. Edge functions as lines relative
// to its first pixel; the attributes of its corners, one row per channel; then the sums: gradients by the attributes, by the
// edge functions, and those times x and y.
struct FaceRow {
    static constexpr int SLOPE_X = 0, SLOPE_Y = 4, AT = 8, ATTRIBUTES = 12, X = 3, Y = 7;  // X, Y: that pixel, in unused numbers
    static constexpr int64_t size(int64_t channels) { return 4 * (6 + 2 * channels); }
};

// Additional gradient of a pixel: that of another one times a factor. Pixels are counted over all images.
struct PixelShare {
    int64_t pixel, from;
    double factor;
};

// Rows [begin, end) of an image, and the faces visible there and in the shares.
template <typename T>
struct FaceSumsArgs {
    int64_t image, begin, end, count;
    const int32_t* faces;
    const int64_t* first;  // a pixel of the image for each face
    const int32_t* slots;  // index in `faces` of each face of the mesh
    int64_t shares;
    const PixelShare* share;
    double* rows;  // (count, FaceRow::size); then the first three rows are gradients by X, Y, W of the corners
};

// Loops over pixels; see cpu/isa/meshes.cpp and mesh_image.cpp. Bitwise equal on every instruction set.
struct MeshKernels {
    // Draws faces list[0..count), then `later` plain ones, which may be hidden, into a tile.
    void (*draw)(const MeshFaces& faces, const int32_t* list, int64_t count, int64_t later, MeshTile& tile);
    // Writes face ids, barycentrics and depths of the tile's pixels.
    void (*finish)(const MeshTile& tile, const MeshArgs<float>& args);
    void (*finish64)(const MeshTile& tile, const MeshArgs<double>& args);
    // Writes face ids, depths and colors.
    void (*shade)(const MeshTile& tile, const MeshImageArgs<float>& args);
    void (*shade64)(const MeshTile& tile, const MeshImageArgs<double>& args);
    // Sums the gradients of the colors over the pixels of each face.
    void (*sum_faces)(const MeshImageArgs<float>& args, const FaceSumsArgs<float>& sums);
    void (*sum_faces64)(const MeshImageArgs<double>& args, const FaceSumsArgs<double>& sums);
};

}  // namespace vision3d
