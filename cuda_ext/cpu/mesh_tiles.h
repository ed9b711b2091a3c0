#pragma once
#include <algorithm>
#include <cstring>
#include <vector>
#include "cpu/dispatch.h"
#include "cpu/mesh_setup.h"
#include "cpu/parallel.h"

// The faces of an image, tile by tile.
namespace vision3d::cpu {

// Faces of one image by the tiles that their boxes touch: for each tile, first those that are drawn first, then plain faces of the
// farther side; both in face order.
struct TileLists {
    std::vector<int64_t> begins;  // two per tile
    std::vector<int32_t> faces;

    TileLists(const MeshSetup& setup, int64_t count, int tiles_x, int tiles_y) : begins(2 * int64_t(tiles_x) * tiles_y + 1, 0) {
        const auto each = [&](auto&& visit) {
            for (int64_t f = 0; f < count; ++f) {
                const PixelBox& b = setup.boxes[f];
                if (b.x0 >= b.x1 || b.y0 >= b.y1) continue;
                const int x0 = b.x0 / MESH_TILE_W, x1 = (b.x1 - 1) / MESH_TILE_W, y0 = b.y0 / MESH_TILE_H, y1 = (b.y1 - 1) / MESH_TILE_H;
                const int64_t later = setup.sides[f] == -setup.near_side;
                if (x0 == x1 && y0 == y1) {  // most faces
                    visit(2 * (int64_t(y0) * tiles_x + x0) + later, int32_t(f));
                    continue;
                }
                for (int ty = y0; ty <= y1; ++ty)
                    for (int tx = x0; tx <= x1; ++tx) visit(2 * (int64_t(ty) * tiles_x + tx) + later, int32_t(f));
            }
        };
        each([&](int64_t list, int32_t) { ++begins[list + 1]; });
        for (size_t t = 1; t < begins.size(); ++t) begins[t] += begins[t - 1];
        faces.resize(begins.back());
        std::vector<int64_t> next(begins.begin(), begins.end() - 1);
        each([&](int64_t list, int32_t face) { faces[next[list]++] = face; });
    }
};

// Calls finish(tile) for every tile with faces; for the others, face ids and depths are written, and empty(begin, end) is called for
// their pixels, counted over all images.
template <typename T, typename Finish, typename Empty>
void draw_tiles(const MeshArgs<T>& a, int64_t image, const MeshSetup& setup, Finish finish, Empty empty) {
    const int tiles_x = (a.width + MESH_TILE_W - 1) / MESH_TILE_W, tiles_y = (a.height + MESH_TILE_H - 1) / MESH_TILE_H;
    const MeshFaces faces{setup.points.data(),  a.triangles,  setup.boxes.data(), setup.sides.data(),
                          setup.nearest.data(), a.near_plane, a.far_plane};
    const TileLists lists(setup, a.faces, tiles_x, tiles_y);
    const MeshKernels& loops = kernels().meshes;
    parallel_for(int64_t(tiles_x) * tiles_y, 1, [&](int64_t tile, int64_t) {
        const int left = int(tile % tiles_x) * MESH_TILE_W, top = int(tile / tiles_x) * MESH_TILE_H;
        const int right = std::min(left + MESH_TILE_W, a.width), bottom = std::min(top + MESH_TILE_H, a.height);
        const int64_t begin = lists.begins[2 * tile], count = lists.begins[2 * tile + 1] - begin,
                      later = lists.begins[2 * tile + 2] - begin - count;
        if (count + later == 0) {
            for (int y = top; y < bottom; ++y) {
                const int64_t first = (image * a.height + y) * a.width + left, end = first + right - left;
                std::fill(a.face_ids + first, a.face_ids + end, -1);
                std::fill(a.depths + first, a.depths + end, T(0));
                empty(first, end);
            }
            return;
        }
        thread_local MeshTile drawn;  // previous content is not read where keys are cleared
        drawn.image = image;
        drawn.left = left;
        drawn.top = top;
        drawn.right = right;
        drawn.bottom = bottom;
        std::fill(std::begin(drawn.keys), std::end(drawn.keys), NO_KEY);
        loops.draw(faces, lists.faces.data() + begin, count, later, drawn);
        finish(drawn);
    });
}

}  // namespace vision3d::cpu
