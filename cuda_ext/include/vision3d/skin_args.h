#pragma once
#include <cstdint>

namespace vision3d::skin {

template <typename T>
struct Args {
    const T* vertices;       // (V, 3)
    const T* weights;        // (V, K)
    const int64_t* indices;  // (V, K), joint of each weight
    const T* rows;           // (B, J, ROW), see skin.h
    int64_t vertices_count, joints, batch;
    int influences;
    T* out;  // (B, V, 3)
};

template <typename T>
struct VjpArgs : Args<T> {
    const T* v_out;  // (B, V, 3)
    T* v_vertices;   // (V, 3)
    T* v_weights;    // (V, K)
    T* v_rows;       // (B, J, ROW)
};

}  // namespace vision3d::skin
