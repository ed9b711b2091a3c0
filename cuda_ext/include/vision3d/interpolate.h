#pragma once
#include "vision3d/mesh_args.h"

namespace vision3d {

// values = sum over corners of barycentric times attribute at pixel i, counted over all images; zero without a face. N is the
// number of channels as an integer, or as a compile-time constant for small numbers.
template <typename T, typename N>
V3D_HD void interpolate_pixel(const InterpolateArgs<T>& a, int64_t i, N channels) {
    T* out = a.values + i * channels;
    const int32_t face = a.face_ids[i];
    for (int64_t c = 0; c < channels; ++c) out[c] = T(0);
    if (face < 0) return;
    const T* set = a.attributes + (a.sets == 1 ? 0 : i / a.pixels) * a.vertices * channels;
    for (int k = 0; k < 3; ++k) {
        const T* attribute = set + a.triangles[3 * int64_t(face) + k] * int64_t(channels);
        const T b = a.barycentrics[3 * i + k];
        for (int64_t c = 0; c < channels; ++c) out[c] += b * attribute[c];
    }
}

template <typename T, typename N>
V3D_HD void interpolate_pixel_vjp(const InterpolateArgs<T>& a, int64_t i, N channels) {
    const int32_t face = a.face_ids[i];
    const T* set = a.attributes + (a.sets == 1 ? 0 : i / a.pixels) * a.vertices * channels;
    for (int k = 0; k < 3; ++k) {
        T sum(0);
        if (face >= 0) {
            const T* attribute = set + a.triangles[3 * int64_t(face) + k] * int64_t(channels);
            for (int64_t c = 0; c < channels; ++c) sum += attribute[c] * a.v_values[i * channels + c];
        }
        a.v_barycentrics[3 * i + k] = sum;
    }
}

}  // namespace vision3d
