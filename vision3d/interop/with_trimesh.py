"""Meshes, points and scenes of trimesh (4.4 and later). Its texture coordinates have v pointing up from the lower edge."""

from typing import Any

import numpy as np
import torch

from vision3d.core.errors import InputError
from vision3d.interop.shared import array, flipped, log_lost, require, tensor, to_bytes, wrong_type
from vision3d.io.guards import check_pixels
from vision3d.scene.mesh import Mesh
from vision3d.scene.points import PointCloud
from vision3d.scene.scene import Scene


def to_trimesh(value: Mesh | PointCloud | Scene) -> Any:
    """A `Trimesh` (nothing merged or sorted) with its texture or its colors, a `PointCloud` or a `Scene` of both.

    Colors are bytes there. If uvs are given by corner, vertices at seams are duplicated. A mesh with a texture and colors keeps
    only the texture.

    Raises:
        InputError: It is something else, or a scene with other objects than meshes and points.
        MissingDependencyError: trimesh is not installed.
    """
    trimesh = require("trimesh", "exchange with trimesh")
    if isinstance(value, Mesh):
        return _mesh_to(trimesh, value)
    if isinstance(value, PointCloud):
        log_lost("trimesh's PointCloud", value, ("normals", "intensity", "attributes"))
        colors = None if value.colors is None else to_bytes(value.colors)
        return trimesh.PointCloud(array(value.points, np.float64), colors)
    if isinstance(value, Scene):
        log_lost("trimesh's Scene", value, ("cameras",))
        result = trimesh.Scene()
        for name, item in value.objects.items():
            if not isinstance(item, Mesh | PointCloud):
                raise InputError(f"to_trimesh: {name} is a {type(item).__name__}, want meshes and points")
            matrix = value.transforms.get(name)
            place = None if matrix is None else array(matrix, np.float64)
            result.add_geometry(to_trimesh(item), node_name=name, geom_name=name, transform=place)
        return result
    raise wrong_type("to_trimesh", value, "a Mesh, a PointCloud or a Scene")


def from_trimesh(value: Any) -> Mesh | PointCloud | Scene:
    """The inverse of `to_trimesh`; each node of a scene becomes an object, even if several share a geometry.

    Raises:
        InputError: It is something else.
        MissingDependencyError: trimesh is not installed.
    """
    trimesh = require("trimesh", "exchange with trimesh")
    if isinstance(value, trimesh.Trimesh):
        return _mesh_from(value)
    if isinstance(value, trimesh.PointCloud):
        colors = np.asarray(value.colors)
        has_colors = colors.ndim == 2 and len(colors) == len(value.vertices)
        return PointCloud(tensor(value.vertices), tensor(colors[:, :3]) / 255 if has_colors else None)
    if isinstance(value, trimesh.Scene):
        scene = Scene()
        for node in value.graph.nodes_geometry:
            matrix, geometry = value.graph[node]
            item = from_trimesh(value.geometry[geometry])
            assert not isinstance(item, Scene)
            is_moved = not np.array_equal(matrix, np.eye(4))
            scene = scene.add(str(node), item, tensor(matrix) if is_moved else None)
        return scene
    raise wrong_type("from_trimesh", value, "a Trimesh, a PointCloud or a Scene of trimesh")


def _mesh_to(trimesh: Any, mesh: Mesh) -> Any:
    mesh = mesh.split_seams()
    normals = None if mesh.normals is None else array(mesh.normals, np.float64)
    result = trimesh.Trimesh(
        array(mesh.vertices, np.float64), array(mesh.faces, np.int64), vertex_normals=normals, process=False, validate=False
    )
    if mesh.texture is not None and mesh.uvs is not None:
        from PIL import Image

        log_lost("trimesh's TextureVisuals", mesh, ("vertex_colors",))
        material = trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(to_bytes(mesh.texture)), metallicFactor=0.0, roughnessFactor=1.0
        )
        result.visual = trimesh.visual.TextureVisuals(uv=flipped(array(mesh.uvs, np.float64)), material=material)
    elif mesh.vertex_colors is not None:
        log_lost("trimesh's ColorVisuals", mesh, ("uvs",))
        result.visual = trimesh.visual.ColorVisuals(result, vertex_colors=to_bytes(mesh.vertex_colors))
    elif mesh.uvs is not None:
        plain = trimesh.visual.material.PBRMaterial()  # its default has a small gray image
        result.visual = trimesh.visual.TextureVisuals(uv=flipped(array(mesh.uvs, np.float64)), material=plain)
    return result


def _mesh_from(mesh: Any) -> Mesh:
    extras: dict[str, torch.Tensor] = {}
    visual = mesh.visual
    if visual.kind == "texture" and getattr(visual, "uv", None) is not None:
        extras["uvs"] = tensor(flipped(np.asarray(visual.uv, np.float64)[:, :2]))
        material = visual.material
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        if image is not None:
            check_pixels("texture", *image.size)  # Pillow decodes it lazily
            mode = "RGBA" if image.has_transparency_data else "RGB"
            extras["texture"] = tensor(np.asarray(image.convert(mode))) / 255
    elif visual.kind == "vertex":
        colors = tensor(visual.vertex_colors) / 255
        extras["vertex_colors"] = colors[:, :3].contiguous() if bool((colors[:, 3] == 1).all()) else colors
    if "vertex_normals" in mesh._cache.cache:  # only if given: accessing the property would compute them
        extras["normals"] = tensor(mesh.vertex_normals)
    return Mesh(tensor(mesh.vertices), tensor(mesh.faces, torch.int64), **extras)
