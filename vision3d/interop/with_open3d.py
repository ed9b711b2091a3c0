"""Meshes, points, Gaussians and cameras of Open3D (0.19 and later).

Open3D's texture coordinates have v pointing up from the lower edge. Its tensor meshes keep the image unchanged, its legacy
meshes flip it; both as its own readers do. Gaussians are in the format of the shader `gaussianSplat` of 0.20: a tensor point
cloud with `rot` (wxyz), `scale` (linear), `opacity` (logit), `f_dc` and `f_rest`. Pixel centers are at +0.5 as here.
"""

from typing import Any, Literal

import numpy as np
import torch

from vision3d.core.errors import InputError
from vision3d.interop.shared import array, flipped, log_lost, plain_pinhole, require, tensor, to_bytes, wrong_type
from vision3d.io.splat_arrays import logs_of_scales
from vision3d.scene.cameras import Cameras
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.points import PointCloud

_OURS = "a Mesh, a PointCloud, a GaussianScene or Cameras"
_GAUSSIANS = ("rot", "scale", "opacity", "f_dc")
_POINT_FIELDS = {"positions", "colors", "normals", "intensity"}


def to_open3d(value: Mesh | PointCloud | GaussianScene | Cameras, *, kind: Literal["tensor", "legacy"] = "tensor") -> Any:
    """A `t.geometry.TriangleMesh` or `PointCloud`, or a list of `camera.PinholeCameraParameters`.

    Args:
        value: Float values become float32 (tensor) or float64 (legacy).
        kind: Class of meshes and points; Gaussians are always a tensor point cloud.

    Raises:
        InputError: It is something else, or cameras that are not undistorted pinhole cameras.
        MissingDependencyError: Open3D is not installed.
    """
    open3d = require("open3d", "exchange with Open3D")
    if kind not in ("tensor", "legacy"):
        raise InputError(f"to_open3d: got kind {kind!r}, want 'tensor' or 'legacy'")
    if isinstance(value, Cameras):
        return _cameras_to(open3d, plain_pinhole("to_open3d", value))
    if isinstance(value, Mesh):
        return (_mesh_to_legacy if kind == "legacy" else _mesh_to_tensor)(open3d, value)
    if isinstance(value, GaussianScene):
        return _gaussians_to(open3d, value)
    if isinstance(value, PointCloud):
        return (_points_to_legacy if kind == "legacy" else _points_to_tensor)(open3d, value)
    raise wrong_type("to_open3d", value, _OURS)


def from_open3d(value: Any) -> Mesh | PointCloud | GaussianScene | Cameras:
    """The inverse of `to_open3d`; a tensor point cloud with the attributes of Gaussians becomes a GaussianScene.

    Args:
        value: A triangle mesh or point cloud, tensor or legacy, or camera parameters, one or a list.

    Raises:
        InputError: It is something else.
        MissingDependencyError: Open3D is not installed.
    """
    open3d = require("open3d", "exchange with Open3D")
    parameters = open3d.camera.PinholeCameraParameters
    views: Any = [value] if isinstance(value, parameters) else value
    if isinstance(views, list | tuple) and views and all(isinstance(item, parameters) for item in views):
        return _cameras_from(views)
    if isinstance(value, open3d.geometry.TriangleMesh):
        return _mesh_from_legacy(value)
    if isinstance(value, open3d.geometry.PointCloud):
        return _points_from_legacy(value)
    if isinstance(value, open3d.t.geometry.TriangleMesh):
        return _mesh_from_tensor(value)
    if isinstance(value, open3d.t.geometry.PointCloud):
        return _cloud_from_tensor(value)
    raise wrong_type("from_open3d", value, "a TriangleMesh, a PointCloud or PinholeCameraParameters of Open3D")


def _cameras_to(open3d: Any, cameras: Cameras) -> list[Any]:
    found = []
    for i, K in enumerate(cameras.Ks.detach().double().cpu().tolist()):
        one = open3d.camera.PinholeCameraParameters()
        size = int(cameras.width[i]), int(cameras.height[i])
        one.intrinsic = open3d.camera.PinholeCameraIntrinsic(*size, K[0][0], K[1][1], K[0][2], K[1][2])
        one.extrinsic = array(cameras.viewmats[i], np.float64)
        found.append(one)
    return found


