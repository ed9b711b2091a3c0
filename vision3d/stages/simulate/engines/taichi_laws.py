# pyright: reportInvalidTypeForm=false
# ruff: noqa: SIM102 (the outer of two conditions is evaluated at compile time)
"""Materials as Taichi functions: the return maps and stresses of `plasticity` and `laws`, in float32.

Corotated only needs a rotation, from Newton's iteration for the polar decomposition (Higham 1986); neo-Hookean and water need
neither that nor singular values. Those come from one-sided Jacobi rotations (Hestenes 1958), which preserve the relative
precision of small stretches.
"""

import math
from types import ModuleType, SimpleNamespace
from typing import Any

from vision3d.stages.simulate.config import Material
from vision3d.stages.simulate.materials.plasticity import MIN_VOLUME
from vision3d.stages.simulate.materials.spectral import MIN_STRETCH

LAWS = (
    "stationary", "water", "neo_hookean", "corotated", "snow", "hencky", "von_mises", "drucker_prager", "viscoplastic",
)  # fmt: skip
"""Numbers of the laws in tables and kernels."""
STATIONARY, _WATER, _NEO_HOOKEAN, _COROTATED, _SNOW, _HENCKY, _VON_MISES, _DRUCKER_PRAGER, _VISCOPLASTIC = range(len(LAWS))
FRICTION = 11
"""Column of a table with the factor on the friction of solids."""
_MIN_POLAR = 0.1  # determinant below which Newton's iteration is slow or converges to a reflection


def table_row(material: Material) -> list[float]:
    """Kernel parameters of a material: law, moduli, and the parameters of its plastic flow in units of strain."""
    strain = 1 / (2 * material.mu)
    return [
        float(LAWS.index(material.law)),
        material.mu,
        material.lam,
        material.yield_stress * strain,
        material.hardening,
        (3 * material.lam + 2 * material.mu) * strain * material.friction_slope,
        material.viscosity,
        material.critical_compression,
        material.critical_stretch,
        material.packing,
        material.max_packing,
        material.contact_friction,
    ]


def law_mask(materials: tuple[Material, ...]) -> int:
    """Bit mask of the laws in use: kernels are compiled only for these."""
    return sum({1 << LAWS.index(material.law) for material in materials})


