"""Up axis of a scene, and rotation of meshes to y-up, as in glTF.

`up_by_convention` is the rule for files without cameras; view, render and animate use it.
"""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.paths import mean_up
from vision3d.scene.boxes import Boxes
from vision3d.scene.cameras import Cameras
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.mesh_gaussians import MeshGaussians
from vision3d.scene.points import PointCloud
from vision3d.scene.scene import Scene
from vision3d.scene.sequence import FrameSequence
from vision3d.scene.skin import SkinnedMesh
from vision3d.scene.triplane import Triplane

Axis = Literal["x", "-x", "y", "-y", "z", "-z"]

Z_UP_MESHES = (".stl", ".ply", ".3mf")
"""Formats of meshes with z up by convention; others have y up."""

# Columns are the images of x, y and z; that of the up axis is y.
_TURNS: dict[str, list[list[float]]] = {
    "x": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    "-x": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
    "y": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "-y": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "z": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "-z": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
}


def up_of(cameras: Cameras | None) -> Axis:
    """The world axis closest to the mean up direction of the images; y without cameras."""
    if cameras is None or not len(cameras):
        return "y"
    return nearest_axis(mean_up(cameras.camtoworlds.cpu()))


def up_by_convention(value: object, suffix: str = "") -> Axis:
    """The up axis of something without cameras, by what it is and the format of its file.

    Gaussians -y in every format, since a .ply has the axes of COLMAP and other formats are read as that; boxes and LiDAR points
    z; meshes of .ply and .stl, from scanners and CAD, z; other meshes, Gaussians on them and motion capture y, as in glTF; a
    triplane that of its cube.

    Args:
        value: One of the types of `vision3d.scene`; of a `Scene`, its boxes count first, then meshes, points and Gaussians.
        suffix: Suffix of its file.
    """
    if isinstance(value, Scene):
        found = sorted(value.objects.values(), key=_rank)
        return up_by_convention(found[0]) if found else "z"
    if isinstance(value, FrameSequence):
        value = value.base
    suffix = suffix.lower()
    if isinstance(value, Boxes) or (isinstance(value, PointCloud) and suffix != ".bvh"):
        return "z"
    if isinstance(value, Triplane):
        return nearest_axis(value.matrix[:3, 2])
    if isinstance(value, GaussianScene) and suffix != ".safetensors":
        return "-y"
    return "z" if isinstance(value, Mesh) and suffix in Z_UP_MESHES else "y"


def nearest_axis(up: Float[Tensor, "3"]) -> Axis:
    """The axis closest to a direction."""
    axis = int(up.abs().argmax())
    names: tuple[tuple[Axis, Axis], ...] = (("x", "-x"), ("y", "-y"), ("z", "-z"))
    return names[axis][int(up[axis] < 0)]


def _rank(value: object) -> int:
    value = value.base if isinstance(value, FrameSequence) else value
    kinds = (Boxes, (Mesh, SkinnedMesh, MeshGaussians), PointCloud, GaussianScene)
    return next((rank for rank, kind in enumerate(kinds) if isinstance(value, kind)), len(kinds))


def axis_vector(axis: Axis) -> Float[Tensor, "3"]:
    """The unit vector of an axis."""
    return turn_to_y_up(axis)[1]


def turn_to_y_up(up: Axis) -> Float[Tensor, "3 3"]:
    """The rotation by multiples of 90 degrees that maps `up` to y."""
    return torch.tensor(_TURNS[up], dtype=torch.float32)


def to_y_up(mesh: Mesh, up: Axis) -> Mesh:
    """The mesh rotated by multiples of 90 degrees so that `up` becomes y."""
    return _turned(mesh, turn_to_y_up(up))


def from_y_up(mesh: Mesh, up: Axis) -> Mesh:
    """The inverse of `to_y_up`."""
    return _turned(mesh, turn_to_y_up(up).T)


def _turned(mesh: Mesh, turn: Tensor) -> Mesh:
    normals = None if mesh.normals is None else mesh.normals @ turn.T.to(mesh.normals)
    return replace(mesh, vertices=mesh.vertices @ turn.T.to(mesh.vertices), normals=normals)
