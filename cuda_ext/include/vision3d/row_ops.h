#pragma once
#include <cstdint>
#include "vision3d/procrustes.h"
#include "vision3d/skin.h"

// Operations that convert each row of IN values to one of OUT values, as types, so that every kind of loop is written once.
// vjp also gets the output row; operations without use for it do not ask Python to store it.
namespace vision3d::rows {

struct QuatToRotmat {
    static constexpr int IN = 4, OUT = 9;
    static constexpr bool KEEPS_OUTPUT = false;
    static constexpr const char* NAME = "quat_to_rotmat";
    template <typename T> V3D_HD_MEMBER static void forward(const T* in, T* out) {
        T q[4];
        scaled_quat(in, q);
        quat_to_rotmat(q, out);
    }
    template <typename T> V3D_HD_MEMBER static void vjp(const T* in, const T*, const T* v_out, T* v_in) {
        T q[4];
        const T inverse = scaled_quat(in, q);
        quat_to_rotmat_vjp(q, v_out, v_in);
        for (int k = 0; k < 4; ++k) v_in[k] = v_in[k] * inverse;
    }
};

#define V3D_ROW_OP(Name, function, in_width, out_width)                                                       \
    struct Name {                                                                                             \
        static constexpr int IN = in_width, OUT = out_width;                                                  \
        static constexpr bool KEEPS_OUTPUT = false;                                                           \
        static constexpr const char* NAME = #function;                                                        \
        template <typename T> V3D_HD_MEMBER static void forward(const T* in, T* out) { function(in, out); }   \
        template <typename T> V3D_HD_MEMBER static void vjp(const T* in, const T*, const T* v_out, T* v_in) { \
            function##_vjp(in, v_out, v_in);                                                                  \
        }                                                                                                     \
    }

V3D_ROW_OP(RotmatToQuat, rotmat_to_quat, 9, 4);
V3D_ROW_OP(GramSchmidt, gram_schmidt, 6, 9);
V3D_ROW_OP(So3Exp, so3_exp, 3, 9);
V3D_ROW_OP(So3Log, so3_log, 9, 3);
#undef V3D_ROW_OP

struct NearestRotation {
    static constexpr int IN = 9, OUT = 9;
    static constexpr bool KEEPS_OUTPUT = true;
    static constexpr const char* NAME = "nearest_rotation";
    template <typename T> V3D_HD_MEMBER static void forward(const T* in, T* out) { nearest_rotation(in, out); }
    template <typename T> V3D_HD_MEMBER static void vjp(const T* in, const T* out, const T* v_out, T* v_in) {
        nearest_rotation_vjp(in, out, v_out, v_in);
    }
};

// Converts the values of a joint to its row for skinning (skin.h).
struct SkinJoint {
    static constexpr int IN = skin::NODE, OUT = skin::ROW;
    static constexpr bool KEEPS_OUTPUT = false;
    static constexpr const char* NAME = "skin_joint";
    template <typename T> V3D_HD_MEMBER static void forward(const T* in, T* out) { skin::joint_row(in, out); }
    template <typename T> V3D_HD_MEMBER static void vjp(const T* in, const T*, const T* v_out, T* v_in) {
        skin::joint_row_vjp(in, v_out, v_in);
    }
};

// 0 if all values of a row are finite, else NaN.
template <int WIDTH, typename T>
V3D_HD T probe(const T* row) {
    T total = row[0] * T(0);
    for (int k = 1; k < WIDTH; ++k) total = total + row[k] * T(0);
    return total;
}

// The operation on a row; a row with a value that is not finite becomes all NaN, rather than the rotation that replaces a
// missing direction.
template <typename Op, typename T>
V3D_HD void forward(const T* in, T* out) {
    const T found = probe<Op::IN>(in);
    Op::forward(in, out);
    for (int k = 0; k < Op::OUT; ++k) out[k] = select(found <= T(0), out[k], found);
}

template <typename Op, typename T>
V3D_HD void vjp(const T* in, const T* out, const T* v_out, T* v_in) {
    const T found = probe<Op::IN>(in) + probe<Op::OUT>(v_out);
    Op::vjp(in, out, v_out, v_in);
    for (int k = 0; k < Op::IN; ++k) v_in[k] = select(found <= T(0), v_in[k], found);
}

// Calls visit(index, Op{}) for every operation.
template <typename Visit>
void for_each(Visit visit) {
    visit(0, QuatToRotmat{});
    visit(1, RotmatToQuat{});
    visit(2, GramSchmidt{});
    visit(3, So3Exp{});
    visit(4, So3Log{});
    visit(5, NearestRotation{});
    visit(6, SkinJoint{});
}
constexpr int COUNT = 7;

}  // namespace vision3d::rows
