#pragma once
#include "vision3d/quaternion.h"

// Conversion of other parameters to rotation matrices (row-major 9) and back, with gradients. T is a float, a double or a vector
// of floats. Inputs of any scale: norms are computed after a division by the largest entry.
namespace vision3d {

// Values of std::numeric_limits, whose functions are not for device code.
template <typename T> struct FloatFacts;
template <> struct FloatFacts<float> {
    static constexpr float EPSILON = 1.1920929e-7f, LEAST = 1.17549435e-38f;
};
template <> struct FloatFacts<double> {
    static constexpr double EPSILON = 2.220446049250313e-16, LEAST = 2.2250738585072014e-308;
};

template <typename T>
V3D_HD T dot3(const T a[3], const T b[3]) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

template <typename T>
V3D_HD void cross3(const T a[3], const T b[3], T out[3]) {
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

template <typename T>
V3D_HD T largest3(const T a[3]) {
    return max(max(abs(a[0]), abs(a[1])), abs(a[2]));
}

// Whether the inverse of a largest entry is finite; smaller values (1e-37 in float) count as 0.
template <typename T>
V3D_HD typename Traits<T>::Mask is_invertible(T scale) {
    using Scalar = typename Traits<T>::Scalar;
    constexpr Scalar LEAST = 4 * FloatFacts<Scalar>::LEAST;
    return {T(LEAST) < scale};
}

// 1 / |a|, and a of length 1; both 0 where a is 0.
template <typename T>
V3D_HD T normalize3(const T a[3], T unit[3]) {
    const T scale = largest3(a);
    const auto some = is_invertible(scale);
    const T inverse = T(1) / select(some, scale, T(1));
    const T b[3] = {a[0] * inverse, a[1] * inverse, a[2] * inverse};
    const T s = keep(some, rsqrt(select(some, dot3(b, b), T(1))));
    for (int k = 0; k < 3; ++k) unit[k] = b[k] * s;
    return s * inverse;
}

// A unit vector orthogonal to the unit vector a: its cross product with the least aligned axis.
template <typename T>
V3D_HD void any_orthogonal3(const T a[3], T out[3]) {
    const T x = abs(a[0]), y = abs(a[1]), z = abs(a[2]);
    const auto first = (x <= y) & (x <= z);
    const auto second = andnot(first, y <= z);
    const T axis[3] = {select(first, T(1), T(0)), select(second, T(1), T(0)), select(first | second, T(0), T(1))};
    T across[3];
    cross3(a, axis, across);
    normalize3(across, out);
}

// Intermediate results of Gram-Schmidt, needed for the gradient.
template <typename T>
struct Frame {
    T x[3], y[3], z[3];
    T part[3];                          // the second direction, of unit length, or its replacement
    T inverse_a, inverse_b, inverse_n;  // 1 / length of the first input, of the second, of its orthogonal part
    T along;                            // part . x
};

template <typename T>
V3D_HD void gram_schmidt_frame(const T in[6], Frame<T>& f) {
    using Scalar = typename Traits<T>::Scalar;
    constexpr Scalar PARALLEL = 8 * FloatFacts<Scalar>::EPSILON;
    f.inverse_a = normalize3(in, f.x);
    const auto zero = f.inverse_a <= T(0);
    f.x[0] = select(zero, T(1), f.x[0]);
    f.inverse_b = normalize3(in + 3, f.part);
    f.along = dot3(f.part, f.x);
    T rest[3];
    for (int k = 0; k < 3; ++k) rest[k] = f.part[k] - f.along * f.x[k];
    const T square = dot3(rest, rest);
    const auto parallel = square < T(PARALLEL * PARALLEL);
    T other[3];
    any_orthogonal3(f.x, other);
    const T inverse_n = rsqrt(select(parallel, T(1), square));
    f.inverse_n = select(parallel, T(1), inverse_n);
    f.inverse_b = keep(T(PARALLEL * PARALLEL) <= square, f.inverse_b);
    f.along = keep(T(PARALLEL * PARALLEL) <= square, f.along);
    for (int k = 0; k < 3; ++k) {
        f.part[k] = select(parallel, other[k], f.part[k]);
        f.y[k] = select(parallel, other[k], rest[k] * inverse_n);
    }
    // Once more, to remove the remainder along x after rounding when the two are nearly parallel.
    const T left = dot3(f.y, f.x);
    for (int k = 0; k < 3; ++k) f.y[k] = f.y[k] - left * f.x[k];
    const T s = rsqrt(dot3(f.y, f.y));
    for (int k = 0; k < 3; ++k) f.y[k] = f.y[k] * s;
    cross3(f.x, f.y, f.z);
}

// Six values, two columns one after the other, to a rotation; Zhou et al. 2019. Always a rotation.
template <typename T>
V3D_HD void gram_schmidt(const T in[6], T R[9]) {
    Frame<T> f;
    gram_schmidt_frame(in, f);
    for (int k = 0; k < 3; ++k) {
        R[3 * k] = f.x[k];
        R[3 * k + 1] = f.y[k];
        R[3 * k + 2] = f.z[k];
    }
}

template <typename T>
V3D_HD void gram_schmidt_vjp(const T in[6], const T v_R[9], T v_in[6]) {
    Frame<T> f;
    gram_schmidt_frame(in, f);
    const T v_z[3] = {v_R[2], v_R[5], v_R[8]};
    T v_x[3], v_y[3];
    cross3(f.y, v_z, v_x);
    cross3(v_z, f.x, v_y);
    for (int k = 0; k < 3; ++k) {
        v_x[k] = v_x[k] + v_R[3 * k];
        v_y[k] = v_y[k] + v_R[3 * k + 1];
    }
    const T along_y = dot3(v_y, f.y);
    for (int k = 0; k < 3; ++k) v_y[k] = (v_y[k] - along_y * f.y[k]) * f.inverse_n;
    const T along_x = dot3(v_y, f.x);
    for (int k = 0; k < 3; ++k) {
        v_in[3 + k] = (v_y[k] - along_x * f.x[k]) * f.inverse_b;
        v_x[k] = v_x[k] - along_x * f.part[k] - f.along * v_y[k];
    }
    const T along = dot3(v_x, f.x);
    for (int k = 0; k < 3; ++k) v_in[k] = (v_x[k] - along * f.x[k]) * f.inverse_a;
}

// 1 / largest entry of a quaternion (1 where it is 0), and the quaternion multiplied by it.
template <typename T>
V3D_HD T scaled_quat(const T q[4], T out[4]) {
    const T scale = max(largest3(q), abs(q[3]));
    const T inverse = T(1) / select(is_invertible(scale), scale, T(1));
    for (int k = 0; k < 4; ++k) out[k] = q[k] * inverse;
    return inverse;
}

// The quaternion (w >= 0) of a rotation matrix, and 1 / length of the row of 4 q q^T that it was read from.
template <typename T>
struct QuatRow {
    typename Traits<T>::Mask row[4];  // selected row
    T inverse;                        // 1 / length, with the sign that makes w >= 0
    T quat[4];
};

template <typename T>
V3D_HD void rotmat_quat_row(const T R[9], QuatRow<T>& out) {
    const T one(1);
    const T squares[4] = {one + R[0] + R[4] + R[8], one + R[0] - R[4] - R[8], one - R[0] + R[4] - R[8], one - R[0] - R[4] + R[8]};
    const T wx = R[7] - R[5], wy = R[2] - R[6], wz = R[3] - R[1], xy = R[1] + R[3], xz = R[2] + R[6], yz = R[5] + R[7];
    const T rows[4][4] = {{squares[0], wx, wy, wz}, {wx, squares[1], xy, xz}, {wy, xy, squares[2], yz}, {wz, xz, yz, squares[3]}};
    T best = squares[0], row[4] = {rows[0][0], rows[0][1], rows[0][2], rows[0][3]};
    out.row[0] = T(0) <= T(0);
    for (int k = 1; k < 4; ++k) {
        const auto better = best < squares[k];
        best = select(better, squares[k], best);
        for (int j = 0; j < k; ++j) out.row[j] = andnot(better, out.row[j]);
        out.row[k] = better;
        for (int j = 0; j < 4; ++j) row[j] = select(better, rows[k][j], row[j]);
    }
    // The largest of the four is at least 1 for a rotation: no scaling needed.
    const T square = row[0] * row[0] + row[1] * row[1] + row[2] * row[2] + row[3] * row[3];
    const T s = rsqrt(select(T(0) < square, square, one));
    out.inverse = select(row[0] < T(0), -s, s);
    for (int j = 0; j < 4; ++j) out.quat[j] = row[j] * out.inverse;
}

template <typename T>
V3D_HD void rotmat_to_quat(const T R[9], T q[4]) {
    QuatRow<T> found;
    rotmat_quat_row(R, found);
    for (int k = 0; k < 4; ++k) q[k] = found.quat[k];
}

// From the selected row and the gradient of its unit vector to that of the matrix.
template <typename T>
V3D_HD void quat_row_vjp(const QuatRow<T>& f, const T v_q[4], T v_R[9]) {
    const T along = v_q[0] * f.quat[0] + v_q[1] * f.quat[1] + v_q[2] * f.quat[2] + v_q[3] * f.quat[3];
    T v[4];
    for (int k = 0; k < 4; ++k) v[k] = (v_q[k] - along * f.quat[k]) * f.inverse;
    const auto part = [&](int row, int k) { return keep(f.row[row], v[k]); };
    const T w = part(0, 0), x = part(1, 1), y = part(2, 2), z = part(3, 3);
    const T wx = part(0, 1) + part(1, 0), wy = part(0, 2) + part(2, 0), wz = part(0, 3) + part(3, 0);
    const T xy = part(1, 2) + part(2, 1), xz = part(1, 3) + part(3, 1), yz = part(2, 3) + part(3, 2);
    v_R[0] = w + x - y - z;
    v_R[1] = xy - wz;
    v_R[2] = xz + wy;
    v_R[3] = xy + wz;
    v_R[4] = w - x + y - z;
    v_R[5] = yz - wx;
    v_R[6] = xz - wy;
    v_R[7] = yz + wx;
    v_R[8] = w - x - y + z;
}

template <typename T>
V3D_HD void rotmat_to_quat_vjp(const T R[9], const T v_q[4], T v_R[9]) {
    QuatRow<T> found;
    rotmat_quat_row(R, found);
    quat_row_vjp(found, v_q, v_R);
}

// Unit quaternion of a rotation vector, and intermediate results for its gradient.
template <typename T>
struct Turn {
    T quat[4];
    T axis[3];     // 0 where the vector is 0
    T sine, over;  // sin(t / 2), sin(t / 2) / t
};

template <typename T>
V3D_HD void rotvec_turn(const T v[3], Turn<T>& f) {
    const T inverse = normalize3(v, f.axis);
    const auto some = T(0) < inverse;
    const T angle = keep(some, T(1) / select(some, inverse, T(1)));
    sincos(T(0.5) * angle, f.sine, f.quat[0]);
    f.over = select(some, f.sine * inverse, T(0.5));
    for (int k = 0; k < 3; ++k) f.quat[k + 1] = f.sine * f.axis[k];
}

template <typename T>
V3D_HD void so3_exp(const T v[3], T R[9]) {
    Turn<T> f;
    rotvec_turn(v, f);
    unit_quat_to_rotmat(f.quat, R);
}

template <typename T>
V3D_HD void so3_exp_vjp(const T v[3], const T v_R[9], T v_v[3]) {
    Turn<T> f;
    rotvec_turn(v, f);
    T g[4];
    unit_quat_to_rotmat_vjp(f.quat, v_R, g);
    const T along = (T(0.5) * f.quat[0] - f.over) * dot3(f.axis, g + 1) - T(0.5) * f.sine * g[0];
    for (int k = 0; k < 3; ++k) v_v[k] = f.over * g[k + 1] + along * f.axis[k];
}

// Rotation vector of a rotation matrix, by its quaternion (w, u): 2 atan2(|u|, w) / |u| u.
template <typename T>
struct Logarithm {
    QuatRow<T> row;
    T axis[3], length, factor;
};

template <typename T>
V3D_HD void rotmat_logarithm(const T R[9], Logarithm<T>& f) {
    rotmat_quat_row(R, f.row);
    const T* u = f.row.quat + 1;
    const T inverse = normalize3(u, f.axis);
    const auto some = T(0) < inverse;
    f.length = keep(some, T(1) / select(some, inverse, T(1)));
    f.factor = select(some, T(2) * atan2(f.length, f.row.quat[0]) * inverse, T(2));
}

template <typename T>
V3D_HD void so3_log(const T R[9], T v[3]) {
    Logarithm<T> f;
    rotmat_logarithm(R, f);
    for (int k = 0; k < 3; ++k) v[k] = f.factor * f.row.quat[k + 1];
}

template <typename T>
V3D_HD void so3_log_vjp(const T R[9], const T v_v[3], T v_R[9]) {
    Logarithm<T> f;
    rotmat_logarithm(R, f);
    const T along = dot3(f.axis, v_v);
    const T turn = (T(2) * f.row.quat[0] - f.factor) * along;
    T v_q[4] = {T(-2) * f.length * along};
    for (int k = 0; k < 3; ++k) v_q[k + 1] = f.factor * v_v[k] + turn * f.axis[k];
    quat_row_vjp(f.row, v_q, v_R);
}

}  // namespace vision3d
