"""From other people's conventions to this library's and back; docs/conventions.md has the list of ours."""

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
    """Matrices that act on row vectors from the right (x' = x M, as in PyTorch3D), as ours, which act on columns."""
    return matrices.mT.clone()


def columns_to_rows(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Our matrices as those that act on row vectors from the right."""
    return matrices.mT.clone()


def change_axes(matrices: Float[Tensor, "*batch n n"], axes: Float[Tensor, "3 3"]) -> Float[Tensor, "*batch n n"]:
    """Rotations (3x3) or motions (4x4) written in other axes: C M C^T, where row i of C is new axis i in the old axes.

    C may mirror, as between left- and right-handed worlds; the result of a rotation is a rotation all the same.
    """
    if tuple(matrices.shape[-2:]) not in ((3, 3), (4, 4)):
        raise ShapeError("matrices", matrices.shape, "(..., 3, 3) or (..., 4, 4)")
    if matrices.shape[-1] == 4:
        whole = matrices.new_zeros(4, 4)
        whole[:3, :3], whole[3, 3] = axes, 1
        axes = whole
    return axes @ matrices @ axes.mT
