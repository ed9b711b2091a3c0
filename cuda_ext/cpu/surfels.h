#pragma once
#include "cpu/splats.h"
#include "vision3d/surfel.h"

// What the kernels of 2D Gaussians read and write; as in cpu/splats.h.
namespace vision3d {

struct DiscArgs {
    int64_t batches, cameras, count;
    const float *means, *quats, *scales, *opacities;  // opacities may be null
    const float *viewmats, *Ks;
    float width, height, near_plane, far_plane, radius_clip;
    int32_t* radii;
    float *means2d, *depths, *transforms, *normals;  // (B,C,N,...): 2, 1, 9, 3
};

struct DiscVjpArgs {
    DiscArgs forward;
    const int64_t* gaussian_ids;  // of the visible pairs; the gradients below are (B*C*N,...)
    const float *v_means2d, *v_depths, *v_transforms, *v_normals;
    float *v_means, *v_quats, *v_scales;  // added to
    float* v_views;                       // (B*C, chunks, 12), or null
};

struct DiscBlendArgs {
    BlendArgs base;  // packed is not read; the last channel of colors is the depth
    const DiscRecord* discs;
    bool distortion;
    float *normals, *distortions, *moments, *medians;  // (I,H,W,3) and (I,H,W); moments: sum of weight times depth
    int32_t* median_ids;
};

struct DiscBlendVjpArgs {
    DiscBlendArgs forward;
    const float *v_colors, *v_transmittances, *v_normals, *v_distortions, *v_medians;
    float* v_records;  // (M, 15 + D): s, planes (9), low pass (2), normal (3), colours
};
constexpr int DISC_ROW = 15;

struct DiscReduceArgs {
    const float *means2d, *transforms, *opacities;
    float *v_means2d, *v_transforms, *v_colors, *v_opacities, *v_normals;
};

namespace cpu {

void project_discs(const DiscArgs& args);
void project_discs_vjp(const DiscVjpArgs& args, const int64_t* offsets, int64_t chunks);
void make_disc_records(int64_t count, const float* means2d, const float* transforms, const float* opacities, const float* normals,
                       const float* colors, int64_t channels, DiscRecord* records);
void blend_discs(const DiscBlendArgs& args);
void blend_discs_vjp(const DiscBlendVjpArgs& args, const DiscReduceArgs& reduce);

}  // namespace cpu
}  // namespace vision3d