def _cameras_from(parameters: Any) -> Cameras:
    Ks = np.stack([one.intrinsic.intrinsic_matrix for one in parameters])
    sizes = torch.tensor([[one.intrinsic.width, one.intrinsic.height] for one in parameters])
    return Cameras(tensor(np.stack([one.extrinsic for one in parameters])), tensor(Ks), sizes[:, 0], sizes[:, 1])


def _mesh_to_legacy(open3d: Any, mesh: Mesh) -> Any:
    vector = open3d.utility.Vector3dVector
    result = open3d.geometry.TriangleMesh(
        vector(array(mesh.vertices, np.float64)), open3d.utility.Vector3iVector(array(mesh.faces, np.int32))
    )
    if mesh.normals is not None:
        result.vertex_normals = vector(array(mesh.normals, np.float64))
    if mesh.vertex_colors is not None:
        result.vertex_colors = vector(array(mesh.vertex_colors[:, :3], np.float64))
    if mesh.corner_uvs is not None:
        uvs = flipped(array(mesh.corner_uvs, np.float64)).reshape(-1, 2)
        result.triangle_uvs = open3d.utility.Vector2dVector(uvs)
        result.triangle_material_ids = open3d.utility.IntVector(np.zeros(len(mesh.faces), np.int32))
    if mesh.texture is not None:
        result.textures = [open3d.geometry.Image(np.ascontiguousarray(to_bytes(mesh.texture)[::-1]))]
    return result


def _mesh_from_legacy(mesh: Any) -> Mesh:
    images = [np.asarray(image) for image in mesh.textures]
    images = [image for image in images if image.ndim == 3]
    if len(images) > 1:
        raise InputError(f"from_open3d: the mesh has {len(images)} textures, a Mesh has one")
    uvs = None
    if mesh.has_triangle_uvs():
        uvs = tensor(flipped(np.asarray(mesh.triangle_uvs))).reshape(-1, 3, 2)
    return Mesh(
        tensor(mesh.vertices).reshape(-1, 3),
        tensor(mesh.triangles, torch.int64).reshape(-1, 3),
        uvs,
        tensor(mesh.vertex_normals) if mesh.has_vertex_normals() else None,
        tensor(images[0][::-1]) / 255 if images and uvs is not None else None,
        tensor(mesh.vertex_colors) if mesh.has_vertex_colors() else None,
    )


def _mesh_to_tensor(open3d: Any, mesh: Mesh) -> Any:
    core = open3d.core
    result = open3d.t.geometry.TriangleMesh(core.Tensor(array(mesh.vertices)), core.Tensor(array(mesh.faces, np.int64)))
    if mesh.normals is not None:
        result.vertex.normals = core.Tensor(array(mesh.normals))
    if mesh.vertex_colors is not None:
        result.vertex.colors = core.Tensor(array(mesh.vertex_colors[:, :3]))
    if mesh.corner_uvs is not None:
        result.triangle.texture_uvs = core.Tensor(flipped(array(mesh.corner_uvs)))
    if mesh.texture is not None:
        result.material.material_name = "defaultLit"
        result.material.texture_maps["albedo"] = open3d.t.geometry.Image(core.Tensor(to_bytes(mesh.texture)))
    return result


def _mesh_from_tensor(mesh: Any) -> Mesh:
    def field(group: Any, name: str) -> torch.Tensor | None:
        return tensor(group[name].cpu().numpy()) if name in group else None

    uvs = field(mesh.triangle, "texture_uvs")
    if uvs is None:
        uvs = field(mesh.vertex, "texture_uvs")
    if uvs is not None:
        uvs = torch.from_numpy(flipped(uvs.numpy()))
    texture = None
    if uvs is not None and mesh.has_valid_material() and "albedo" in mesh.material.texture_maps:
        values = mesh.material.texture_maps["albedo"].as_tensor().cpu().numpy()
        texture = _unit(values)
    colors = mesh.vertex["colors"].cpu().numpy() if "colors" in mesh.vertex else None
    faces = tensor(mesh.triangle["indices"].cpu().numpy(), torch.int64)
    vertices = tensor(mesh.vertex["positions"].cpu().numpy())
    return Mesh(vertices, faces, uvs, field(mesh.vertex, "normals"), texture, None if colors is None else _unit(colors))


