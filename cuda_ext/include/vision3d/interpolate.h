#pragma once
#include "vision3d/mesh_args.h"

namespace vision3d {

// values = sum over corners of barycentric times attribute at pixel i, counted over all images; zero without a face.
template <typename T>
V3D_HD void interpolate_pixel(const InterpolateArgs<T>& a, int64_t i) {
    T* out = a.values + i * a.channels;
    const int32_t face = a.face_ids[i];
    for (int64_t c = 0; c < a.channels; ++c) out[c] = T(0);
    if (face < 0) return;
    const T* set = a.attributes + (a.sets == 1 ? 0 : i / a.pixels) * a.vertices * a.channels;
    for (int k = 0; k < 3; ++k) {
        const T* attribute = set + a.triangles[3 * int64_t(face) + k] * a.channels;
        const T b = a.barycentrics[3 * i + k];
        for (int64_t c = 0; c < a.channels; ++c) out[c] += b * attribute[c];
    }
}

template <typename T>
V3D_HD void interpolate_pixel_vjp(const InterpolateArgs<T>& a, int64_t i) {
    const int32_t face = a.face_ids[i];
    const T* set = a.attributes + (a.sets == 1 ? 0 : i / a.pixels) * a.vertices * a.channels;
    for (int k = 0; k < 3; ++k) {
        T sum(0);
        if (face >= 0) {
            const T* attribute = set + a.triangles[3 * int64_t(face) + k] * a.channels;
            for (int64_t c = 0; c < a.channels; ++c) sum += attribute[c] * a.v_values[i * a.channels + c];
        }
        a.v_barycentrics[3 * i + k] = sum;
    }
}

}  // namespace vision3d
