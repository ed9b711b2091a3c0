#pragma once
#include "vision3d/rotation.h"

// Skinning: the contribution of a joint, and the motion of a vertex by the weighted sum of its joints. Kavan et al. 2008; stretch
// first, then the rigid motion. The sum of a vertex has the same layout as a joint's row:
//   0 real part of the unit dual quaternion (wxyz), 4 its dual part, 8 the map [R S | g + T - R S g] (3 x 4), 20 the stretch S (xx yy
//   zz xy xz yz), 26 the joint's center g, 29 the blend: 1 selects the linear map, 0 the dual quaternion. 30 and 31 are zero.
namespace vision3d::skin {

constexpr int ROW = 32, NODE = 17;
constexpr int REAL = 0, DUAL_PART = 4, MAP = 8, STRETCHES = 20, CENTER = 26, BLEND = 29;
constexpr int LINEAR = 1, DUAL = 2, STRETCH = 4;  // bits of a mode; both branches: blended

// Calls visit(mode as a constant) for the mode; returns whether it exists.
template <int MODE> struct Mode {
    static constexpr int value = MODE;
};
template <typename Visit>
bool with_mode(int mode, Visit visit) {
    switch (mode) {
        case LINEAR: visit(Mode<LINEAR>{}); return true;
        case DUAL: visit(Mode<DUAL>{}); return true;
        case DUAL | STRETCH: visit(Mode < DUAL | STRETCH > {}); return true;
        case LINEAR | DUAL: visit(Mode < LINEAR | DUAL > {}); return true;
        case LINEAR | DUAL | STRETCH: visit(Mode < LINEAR | DUAL | STRETCH > {}); return true;
        default: return false;
    }
}

template <typename T>
V3D_HD void cross(const T a[3], const T b[3], T out[3]) {
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

template <typename T>
V3D_HD T dot(const T a[3], const T b[3]) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

// S x of a symmetric matrix (xx yy zz xy xz yz).
template <typename T>
V3D_HD void times_symmetric(const T S[6], const T x[3], T out[3]) {
    out[0] = S[0] * x[0] + S[3] * x[1] + S[4] * x[2];
    out[1] = S[3] * x[0] + S[1] * x[1] + S[5] * x[2];
    out[2] = S[4] * x[0] + S[5] * x[1] + S[2] * x[2];
}

// The unit quaternion of a joint, the identity for zero; returns 1 / length, 0 for zero.
template <typename T>
V3D_HD T unit_quat(const T q[4], T unit[4]) {
    T scaled[4];
    const T scale = scaled_quat(q, scaled);
    const T s = normalize_quat(scaled, unit);
    unit[0] = select(T(0) < s, unit[0], T(1));
    return s * scale;
}

// A joint's row from its 17 values: quaternion (wxyz, any length), translation T, center g, stretch S, blend.
template <typename T>
V3D_HD void joint_row(const T in[NODE], T out[ROW]) {
    const T *t = in + 4, *g = in + 7, *S = in + 10, half(0.5f);
    T R[9], L[9], moved[3], Rg[3];
    T* r = out;
    unit_quat(in, r);
    unit_quat_to_rotmat(r, R);
    for (int i = 0; i < 3; ++i) {
        times_symmetric(S, R + 3 * i, L + 3 * i);  // S is symmetric, so rows of R S are S times rows of R
        Rg[i] = dot(R + 3 * i, g);
        moved[i] = g[i] + t[i] - Rg[i];
        for (int k = 0; k < 3; ++k) out[MAP + 4 * i + k] = L[3 * i + k];
        out[MAP + 4 * i + 3] = g[i] + t[i] - dot(L + 3 * i, g);
        out[CENTER + i] = g[i];
    }
    T turned[3];
    cross(moved, r + 1, turned);
    out[DUAL_PART] = -half * dot(moved, r + 1);
    for (int i = 0; i < 3; ++i) out[DUAL_PART + 1 + i] = half * (r[0] * moved[i] + turned[i]);
    for (int k = 0; k < 6; ++k) out[STRETCHES + k] = S[k];
    out[BLEND] = in[16];
    out[30] = out[31] = T(0);
}

template <typename T>
V3D_HD void joint_row_vjp(const T in[NODE], const T v_out[ROW], T v_in[NODE]) {
    const T *t = in + 4, *g = in + 7, *S = in + 10, half(0.5f);
    T r[4], R[9], L[9], moved[3];
    const T s = unit_quat(in, r);
    unit_quat_to_rotmat(r, R);
    for (int i = 0; i < 3; ++i) {
        times_symmetric(S, R + 3 * i, L + 3 * i);
        moved[i] = g[i] + t[i] - dot(R + 3 * i, g);
    }
    const T *v_d = v_out + DUAL_PART, *u = r + 1;
    T a[3], b[3], v_moved[3], v_r[4], v_R[9], v_L[9];
    cross(u, v_d + 1, a);
    cross(v_d + 1, moved, b);
    v_r[0] = v_out[0] + half * dot(moved, v_d + 1);
    for (int i = 0; i < 3; ++i) {
        v_moved[i] = half * (r[0] * v_d[1 + i] - v_d[0] * u[i] + a[i]);
        v_r[1 + i] = v_out[1 + i] + half * (b[i] - v_d[0] * moved[i]);
    }
    for (int i = 0; i < 3; ++i) {
        const T v_shift = v_out[MAP + 4 * i + 3];
        for (int k = 0; k < 3; ++k) v_L[3 * i + k] = v_out[MAP + 4 * i + k] - v_shift * g[k];
    }
    for (int i = 0; i < 3; ++i) {
        T through_S[3];
        times_symmetric(S, v_L + 3 * i, through_S);
        for (int k = 0; k < 3; ++k) v_R[3 * i + k] = through_S[k] - v_moved[i] * g[k];
    }
    for (int k = 0; k < 3; ++k) {
        T back(0);
        for (int i = 0; i < 3; ++i) back = back + L[3 * i + k] * v_out[MAP + 4 * i + 3] + R[3 * i + k] * v_moved[i];
        const T direct = v_out[MAP + 4 * k + 3] + v_moved[k];
        v_in[4 + k] = direct;
        v_in[7 + k] = v_out[CENTER + k] + direct - back;
    }
    T v_S[9];  // R^T v_L
    for (int i = 0; i < 3; ++i)
        for (int k = 0; k < 3; ++k) v_S[3 * i + k] = R[i] * v_L[k] + R[3 + i] * v_L[3 + k] + R[6 + i] * v_L[6 + k];
    const T folded[6] = {v_S[0], v_S[4], v_S[8], v_S[1] + v_S[3], v_S[2] + v_S[6], v_S[5] + v_S[7]};
    for (int k = 0; k < 6; ++k) v_in[10 + k] = v_out[STRETCHES + k] + folded[k];
    v_in[16] = v_out[BLEND];
    T through_R[4];
    unit_quat_to_rotmat_vjp(r, v_R, through_R);
    for (int k = 0; k < 4; ++k) v_r[k] = v_r[k] + through_R[k];
    const T along = v_r[0] * r[0] + v_r[1] * r[1] + v_r[2] * r[2] + v_r[3] * r[3];
    for (int k = 0; k < 4; ++k) v_in[k] = s * (v_r[k] - along * r[k]);
}

// The dual quaternion's branch for a point p: p + 2 / |r|^2 (w c + u x c - d_w u) with c = u x p + d_v; p itself where r is zero.
template <typename T>
V3D_HD T twist(const T* b, const T p[3], T c[3], T q[3]) {
    const T* u = b + REAL + 1;
    const T w = b[REAL], square = w * w + dot(u, u);
    T a[3];
    cross(u, p, c);
    for (int i = 0; i < 3; ++i) c[i] = c[i] + b[DUAL_PART + 1 + i];
    cross(u, c, a);
    for (int i = 0; i < 3; ++i) q[i] = w * c[i] + a[i] - b[DUAL_PART] * u[i];
    return keep(T(0) < square, T(2) / select(T(0) < square, square, T(1)));
}

template <int MODE, typename T>
V3D_HD void stretched(const T* b, const T v[3], T y[3], T p[3]) {
    for (int i = 0; i < 3; ++i) {
        y[i] = v[i] - b[CENTER + i];
        p[i] = v[i];
    }
    if constexpr ((MODE & STRETCH) != 0) {
        times_symmetric(b + STRETCHES, y, p);
        for (int i = 0; i < 3; ++i) p[i] = p[i] + b[CENTER + i];
    }
}

// Position of vertex v, from the sum b of its joints' rows.
template <int MODE, typename T>
V3D_HD void place(const T* b, const T v[3], T out[3]) {
    T linear[3], dual[3];
    if constexpr ((MODE & LINEAR) != 0)
        for (int i = 0; i < 3; ++i) linear[i] = dot(b + MAP + 4 * i, v) + b[MAP + 4 * i + 3];
    if constexpr ((MODE & DUAL) != 0) {
        T y[3], p[3], c[3], q[3];
        stretched<MODE>(b, v, y, p);
        const T f = twist(b, p, c, q);
        for (int i = 0; i < 3; ++i) dual[i] = p[i] + f * q[i];
    }
    for (int i = 0; i < 3; ++i) {
        if constexpr ((MODE & (LINEAR | DUAL)) == LINEAR)
            out[i] = linear[i];
        else if constexpr ((MODE & LINEAR) == 0)
            out[i] = dual[i];
        else
            out[i] = dual[i] + b[BLEND] * (linear[i] - dual[i]);
    }
}

// Gradients by the sum and the vertex; parts of the sum unused by the mode get zero.
template <int MODE, typename T>
V3D_HD void place_vjp(const T* b, const T v[3], const T v_out[3], T* v_b, T v_v[3]) {
    constexpr bool BOTH = (MODE & (LINEAR | DUAL)) == (LINEAR | DUAL);
    for (int k = 0; k < ROW; ++k) v_b[k] = T(0);
    for (int i = 0; i < 3; ++i) v_v[i] = T(0);
    const T blend = BOTH ? b[BLEND] : T((MODE & LINEAR) != 0 ? 1.f : 0.f);
    if constexpr ((MODE & LINEAR) != 0) {
        for (int i = 0; i < 3; ++i) {
            const T g = blend * v_out[i];
            for (int k = 0; k < 3; ++k) {
                v_b[MAP + 4 * i + k] = g * v[k];
                v_v[k] = v_v[k] + b[MAP + 4 * i + k] * g;
            }
            v_b[MAP + 4 * i + 3] = g;
            if (BOTH) v_b[BLEND] = v_b[BLEND] + v_out[i] * (dot(b + MAP + 4 * i, v) + b[MAP + 4 * i + 3]);
        }
    }
    if constexpr ((MODE & DUAL) != 0) {
        T y[3], p[3], c[3], q[3], g[3], g_q[3], g_c[3], a[3], d[3];
        stretched<MODE>(b, v, y, p);
        const T f = twist(b, p, c, q);
        for (int i = 0; i < 3; ++i) {
            g[i] = BOTH ? (T(1) - blend) * v_out[i] : v_out[i];
            g_q[i] = f * g[i];
            if (BOTH) v_b[BLEND] = v_b[BLEND] - v_out[i] * (p[i] + f * q[i]);
        }
        const T* u = b + REAL + 1;
        const T v_square = T(-0.5f) * f * f * dot(g, q);  // f = 2 / |r|^2
        cross(g_q, u, a);
        for (int i = 0; i < 3; ++i) g_c[i] = b[REAL] * g_q[i] + a[i];
        cross(c, g_q, a);
        cross(p, g_c, d);
        v_b[REAL] = T(2) * b[REAL] * v_square + dot(g_q, c);
        v_b[DUAL_PART] = -dot(u, g_q);
        for (int i = 0; i < 3; ++i) {
            v_b[REAL + 1 + i] = T(2) * u[i] * v_square + a[i] + d[i] - b[DUAL_PART] * g_q[i];
            v_b[DUAL_PART + 1 + i] = g_c[i];
        }
        cross(g_c, u, a);
        for (int i = 0; i < 3; ++i) g[i] = g[i] + a[i];  // by p
        if constexpr ((MODE & STRETCH) != 0) {
            T back[3];
            times_symmetric(b + STRETCHES, g, back);
            for (int i = 0; i < 3; ++i) {
                v_b[STRETCHES + i] = g[i] * y[i];
                v_b[CENTER + i] = g[i] - back[i];
                v_v[i] = v_v[i] + back[i];
            }
            v_b[STRETCHES + 3] = g[0] * y[1] + g[1] * y[0];
            v_b[STRETCHES + 4] = g[0] * y[2] + g[2] * y[0];
            v_b[STRETCHES + 5] = g[1] * y[2] + g[2] * y[1];
        } else {
            for (int i = 0; i < 3; ++i) v_v[i] = v_v[i] + g[i];
        }
    }
}

}  // namespace vision3d::skin
