// Compiled once an instruction set, with V3D_ISA as the name of its namespace, and without contraction to fma: the two faces
// at an edge must see exact opposites (vision3d/mesh.h), and every set gives the bits of `covers` and `write_fragment`.
#include <cstring>
#include "cpu/mesh_tile.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace vision3d::V3D_ISA {
namespace {

// Faces are a few pixels wide, so that wider vectors would be empty for the most part.
#if defined(__AVX2__)
constexpr int LANES = 4;
#else
constexpr int LANES = 2;
#endif
typedef double D __attribute__((vector_size(8 * LANES)));
typedef int64_t L __attribute__((vector_size(8 * LANES)));
typedef float S __attribute__((vector_size(4 * LANES)));
typedef int32_t I __attribute__((vector_size(4 * LANES)));

inline bool any(L mask) {
#if defined(__AVX2__)
    return _mm256_movemask_pd(reinterpret_cast<__m256d>(mask)) != 0;
#else
    return (mask[0] | mask[1]) != 0;
#endif
}

template <typename V, typename Scalar>
inline V load(const Scalar* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <typename V, typename Scalar>
inline void store(Scalar* to, V v) {
    std::memcpy(to, &v, sizeof v);
}

inline D iota() {
    D v{};
    for (int i = 0; i < LANES; ++i) v[i] = i;
    return v;
}

// Leaves out the lanes on an edge that belongs to the face on its other side.
void give_up_edges(const MeshFace& f, const D e[3], L positive, L& in) {
    for (int lane = 0; lane < LANES; ++lane)
        for (int i = 0; i < 3; ++i)
            if (in[lane] && e[i][lane] == 0 && !owns_edge(f, i, positive[lane] ? 1. : -1.)) in[lane] = 0;
}

void draw_face(const MeshFaces& faces, int32_t face, MeshTile& tile) {
    const PixelBox& box = faces.boxes[face];
    const int x0 = box.x0 > tile.left ? box.x0 : tile.left, x1 = box.x1 < tile.right ? box.x1 : tile.right;
    const int y0 = box.y0 > tile.top ? box.y0 : tile.top, y1 = box.y1 < tile.bottom ? box.y1 : tile.bottom;
    const MeshFace f = load_face(faces.vertices, faces.triangles + 3 * int64_t(face));
    const D steps = iota() + .5;
    double rows[MESH_TILE_H][3];
    for (int y = y0; y < y1; ++y)
        for (int i = 0; i < 3; ++i) rows[y - y0][i] = f.y[i] - (y + .5) * f.w[i];
    // Columns outside: most faces are no wider than a vector.
    for (int x = x0; x < x1; x += LANES) {
        const D px = double(x) + steps, dx[3] = {f.x[0] - px * f.w[0], f.x[1] - px * f.w[1], f.x[2] - px * f.w[2]};
        for (int y = y0; y < y1; ++y) {
            const double* dy = rows[y - y0];
            const D e[3] = {dx[1] * dy[2] - dy[1] * dx[2], dx[2] * dy[0] - dy[2] * dx[0], dx[0] * dy[1] - dy[0] * dx[1]};
            const L positive = (e[0] >= 0) & (e[1] >= 0) & (e[2] >= 0);
            L in = (positive | ((e[0] <= 0) & (e[1] <= 0) & (e[2] <= 0))) & (px < double(x1));
            if (!any(in)) continue;
            if (any(in & ((e[0] == 0) | (e[1] == 0) | (e[2] == 0)))) give_up_edges(f, e, positive, in);
            const D sum = e[0] + e[1] + e[2], w = e[0] * f.w[0] + e[1] * f.w[1] + e[2] * f.w[2];
            const D along = e[0] * f.z[0] + e[1] * f.z[1] + e[2] * f.z[2], depth = along / sum;
            in &= (sum != 0) & ((positive & (w > 0)) | (~positive & (w < 0))) & (depth >= faces.near_plane) & (depth <= faces.far_plane);
            const S rounded = __builtin_convertvector(depth, S);
            I bits;
            std::memcpy(&bits, &rounded, sizeof bits);
            bits ^= (bits >> 31) & 0x7fffffff;
            const L key = (__builtin_convertvector(bits, L) << 32) | int64_t(face);
            const int at = (y - tile.top) * MeshTile::STRIDE + x - tile.left;
            const L before = load<L>(tile.keys + at);
            in &= key < before;
            if (!any(in)) continue;
            store(tile.keys + at, in ? key : before);
            for (int k = 0; k < 3; ++k) store(tile.e[k] + at, in ? e[k] : load<D>(tile.e[k] + at));
            store(tile.depth + at, in ? along : load<D>(tile.depth + at));
        }
    }
}

void draw(const MeshFaces& faces, const int32_t* list, int64_t count, MeshTile& tile) {
    for (int64_t n = 0; n < count; ++n) draw_face(faces, list[n], tile);
}

template <typename T>
void finish(const MeshTile& tile, const MeshArgs<T>& a) {
    for (int y = tile.top; y < tile.bottom; ++y) {
        const int row = (y - tile.top) * MeshTile::STRIDE;
        const int64_t first = (tile.image * a.height + y) * a.width + tile.left;
        T weights[3][MeshTile::STRIDE], depths[MeshTile::STRIDE];
        for (int n = 0; n < MESH_TILE_W; ++n) {
            const double scale = 1 / (tile.e[0][row + n] + tile.e[1][row + n] + tile.e[2][row + n]);
            for (int k = 0; k < 3; ++k) weights[k][n] = T(tile.e[k][row + n] * scale);
            depths[n] = T(tile.depth[row + n] * scale);
        }
        for (int n = 0; n < tile.right - tile.left; ++n) {
            const bool seen = tile.keys[row + n] != NO_KEY;
            a.face_ids[first + n] = seen ? int32_t(uint32_t(tile.keys[row + n])) : -1;
            a.depths[first + n] = seen ? depths[n] : T(0);
            for (int k = 0; k < 3; ++k) a.barycentrics[3 * (first + n) + k] = seen ? weights[k][n] : T(0);
        }
    }
}

}  // namespace

const MeshKernels& mesh_table() {
    static const MeshKernels kernels{draw, finish<float>, finish<double>};
    return kernels;
}

}  // namespace vision3d::V3D_ISA
