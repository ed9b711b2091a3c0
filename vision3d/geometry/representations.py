"""All representations of rotations by name: numbers to matrices and back.

docs/rotations.md helps to choose one. A representation is continuous if its `from_rotmat` is; none with fewer than five
numbers can be (Zhou et al. 2019).
"""

import dataclasses
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ConfigError, nearest_names
from vision3d.geometry import charts, euler, gram_schmidt, rotation
from vision3d.geometry.checks import check_rotmats, check_trailing
from vision3d.geometry.quaternion import positive_w, quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.vectors import nan_for_nan


@dataclasses.dataclass(frozen=True)
class Representation:
    """A pair of maps between numbers and rotation matrices."""

    name: str
    dimension: int
    to_rotmat: Callable[[Tensor], Tensor]
    from_rotmat: Callable[[Tensor], Tensor]
    is_continuous: bool
    """Whether `from_rotmat` is continuous over all rotations."""
    misses_half_turns: bool = False
    """Whether 180 degrees is at infinity: `from_rotmat` gives very large numbers there, or raises an error with `check`."""
    is_rotation: bool = True
    """Whether `to_rotmat` gives a rotation for any numbers."""


def to_rotmat(values: Float[Tensor, "*batch d"], rep: str, project: bool = False) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of numbers in the representation `rep`: one of `REPRESENTATIONS`.

    Finite, and a rotation, for any finite numbers (also zeros and parallel vectors), with finite gradients; NaN for NaN, and
    for infinities unless these have a limit (`axis_angle4`, `gibbs`, `cayley`, `mrp`, `hopf`). Only `9d_direct` returns the
    unprojected matrix. The result shares no memory with `values`.

    Args:
        project: Replace the result by the nearest rotation, as `9d_direct` does at test time.

    Raises:
        ConfigError: The representation is unknown.
        ShapeError: The last axis does not have the representation's `dimension`.

    Example:
        >>> import torch
        >>> to_rotmat(torch.tensor([0.0, 2, 0, -3, 0, 0]), "6d") @ torch.tensor([1.0, 2, 3])
        tensor([-2.,  1.,  3.])
    """
    found = representation(rep)
    check_trailing("values", values, found.dimension)
    rotmats = found.to_rotmat(values)
    return rotation.nearest_rotation(rotmats) if project else rotmats


def from_rotmat(
    rotmats: Float[Tensor, "*batch 3 3"], rep: str, check: bool = False, project: bool = False
) -> Float[Tensor, "*batch d"]:
    """Numbers of rotation matrices, inverse to `to_rotmat`: a new tensor, NaN where the matrix is not
    finite.

    Args:
        check: Raise an error for matrices that are not rotations, and for rotations by 180 degrees if the representation has
            none (`gibbs`, `cayley`). This reads the values, so leave it off under torch.compile and vmap.
        project: Use the nearest rotations of the matrices.

    Raises:
        ConfigError: The representation is unknown.
        InputError: A matrix is not a rotation or is not representable (180 degrees), and `check` is set.
    """
    found = representation(rep)
    check_trailing("rotmats", rotmats, 3, 3)
    if project:
        rotmats = rotation.nearest_rotation(rotmats)
    elif check:
        check_rotmats("rotmats", rotmats)
    if check and found.misses_half_turns:
        charts.quat_to_gibbs(rotmat_to_quat(rotmats), check=True)
    return found.from_rotmat(rotmats)


def dimension(rep: str) -> int:
    """Number of values of the representation.

    Example:
        >>> dimension("9d_svd")
        9
    """
    return representation(rep).dimension


def representation(rep: str) -> Representation:
    """The maps of a representation.

    Raises:
        ConfigError: The representation is unknown; the message suggests similar names.
    """
    if rep not in REPRESENTATIONS:
        raise ConfigError("rep", f"{rep!r} is not a representation of a rotation; {nearest_names(rep, REPRESENTATIONS, 8)}")
    return REPRESENTATIONS[rep]


def _nine(values: Tensor) -> Tensor:
    return values.clone().unflatten(-1, (3, 3))


def _to_nine(rotmats: Tensor) -> Tensor:
    return rotmats.clone().flatten(-2)


def _nine_by_columns(values: Tensor) -> Tensor:
    rotmats = rotation.from_6d(values.unflatten(-1, (3, 3)).mT[..., :2, :].flatten(-2))
    return nan_for_nan(rotmats, values, 1, 2)


def _by_quat(
    name: str, dimension: int, to_quat: Callable[[Tensor], Tensor], from_quat: Callable[[Tensor], Tensor], **facts: bool
) -> Representation:
    return Representation(
        name,
        dimension,
        lambda values: quat_to_rotmat(to_quat(values)),
        lambda rotmats: from_quat(rotmat_to_quat(rotmats)),
        **{"is_continuous": False, **facts},
    )


def _six(name: str, layout: rotation.Layout6d) -> Representation:
    return Representation(
        name, 6, lambda v: rotation.from_6d(v, layout), lambda r: rotation.to_6d(r, layout), is_continuous=True
    )


def _euler(name: str, order: str) -> Representation:
    return _by_quat(name, 3, lambda v: euler.euler_to_quat(v, order), lambda q: euler.quat_to_euler(q, order))


def _same(values: Tensor) -> Tensor:
    return values


# Zhou et al.'s code stores the angles (x, y, z) of the product Rx Rz Ry.
def _from_xyz(values: Tensor) -> Tensor:
    return euler.euler_to_quat(values[..., (0, 2, 1)], "XZY")


def _to_xyz(quats: Tensor) -> Tensor:
    return euler.quat_to_euler(quats, "XZY")[..., (0, 2, 1)]


def _all() -> list[Representation]:
    return [
        _six("6d", "columns"),
        _six("6d_columns", "columns"),
        _six("6d_interleaved", "columns_interleaved"),
        _six("6d_rows", "rows"),
        _six("6d_symmetric", "symmetric"),
        Representation(
            "5d", 5, lambda v: gram_schmidt.from_stereographic(v, 3), gram_schmidt.to_stereographic, is_continuous=True
        ),
        Representation("9d_svd", 9, lambda v: rotation.nearest_rotation(v.unflatten(-1, (3, 3))), _to_nine, is_continuous=True),
        Representation("9d_gs", 9, _nine_by_columns, _to_nine, is_continuous=True),
        Representation("9d_direct", 9, _nine, _to_nine, is_continuous=True, is_rotation=False),
        _by_quat("quat", 4, _same, _same),
        _by_quat("quat_half", 4, charts.half_sphere, positive_w),
        _by_quat("10d", 10, charts.symmetric10_to_quat, charts.quat_to_symmetric10, is_continuous=True),
        _by_quat("axis_angle4", 4, charts.axis_angle4_to_quat, charts.quat_to_axis_angle4),
        Representation("rotvec", 3, rotation.so3_exp, rotation.so3_log, is_continuous=False),
        _by_quat("rodrigues_rc", 3, charts.rodrigues_rc_to_quat, charts.quat_to_rodrigues_rc),
        _by_quat("gibbs", 3, charts.gibbs_to_quat, charts.quat_to_gibbs, misses_half_turns=True),
        _by_quat("cayley", 3, charts.gibbs_to_quat, charts.quat_to_gibbs, misses_half_turns=True),
        _by_quat("mrp", 3, charts.mrp_to_quat, charts.quat_to_mrp),
        _by_quat("hopf", 3, charts.hopf_to_quat, charts.quat_to_hopf),
        _by_quat("euler", 3, _from_xyz, _to_xyz),
        _by_quat(
            "euler_sin_cos",
            6,
            lambda v: _from_xyz(charts.pairs_to_angles(v)),
            lambda q: charts.angles_to_pairs(_to_xyz(q)),
        ),
        *(_euler(f"euler_{order}", order) for order in euler.EULER_ORDERS),
    ]


REPRESENTATIONS: dict[str, Representation] = {found.name: found for found in _all()}
MISSES_HALF_TURNS = tuple(name for name, found in REPRESENTATIONS.items() if found.misses_half_turns)
