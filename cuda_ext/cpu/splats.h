#pragma once
#include <cstdint>
#include <vector>
#include "vision3d/blend.h"

// What the splat kernels read and write. Pointers are to contiguous arrays with the shapes named; null where optional.
namespace vision3d {

struct ProjectArgs {
    int64_t batches, cameras, count;  // B, C, N
    const float *means, *quats, *scales, *covars;  // (B,N,3) (B,N,4) (B,N,3) or covars (B,N,6)
    const float* opacities;                        // (B,N), only for the extent
    const float *viewmats, *Ks;                    // (B,C,4,4) (B,C,3,3)
    int model;                                     // CameraModel
    float width, height, eps2d, near_plane, far_plane, radius_clip;
    bool antialiased;                  // the extent uses opacity * compensation
    int32_t* radii;                    // (B,C,N,2)
    float *means2d, *depths, *conics, *compensations;  // (B,C,N,2) (B,C,N) (B,C,N,3) (B,C,N)
};

struct ProjectVjpArgs {
    ProjectArgs forward;
    const int64_t* gaussian_ids;  // (nnz) of the visible pairs, image after image
    bool packed;                  // gradients below are (nnz,...) instead of (B*C*N,...)
    const float *v_means2d, *v_depths, *v_conics, *v_compensations;
    float *v_means, *v_quats, *v_scales, *v_covars;  // added to, start at zero
    float* v_views;                                  // (B*C, chunks, 12): R then t, or null
};
constexpr int64_t PAIR_CHUNK = 1024;  // visible pairs that one thread takes at a time

struct ShArgs {
    int64_t count, K;                 // N, coefficients a Gaussian
    int degree;                       // active
    bool per_camera;                  // sh is (B,C,N,K,3) instead of (B,N,K,3)
    int64_t cameras;                  // C
    const float *means, *sh, *centers;  // (B,N,3), sh, (B*C,3) camera centres
    const int64_t* gaussian_ids;      // (nnz)
    float* colors;                    // (nnz,3)
    const float* v_colors;            // (nnz,3)
    float *v_means, *v_sh;            // added to
    float* v_centers;                 // (chunks,3) of this image, or null
};

struct BlendArgs {
    int64_t images, channels, splats, records;  // I, D, nnz, M
    int width, height, tile_size, tiles_x, tiles_y;
    float alpha_max;
    const Record* packed;         // (nnz)
    const float* colors;          // (nnz,D)
    const float* backgrounds;     // (I,D)
    const bool* masks;            // (I,tiles_y,tiles_x): false leaves the tile as background
    const int32_t *offsets, *ids;  // (I,tiles_y,tiles_x), (M)
    float *out_colors, *out_transmittances;  // (I,H,W,D) (I,H,W)
    int32_t* last_ids;                       // (I,H,W)
};

struct BlendVjpArgs {
    BlendArgs forward;
    const float *v_colors, *v_transmittances;  // (I,H,W,D) (I,H,W)
    float* v_records;                          // (M, 6 + D, +2 with absgrad): sums of one (tile, Gaussian) each
    bool absgrad;
};

struct ReduceArgs {
    const BlendVjpArgs* vjp;
    const float *conics, *opacities;  // (nnz,3) (nnz)
    float *v_means2d, *v_conics, *v_colors, *v_opacities, *v_means2d_abs;  // (nnz,2) (nnz,3) (nnz,D) (nnz) (nnz,2) or null
};

namespace cpu {

void project(const ProjectArgs& args);
// Pairs [offsets[i], offsets[i+1]) belong to image i; chunks is that of the largest image.
void project_vjp(const ProjectVjpArgs& args, const int64_t* offsets, int64_t chunks);
// v_centers is (I, chunks, 3), or null.
void sh_colors(const ShArgs& args, int64_t images, const int64_t* offsets);
void sh_colors_vjp(const ShArgs& args, int64_t images, const int64_t* offsets, float* v_centers, int64_t chunks);
void make_records(int64_t count, int64_t channels, const float* means2d, const float* conics, const float* colors,
                  const float* opacities, Record* records);
void blend_forward(const BlendArgs& args);
// Gradients of every (tile, Gaussian) first, then their sums in tile order: the same bits for any number of threads.
void blend_backward(const BlendVjpArgs& args, const ReduceArgs& reduce);

}  // namespace cpu
}  // namespace vision3d
