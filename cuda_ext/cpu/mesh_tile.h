#pragma once
#include <cstdint>
#include "vision3d/mesh.h"

namespace vision3d {

constexpr int MESH_TILE_W = 32, MESH_TILE_H = 16;  // pixels; all of a tile stays in the first cache

// What the pixels of a tile show so far. Rows are longer than the tile, so that a vector may end beyond it.
struct MeshTile {
    static constexpr int STRIDE = MESH_TILE_W + 8;
    int64_t image;
    int left, top, right, bottom;  // pixels, cut where the image ends
    int64_t keys[MESH_TILE_H * STRIDE];  // as fragment_key, in the order of signed numbers
    double e[3][MESH_TILE_H * STRIDE], depth[MESH_TILE_H * STRIDE];  // of the winner; depth before the division by their sum
};

constexpr int64_t NO_KEY = INT64_MAX;

// Faces of one image: their corners (V,4) in double, boxes, and what a fragment needs.
struct MeshFaces {
    const double* vertices;
    const int32_t* triangles;
    const PixelBox* boxes;
    double near_plane, far_plane;
};

// Loops over pixels; see cpu/isa/meshes.cpp. The same bits on every instruction set.
struct MeshKernels {
    // Draws faces list[0..count), ascending, into a tile that shows some or none.
    void (*draw)(const MeshFaces& faces, const int32_t* list, int64_t count, MeshTile& tile);
    // Writes face ids, barycentrics and depths of the tile's pixels.
    void (*finish)(const MeshTile& tile, const MeshArgs<float>& args);
    void (*finish64)(const MeshTile& tile, const MeshArgs<double>& args);
};

}  // namespace vision3d