def _points_to_legacy(open3d: Any, cloud: PointCloud) -> Any:
    log_lost("Open3D's legacy PointCloud", cloud, ("intensity", "attributes"))
    vector = open3d.utility.Vector3dVector
    result = open3d.geometry.PointCloud(vector(array(cloud.points, np.float64)))
    if cloud.colors is not None:
        result.colors = vector(array(cloud.colors, np.float64))
    if cloud.normals is not None:
        result.normals = vector(array(cloud.normals, np.float64))
    return result


def _points_from_legacy(cloud: Any) -> PointCloud:
    colors = tensor(cloud.colors) if cloud.has_colors() else None
    return PointCloud(tensor(cloud.points).reshape(-1, 3), colors, tensor(cloud.normals) if cloud.has_normals() else None)


def _points_to_tensor(open3d: Any, cloud: PointCloud) -> Any:
    core = open3d.core
    result = open3d.t.geometry.PointCloud(core.Tensor(array(cloud.points)))
    for name in ("colors", "normals"):
        if getattr(cloud, name) is not None:
            result.point[name] = core.Tensor(array(getattr(cloud, name)))
    columns = {} if cloud.intensity is None else {"intensity": cloud.intensity}
    for name, values in {**columns, **cloud.attributes}.items():
        result.point[name] = core.Tensor(array(values[:, None], np.float32 if values.is_floating_point() else np.int64))
    return result


def _gaussians_to(open3d: Any, scene: GaussianScene) -> Any:
    core = open3d.core
    log_lost(
        "Open3D's PointCloud", scene, ("antialiased", "labels") if scene.mode == "3dgs" else ("mode", "antialiased", "labels")
    )
    result = open3d.t.geometry.PointCloud(core.Tensor(array(scene.means)))
    result.point["rot"] = core.Tensor(array(scene.quats))
    result.point["scale"] = core.Tensor(array(scene.scales))
    result.point["opacity"] = core.Tensor(array(scene.opacity_logits[:, None]))
    result.point["f_dc"] = core.Tensor(array(scene.sh[:, 0]))
    if scene.sh.shape[1] > 1:
        result.point["f_rest"] = core.Tensor(array(scene.sh[:, 1:]))
    return result


def _cloud_from_tensor(cloud: Any) -> PointCloud | GaussianScene:
    point = {name: cloud.point[name].cpu().numpy() for name in cloud.point}
    points = tensor(point["positions"]).reshape(-1, 3)
    if all(name in point for name in _GAUSSIANS):
        count = len(points)
        rest = point.get("f_rest", np.empty((count, 0, 3), np.float32)).reshape(count, -1, 3)
        sh = np.concatenate([point["f_dc"].reshape(count, 1, 3), rest], 1)
        logs = logs_of_scales(point["scale"].reshape(count, 3))
        return GaussianScene(
            points, tensor(point["rot"]), torch.from_numpy(logs), tensor(point["opacity"]).reshape(-1), tensor(sh)
        )
    attributes = {}
    for name, values in point.items():
        if name not in _POINT_FIELDS and values.size == len(points):
            attributes[name] = tensor(values.reshape(-1), torch.float32 if values.dtype.kind == "f" else torch.int64)
    return PointCloud(
        points,
        _unit(point["colors"]) if "colors" in point else None,
        tensor(point["normals"]) if "normals" in point else None,
        tensor(point["intensity"]).reshape(-1) if "intensity" in point else None,
        attributes,
    )


def _unit(values: np.ndarray) -> torch.Tensor:
    """Colors in [0, 1] from bytes, 16-bit integers, or floats."""
    return tensor(values) / (np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1)
