"""Every function of the geometry package that takes rotations or parameters of rotations, with batched inputs.

General properties (NaN in, NaN out; tangents; outputs that do not share memory) are tested over this table.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from vision3d.geometry import (
    charts,
    conventions,
    covariance,
    dual_quaternion as dual,
    euler,
    gram_schmidt,
    interpolation,
    kinematics,
    means,
    procrustes,
    quaternion,
    registration,
    representations,
    rotation,
    se3,
    skinning,
    spectral,
    spherical_harmonics as sph,
)
from vision3d.geometry.groups import linear, planar, se3 as se3_group, sim3, so2, so3, son, spd


def numbers(*shape: int) -> Callable[[int], Tensor]:
    return lambda rows: torch.randn(rows, *shape, dtype=torch.float64)


def positive(*shape: int) -> Callable[[int], Tensor]:
    return lambda rows: 0.5 + torch.rand(rows, *shape, dtype=torch.float64)


def turns(*shape: int, n: int = 3) -> Callable[[int], Tensor]:
    return lambda rows: gram_schmidt.haar_rotmats(n, rows, *shape, dtype=torch.float64)


def skews(n: int) -> Callable[[int], Tensor]:
    return lambda rows: (lambda m: (m - m.mT) / 4)(torch.randn(rows, n, n, dtype=torch.float64))


def symmetric(n: int) -> Callable[[int], Tensor]:
    return lambda rows: (lambda m: (m + m.mT) / 2)(torch.randn(rows, n, n, dtype=torch.float64))


def spds(n: int) -> Callable[[int], Tensor]:
    return lambda rows: spd.exp(symmetric(n)(rows) / 2)


def linears(n: int) -> Callable[[int], Tensor]:
    return lambda rows: spds(n)(rows) @ turns(n=n)(rows)


def motions(rows: int) -> Tensor:
    return se3.exp(torch.randn(rows, 6, dtype=torch.float64))


def similarities(rows: int) -> Tensor:
    return sim3.exp(torch.randn(rows, 7, dtype=torch.float64) / 2)


@dataclasses.dataclass(frozen=True)
class Case:
    """A function and generators of its inputs, which take the number of rows."""

    function: Callable[..., Tensor | tuple[Tensor, ...]]
    makers: tuple[Callable[[int], Tensor], ...]
    unread: tuple[int, ...] = ()
    """Unused entries of square input matrices, such as the last row of a motion."""
    endless: bool = False
    """Whether infinity represents a rotation here, or a bound."""

    def inputs(self, rows: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        return [make(rows).to(dtype) for make in self.makers]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = self.function(*inputs)
        return found if isinstance(found, tuple) else (found,)


LAST_ROW = (12, 13, 14, 15)
BOUNDED = ("axis_angle4", "gibbs", "cayley", "hopf", "mrp")  # infinite parameters have a rotation as their limit


def _case(function, *makers, **facts) -> tuple[str, Case]:
    name = f"{function.__module__.removeprefix('vision3d.geometry.')}.{function.__name__}"
    return name, Case(function, makers, **facts)


def _with(name: str, function, *makers, **facts) -> tuple[str, Case]:
    return name, Case(function, makers, **facts)


def _cases() -> dict[str, Case]:
    R, q, q4, v3, M = turns(), numbers(4), numbers(4, 4), numbers(3), numbers(3, 3)
    half = positive()
    T, S = motions, similarities
    last = {"unread": LAST_ROW}
    found = [
        *(
            _with(f"to_rotmat {name}", maps.to_rotmat, numbers(maps.dimension), endless=name in BOUNDED)
            for name, maps in representations.REPRESENTATIONS.items()
        ),
        *(_with(f"from_rotmat {name}", maps.from_rotmat, R) for name, maps in representations.REPRESENTATIONS.items()),
        _with("to_rotmat projected", lambda v: representations.to_rotmat(v, "9d_direct", project=True), numbers(9)),
        _with("from_rotmat projected", lambda m: representations.from_rotmat(m, "quat", project=True), M),
        _case(rotation.hat, v3), _case(rotation.vee, M, unread=(0, 4, 8)), _case(rotation.so3_exp, v3),
        _case(rotation.so3_log, R),
        _case(rotation.rotvec_to_quat, v3), _case(rotation.quat_to_rotvec, q), _case(rotation.geodesic_distance, R, R),
        _case(rotation.from_6d, numbers(6)), _case(rotation.to_6d, R), _case(rotation.nearest_rotation, M),
        _case(quaternion.quat_to_rotmat, q), _case(quaternion.normalize, q), _case(quaternion.conjugate, q),
        _case(quaternion.multiply, q, q), _case(quaternion.rotate, q, v3), _case(quaternion.rotmat_to_quat, R),
        _case(quaternion.positive_w, q), _case(quaternion.wxyz_to_xyzw, q), _case(quaternion.xyzw_to_wxyz, q),
        _case(rotation.rotvec_to_rotmat, v3), _case(rotation.rotmat_to_rotvec, R),
        _with("quaternion.slerp long", lambda a, b, f: quaternion.slerp(a, b, f, shortest=False), q, q, half),
        _case(quaternion.slerp, q, q, half),
        *(_with(f"special_orthogonal {n}", procrustes.special_orthogonal, numbers(n, n)) for n in (2, 3, 4)),
        *(_with(f"singular_values {n}", procrustes.singular_values, numbers(n, n)) for n in (2, 3, 4)),
        *(_with(f"orthogonal {n}", procrustes.orthogonal, numbers(n, n)) for n in (2, 3, 4)),
        *(_with(f"gram_schmidt {n}", gram_schmidt.gram_schmidt, numbers(n, n - 1)) for n in (2, 3, 4)),
        _case(gram_schmidt.generalized_cross, numbers(4, 3)),
        _with("from_columns", lambda v: gram_schmidt.from_columns(v, 4), numbers(12)),
        _case(gram_schmidt.to_columns, turns(n=4)),
        _with("from_stereographic", lambda v: gram_schmidt.from_stereographic(v, 4), numbers(10)),
        _case(gram_schmidt.to_stereographic, turns(n=4)),
        _with(
            "orthogonal_from_columns", lambda v, s: gram_schmidt.orthogonal_from_columns(v, s, 3), numbers(6), half,
            endless=True,
        ),
        _case(gram_schmidt.similarity_from_columns, numbers(6), v3),
        _case(gram_schmidt.similarity_to_columns, S, **last),
        _case(means.chordal_distance, R, R), _case(means.chordal_mean, turns(4), positive(4)),
        _with("chordal_mean of equals", means.chordal_mean, turns(4)),
        _with("chordal_mean in four dimensions", means.chordal_mean, turns(5, n=4)),
        _with("karcher_mean", lambda r, w: means.karcher_mean(r, w, steps=3), turns(4), positive(4)),
        _case(means.quaternion_mean, q4, positive(4)),
        _case(registration.kabsch, numbers(6, 3), numbers(6, 3), positive(6)),
        _with("kabsch in the plane", registration.kabsch, numbers(6, 2), numbers(6, 2)),
        _case(registration.umeyama, numbers(6, 3), numbers(6, 3), positive(6)),
        _case(interpolation.so3_interpolate, R, R, half),
        _with("se3_interpolate", lambda a, b: interpolation.se3_interpolate(a, b, 0.3), T, T, **last),
        _with("sim3_interpolate", lambda a, b: interpolation.sim3_interpolate(a, b, 0.3), S, S, **last),
        _case(interpolation.align_signs, q4), _case(interpolation.squad_controls, q4),
        _case(interpolation.squad, q4, lambda rows: torch.linspace(0.1, 2.9, 5).double().expand(rows, 5).clone(), endless=True),
        _case(dual.from_quat_translation, q, v3), _case(dual.from_se3, T, **last), _case(dual.to_se3, numbers(8)),
        _case(dual.translation, numbers(8)), _case(dual.multiply, numbers(8), numbers(8)),
        _case(dual.quaternion_conjugate, numbers(8)), _case(dual.dual_conjugate, numbers(8)),
        _case(dual.full_conjugate, numbers(8)), _case(dual.normalize, numbers(8)),
        _case(dual.transform_points, numbers(8), v3), _case(dual.blend, numbers(4, 8), positive(4)),
        _with("sclerp", lambda a, b: dual.sclerp(a, b, 0.3), numbers(8), numbers(8)),
        _with("euler_to_quat", lambda a: euler.euler_to_quat(a, "XYZ"), v3),
        _with("euler_to_rotmat", lambda a: euler.euler_to_rotmat(a, "zyz"), v3),
        _with("quat_to_euler", lambda q: euler.quat_to_euler(q, "ZYX"), q),
        _with("rotmat_to_euler", lambda r: euler.rotmat_to_euler(r, "xyx"), R),
        _case(charts.axis_angle4_to_quat, q, endless=True), _case(charts.quat_to_axis_angle4, q),
        _case(charts.rodrigues_rc_to_quat, v3), _case(charts.quat_to_rodrigues_rc, q),
        _case(charts.gibbs_to_quat, v3, endless=True), _case(charts.quat_to_gibbs, q), _case(charts.cayley, skews(4)),
        _case(charts.cayley_vector, v3), _case(charts.mrp_to_quat, v3, endless=True), _case(charts.quat_to_mrp, q),
        _case(charts.hopf_to_quat, v3, endless=True), _case(charts.quat_to_hopf, q),
        _case(charts.symmetric10_to_quat, numbers(10)), _case(charts.quat_to_symmetric10, q),
        _case(charts.pairs_to_angles, numbers(6)), _case(charts.angles_to_pairs, v3), _case(charts.half_sphere, q),
        _case(charts.quat_angle, q),
        _case(conventions.rows_to_columns, R), _case(conventions.columns_to_rows, R),
        _with("change_axes", lambda r: conventions.change_axes(r, torch.eye(3)[[0, 2, 1]].to(r)), R),
        _case(covariance.quat_scale_to_covar, q, positive(3)),
        _case(covariance.quat_scale_to_precision, q, positive(3), endless=True),
        _case(covariance.covar_to_quat_scale, spds(3)), _case(covariance.symmetric_to_vec6, spds(3), unread=(3, 6, 7)),
        _case(covariance.vec6_to_symmetric, numbers(6)),
        _case(se3.from_rotation_translation, R, v3), _case(se3.exp, numbers(6)), _case(se3.log, T, **last),
        _case(se3.inverse, T, **last), _case(se3.compose, T, T), _case(se3.transform_points, T, numbers(5, 3), **last),
        _case(se3.adjoint, T, **last), _case(se3.similarity, half, R, v3), _case(se3.split_similarity, S),
        _case(se3.similarity_inverse, S),
        _case(so2.exp, numbers()), _case(so2.log, turns(n=2)), _case(so2.from_vector, numbers(2)),
        _case(so2.to_vector, turns(n=2)), _case(so2.hat, numbers()), _case(so3.adjoint, R),
        _case(so3.left_jacobian, v3), _case(so3.left_jacobian_inverse, v3), _case(so3.right_jacobian, v3),
        _case(so3.right_jacobian_inverse, v3),
        *(_with(f"son.exp {n}", son.exp, skews(n), unread=tuple(range(0, n * n, n + 1))) for n in (2, 3, 4)),
        *(_with(f"son.log {n}", son.log, turns(n=n)) for n in (2, 3, 4)),
        *(
            _with(f"{module.__name__.rpartition('.')[2]}.{name}", getattr(module, name), numbers(size))
            for module, size in ((se3_group, 6), (sim3, 7))
            for name in ("ad", "left_jacobian", "left_jacobian_inverse", "right_jacobian", "right_jacobian_inverse")
        ),
        _case(sim3.exp, numbers(7), endless=True),
        _case(sim3.log, S, **last), _case(sim3.inverse, S, **last), _case(sim3.adjoint, S, **last),
        *(_with(f"linear.exp {n}", linear.exp, numbers(n, n)) for n in (2, 3)),
        *(_with(f"linear.polar {n}", linear.polar, linears(n)) for n in (2, 3)),
        *(_with(f"linear.log {n}", linear.log, linears(n)) for n in (2, 3, 4)),
        _with("linear.from_log", lambda y: linear.from_log(y, (y - y.flip(-1).mT) / 4), symmetric(3)),
        _case(linear.inverse, linears(3)), _case(linear.adjoint, linears(3)),
        _case(linear.coordinates, linears(3)),
        _with("linear.from_coordinates", lambda v: linear.from_coordinates(v, 3), numbers(9)),
        *(_with(f"spd.exp {n}", spd.exp, symmetric(n)) for n in (2, 3)),
        *(_with(f"spd.log {n}", spd.log, spds(n)) for n in (2, 3)),
        *(_with(f"spd.sqrt {n}", spd.sqrt, spds(n)) for n in (2, 3)),
        *(_with(f"spd.inverse_sqrt {n}", spd.inverse_sqrt, spds(n)) for n in (2, 3)),
        *(_with(f"spd.geodesic_distance {n}", spd.geodesic_distance, spds(n), spds(n)) for n in (2, 3)),
        _case(planar.polar2, linears(2)), _case(planar.from_polar2, symmetric(2), numbers()),
        _case(planar.inverse_from_polar2, symmetric(2), numbers()),
        _case(planar.sym2_to_coordinates, symmetric(2), unread=(2,)),
        _case(planar.coordinates_to_sym2, numbers(3)),
        _case(spectral.lyapunov, spds(3), numbers(3, 3)), _case(spectral.pseudo_solve, spds(3), numbers(3)),
        _case(spectral.least_eigenvector, symmetric(4)), _case(spectral.sqrt_spd, spds(3)), _case(spectral.log_spd, spds(3)),
        _case(spectral.matrix_exp, numbers(3, 3)), _case(spectral.exp_symmetric, symmetric(3)),
        _with("forward_kinematics", lambda r, o: kinematics.forward_kinematics(r, o, [-1, 0, 1]), turns(3), numbers(3, 3)),
        _case(skinning.blend_rotations, q4, positive(4)),
        _with("sh_basis", lambda d: sph.sh_basis(d, 2)[..., 1:], v3),
        _with("sh_rotation", lambda r: sph.sh_rotation(r, 2), R), _case(sph.rotate_sh, numbers(9, 3), R),
    ]  # fmt: skip
    return dict(found)


CASES = _cases()
EXEMPT = {
    "random": {"quaternion.random_quats", "gram_schmidt.haar_rotmats", "groups.haar.sample_group"},
    "no tensors": {"representations.dimension", "representations.representation", "groups.linear.dimension"},
    "of angles alone": {"means.haar_angle_density"},
    "the same function under another name": {"rotation.rotvec_to_rotmat", "rotation.rotmat_to_rotvec"},
    "by name, tested for every name": {"representations.to_rotmat", "representations.from_rotmat"},
    "parts of other tested functions": {"spectral.largest_entry", "spectral.without_dust", "spectral.svd"},
    "constant": {"groups.so2.adjoint"},
}
MODULES = (
    rotation, quaternion, procrustes, gram_schmidt, means, registration, interpolation, dual, euler, charts, conventions,
    covariance, se3, representations, spectral, so2, so3, son, se3_group, sim3, linear, spd, planar,
)  # fmt: skip
