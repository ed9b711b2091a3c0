"""A scene as one glTF file: meshes, skins, Gaussians, points, cameras, and one animation that contains all motion."""

import copy
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision3d.core.errors import InputError
from vision3d.geometry.cameras import opencv_to_opengl
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.io import glb, gltf_gaussians, gltf_skin_writer
from vision3d.io.gltf_builder import Builder
from vision3d.scene.cameras import Cameras
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.mesh_gaussians import MeshGaussians
from vision3d.scene.points import PointCloud
from vision3d.scene.scene import Scene
from vision3d.scene.sequence import FrameSequence
from vision3d.scene.skin import SkinnedMesh
from vision3d.scene.upright import Axis, turn_to_y_up, up_by_convention, up_of

logger = logging.getLogger("vision3d")

PLAYED = "scene"
"""Name of the animation in which everything moves at once: first clips of skins, sequences of meshes, cameras."""
_NEAR = 0.01  # near plane of cameras [m]
_LISTS = ("accessors", "bufferViews", "images", "samplers", "textures", "materials", "meshes", "nodes", "skins", "cameras")


def write_scene(path: Path | str, scene: Scene, scene_up: Axis | None = None) -> None:
    """Write a .glb or .gltf atomically with all objects that glTF supports; a warning lists the others.

    Meshes and skins are written with their clips, sequences of meshes as morph targets, Gaussians by KHR_gaussian_splatting,
    points as points, cameras as nodes; a single camera with `times`, or several cameras of the same name, are animated. glTF
    cannot animate frames of Gaussians: their first frame is written.

    Args:
        path: The file.
        scene: Each object becomes a node of its name with its transform.
        scene_up: Up axis of the scene; it becomes y. None: up in the images of its cameras, else by `up_by_convention`.

    Raises:
        InputError: It has no objects that glTF supports, or a value is invalid.
    """
    scene.validate()
    whole, lost = Builder({"scene": 0, "scenes": [{"nodes": []}]}), []
    has_cameras = scene.cameras is not None and len(scene.cameras) > 0
    up: Axis = scene_up or (up_of(scene.cameras) if has_cameras else up_by_convention(scene))
    turn = torch.eye(4)
    turn[:3, :3] = turn_to_y_up(up)
    roots = []
    for name, value in scene.objects.items():
        matrix = scene.transforms[name].cpu() if name in scene.transforms else torch.eye(4)
        part = _part(name, value, lost)
        if part is None:
            continue
        if gltf_gaussians.EXTENSION in part.content.get("extensionsUsed", ()):
            matrix = matrix @ torch.diag(torch.tensor([*map(float, gltf_gaussians.AXES), 1.0]))  # files have them rotated
        roots.append(_placed(whole, _merged(whole, part), name, matrix))
    if not roots:
        raise InputError(f"{path}: the scene has nothing that glTF can hold; want meshes, skins, Gaussians or points")
    if scene.cameras is not None and len(scene.cameras):
        roots += _add_cameras(whole, scene.cameras, lost)
    whole.content["scenes"][0]["nodes"] = [_placed(whole, roots, "world", turn)]
    _play_together(whole)
    if lost:
        logger.warning("%s: %s", path, "; ".join(lost))
    whole.write(path)


def _part(name: str, value: Any, lost: list[str]) -> Builder | None:
    """An object as a separate glTF."""
    if isinstance(value, FrameSequence):
        base = value.base.mesh if isinstance(value.base, MeshGaussians) else value.base
        if isinstance(base, Mesh) and "vertices" in value.channels:
            frames = torch.stack([value.channels["vertices"][i] for i in range(len(value))])
            times = value.times.double() - min(0.0, float(value.times[0]))
            return gltf_skin_writer.built(SkinnedMesh.from_frames(base, frames, times, PLAYED))
        lost.append(f"frames of {type(value.base).__name__} do not move in glTF, {name} is as in its first frame")
        value = value.frame(0)
    if isinstance(value, MeshGaussians):
        value = value.to_gaussians()
    if isinstance(value, SkinnedMesh):
        return gltf_skin_writer.built(value)
    if isinstance(value, Mesh):
        return glb.built(value)
    if isinstance(value, GaussianScene):
        return gltf_gaussians.built(value, name)
    if isinstance(value, PointCloud):
        return _points(value)
    lost.append(f"glTF does not hold {type(value).__name__}, {name} is left out")
    return None


def _points(cloud: PointCloud) -> Builder:
    builder = Builder()
    attributes = {"POSITION": builder.array(cloud.points.detach().cpu().float().numpy())}
    if cloud.colors is not None:
        colors = glb.srgb_to_linear(cloud.colors.detach().cpu().clamp(0, 1).numpy())
        attributes["COLOR_0"] = builder.array(
            np.pad(np.round(colors * 255).astype(np.uint8), ((0, 0), (0, 1)), constant_values=255)
        )
    builder.append("meshes", {"primitives": [{"mode": 0, "attributes": attributes}]})
    builder.append("nodes", {"mesh": 0})
    builder.append("scenes", {"nodes": [0]})
    return builder


