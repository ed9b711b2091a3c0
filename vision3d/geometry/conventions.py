"""Conversions between conventions of other libraries and ours; docs/conventions.md lists ours."""

from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.geometry.cameras import opencv_to_opengl, opengl_to_opencv
from vision3d.geometry.quaternion import wxyz_to_xyzw, xyzw_to_wxyz

__all__ = [
    "change_axes",
    "columns_to_rows",
    "opencv_to_opengl",
    "opengl_to_opencv",
    "rows_to_columns",
    "wxyz_to_xyzw",
    "xyzw_to_wxyz",
]


def rows_to_columns(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Convert matrices that act on row vectors from the right (x' = x M, as in PyTorch3D) to ours, which act on columns."""
    return matrices.mT.clone()


def columns_to_rows(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Convert our matrices to matrices that act on row vectors from the right."""
    return matrices.mT.clone()


def change_axes(matrices: Float[Tensor, "*batch n n"], axes: Float[Tensor, "3 3"]) -> Float[Tensor, "*batch n n"]:
    """Rotations (3x3) or rigid motions (4x4) in other axes: C M C^T, where row i of C is new axis i in the old axes.

    C may contain a reflection, as between left- and right-handed worlds; a rotation still stays a rotation.
    """
    if tuple(matrices.shape[-2:]) not in ((3, 3), (4, 4)):
        raise ShapeError("matrices", matrices.shape, "(..., 3, 3) or (..., 4, 4)")
    if matrices.shape[-1] == 4:
        whole = matrices.new_zeros(4, 4)
        whole[:3, :3], whole[3, 3] = axes, 1
        axes = whole
    return axes @ matrices @ axes.mT
