#pragma once
#include "vision3d/procrustes.h"

// Materials of the material point method: plastic flow and Kirchhoff stress of a trial deformation gradient. The laws, their
// internal variables and sources are those of vision3d/stages/simulate/{laws,plasticity}.py, which the tests compare.
namespace vision3d::mpm {

enum Law { COROTATED, NEO_HOOKEAN, HENCKY, VON_MISES, DRUCKER_PRAGER, SNOW, WATER, VISCOPLASTIC, STATIONARY, LAWS };

// Material of a body; constant factors are precomputed (bindings/mpm.h).
template <typename S>
struct Material {
    int law;
    S mu, lam;
    S limit;        // von_mises, viscoplastic: norm of the deviatoric strain at yield
    S hardening;    // von_mises
    S slope;        // drucker_prager: flow per volume strain
    S viscosity;    // viscoplastic
    S least, most;  // snow: bounds of elastic stretches
    S packing, max_packing;
    S friction;  // factor of the friction of solids
};

constexpr double MIN_STRETCH = 0.01;  // lower bound for logarithms
constexpr float MAX_STRETCH = 1e6f;   // of the total deformation, which is only used for rendering
constexpr double MIN_VOLUME = 0.05;   // of water: the pressure is constant below it

template <typename T>
V3D_HD T determinant(const T M[9]) {
    return M[0] * (M[4] * M[8] - M[5] * M[7]) - M[1] * (M[3] * M[8] - M[5] * M[6]) + M[2] * (M[3] * M[7] - M[4] * M[6]);
}

// out = A B.
template <typename T>
V3D_HD void product(const T A[9], const T B[9], T out[9]) {
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) out[3 * i + j] = fma(A[3 * i], B[j], fma(A[3 * i + 1], B[3 + j], A[3 * i + 2] * B[6 + j]));
}

// A diag(values) B^T.
template <typename T>
V3D_HD void compose(const T A[9], const T values[3], const T B[9], T out[9]) {
    for (int i = 0; i < 3; ++i) {
        const T row[3] = {A[3 * i] * values[0], A[3 * i + 1] * values[1], A[3 * i + 2] * values[2]};
        for (int j = 0; j < 3; ++j) out[3 * i + j] = fma(row[0], B[3 * j], fma(row[1], B[3 * j + 1], row[2] * B[3 * j + 2]));
    }
}

// The nearest rotation. Newton's iteration X <- (X + X^-T) / 2 if the determinant is well above zero; otherwise by
// quaternions, which also handle inverted matrices.
template <typename T>
V3D_HD void polar(const T M[9], T R[9]) {
    using Scalar = typename Traits<T>::Scalar;
    T size(0);
    for (int k = 0; k < 9; ++k) size = fma(M[k], M[k], size);
    const auto regular = T(Scalar(0.02)) * size * sqrt(size) < determinant(M);  // 0.19 at rotations
    for (int k = 0; k < 9; ++k) R[k] = select(regular, M[k], T(k % 4 == 0 ? 1 : 0));
    for (int step = 0; step < 16; ++step) {
        const T cofactors[9] = {R[4] * R[8] - R[5] * R[7], R[5] * R[6] - R[3] * R[8], R[3] * R[7] - R[4] * R[6],
                                R[2] * R[7] - R[1] * R[8], R[0] * R[8] - R[2] * R[6], R[1] * R[6] - R[0] * R[7],
                                R[1] * R[5] - R[2] * R[4], R[2] * R[3] - R[0] * R[5], R[0] * R[4] - R[1] * R[3]};
        const T half = T(Scalar(0.5)) / fma(R[0], cofactors[0], fma(R[1], cofactors[1], R[2] * cofactors[2]));
        T change(0);
        for (int k = 0; k < 9; ++k) {
            const T next = fma(half, cofactors[k], T(Scalar(0.5)) * R[k]);
            change = max(change, abs(next - R[k]));
            R[k] = next;
        }
        // The error after a step is about half the square of its change.
        if (!any(T(Scalar(sizeof(Scalar) == 4 ? 2e-4 : 1e-8)) < change)) break;
    }
    if (any(andnot(regular, T(Scalar(-1)) < T(Scalar(0))))) {
        T other[9];
        nearest_rotation(M, other);
        for (int k = 0; k < 9; ++k) R[k] = select(regular, R[k], other[k]);
    }
}

// M = U diag(s) V^T with rotations U and V; the sign of the determinant is in the s closest to zero.
template <typename T>
V3D_HD void signed_svd(const T M[9], T U[9], T s[3], T V[9]) {
    T R[9], S[9], A[3][3], W[3][3];
    polar(M, R);
    const T turned[9] = {R[0], R[3], R[6], R[1], R[4], R[7], R[2], R[5], R[8]};
    product(turned, M, S);
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) A[i][j] = T(0.5f) * (S[3 * i + j] + S[3 * j + i]);
    jacobi<3>(A, W);
    for (int i = 0; i < 3; ++i) {
        s[i] = A[i][i];
        for (int j = 0; j < 3; ++j) V[3 * i + j] = W[i][j];
    }
    product(R, V, U);
}

