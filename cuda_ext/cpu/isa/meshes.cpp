// Compiled once per instruction set, with V3D_ISA as the name of its namespace, and without contraction to fma: the two faces
// at an edge must get exact opposites (vision3d/mesh.h), and every set must be bitwise equal to `covers` and `write_fragment`.
#include <cstring>
#include "cpu/mesh_tile.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace vision3d::V3D_ISA {
namespace {

// Adjacent pixels, and numbers, keys and masks for them. Most faces are a few pixels wide, so wide vectors are for the others.
template <int N>
struct Lanes {
    typedef double D __attribute__((vector_size(8 * N)));
    typedef int64_t L __attribute__((vector_size(8 * N)));
    typedef float S __attribute__((vector_size(4 * N)));
    typedef int32_t I __attribute__((vector_size(4 * N)));
#if defined(__AVX512VL__)
    typedef __mmask8 M;
#else
    typedef L M;
#endif
};

#if defined(__AVX512VL__)
constexpr int WIDE = 8, NARROW = 4;
constexpr bool MASKS = true;  // masked stores are cheap
#elif defined(__AVX2__)
constexpr int WIDE = 4, NARROW = 4;
constexpr bool MASKS = false;
#else
constexpr int WIDE = 2, NARROW = 2;
constexpr bool MASKS = false;
#endif

// Comparisons and selections. AVX-512 has mask registers, which the compiler does not use for vector types.
#if defined(__AVX512VL__)
typedef Lanes<4>::D D4;
typedef Lanes<4>::L L4;
typedef Lanes<8>::D D8;
typedef Lanes<8>::L L8;
typedef __mmask8 M8;
inline bool any(M8 mask) { return mask != 0; }
inline M8 at_least(D4 a, D4 b) { return _mm256_cmp_pd_mask(__m256d(a), __m256d(b), _CMP_GE_OQ); }
inline M8 at_least(D8 a, D8 b) { return _mm512_cmp_pd_mask(__m512d(a), __m512d(b), _CMP_GE_OQ); }
inline M8 less(D4 a, D4 b) { return _mm256_cmp_pd_mask(__m256d(a), __m256d(b), _CMP_LT_OQ); }
inline M8 less(D8 a, D8 b) { return _mm512_cmp_pd_mask(__m512d(a), __m512d(b), _CMP_LT_OQ); }
inline M8 equal(D4 a, D4 b) { return _mm256_cmp_pd_mask(__m256d(a), __m256d(b), _CMP_EQ_OQ); }
inline M8 equal(D8 a, D8 b) { return _mm512_cmp_pd_mask(__m512d(a), __m512d(b), _CMP_EQ_OQ); }
inline M8 less(L4 a, L4 b) { return _mm256_cmplt_epi64_mask(__m256i(a), __m256i(b)); }
inline M8 less(L8 a, L8 b) { return _mm512_cmplt_epi64_mask(__m512i(a), __m512i(b)); }
inline D4 select(M8 m, D4 a, D4 b) { return D4(_mm256_mask_blend_pd(m, __m256d(b), __m256d(a))); }
inline D8 select(M8 m, D8 a, D8 b) { return D8(_mm512_mask_blend_pd(m, __m512d(b), __m512d(a))); }
inline L4 select(M8 m, L4 a, L4 b) { return L4(_mm256_mask_blend_epi64(m, __m256i(b), __m256i(a))); }
inline L8 select(M8 m, L8 a, L8 b) { return L8(_mm512_mask_blend_epi64(m, __m512i(b), __m512i(a))); }
inline bool lane_of(M8 m, int lane) { return m >> lane & 1; }
inline M8 without(M8 m, int lane) { return M8(m & ~(1 << lane)); }
#else
typedef Lanes<WIDE>::D DW;
typedef Lanes<WIDE>::L LW;
inline bool any(LW mask) {
#if defined(__AVX2__)
    return _mm256_movemask_pd(reinterpret_cast<__m256d>(mask)) != 0;
#else
    return (mask[0] | mask[1]) != 0;
#endif
}
inline LW at_least(DW a, DW b) { return a >= b; }
inline LW less(DW a, DW b) { return a < b; }
inline LW equal(DW a, DW b) { return a == b; }
inline LW less(LW a, LW b) { return a < b; }
inline DW select(LW m, DW a, DW b) { return m ? a : b; }
inline LW select(LW m, LW a, LW b) { return m ? a : b; }
inline bool lane_of(LW m, int lane) { return m[lane] != 0; }
inline LW without(LW m, int lane) {
    m[lane] = 0;
    return m;
}
#endif

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

// Offsets of pixel centers.
template <int N>
inline typename Lanes<N>::D centers() {
    typename Lanes<N>::D v{};
    for (int i = 0; i < N; ++i) v[i] = i + .5;
    return v;
}

// Edge functions, one lane per pixel.
template <int N>
struct Edges {
    typename Lanes<N>::D e[3];
};

// The lanes of `in` without those on an edge that belongs to the face on its other side. `negative` lanes have edge functions below
// zero. Rarely called, so that the loops keep their vectors in registers.
template <int N, typename M = typename Lanes<N>::M>
__attribute__((noinline, cold)) M give_up_edges(const MeshFaces& faces, int32_t face, const Edges<N>& edges, M negative, M in) {
    const MeshFace f = load_face(faces.vertices, faces.triangles + 3 * int64_t(face));
    for (int lane = 0; lane < N; ++lane)
        for (int i = 0; i < 3; ++i)
            if (lane_of(in, lane) && edges.e[i][lane] == 0 && !owns_edge(f, i, lane_of(negative, lane) ? -1. : 1.)) in = without(in, lane);
    return in;
}

// The lanes of `in` that are closer than the tile's content from `at` on.
template <int N, bool BRANCH, typename D = typename Lanes<N>::D>
inline void keep_nearer(MeshTile& tile, int at, int32_t face, const D e[3], D along, D depth, typename Lanes<N>::M in) {
    typedef typename Lanes<N>::L L;
    const typename Lanes<N>::S rounded = __builtin_convertvector(depth, typename Lanes<N>::S);
    typename Lanes<N>::I bits;
    std::memcpy(&bits, &rounded, sizeof bits);
    bits ^= (bits >> 31) & 0x7fffffff;
    const L key = (__builtin_convertvector(bits, L) << 32) | int64_t(face);
    const L before = load<L>(tile.keys + at);
    in &= less(key, before);
    if (BRANCH && !any(in)) return;
    store(tile.keys + at, select(in, key, before));
    for (int k = 0; k < 3; ++k) store(tile.e[k] + at, select(in, e[k], load<D>(tile.e[k] + at)));
    store(tile.depth + at, select(in, along, load<D>(tile.depth + at)));
}

struct Clip {
    int x0, y0, x1, y1;
    Clip(const PixelBox& box, const MeshTile& tile)
        : x0(box.x0 > tile.left ? box.x0 : tile.left),
          y0(box.y0 > tile.top ? box.y0 : tile.top),
          x1(box.x1 < tile.right ? box.x1 : tile.right),
          y1(box.y1 < tile.bottom ? box.y1 : tile.bottom) {}
};

// Any face.
template <int N>
void draw_face(const MeshFaces& faces, int32_t face, MeshTile& tile) {
    const Clip clip(faces.boxes[face], tile);
    const MeshFace f = load_face(faces.vertices, faces.triangles + 3 * int64_t(face));
    typedef typename Lanes<N>::D D;
    typedef typename Lanes<N>::M M;
    const D steps = centers<N>(), zero{};
    for (int x = clip.x0; x < clip.x1; x += N) {
        const D px = double(x) + steps, dx[3] = {f.x[0] - px * f.w[0], f.x[1] - px * f.w[1], f.x[2] - px * f.w[2]};
        for (int y = clip.y0; y < clip.y1; ++y) {
            double dy[3];
            for (int i = 0; i < 3; ++i) dy[i] = f.y[i] - (y + .5) * f.w[i];
            const D e[3] = {dx[1] * dy[2] - dy[1] * dx[2], dx[2] * dy[0] - dy[2] * dx[0], dx[0] * dy[1] - dy[0] * dx[1]};
            const M positive = at_least(e[0], zero) & at_least(e[1], zero) & at_least(e[2], zero);
            const M negative = at_least(zero, e[0]) & at_least(zero, e[1]) & at_least(zero, e[2]) & ~positive;
            M in = (positive | negative) & less(px, zero + double(clip.x1));
            if (!any(in)) continue;
            if (any(in & (equal(e[0], zero) | equal(e[1], zero) | equal(e[2], zero))))
                in = give_up_edges<N>(faces, face, Edges<N>{{e[0], e[1], e[2]}}, negative, in);
            const D sum = e[0] + e[1] + e[2], w = e[0] * f.w[0] + e[1] * f.w[1] + e[2] * f.w[2];
            const D along = e[0] * f.z[0] + e[1] * f.z[1] + e[2] * f.z[2], depth = along / sum;
            in &= (less(sum, zero) | less(zero, sum)) & ((positive & less(zero, w)) | (negative & less(w, zero)));
            in &= at_least(depth, zero + faces.near_plane) & at_least(zero + faces.far_plane, depth);
            keep_nearer<N, true>(tile, (y - tile.top) * MeshTile::STRIDE + x - tile.left, face, e, along, depth, in);
        }
    }
}

// A face whose corners are between the planes, and which is not narrow: where its edge functions agree, they have the sign of its
// area, and depth and W need no test. Bitwise equal to the above. SINGLE: its columns are one vector, of which few rows are empty;
// since these are unpredictable, there is no branch.
template <int N, bool SINGLE>
void draw_plain_columns(const MeshFaces& faces, int32_t face, const Clip& clip, MeshTile& tile) {
    typedef typename Lanes<N>::D D;
    typedef typename Lanes<N>::M M;
    const MeshFace f = load_face(faces.vertices, faces.triangles + 3 * int64_t(face));
    const bool turned = faces.sides[face] < 0;
    const double sign = turned ? -1. : 1.;
    double fx[3], fw[3];  // oriented so that the edge functions are positive inside
    for (int i = 0; i < 3; ++i) {
        fx[i] = sign * f.x[i];
        fw[i] = sign * f.w[i];
    }
    const D steps = centers<N>(), zero{};
    for (int x = clip.x0; x < clip.x1; x += N) {
        const D px = double(x) + steps, dx[3] = {fx[0] - px * fw[0], fx[1] - px * fw[1], fx[2] - px * fw[2]};
        const M columns = less(px, zero + double(clip.x1));
        for (int y = clip.y0; y < clip.y1; ++y) {
            double dy[3];
            for (int i = 0; i < 3; ++i) dy[i] = f.y[i] - (y + .5) * f.w[i];
            const D e[3] = {dx[1] * dy[2] - dy[1] * dx[2], dx[2] * dy[0] - dy[2] * dx[0], dx[0] * dy[1] - dy[0] * dx[1]};
            const D first = e[0] < e[1] ? e[0] : e[1], lowest = first < e[2] ? first : e[2];
            M in = at_least(lowest, zero) & columns;
            if (!SINGLE && !any(in)) continue;
            if (any(in & equal(lowest, zero))) in = give_up_edges<N>(faces, face, Edges<N>{{e[0], e[1], e[2]}}, M(turned ? ~M{} : M{}), in);
            const D sum = e[0] + e[1] + e[2], along = e[0] * f.z[0] + e[1] * f.z[1] + e[2] * f.z[2];
            keep_nearer<N, !(SINGLE && MASKS)>(tile, (y - tile.top) * MeshTile::STRIDE + x - tile.left, face, e, along, along / sum, in);
        }
    }
}

void draw_plain_face(const MeshFaces& faces, int32_t face, MeshTile& tile) {
    const Clip clip(faces.boxes[face], tile);
    if (clip.x1 - clip.x0 <= NARROW)
        draw_plain_columns<NARROW, true>(faces, face, clip, tile);
    else if (clip.x1 - clip.x0 <= WIDE)
        draw_plain_columns<WIDE, true>(faces, face, clip, tile);
    else
        draw_plain_columns<WIDE, false>(faces, face, clip, tile);
}

// The largest key in each block of a tile's pixels.
struct Farthest {
    static constexpr int SIZE = 4, COLUMNS = MESH_TILE_W / SIZE, ROWS = MESH_TILE_H / SIZE;
    int64_t keys[ROWS][COLUMNS];