def _merged(whole: Builder, part: Builder) -> list[int]:
    """Append the contents of a part with shifted indices; returns its root nodes."""
    at = {kind: len(whole.content.get(kind, ())) for kind in _LISTS}
    whole.binary += bytes(-len(whole.binary) % 4)
    start = len(whole.binary)
    whole.binary += part.binary
    content = copy.deepcopy(part.content)

    def raised(entry: dict[str, Any], **kinds: str) -> None:
        for key, kind in kinds.items():
            if key in entry:
                found = entry[key]
                entry[key] = [i + at[kind] for i in found] if isinstance(found, list) else found + at[kind]

    for view in content.get("bufferViews", ()):
        view["byteOffset"] += start
    for accessor in content.get("accessors", ()):
        raised(accessor, bufferView="bufferViews")
    for image in content.get("images", ()):
        raised(image, bufferView="bufferViews")
    for texture in content.get("textures", ()):
        raised(texture, source="images", sampler="samplers")
    for material in content.get("materials", ()):
        for name in ("baseColorTexture", "metallicRoughnessTexture"):
            raised(material.get("pbrMetallicRoughness", {}).get(name, {}), index="textures")
    for primitive in (primitive for mesh in content.get("meshes", ()) for primitive in mesh["primitives"]):
        raised(primitive, indices="accessors", material="materials")
        for attributes in (primitive["attributes"], *primitive.get("targets", ())):
            raised(attributes, **dict.fromkeys(attributes, "accessors"))
    for node in content.get("nodes", ()):
        raised(node, mesh="meshes", skin="skins", children="nodes")
    for skin in content.get("skins", ()):
        raised(skin, joints="nodes", inverseBindMatrices="accessors")
    for animation in content.get("animations", ()):
        for sampler in animation["samplers"]:
            raised(sampler, input="accessors", output="accessors")
        for channel in animation["channels"]:
            raised(channel["target"], node="nodes")
    if content.get("animations"):
        content["animations"][0]["name"] = PLAYED  # the first clip
    for kind in (*_LISTS, "animations"):
        for entry in content.get(kind, ()):
            whole.append(kind, entry)
    if used := {*whole.content.get("extensionsUsed", ()), *content.get("extensionsUsed", ())}:
        whole.content["extensionsUsed"] = sorted(used)
    return [node + at["nodes"] for node in content["scenes"][0]["nodes"]]


def _placed(whole: Builder, children: list[int], name: str, matrix: torch.Tensor) -> int:
    node: dict[str, Any] = {"name": name, "children": children}
    if not torch.equal(matrix, torch.eye(4).to(matrix)):
        node["matrix"] = matrix.double().T.reshape(-1).tolist()  # column by column
    return whole.append("nodes", node)


def _add_cameras(whole: Builder, cameras: Cameras, lost: list[str]) -> list[int]:
    """A node per camera, or a single animated one if `times` are given."""
    cameras = cameras.to("cpu")
    if cameras.model != "pinhole" or cameras.distortion is not None:
        lost.append("glTF has no lenses but plain ones: distortion and fisheye of cameras are dropped")
    poses = opencv_to_opengl(cameras.camtoworlds.double())
    names = cameras.names or tuple(f"camera_{i}" for i in range(len(cameras)))
    times = cameras.times
    is_moving = times is not None and len(times) > 1 and bool((times.diff() > 0).all())
    nodes = []
    for i in range(1 if is_moving else len(cameras)):
        K, width, height = cameras.Ks[i].double(), float(cameras.width.reshape(-1)[i]), float(cameras.height.reshape(-1)[i])
        perspective = {"yfov": 2 * math.atan(height / (2 * float(K[1, 1]))), "znear": _NEAR}
        perspective["aspectRatio"] = width * float(K[1, 1]) / (height * float(K[0, 0]))
        camera = whole.append("cameras", {"type": "perspective", "perspective": perspective})
        quat = rotmat_to_quat(poses[i, :3, :3]).roll(-1).tolist()
        entry = {"name": "camera" if is_moving else names[i], "camera": camera, "rotation": quat}
        nodes.append(whole.append("nodes", {**entry, "translation": poses[i, :3, 3].tolist()}))
    if is_moving and times is not None:
        keys = whole.array((times - min(0.0, float(times[0]))).float().numpy(), is_vertex=False)
        quats = rotmat_to_quat(poses[:, :3, :3])
        signs = ((quats[1:] * quats[:-1]).sum(-1) < 0).cumsum(0) % 2 * -2 + 1  # the shorter path from key to key
        quats[1:] *= signs[:, None]
        animation: dict[str, Any] = {"name": PLAYED, "samplers": [], "channels": []}
        for target, values in (("rotation", quats.roll(-1, -1)), ("translation", poses[:, :3, 3])):
            output = whole.array(values.float().contiguous().numpy(), is_vertex=False)
            animation["samplers"].append({"input": keys, "output": output, "interpolation": "LINEAR"})
            sampler = len(animation["samplers"]) - 1
            animation["channels"].append({"sampler": sampler, "target": {"node": nodes[0], "path": target}})
        whole.append("animations", animation)
    return nodes


def _play_together(whole: Builder) -> None:
    """Merge all animations named PLAYED into one: viewers play one at a time."""
    found: list[dict[str, Any]] = []
    played: dict[str, Any] = {"name": PLAYED, "samplers": [], "channels": []}
    for animation in whole.content.pop("animations", ()):
        if animation["name"] != PLAYED:
            found.append(animation)
            continue
        for channel in animation["channels"]:
            played["channels"].append({**channel, "sampler": channel["sampler"] + len(played["samplers"])})
        played["samplers"] += animation["samplers"]
    if played["channels"]:
        found.insert(0, played)
    if found:
        whole.content["animations"] = found