template <typename T>
V3D_HD void log_stretches(const T s[3], T h[3]) {
    using Scalar = typename Traits<T>::Scalar;
    for (int k = 0; k < 3; ++k) h[k] = log(max(s[k], T(Scalar(MIN_STRETCH))));
}

// Subtracts the mean; returns the norm of the remainder.
template <typename T>
V3D_HD T deviator(const T h[3], T shape[3]) {
    using Scalar = typename Traits<T>::Scalar;
    const T mean = (h[0] + h[1] + h[2]) * T(Scalar(1) / Scalar(3));
    for (int k = 0; k < 3; ++k) shape[k] = h[k] - mean;
    return sqrt(fma(shape[0], shape[0], fma(shape[1], shape[1], shape[2] * shape[2])));
}

template <typename T>
V3D_HD T packing_factor(T memory, T packing, T most) {
    return min(exp(packing * (T(1) - memory)), most);
}

// Hencky stress in principal values.
template <typename T>
V3D_HD void hencky(const T h[3], T mu, T lam, T t[3]) {
    const T volume = lam * (h[0] + h[1] + h[2]);
    for (int k = 0; k < 3; ++k) t[k] = fma(T(2) * mu, h[k], volume);
}

// Replaces F by its elastic part, updates the internal variable `memory`, and sets tau to the Kirchhoff stress.
template <int LAW, typename T, typename S>
V3D_HD void flow_and_stress(const Material<S>& m, T F[9], T& memory, S dt, T tau[9]) {
    const T mu(m.mu), lam(m.lam);
    if constexpr (LAW == COROTATED) {
        T R[9], D[9];
        polar(F, R);
        const T J = determinant(F), volume = lam * J * (J - T(1));
        for (int k = 0; k < 9; ++k) D[k] = T(2) * mu * (F[k] - R[k]);
        const T one[3] = {T(1), T(1), T(1)};
        T full[9];
        compose(D, one, F, full);
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j) tau[3 * i + j] = T(0.5f) * (full[3 * i + j] + full[3 * j + i]);
        for (int k = 0; k < 9; k += 4) tau[k] = tau[k] + volume;
    } else if constexpr (LAW == NEO_HOOKEAN) {
        const T J = determinant(F), volume = lam * log(max(J, T(S(MIN_STRETCH)))) - mu;
        const T scale[3] = {mu, mu, mu};
        compose(F, scale, F, tau);
        for (int k = 0; k < 9; k += 4) tau[k] = tau[k] + volume;
    } else if constexpr (LAW == WATER) {
        const T J = max(determinant(F), T(S(MIN_VOLUME)));
        T width = exp(log(J) * T(S(1) / S(3)));
        width = width - (width * width * width - J) / (T(3) * width * width);
        for (int k = 0; k < 9; ++k) F[k] = tau[k] = T(0);
        for (int k = 0; k < 9; k += 4) {
            F[k] = width;
            tau[k] = lam * J * (J - T(1));
        }
    } else if constexpr (LAW == STATIONARY) {
        for (int k = 0; k < 9; ++k) tau[k] = T(0);
    } else {
        T U[9], V[9], s[3], t[3];
        signed_svd(F, U, s, V);
        if constexpr (LAW == SNOW) {
            T kept[3], changed(0);
            for (int k = 0; k < 3; ++k) {
                kept[k] = min(max(s[k], T(m.least)), T(m.most));
                changed = max(changed, abs(kept[k] - s[k]));
                memory = memory * max(s[k], T(S(1e-2))) / kept[k];
            }
            memory = min(max(memory, T(S(1e-30))), T(S(1e30)));  // an isolated particle is stretched repeatedly
            T packed[9];
            compose(U, kept, V, packed);
            const auto flows = T(0) < changed;
            for (int k = 0; k < 9; ++k) F[k] = select(flows, packed[k], F[k]);
            const T J = kept[0] * kept[1] * kept[2], factor = packing_factor(memory, T(m.packing), T(m.max_packing));
            for (int k = 0; k < 3; ++k) t[k] = factor * fma(T(2) * mu * (kept[k] - T(1)), kept[k], lam * J * (J - T(1)));
        } else {
            T h[3], shape[3];
            log_stretches(s, h);
            const auto is_flat = min(min(s[0], s[1]), s[2]) < T(S(MIN_STRETCH));
            if constexpr (LAW == HENCKY) {
                if (any(is_flat)) {
                    T stretches[3], bounded[9];
                    for (int k = 0; k < 3; ++k) stretches[k] = max(s[k], T(S(MIN_STRETCH)));
                    compose(U, stretches, V, bounded);
                    for (int k = 0; k < 9; ++k) F[k] = select(is_flat, bounded[k], F[k]);
                }
            } else {
                const T past = memory;
                if constexpr (LAW == DRUCKER_PRAGER)
                    for (int k = 0; k < 3; ++k) h[k] = fma(past, T(S(1) / S(3)), h[k]);
                const T norm = deviator(h, shape), volume = h[0] + h[1] + h[2];
                const T inverse = T(1) / select(T(0) < norm, norm, T(1));
                T flow;
                auto is_open = T(1) < T(0);
                auto changes = is_open;
                if constexpr (LAW == VON_MISES) {
                    flow = max((norm - fma(T(m.hardening), memory, T(m.limit))) * T(S(1) / (S(1) + m.hardening)), T(0));
                    memory = memory + flow;
                    changes = T(0) < flow;
                } else if constexpr (LAW == DRUCKER_PRAGER) {
                    flow = max(fma(T(m.slope), volume, norm), T(0));
                    is_open = T(0) <= volume;
                    changes = is_open | (T(0) < flow) | (T(0) < past);
                    memory = keep(is_open, volume);
                } else {
                    const T excess = max(norm - T(m.limit), T(0));
                    const T rate = T(S(2) / S(3) * dt) * mu * (exp(T(2) * h[0]) + exp(T(2) * h[1]) + exp(T(2) * h[2]));
                    flow = excess * rate / select(T(0) < rate, rate + T(m.viscosity), T(1));
                    changes = T(0) < flow;
                }
                T stretches[3], flowed[9];
                for (int k = 0; k < 3; ++k) {
                    h[k] = select(is_open, T(0), fnma(flow * inverse, shape[k], h[k]));
                    stretches[k] = exp(h[k]);
                }
                compose(U, stretches, V, flowed);
                changes = changes | is_flat;
                for (int k = 0; k < 9; ++k) F[k] = select(changes, flowed[k], F[k]);
            }
            hencky(h, mu, lam, t);
        }
        compose(U, t, U, tau);
    }
}

