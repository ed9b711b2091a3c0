#pragma once
#include "vision3d/rotation.h"

// The rotation nearest to a matrix, without a singular value decomposition: its quaternion is the eigenvector of the largest
// eigenvalue of a symmetric 4x4 matrix (Davenport's), which Jacobi rotations find to full precision.
namespace vision3d {

// One Jacobi rotation: makes A[p][q] zero and rotates the columns p and q of V.
template <int N, typename T>
V3D_HD void jacobi_turn(T A[N][N], T V[N][N], int p, int q) {
    // t = tan(angle) = 2 a / (d + sign(d) sqrt(d^2 + 4 a^2)), without a division by a, which may be 0.
    const T twice = A[p][q] + A[p][q], d = A[q][q] - A[p][p];
    const T root = sqrt(d * d + twice * twice);
    const T below = select(d < T(0), d - root, d + root);
    const auto some = T(0) < abs(below);
    const T t = keep(some, twice / select(some, below, T(1)));
    const T c = rsqrt(T(1) + t * t), s = t * c;
    A[p][p] = A[p][p] - t * A[p][q];
    A[q][q] = A[q][q] + t * A[p][q];
    A[p][q] = A[q][p] = T(0);
    for (int k = 0; k < N; ++k) {
        if (k != p && k != q) {
            const T a = A[p][k], b = A[q][k];
            A[p][k] = A[k][p] = c * a - s * b;
            A[q][k] = A[k][q] = s * a + c * b;
        }
        const T a = V[k][p], b = V[k][q];
        V[k][p] = c * a - s * b;
        V[k][q] = s * a + c * b;
    }
}

// Eigenvalues on the diagonal of A and eigenvectors in the columns of V, for a symmetric A with entries of about 1.
template <int N, typename T>
V3D_HD void jacobi(T A[N][N], T V[N][N]) {
    using Scalar = typename Traits<T>::Scalar;
    constexpr Scalar SMALL = FloatFacts<Scalar>::EPSILON / 8;
    for (int i = 0; i < N; ++i)
        for (int j = 0; j < N; ++j) V[i][j] = T(i == j ? 1 : 0);
    for (int sweep = 0; sweep < 10; ++sweep) {  // the off-diagonal part converges quadratically: 4 to 6 suffice
        T off(0);
        for (int p = 0; p < N; ++p)
            for (int q = p + 1; q < N; ++q) off = max(off, abs(A[p][q]));
        if (!any(T(SMALL) < off)) break;
        for (int p = 0; p < N; ++p)
            for (int q = p + 1; q < N; ++q) jacobi_turn<N>(A, V, p, q);
    }
}

// 1 / largest entry of a matrix (1 where it is 0), and the matrix multiplied by it.
template <typename T>
V3D_HD T scaled_matrix(const T M[9], T out[9]) {
    T scale(0);
    for (int k = 0; k < 9; ++k) scale = max(scale, abs(M[k]));
    const T inverse = T(1) / select(is_invertible(scale), scale, T(1));
    for (int k = 0; k < 9; ++k) out[k] = M[k] * inverse;
    return inverse;
}

template <typename T>
V3D_HD void nearest_rotation(const T M[9], T R[9]) {
    T m[9], V[4][4];
    scaled_matrix(M, m);
    const T wx = m[7] - m[5], wy = m[2] - m[6], wz = m[3] - m[1], xy = m[1] + m[3], xz = m[2] + m[6], yz = m[5] + m[7];
    T K[4][4] = {{m[0] + m[4] + m[8], wx, wy, wz},
                 {wx, m[0] - m[4] - m[8], xy, xz},
                 {wy, xy, m[4] - m[0] - m[8], yz},
                 {wz, xz, yz, m[8] - m[0] - m[4]}};
    jacobi<4>(K, V);
    T best = K[0][0], q[4] = {V[0][0], V[1][0], V[2][0], V[3][0]};
    for (int k = 1; k < 4; ++k) {
        const auto better = best < K[k][k];
        best = select(better, K[k][k], best);
        for (int j = 0; j < 4; ++j) q[j] = select(better, V[j][k], q[j]);
    }
    quat_to_rotmat(q, R);
}

// With S = R^T M: v_M = R hat(u), u = (tr(S) I - S)^-1 w, w the axial vector of R^T v_R - its transpose. The eigenvalues of
// tr(S) I - S are the sums of two singular values; where one is 0, the rotation is discontinuous, and that direction gets no
// gradient.
template <typename T>
V3D_HD void nearest_rotation_vjp(const T M[9], const T R[9], const T v_R[9], T v_M[9]) {
    using Scalar = typename Traits<T>::Scalar;
    constexpr Scalar SINGULAR = 4 * FloatFacts<Scalar>::EPSILON;
    T m[9];
    const T inverse = scaled_matrix(M, m);
    const auto product = [&](const T* right, int i, int j) { return R[i] * right[j] + R[3 + i] * right[3 + j] + R[6 + i] * right[6 + j]; };
    T S[3][3], P[3][3], V[3][3];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j <= i; ++j) S[i][j] = S[j][i] = T(0.5) * (product(m, i, j) + product(m, j, i));
    const T trace = S[0][0] + S[1][1] + S[2][2];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) P[i][j] = i == j ? trace - S[i][j] : -S[i][j];
    jacobi<3>(P, V);
    const T w[3] = {product(v_R, 2, 1) - product(v_R, 1, 2), product(v_R, 0, 2) - product(v_R, 2, 0),
                    product(v_R, 1, 0) - product(v_R, 0, 1)};
    const T largest = T(0.5) * (P[0][0] + P[1][1] + P[2][2]) - min(min(P[0][0], P[1][1]), P[2][2]);
    T u[3] = {T(0), T(0), T(0)};
    for (int k = 0; k < 3; ++k) {
        const auto regular = T(SINGULAR) * largest < P[k][k];
        const T part = (V[0][k] * w[0] + V[1][k] * w[1] + V[2][k] * w[2]) / select(regular, P[k][k], T(1));
        for (int j = 0; j < 3; ++j) u[j] = u[j] + keep(regular, part) * V[j][k];
    }
    for (int j = 0; j < 3; ++j) u[j] = u[j] * inverse;
    for (int i = 0; i < 3; ++i) {
        const T* r = R + 3 * i;
        v_M[3 * i] = r[1] * u[2] - r[2] * u[1];
        v_M[3 * i + 1] = r[2] * u[0] - r[0] * u[2];
        v_M[3 * i + 2] = r[0] * u[1] - r[1] * u[0];
    }
}

}  // namespace vision3d