    explicit Farthest(const MeshTile& tile) {
        for (int by = 0; by < ROWS; ++by) {
            int64_t columns[MESH_TILE_W];
            const int64_t* from = tile.keys + by * SIZE * MeshTile::STRIDE;
            for (int x = 0; x < MESH_TILE_W; ++x) {
                int64_t most = from[x];
                for (int y = 1; y < SIZE; ++y) most = from[y * MeshTile::STRIDE + x] > most ? from[y * MeshTile::STRIDE + x] : most;
                columns[x] = most;
            }
            for (int bx = 0; bx < COLUMNS; ++bx) {
                int64_t most = columns[bx * SIZE];
                for (int x = 1; x < SIZE; ++x) most = columns[bx * SIZE + x] > most ? columns[bx * SIZE + x] : most;
                keys[by][bx] = most;
            }
        }
    }

    // Whether a plain face is behind everything in its box.
    bool hides(const MeshFaces& faces, int32_t face, const MeshTile& tile) const {
        const Clip clip(faces.boxes[face], tile);
        int32_t bits;
        std::memcpy(&bits, &faces.nearest[face], sizeof bits);
        const int64_t key = int64_t(bits) << 32;
        for (int by = (clip.y0 - tile.top) / SIZE; by <= (clip.y1 - 1 - tile.top) / SIZE; ++by)
            for (int bx = (clip.x0 - tile.left) / SIZE; bx <= (clip.x1 - 1 - tile.left) / SIZE; ++bx)
                if (keys[by][bx] >= key) return false;
        return true;
    }
};

constexpr int64_t FEW = 6;  // number of faces up to which occlusion tests cost more than they save

// The later faces, which are hidden in most closed meshes, only where nothing hides them.
void draw(const MeshFaces& faces, const int32_t* list, int64_t count, int64_t later, MeshTile& tile) {
    for (int64_t n = 0; n < count; ++n) {
        if (faces.sides[list[n]] == 0)
            draw_face<WIDE>(faces, list[n], tile);
        else
            draw_plain_face(faces, list[n], tile);
    }
    if (later <= FEW) {
        for (int64_t n = count; n < count + later; ++n) draw_plain_face(faces, list[n], tile);
        return;
    }
    const Farthest farthest(tile);
    for (int64_t n = count; n < count + later; ++n)
        if (!farthest.hides(faces, list[n], tile)) draw_plain_face(faces, list[n], tile);
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

void fill_mesh_image_table(MeshKernels& kernels);  // mesh_image.cpp

const MeshKernels& mesh_table() {
    static const MeshKernels kernels = [] {
        MeshKernels k{};
        k.draw = draw;
        k.finish = finish<float>;
        k.finish64 = finish<double>;
        fill_mesh_image_table(k);
        return k;
    }();
    return kernels;
}

}  // namespace vision3d::V3D_ISA
