"""Animated meshes as obstacles: a convex solid for each joint, which moves rigidly from frame to frame."""

import itertools
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.rotation import nearest_rotation
from vision3d.io import gltf
from vision3d.io.glb import scene_up
from vision3d.scene import Clip, Mesh, SkinnedMesh
from vision3d.scene.upright import turn_to_y_up
from vision3d.stages.simulate.config import AnimatedObstacle, Boundary, Vector
from vision3d.stages.simulate.setup.obstacles import Placement, turn_between
from vision3d.stages.simulate.world.fields import mesh_field
from vision3d.stages.simulate.world.world import DistanceField

logger = logging.getLogger("vision3d.physics")

MAX_PARTS = 48
"""Maximum number of joints with a solid; the native engine takes 64 obstacles at a time."""
_SHARE = 0.3  # smallest skin weight with which a vertex belongs to the solid of a joint: solids overlap where it bends
_SHRUNK = 0.5  # relative size from which a joint counts as hidden, as in clips of hands that are not always seen


def is_animated(path: Path | str) -> bool:
    """Whether a file has a clip that moves joints."""
    if Path(path).suffix.lower() not in (".glb", ".gltf") or not Path(path).is_file() or not gltf.can_move(Path(path)):
        return False
    skin = SkinnedMesh.load(path)
    return bool(skin.clips) and _moves_joints(skin.clips[0])


@dataclass(frozen=True, eq=False)
class AnimatedSolid:
    """An animated mesh in the scene."""

    options: AnimatedObstacle
    skin: SkinnedMesh
    """In the scene's axes and units, placed."""
    clip: Clip

    @classmethod
    def load(cls, options: AnimatedObstacle) -> "AnimatedSolid":
        """Read the mesh and its clip.

        Raises:
            InputError: The file cannot be read, has no joints, or no clip of this name.
        """
        skin = SkinnedMesh.load(options.mesh)
        if not skin.clips:
            raise InputError(f"{options.mesh}: has no clip; want a mesh that moves, or a still one as a boundary of shape mesh")
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3, :3] = options.scale * quat_to_rotmat(torch.tensor(options.quat, dtype=torch.float64))
        matrix[:3, 3] = torch.tensor(options.center, dtype=torch.float64)
        if (up := scene_up(options.mesh)) is not None:
            turn = torch.eye(4, dtype=torch.float64)
            turn[:3, :3] = turn_to_y_up(up).double().T
            matrix = matrix @ turn
        skin = skin.transform(matrix.float())
        clip = skin.clip(options.clip) if options.clip else skin.clips[0]
        if not _moves_joints(clip):
            raise InputError(f"{options.mesh}: clip {clip.name} moves no joint; want a clip of joints, not of morph targets")
        return cls(options, skin, clip)

    @property
    def name(self) -> str:
        """Prefix of the names of its distance fields."""
        return f"{self.options.mesh} as an animated obstacle"

    def at(self, time: float) -> Mesh:
        """The mesh at a time of the simulation [s]."""
        vertices = self.skin.posed(self.clip, [self._in_clip(time)])[0]
        return replace(self.skin.mesh, vertices=vertices, normals=None)

    def boundaries(
        self, placement: Placement, spacing: float, times: Float64[Tensor, " t"]
    ) -> tuple[list[Boundary], dict[str, DistanceField]]:
        """A boundary for each joint and each interval between times, with the velocities from one to the other.

        Args:
            placement: Of the simulation.
            spacing: Of the grid [m].
            times: Of the frames [s].

        Raises:
            InputError: Too many joints have a solid, or none.
        """
        at = torch.tensor([self._in_clip(time) for time in times.tolist()], dtype=torch.float64)
        matrices = (self.skin.joint_matrices(self.clip, at) @ self.skin.inverse_binds).double()
        found: list[Boundary] = []
        fields: dict[str, DistanceField] = {}
        for joint, name in enumerate(self.skin.names):
            hull = _hull(self.skin, joint)
            if hull is None:
                continue
            motion = matrices[:, joint]
            sizes = torch.linalg.det(motion[:, :3, :3]).abs().pow(1 / 3)
            size, center = float(sizes.max()), hull.vertices.mean(0).double()
            try:
                own = Mesh((hull.vertices - center.float()) * size, hull.faces)
                field = mesh_field(own, placement.scale, spacing)
            except InputError:  # too thin for the lattice
                continue
            key = f"{self.name}: {name}"
            fields[key] = field
            solid = Boundary("mesh", mesh=key, kind=self.options.kind, friction=self.options.friction)
            found += _intervals(solid, motion, sizes > _SHRUNK * size, center, placement, times)
        if not fields:
            want = "want more --cells, or a larger scale of the mesh"
            raise InputError(f"{self.options.mesh}: the parts of all joints are thinner than a cell of {spacing:.3g} m; {want}")
        if len(fields) > MAX_PARTS:
            raise InputError(f"{self.options.mesh}: {len(fields)} of its joints move a solid, want at most {MAX_PARTS}")
        logger.info("%s: %d solids move with its joints", self.options.mesh, len(fields))
        return found, fields

    def _in_clip(self, time: float) -> float:
        return self.clip.start + max(time - self.options.start, 0.0)


