"""The axis of a scene that points up, and meshes turned so that it becomes y, as in glTF."""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.paths import mean_up
from vision3d.scene.cameras import Cameras
from vision3d.scene.mesh import Mesh

Axis = Literal["x", "-x", "y", "-y", "z", "-z"]

# Columns are the images of x, y and z; the one of the axis that points up is y.
_TURNS: dict[str, list[list[float]]] = {
    "x": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    "-x": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
    "y": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "-y": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "z": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "-z": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
}


def up_of(cameras: Cameras | None) -> Axis:
    """The axis of the world nearest to what is up in the mean of the images; y without cameras."""
    if cameras is None or not len(cameras):
        return "y"
    up = mean_up(cameras.camtoworlds.cpu())
    axis = int(up.abs().argmax())
    names: tuple[tuple[Axis, Axis], ...] = (("x", "-x"), ("y", "-y"), ("z", "-z"))
    return names[axis][int(up[axis] < 0)]


def turn_to_y_up(up: Axis) -> Float[Tensor, "3 3"]:
    """The rotation by quarter turns that takes `up` to y."""
    return torch.tensor(_TURNS[up], dtype=torch.float32)


def to_y_up(mesh: Mesh, up: Axis) -> Mesh:
    """The mesh turned by quarter turns so that `up` points along y."""
    return _turned(mesh, turn_to_y_up(up))


def from_y_up(mesh: Mesh, up: Axis) -> Mesh:
    """The mesh before `to_y_up`."""
    return _turned(mesh, turn_to_y_up(up).T)


def _turned(mesh: Mesh, turn: Tensor) -> Mesh:
    normals = None if mesh.normals is None else mesh.normals @ turn.T.to(mesh.normals)
    return replace(mesh, vertices=mesh.vertices @ turn.T.to(mesh.vertices), normals=normals)
