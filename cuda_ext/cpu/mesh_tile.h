#pragma once
#include <cstdint>
#include "vision3d/mesh.h"

namespace vision3d {

constexpr int MESH_TILE_W = 32, MESH_TILE_H = 16;  // pixels; all of a tile stays in the first cache

// What the pixels of a tile show so far. Rows are longer than the tile, so that a vector may end beyond it.
struct MeshTile {
    static constexpr int STRIDE = MESH_TILE_W + 8;
    int64_t image;
    int left, top, right, bottom;                                    // pixels, cut where the image ends
    int64_t keys[MESH_TILE_H * STRIDE];                              // as fragment_key, in the order of signed numbers
    double e[3][MESH_TILE_H * STRIDE], depth[MESH_TILE_H * STRIDE];  // of the winner; depth before the division by their sum
};

constexpr int64_t NO_KEY = INT64_MAX;

// Faces of one image: their corners (V,4) in double, boxes, and what a fragment needs.
struct MeshFaces {
    const double* vertices;
    const int32_t* triangles;
    const PixelBox* boxes;
    const int8_t* sides;   // of plain faces (cpu/mesh_setup.h) the sign of the area in the image; 0 of others
    const float* nearest;  // of plain faces no more than the depth of any pixel, above 0
    double near_plane, far_plane;
};

// What a face adds up over its pixels: rows of four numbers, one for each corner and a free one. Its edge functions, as lines seen
// from the first of its pixels; the attributes of its corners, a row a channel; then the sums: gradients by the attributes, by
// the edge functions, and those times x and y.
struct FaceRow {
    static constexpr int SLOPE_X = 0, SLOPE_Y = 4, AT = 8, ATTRIBUTES = 12, X = 3, Y = 7;  // X, Y: that pixel, in free numbers
    static constexpr int64_t size(int64_t channels) { return 4 * (6 + 2 * channels); }
};

// What a pixel gets beside its own gradient: that of another one times a factor. Pixels are counted over all images.
struct PixelShare {
    int64_t pixel, from;
    double factor;
};

// Rows [begin, end) of an image, and the faces that they and the shares show.
template <typename T>
struct FaceSumsArgs {
    int64_t image, begin, end, count;
    const int32_t* faces;
    const int64_t* first;  // of each face a pixel of the image
    const int32_t* slots;  // of each face of the mesh the index in `faces`
    int64_t shares;
    const PixelShare* share;
    double* rows;  // (count, FaceRow::size); then the first three rows are gradients by X, Y, W of the corners
};

// Loops over pixels; see cpu/isa/meshes.cpp and picture.cpp. The same bits on every instruction set.
struct MeshKernels {
    // Draws faces list[0..count), then `later` plain ones after them, which may lie behind, into a tile.
    void (*draw)(const MeshFaces& faces, const int32_t* list, int64_t count, int64_t later, MeshTile& tile);
    // Writes face ids, barycentrics and depths of the tile's pixels.
    void (*finish)(const MeshTile& tile, const MeshArgs<float>& args);
    void (*finish64)(const MeshTile& tile, const MeshArgs<double>& args);
    // Writes face ids, depths and colours.
    void (*shade)(const MeshTile& tile, const PictureArgs<float>& args);
    void (*shade64)(const MeshTile& tile, const PictureArgs<double>& args);
    // Sums the gradients of the colours over the pixels of each face.
    void (*sum_faces)(const PictureArgs<float>& args, const FaceSumsArgs<float>& sums);
    void (*sum_faces64)(const PictureArgs<double>& args, const FaceSumsArgs<double>& sums);
};

}  // namespace vision3d
