#pragma once
#include <cstdint>
#include "vision3d/project.h"
#include "vision3d/splat_2dgs.h"
#include "vision3d/tiles.h"

// Inputs and outputs of the splat kernels. Pointers are to contiguous arrays of the given shapes, on the device where the
// kernel runs; null where optional.
namespace vision3d {

// Maximum number of pairs of one image that share a row of partial sums of a camera's gradient.
constexpr int64_t PAIR_CHUNK = 256;

template <typename T>
struct ProjectArgs {
    int64_t batches, cameras, count;           // B, C, N
    const T *means, *quats, *scales, *covars;  // (B,N,3) (B,N,4) (B,N,3) or covars (B,N,6)
    const T* opacities;                        // (B,N), only for the extent
    const T *viewmats, *Ks;                    // (B,C,4,4) (B,C,3,3)
    int model;                                 // CameraModel
    Limits<T> limits;
    T eps2d;
    bool antialiased;                              // the extent uses opacity * compensation
    int32_t* radii;                                // (B,C,N,2)
    T *means2d, *depths, *conics, *compensations;  // (B,C,N,2) (B,C,N) (B,C,N,3) (B,C,N)
};

template <typename T>
struct ProjectVjpArgs {
    ProjectArgs<T> forward;
    const int64_t *gaussian_ids, *offsets;  // (nnz) of the visible pairs; [offsets[i], offsets[i+1]) belong to image i
    bool packed;                            // gradients below are (nnz,...) instead of (B*C*N,...)
    const T *v_means2d, *v_depths, *v_conics, *v_compensations;
    T *v_means, *v_quats, *v_scales, *v_covars;  // added to, start at zero
    T* v_views;                                  // (B*C, chunks, 12): R then t, start at zero; or null
    int64_t chunks;
};

template <typename T>
struct ShArgs {
    int64_t images, count, K;               // B*C, N, coefficients per Gaussian
    int degree;                             // active
    bool per_camera;                        // sh is (B,C,N,K,3) instead of (B,N,K,3)
    int64_t cameras;                        // C
    const T *means, *sh, *centers;          // (B,N,3), sh, (B*C,3) camera centers
    const int64_t *gaussian_ids, *offsets;  // (nnz), (B*C+1)
    T* colors;                              // (nnz,3)
    const T* v_colors;                      // (nnz,3)
    T *v_means, *v_sh;                      // added to
    T* v_centers;                           // (B*C, chunks, 3), start at zero; or null
    int64_t chunks;
};

template <typename T>
struct TileArgs {
    int64_t count;                          // nnz pairs, invisible where the radii are 0
    const T *means2d, *depths, *opacities;  // (nnz,2) (nnz) (nnz)
    const T* conics;                        // (nnz,3); null: only the box of the radii is used
    const int32_t* radii;                   // (nnz,2)
    TileGrid<T> grid;
};

template <typename T>
struct BlendArgs {
    int64_t images, channels, splats, records;  // I, D, nnz, M
    int width, height, tile_size, tiles_x, tiles_y;
    T alpha_max;
    const Record<T>* packed;             // (nnz)
    const T* colors;                     // (nnz,D)
    const T* backgrounds;                // (I,D)
    const bool* masks;                   // (I,tiles_y,tiles_x): false leaves the tile as background
    const T *depths, *max_depths;        // (nnz) and (I,H,W), forward pass only: a pixel stops at the first depth not
                                         // below its limit; both null: no limits. Records of splats include depths.
    const int32_t *offsets, *ids;        // (I,tiles_y,tiles_x), (M)
    T *out_colors, *out_transmittances;  // (I,H,W,D) (I,H,W)
    int32_t* last_ids;                   // (I,H,W)
};

template <typename T>
struct BlendVjpArgs {
    BlendArgs<T> forward;
    const T *v_colors, *v_transmittances;  // (I,H,W,D) (I,H,W), the second may be null
    // Sums of 6 values, 2 with absgrad, D colors: on a CPU (M,...), one row per (tile, Gaussian); on a GPU (nnz,...).
    T* sums;
    bool absgrad;
};

template <typename T>
struct BlendFinishArgs {
    const T *conics, *opacities;                                       // (nnz,3) (nnz)
    T *v_means2d, *v_conics, *v_colors, *v_opacities, *v_means2d_abs;  // (nnz,2) (nnz,3) (nnz,D) (nnz) (nnz,2) or null
};

template <typename T>
struct Project2dgsArgs {
    int64_t batches, cameras, count;
    const T *means, *quats, *scales, *opacities;  // opacities may be null
    const T *viewmats, *Ks;
    Limits<T> limits;
    int32_t* radii;
    T *means2d, *depths, *transforms, *normals;  // (B,C,N,...): 2, 1, 9, 3
};

template <typename T>
struct Project2dgsVjpArgs {
    Project2dgsArgs<T> forward;
    const int64_t *gaussian_ids, *offsets;  // of the visible pairs; the gradients below are (B*C*N,...)
    const T *v_means2d, *v_depths, *v_transforms, *v_normals;
    T *v_means, *v_quats, *v_scales;  // added to
    T* v_views;                       // as in ProjectVjpArgs
    int64_t chunks;
};

template <typename T>
struct Blend2dgsArgs {
    BlendArgs<T> base;  // packed is not read; the last channel of colors is the depth
    const Record2dgs<T>* packed;
    bool distortion;
    T *normals, *distortions, *moments, *medians;  // (I,H,W,3) and (I,H,W); moments: sum of weight times depth
    int32_t* median_ids;
};

template <typename T>
struct Blend2dgsVjpArgs {
    Blend2dgsArgs<T> forward;
    const T *v_colors, *v_transmittances, *v_normals, *v_distortions, *v_medians;
    T* sums;  // ROW_2DGS + D values, as in BlendVjpArgs: s, planes (9), low pass (2), normal (3), colors
};
constexpr int ROW_2DGS = 15;

template <typename T>
struct Blend2dgsFinishArgs {
    const T *means2d, *transforms, *opacities;
    T *v_means2d, *v_transforms, *v_colors, *v_opacities, *v_normals;
};

template <typename T>
V3D_HD int64_t blend_row(const BlendVjpArgs<T>& args) {
    return 6 + args.forward.channels + (args.absgrad ? 2 : 0);
}

// Gradients of Gaussian i from its row of sums.
template <typename T>
V3D_HD void blend_finish(const BlendVjpArgs<T>& args, const BlendFinishArgs<T>& f, int64_t i, const T* sums) {
    const int64_t D = args.forward.channels;
    blend_finish(f.conics + 3 * i, f.opacities[i], sums, f.v_means2d + 2 * i, f.v_conics + 3 * i, f.v_opacities[i]);
    const T* colors = sums + blend_row(args) - D;
    for (int64_t k = 0; k < D; ++k) f.v_colors[i * D + k] = colors[k];
    if (args.absgrad)
        for (int64_t k = 0; k < 2; ++k) f.v_means2d_abs[2 * i + k] = sums[6 + k] * T(1 / LOG2E);
}

template <typename T>
V3D_HD void blend_2dgs_finish(const Blend2dgsVjpArgs<T>& args, const Blend2dgsFinishArgs<T>& f, int64_t i, const T* sums) {
    const int64_t D = args.forward.base.channels;
    f.v_opacities[i] = f.opacities[i] > T(0) ? sums[0] / f.opacities[i] : T(0);
    ray_planes_vjp(f.transforms + 9 * i, f.means2d + 2 * i, args.forward.packed[i].sign, sums + 1, sums + 4, sums + 7,
                   f.v_transforms + 9 * i);
    for (int64_t k = 0; k < 2; ++k) f.v_means2d[2 * i + k] = sums[10 + k];
    for (int64_t k = 0; k < 3; ++k) f.v_normals[3 * i + k] = sums[12 + k];
    for (int64_t k = 0; k < D; ++k) f.v_colors[i * D + k] = sums[ROW_2DGS + k];
}

// Row of the sums to which the (tile, Gaussian) record i of Gaussian `id` adds.
#if defined(__CUDA_ARCH__)
V3D_HD int64_t sum_row(int64_t, int64_t id) { return id; }
#else
V3D_HD int64_t sum_row(int64_t i, int64_t) { return i; }
#endif

}  // namespace vision3d