def _moves_joints(clip: Clip) -> bool:
    return any(channel.path != "weights" for channel in clip.channels)


def _intervals(
    solid: Boundary,
    motion: Float64[Tensor, "t 4 4"],
    visible: Tensor,
    center: Float64[Tensor, " 3"],
    placement: Placement,
    times: Float64[Tensor, " t"],
) -> list[Boundary]:
    places = placement.to_metres(motion[:, :3, :3] @ center + motion[:, :3, 3])
    quats = [_four(quat) for quat in rotmat_to_quat(nearest_rotation(motion[:, :3, :3])).tolist()]
    seen, points, moments = visible.tolist(), places.tolist(), times.tolist()
    found = []
    for before, after in itertools.pairwise(range(len(moments))):
        if not (seen[before] and seen[after]):
            continue
        begin, end = moments[before], moments[after]
        velocity = _three(((places[after] - places[before]) / (end - begin)).tolist())
        spin = _three((turn_between(quats[before], quats[after]) / (end - begin)).tolist())
        pose = {"center": _three(points[before]), "quat": quats[before]}
        found.append(replace(solid, **pose, velocity=velocity, angular_velocity=spin, start=begin, end=end))  # pyright: ignore
    return found


def _hull(skin: SkinnedMesh, joint: int) -> Mesh | None:
    """The convex hull of the vertices that follow a joint, at rest; None if they are too few or flat."""
    from scipy.spatial import ConvexHull, QhullError

    rows = ((skin.weights * (skin.indices == joint)).sum(1) >= _SHARE).nonzero()[:, 0]
    points = skin.mesh.vertices[rows].detach().cpu().double().unique(dim=0)
    if len(points) < 4:
        return None
    try:
        found: Any = ConvexHull(points.numpy())
    except QhullError:
        return None
    faces = torch.from_numpy(found.simplices.astype(np.int64))
    used, faces = faces.unique(return_inverse=True)
    return Mesh(points[used].float(), _outwards(points[used], faces, torch.from_numpy(found.equations[:, :3])))


def _outwards(points: Float[Tensor, "n 3"], faces: Int64[Tensor, "f 3"], normals: Float[Tensor, "f 3"]) -> Int64[Tensor, "f 3"]:
    """Faces in the order in which they are counter-clockwise from outside."""
    a, b, c = points[faces].unbind(1)
    is_inward = (torch.linalg.cross(b - a, c - a) * normals).sum(1) < 0
    return torch.where(is_inward[:, None], faces[:, [0, 2, 1]], faces)


def _three(values: list[float]) -> Vector:
    x, y, z = values
    return x, y, z


def _four(values: list[float]) -> tuple[float, float, float, float]:
    w, x, y, z = values
    return w, x, y, z
