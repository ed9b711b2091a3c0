#pragma once
#include "vision3d/scalar.h"

namespace vision3d {

// Real spherical harmonics at a unit direction up to degree 4 (Sloan 2013), order m = -l..l inside a band.
template <int DEGREE, typename T>
V3D_HD void sh_basis(const T d[3], T* b) {
    using S = typename Traits<T>::Scalar;
    b[0] = T(S(0.28209479177387814));
    if constexpr (DEGREE >= 1) {
        const T x = d[0], y = d[1], z = d[2], c1(S(0.4886025119029199));
        b[1] = -(c1 * y);
        b[2] = c1 * z;
        b[3] = -(c1 * x);
        if constexpr (DEGREE >= 2) {
            const T xx = x * x, yy = y * y, zz = z * z, xy = x * y, c2(S(1.0925484305920792));
            const T one(S(1)), three(S(3)), d2 = xx - yy;
            b[4] = c2 * xy;
            b[5] = -(c2 * y * z);
            b[6] = fma(T(S(0.9461746957575601)), zz, T(S(-0.31539156525252005)));
            b[7] = -(c2 * x * z);
            b[8] = T(S(0.5462742152960396)) * d2;
            if constexpr (DEGREE >= 3) {
                const T p = three * xx - yy, q = xx - three * yy, r = fma(T(S(5)), zz, -one);
                const T c30(S(0.5900435899266435)), c32(S(0.4570457994644658));
                b[9] = -(c30 * y * p);
                b[10] = T(S(2.890611442640554)) * xy * z;
                b[11] = -(c32 * y * r);
                b[12] = T(S(0.3731763325901154)) * z * (T(S(5)) * zz - three);
                b[13] = -(c32 * x * r);
                b[14] = T(S(1.445305721320277)) * z * d2;
                b[15] = -(c30 * x * q);
                if constexpr (DEGREE >= 4) {
                    const T s1 = fma(T(S(7)), zz, -one), s3 = fma(T(S(7)), zz, -three);
                    const T c41(S(1.7701307697799304)), c43(S(0.6690465435572892));
                    b[16] = T(S(2.5033429417967046)) * xy * d2;
                    b[17] = -(c41 * y * z * p);
                    b[18] = T(S(0.9461746957575601)) * xy * s1;
                    b[19] = -(c43 * y * z * s3);
                    b[20] = T(S(0.10578554691520431)) * fma(zz, T(S(35)) * zz - T(S(30)), three);
                    b[21] = -(c43 * x * z * s3);
                    b[22] = T(S(0.47308734787878004)) * d2 * s1;
                    b[23] = -(c41 * x * z * q);
                    b[24] = T(S(0.6258357354491761)) * (xx * q - yy * p);
                }
            }
        }
    }
}

// v_d += sum_k w[k] grad b_k(d), as a polynomial in d; the caller removes the part along d.
template <int DEGREE, typename T>
V3D_HD void sh_basis_vjp(const T d[3], const T* w, T v_d[3]) {
    using S = typename Traits<T>::Scalar;
    if constexpr (DEGREE >= 1) {
        const T x = d[0], y = d[1], z = d[2], c1(S(0.4886025119029199));
        T gx = -(c1 * w[3]), gy = -(c1 * w[1]), gz = c1 * w[2];
        if constexpr (DEGREE >= 2) {
            const T xx = x * x, yy = y * y, zz = z * z, xy = x * y, two(S(2)), three(S(3)), six(S(6)), d2 = xx - yy;
            const T w4 = T(S(1.0925484305920792)) * w[4], w5 = T(S(-1.0925484305920792)) * w[5], w7 = T(S(-1.0925484305920792)) * w[7];
            const T w6 = T(S(2 * 0.9461746957575601)) * w[6], w8 = T(S(2 * 0.5462742152960396)) * w[8];
            gx = gx + w4 * y + w7 * z + w8 * x;
            gy = gy + w4 * x + w5 * z - w8 * y;
            gz = gz + w5 * y + w7 * x + w6 * z;
            if constexpr (DEGREE >= 3) {
                const T p = three * xx - yy, q = xx - three * yy, r = T(S(5)) * zz - T(S(1)), ten(S(10));
                const T w9 = T(S(-0.5900435899266435)) * w[9], w10 = T(S(2.890611442640554)) * w[10],
                        w11 = T(S(-0.4570457994644658)) * w[11];
                const T w12 = T(S(0.3731763325901154)) * w[12], w13 = T(S(-0.4570457994644658)) * w[13];
                const T w14 = T(S(1.445305721320277)) * w[14], w15 = T(S(-0.5900435899266435)) * w[15];
                gx = gx + w9 * six * xy + w10 * y * z + w13 * r + w14 * two * x * z + w15 * three * d2;
                gy = gy + w9 * three * d2 + w10 * x * z + w11 * r - w14 * two * y * z - w15 * six * xy;
                gz = gz + w10 * xy + (w11 * y + w13 * x) * ten * z + w12 * (T(S(15)) * zz - three) + w14 * d2;
                if constexpr (DEGREE >= 4) {
                    const T s1 = T(S(7)) * zz - T(S(1)), s3 = T(S(7)) * zz - three, yz = y * z, xz = x * z, k14(S(14));
                    const T w16 = T(S(2.5033429417967046)) * w[16], w17 = T(S(-1.7701307697799304)) * w[17];
                    const T w18 = T(S(0.9461746957575601)) * w[18], w19 = T(S(-0.6690465435572892)) * w[19];
                    const T w20 = T(S(0.10578554691520431)) * w[20], w21 = T(S(-0.6690465435572892)) * w[21];
                    const T w22 = T(S(0.47308734787878004)) * w[22], w23 = T(S(-1.7701307697799304)) * w[23];
                    const T w24 = T(S(4 * 0.6258357354491761)) * w[24];
                    gx = gx + w16 * y * p + w17 * six * x * yz + w18 * y * s1 + w21 * z * s3 + w22 * two * x * s1 + w23 * three * z * d2 +
                         w24 * x * q;
                    gy = gy + w16 * x * q + w17 * three * z * d2 + w18 * x * s1 + w19 * z * s3 - w22 * two * y * s1 - w23 * six * y * xz -
                         w24 * y * p;
                    gz = gz + w17 * y * p + w18 * k14 * xy * z + (w19 * y + w21 * x) * (T(S(21)) * zz - three) +
                         w20 * z * (T(S(140)) * zz - T(S(60))) + w22 * k14 * z * d2 + w23 * x * q;
                }
            }
        }
        v_d[0] = v_d[0] + gx;
        v_d[1] = v_d[1] + gy;
        v_d[2] = v_d[2] + gz;
    }
}

// Color max(sum_k b_k(d) sh_k + 0.5, 0) along the ray from the camera center to the mean. sh(k, c) reads.
template <int DEGREE, typename T, typename Read>
V3D_HD void sh_color(const T mean[3], const T center[3], Read sh, T color[3]) {
    const T half(typename Traits<T>::Scalar(0.5));
    T d[3] = {mean[0] - center[0], mean[1] - center[1], mean[2] - center[2]}, b[(DEGREE + 1) * (DEGREE + 1)];
    const T s = rsqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
    for (int i = 0; i < 3; ++i) d[i] = d[i] * s;
    sh_basis<DEGREE>(d, b);
    for (int c = 0; c < 3; ++c) {
        T sum = half;
        for (int k = 0; k < (DEGREE + 1) * (DEGREE + 1); ++k) sum = fma(b[k], sh(k, c), sum);
        color[c] = max(sum, T(0));
    }
}

// Gradients of the above: write(k, c, value) for sh, v_mean set (the camera center gets its negative).
template <int DEGREE, typename T, typename Read, typename Write>
V3D_HD void sh_color_vjp(const T mean[3], const T center[3], Read sh, const T v_color[3], Write write, T v_mean[3]) {
    constexpr int K = (DEGREE + 1) * (DEGREE + 1);
    const T half(typename Traits<T>::Scalar(0.5)), zero(0);
    T d[3] = {mean[0] - center[0], mean[1] - center[1], mean[2] - center[2]}, b[K], w[K], v_d[3] = {zero, zero, zero};
    const T s = rsqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
    for (int i = 0; i < 3; ++i) d[i] = d[i] * s;
    sh_basis<DEGREE>(d, b);
    for (int k = 0; k < K; ++k) w[k] = zero;
    for (int c = 0; c < 3; ++c) {
        T sum = half;
        for (int k = 0; k < K; ++k) sum = fma(b[k], sh(k, c), sum);
        const T v = keep(zero < sum, v_color[c]);
        for (int k = 0; k < K; ++k) {
            write(k, c, b[k] * v);
            w[k] = fma(v, sh(k, c), w[k]);
        }
    }
    sh_basis_vjp<DEGREE>(d, w, v_d);
    const T along = v_d[0] * d[0] + v_d[1] * d[1] + v_d[2] * d[2];
    for (int i = 0; i < 3; ++i) v_mean[i] = s * (v_d[i] - along * d[i]);
}

}  // namespace vision3d