def build(ti: ModuleType) -> SimpleNamespace:
    """The functions, for the initialized runtime.

    Returns:
        signed_svd(F) and respond(F, memory, row, table, dt, laws), see there.
    """
    tm: Any = ti.math
    vec3 = ti.types.vector(3, ti.f32)
    log_min = math.log(MIN_STRETCH)

    @ti.func
    def rotation(F):
        """The nearest rotation of a matrix whose determinant is well above 0: X <- (X + X^-T) / 2."""
        X = F
        for _ in range(20):
            a, b, c = X[:, 0], X[:, 1], X[:, 2]
            bc, ca, ab = b.cross(c), c.cross(a), a.cross(b)
            inverse = 1.0 / a.dot(bc)
            Y = 0.5 * (X + inverse * ti.Matrix.cols([bc, ca, ab]))
            change = (Y - X).norm_sqr()
            X = Y
            if change < 1e-7:  # the error is the square of the change
                break
        return X

    @ti.func
    def signed_svd(F):
        """U, s, V as from `spectral.signed_svd`: rotations, |s| descending, the sign of det F in the last s."""
        B, V = F, ti.Matrix.identity(ti.f32, 3)
        for _ in range(12):
            turned = 0
            for p, q in ti.static(((0, 1), (0, 2), (1, 2))):
                first, second = B[:, p], B[:, q]
                alpha, beta, gamma = first.norm_sqr(), second.norm_sqr(), first.dot(second)
                if gamma * gamma > 1e-14 * alpha * beta:
                    turned = 1
                    zeta = (beta - alpha) / (2.0 * gamma)
                    t = 1.0 / (ti.abs(zeta) + ti.sqrt(1.0 + zeta * zeta))
                    t = -t if zeta < 0 else t
                    c = 1.0 / ti.sqrt(1.0 + t * t)
                    s = c * t
                    for i in ti.static(range(3)):
                        B[i, p], B[i, q] = c * B[i, p] - s * B[i, q], s * B[i, p] + c * B[i, q]
                        V[i, p], V[i, q] = c * V[i, p] - s * V[i, q], s * V[i, p] + c * V[i, q]
            if turned == 0:
                break
        for p, q in ti.static(((0, 1), (1, 2), (0, 1))):
            if B[:, p].norm_sqr() < B[:, q].norm_sqr():
                for i in ti.static(range(3)):  # flip one sign, so that V stays a rotation
                    B[i, p], B[i, q] = B[i, q], -B[i, p]
                    V[i, p], V[i, q] = V[i, q], -V[i, p]
        u0, u1 = vec3(1.0, 0.0, 0.0), vec3(0.0, 0.0, 0.0)
        length = B[:, 0].norm()
        if length > 0:
            u0 = B[:, 0] / length
        u1 = B[:, 1] - u0.dot(B[:, 1]) * u0
        across = u1.norm()
        if across > 1e-6 * length and across > 0:
            u1 = u1 / across
        else:  # flattened to a line: any perpendicular direction
            axis = vec3(1.0, 0.0, 0.0) if ti.abs(u0[0]) < 0.6 else vec3(0.0, 1.0, 0.0)
            u1 = (axis - u0.dot(axis) * u0).normalized()
        u2 = u0.cross(u1)
        s = vec3(B[:, 0].dot(u0), B[:, 1].dot(u1), B[:, 2].dot(u2))
        return ti.Matrix.cols([u0, u1, u2]), s, V

    @ti.func
    def composed(U, s, V):
        """U diag(s) V^T."""
        out = ti.Matrix.zero(ti.f32, 3, 3)
        for i, j in ti.static(ti.ndrange(3, 3)):
            out[i, j] = U[i, 0] * s[0] * V[j, 0] + U[i, 1] * s[1] * V[j, 1] + U[i, 2] * s[2] * V[j, 2]
        return out

    @ti.func
    def corotated_stress(F, R, J, mu, lam):
        stress = 2.0 * mu * (F - R) @ F.transpose()
        return 0.5 * (stress + stress.transpose()) + lam * J * (J - 1.0) * ti.Matrix.identity(ti.f32, 3)

    @ti.func
    def flow(row, h, memory, table: ti.template(), dt, laws: ti.template()):
        """Logarithmic strains and memory after plastic flow, and whether there was any."""
        law, mu = int(table[row, 0]), table[row, 1]
        new, after, flows = h, memory, 0
        if ti.static(laws & (1 << _DRUCKER_PRAGER)):
            if law == _DRUCKER_PRAGER:
                new = h + memory / 3.0
        volume = new.sum()
        shape = new - volume / 3.0
        norm = shape.norm()
        along = shape / norm if norm > 0 else vec3(0.0, 0.0, 0.0)
        if ti.static(laws & (1 << _VON_MISES)):
            if law == _VON_MISES:
                hardening = table[row, 4]
                amount = ti.max((norm - table[row, 3] - hardening * memory) / (1.0 + hardening), 0.0)
                new, after, flows = h - amount * along, memory + amount, int(amount > 0)
        if ti.static(laws & (1 << _VISCOPLASTIC)):
            if law == _VISCOPLASTIC:
                excess = ti.max(norm - ti.sqrt(2.0 / 3.0) * table[row, 3], 0.0)
                rate = 2.0 * mu * dt * ti.exp(2.0 * h).sum() / 3.0
                amount = excess * rate / (rate + table[row, 6]) if rate > 0 else 0.0
                new, flows = h - amount * along, int(amount > 0)
        if ti.static(laws & (1 << _DRUCKER_PRAGER)):
            if law == _DRUCKER_PRAGER:
                if volume >= 0:  # sand does not resist tension: it separates
                    new, after, flows = vec3(0.0, 0.0, 0.0), volume, 1
                else:
                    amount = ti.max(norm + table[row, 5] * volume, 0.0)
                    new, after, flows = new - amount * along, 0.0, int(amount > 0 or memory != 0)
        return new, after, flows

    @ti.func
    def respond(F, memory, row, table: ti.template(), dt, laws: ti.template()):
        """Elastic F and memory after plastic flow, and the Kirchhoff stress [Pa], of a trial F."""
        law, mu, lam = int(table[row, 0]), table[row, 1], table[row, 2]
        eye = ti.Matrix.identity(ti.f32, 3)
        J = F.determinant()
        elastic, after, tau = F, memory, ti.Matrix.zero(ti.f32, 3, 3)
        if ti.static(laws & (1 << _WATER)):
            if law == _WATER:
                bounded = ti.max(J, MIN_VOLUME)
                elastic = ti.exp(ti.log(bounded) / 3.0) * eye  # faster than pow
                tau = lam * bounded * (bounded - 1.0) * eye
        if ti.static(laws & (1 << _NEO_HOOKEAN)):
            if law == _NEO_HOOKEAN:
                tau = mu * (F @ F.transpose() - eye) + lam * ti.log(ti.max(J, MIN_STRETCH)) * eye
        if ti.static(laws & (1 << _COROTATED)):
            if law == _COROTATED and J > _MIN_POLAR:
                tau = corotated_stress(F, rotation(F), J, mu, lam)
        if ti.static(laws >> _COROTATED):  # those need singular values; corotated only if inverted
            if law >= _SNOW or (law == _COROTATED and not J > _MIN_POLAR):
                U, s, V = signed_svd(F)
                if law == _COROTATED:
                    tau = corotated_stress(F, U @ V.transpose(), J, mu, lam)
                elif law == _SNOW:
                    if ti.static(laws & (1 << _SNOW)):
                        clamped = tm.clamp(s, 1.0 - table[row, 7], 1.0 + table[row, 8])
                        if (clamped != s).any():
                            elastic = composed(U, clamped, V)
                        ratio = ti.max(s, 1e-2) / clamped
                        # Limits for float32: the memory of a lone particle that is torn repeatedly would grow without bound.
                        after = tm.clamp(memory * ratio[0] * ratio[1] * ratio[2], 1e-30, 1e30)
                        factor = ti.min(ti.exp(table[row, 9] * (1.0 - after)), table[row, 10])
                        volume = clamped[0] * clamped[1] * clamped[2]
                        tau = factor * corotated_stress(elastic, U @ V.transpose(), volume, mu, lam)
                else:
                    if ti.static(laws >> _HENCKY):
                        h, changed, flows = flow(row, ti.log(ti.max(s, MIN_STRETCH)), memory, table, dt, laws)
                        after = changed
                        if flows or s.min() < MIN_STRETCH:
                            elastic = composed(U, ti.exp(h), V)
                        h = ti.max(h, log_min)
                        tau = composed(U, 2.0 * mu * h + lam * h.sum(), U)
        return elastic, after, tau

    return SimpleNamespace(rotation=rotation, signed_svd=signed_svd, respond=respond)