// Elastic energy per rest volume [J/m^3].
template <int LAW, typename T, typename S>
V3D_HD T energy_density(const Material<S>& m, const T F[9], T memory) {
    const T mu(m.mu), half(S(0.5) * m.lam);
    if constexpr (LAW == COROTATED || LAW == SNOW) {
        T R[9], shape(0);
        polar(F, R);
        for (int k = 0; k < 9; ++k) shape = fma(F[k] - R[k], F[k] - R[k], shape);
        const T J = determinant(F) - T(1), energy = fma(mu, shape, half * J * J);
        return LAW == SNOW ? packing_factor(memory, T(m.packing), T(m.max_packing)) * energy : energy;
    } else if constexpr (LAW == NEO_HOOKEAN) {
        T shape(-3);
        for (int k = 0; k < 9; ++k) shape = fma(F[k], F[k], shape);
        const T volume = log(max(determinant(F), T(S(MIN_STRETCH))));
        return fma(mu, T(0.5f) * shape - volume, half * volume * volume);
    } else if constexpr (LAW == WATER) {
        const T J = determinant(F) - T(1);
        return half * J * J;
    } else if constexpr (LAW == STATIONARY) {
        return T(0);
    } else {
        T U[9], V[9], s[3], h[3];
        signed_svd(F, U, s, V);
        log_stretches(s, h);
        const T volume = h[0] + h[1] + h[2];
        return fma(mu, fma(h[0], h[0], fma(h[1], h[1], h[2] * h[2])), half * volume * volume);
    }
}

template <int LAW> struct LawTag {
    static constexpr int value = LAW;
};

// Calls visit(LawTag<law>{}).
template <typename Visit>
V3D_HD void with_law(int law, Visit visit) {
    switch (law) {
        case COROTATED: visit(LawTag<COROTATED>{}); break;
        case NEO_HOOKEAN: visit(LawTag<NEO_HOOKEAN>{}); break;
        case HENCKY: visit(LawTag<HENCKY>{}); break;
        case VON_MISES: visit(LawTag<VON_MISES>{}); break;
        case DRUCKER_PRAGER: visit(LawTag<DRUCKER_PRAGER>{}); break;
        case SNOW: visit(LawTag<SNOW>{}); break;
        case WATER: visit(LawTag<WATER>{}); break;
        case VISCOPLASTIC: visit(LawTag<VISCOPLASTIC>{}); break;
        default: visit(LawTag<STATIONARY>{});
    }
}

// Bounds a deformation that keeps growing, such as that of an isolated drop, preserving its shape.
template <typename T>
V3D_HD void bound_deformation(T F[9]) {
    T most(0);
    for (int k = 0; k < 9; ++k) most = max(most, abs(F[k]));
    const T factor = T(MAX_STRETCH) / max(most, T(MAX_STRETCH));
    for (int k = 0; k < 9; ++k) F[k] = F[k] * factor;
}

// Weights of the three nodes of an axis, for a particle at f = 0.5 to 1.5 cells after the first. The outer ones are rounded to
// multiples of the last bit of 0.5, so that the middle one has no error and their sum is 1: otherwise a particle that stays
// between its nodes loses the same fraction of its velocity in every step.
template <typename T>
V3D_HD void spline_weights(T f, T w[3]) {
    const T half(0.5f), a = T(1.5f) - f, c = f - half;
    w[0] = (half * a * a + half) - half;
    w[2] = (half * c * c + half) - half;
    w[1] = (T(1) - w[0]) - w[2];
}

}  // namespace vision3d::mpm
