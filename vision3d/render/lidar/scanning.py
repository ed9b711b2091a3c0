"""Scan any scene of meshes with a LiDAR."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.render.lidar.casting import Instance, Shape, cast
from vision3d.render.lidar.materials import NAMES
from vision3d.render.lidar.returns import Errors, measure, random_phase, see_through
from vision3d.render.lidar.sensor import Sensor
from vision3d.scene.mesh import Mesh
from vision3d.scene.points import PointCloud
from vision3d.scene.scene import Scene


def scan(
    scene: Scene | Mesh,
    sensor: Sensor,
    pose: Float[Tensor, "4 4"] | None = None,
    *,
    time: float = 0.0,
    errors: Errors | None = None,
    seed: int = 0,
) -> PointCloud:
    """The points that a LiDAR sees of the meshes of a scene, in the frame of the sensor (x forward, y left, z up).

    Args:
        scene: Its meshes, skins and sequences of meshes; other objects are invisible. The albedo of a mesh is the mean of its
            vertex colors or texture in linear light, 0.5 if it has neither.
        sensor: Beams and noise.
        pose: Sensor to world; the identity if None.
        time: Time of moving objects [s].
        errors: None: no lost pulses, but the limits of range and reach of the sensor.
        seed: Of the noise.

    Returns:
        Points with intensity and the attributes `object` (index among the meshes in the order of the scene, -1 for rain) and
        `beam` (0 is the top beam), int64.

    Raises:
        InputError: The scene has no meshes with faces, or the pose is singular or not finite.
        MissingDependencyError: embreex is not installed.
    """
    scene = (Scene().add("mesh", scene) if isinstance(scene, Mesh) else scene).at(time)
    matrix = torch.eye(4, dtype=torch.float64) if pose is None else pose.detach().cpu().double()
    if tuple(matrix.shape) != (4, 4) or not bool(torch.isfinite(matrix).all()) or float(torch.linalg.det(matrix)) == 0:
        raise InputError("scan: the pose is singular or not finite, want an invertible (4, 4) matrix")
    to_sensor = torch.linalg.inv(matrix)
    instances = []
    for name, mesh in scene.of_type(Mesh).items():
        if not len(mesh.faces):
            continue
        shape = Shape.of(mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy())
        own = scene.transforms[name].detach().cpu().double() if name in scene.transforms else torch.eye(4, dtype=torch.float64)
        instances.append(Instance(shape, (to_sensor @ own).numpy(), np.full(len(NAMES), _albedo(mesh), np.float32)))
    if not instances:
        raise InputError("scan: the scene has no meshes with faces")
    rng = np.random.default_rng(seed)
    errors = errors or Errors(dropout=0.0)
    phase = random_phase(sensor, rng)
    true = sensor.directions(phase, sensor.angle_noise * rng.standard_normal(sensor.num_beams))
    hits = cast(instances, true, sensor.beam_origins, max_range=sensor.max_range)
    see_through(sensor, instances, true, hits, rng)
    found = measure(sensor, sensor.directions(phase), hits, instances, errors, rng)
    attributes = {"object": torch.from_numpy(found.instance), "beam": torch.from_numpy(found.beam)}
    return PointCloud(torch.from_numpy(found.points), intensity=torch.from_numpy(found.intensity), attributes=attributes)


def _albedo(mesh: Mesh) -> float:
    colors = mesh.vertex_colors if mesh.vertex_colors is not None else mesh.texture
    if colors is None:
        return 0.5
    return float(colors.detach()[..., :3].float().clamp(0, 1).pow(2.2).mean())
