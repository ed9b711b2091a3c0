"""Up axis of a scene, and rotation of meshes to y-up, as in glTF."""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.paths import mean_up
from vision3d.scene.cameras import Cameras
from vision3d.scene.mesh import Mesh

Axis = Literal["x", "-x", "y", "-y", "z", "-z"]

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
    up = mean_up(cameras.camtoworlds.cpu())
    axis = int(up.abs().argmax())
    names: tuple[tuple[Axis, Axis], ...] = (("x", "-x"), ("y", "-y"), ("z", "-z"))
    return names[axis][int(up[axis] < 0)]


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
