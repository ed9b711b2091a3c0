"""Skins, morph targets and clips as glTF 2.0: one mesh at node 0, joint j at node j + 1, morphs as targets of the mesh.

If every face follows a single joint, as wheels do, the file has no skin: joint j is node j with its part of the mesh, and the
clips animate these nodes, which programs without skins show as well.

`SkinnedMesh.etas` is the attribute _ETA of the mesh and, with the offsets of morphs, of its targets; glTF viewers ignore it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision3d.core.errors import InputError
from vision3d.geometry.mesh import vertex_normals
from vision3d.io import glb
from vision3d.io.gltf_builder import Builder
from vision3d.io.gltf_material import MATTE, Material
from vision3d.io.gltf_pose import summing_to_one, unit
from vision3d.scene.clip import Clip
from vision3d.scene.mesh import Mesh
from vision3d.scene.skin import SkinnedMesh


def write_skin(path: Path | str, skin: SkinnedMesh, material: Material = MATTE) -> None:
    """Write a mesh with its joints, morph targets and clips atomically.

    Args:
        path: A .glb, or a .gltf.
        skin: The mesh.
        material: Metallic factor and roughness factor, of the mesh or of the texels at its uvs.

    Raises:
        InputError: It is empty, has invalid values, or a clip begins before 0.
    """
    built(skin, material).write(path)


def built(skin: SkinnedMesh, material: Material = MATTE) -> Builder:
    """The builder used by `write_skin`, to which more can be added; the mesh is node 0."""
    skin = _with_uvs_by_vertex(skin.validate())
    joints = _rigid_joints(skin)
    if joints is not None:
        return _with_clips(_built_of_parts(skin, joints, material), skin, first=0)
    builder = glb.built(skin.mesh, material)
    node, mesh = builder.content["nodes"][0], builder.content["meshes"][0]
    if len(skin):
        _add_joints(builder, skin, mesh["primitives"][0]["attributes"], node)
    if skin.etas is not None:
        mesh["primitives"][0]["attributes"]["_ETA"] = builder.array(_numbers(skin.etas))
    if skin.morphs is not None and skin.num_morphs:
        mesh["primitives"][0]["targets"] = [_target(builder, skin, i) for i in range(skin.num_morphs)]
        mesh["weights"] = [0.0] * skin.num_morphs if skin.rest_weights is None else skin.rest_weights.tolist()
        names = skin.morph_names or tuple(f"morph_{i}" for i in range(skin.num_morphs))
        mesh["extras"] = {"targetNames": list(names)}
    return _with_clips(builder, skin, first=1)


def _with_clips(builder: Builder, skin: SkinnedMesh, first: int) -> Builder:
    """The builder with the clips; joint j is node `first` + j."""
    inputs: dict[bytes, int] = {}
    for clip in skin.clips:
        _add_clip(builder, clip, inputs, first)
    if skin.clips and skin.fps is not None:
        builder.extras["fps"] = skin.fps
    return builder


def _rigid_joints(skin: SkinnedMesh) -> torch.Tensor | None:
    """The joint of each vertex (V,), if the vertices of every face follow one joint and nothing else; else None."""
    if not len(skin) or skin.num_morphs or skin.etas is not None:
        return None
    most, columns = skin.weights.max(1)
    joints = skin.indices.gather(1, columns[:, None])[:, 0]
    is_rigid = bool((most > 1 - 1e-6).all()) and bool((joints[skin.mesh.faces] == joints[skin.mesh.faces[:, :1]]).all())
    # Inverse binds that mirror or flatten would change the faces or normals of a part.
    return joints if is_rigid and bool((torch.linalg.det(skin.inverse_binds[:, :3, :3].double()) > 1e-12).all()) else None


def _built_of_parts(skin: SkinnedMesh, joints: torch.Tensor, factors: Material) -> Builder:
    """Joint j is node j, with the part of the mesh that follows it in the joint's frame."""
    mesh = skin.mesh
    binds = skin.inverse_binds.double()[joints]
    local = (binds[:, :3, :3] @ mesh.vertices.double()[..., None])[..., 0] + binds[:, :3, 3]
    normals = None
    if mesh.normals is not None:
        normals = torch.linalg.solve(binds[:, :3, :3].mT, mesh.normals.double())
        normals = torch.nn.functional.normalize(normals, dim=-1).to(mesh.normals)
    mesh = replace(mesh, vertices=local.to(mesh.vertices), normals=normals)
    builder = Builder()
    for joint, entry in enumerate(_joint_nodes(skin, first=0)):
        of_faces = joints[mesh.faces[:, 0]] == joint
        if of_faces.any():
            primitive = glb.primitive_of(builder, mesh.crop(of_faces))
            material = 0 if "materials" in builder.content else glb.material_of(builder, mesh, factors)
            primitive["material"] = material
            entry["mesh"] = builder.append("meshes", {"name": skin.names[joint], "primitives": [primitive]})
        builder.append("nodes", entry)
    builder.append("scenes", {"nodes": [joint for joint, parent in enumerate(skin.parents) if parent < 0]})
    return builder


def _joint_nodes(skin: SkinnedMesh, first: int) -> list[dict[str, Any]]:
    """The node of each joint; joint j is node `first` + j."""
    quats = skin.quats.detach().cpu().double()
    quats = unit(quats).roll(-1, -1).tolist()
    shifts, scales = skin.translations.detach().cpu().tolist(), skin.scales.detach().cpu().tolist()
    nodes = []
    for joint, name in enumerate(skin.names):
        entry: dict[str, Any] = {"name": name, "translation": shifts[joint], "rotation": quats[joint], "scale": scales[joint]}
        below = [child + first for child, parent in enumerate(skin.parents) if parent == joint]
        nodes.append({**entry, "children": below} if below else entry)
    return nodes


def _with_uvs_by_vertex(skin: SkinnedMesh) -> SkinnedMesh:
    """The same skin with vertices at seams duplicated, as glTF requires."""
    mesh = skin.mesh
    if mesh.uvs is None or mesh.uvs.ndim == 2:
        return skin
    if skin.morphs is not None and skin.morph_normals is None and mesh.normals is not None:
        # Before the split, since faces at a seam no longer share the vertices whose normals they define together.
        skin = replace(skin, morph_normals=torch.stack([_turned(mesh, morph) for morph in skin.morphs]))
    split, source = mesh.split_seams_with_rows()
    parts = {name: getattr(skin, name)[source] for name in ("indices", "weights", "etas") if getattr(skin, name) is not None}
    for name in ("morphs", "morph_normals", "morph_etas"):
        if getattr(skin, name) is not None:
            parts[name] = getattr(skin, name)[:, source]
    return replace(skin, mesh=split, **parts)


def _add_joints(builder: Builder, skin: SkinnedMesh, attributes: dict[str, int], node: dict[str, Any]) -> None:
    """Joint j becomes node j + 1."""
    if len(skin) > 65535:
        raise InputError(f"{len(skin)} joints, a .glb holds at most 65535")
    weights = summing_to_one(skin.weights.detach().cpu().double().clamp(min=0).numpy())
    indices = np.where(weights.astype(np.float32) > 0, skin.indices.cpu().numpy(), 0).astype(np.uint16)
    extra = (0, -weights.shape[1] % 4)
    weights, indices = (np.pad(values, ((0, 0), extra)) for values in (weights.astype(np.float32), indices))
    for n in range(weights.shape[1] // 4):
        attributes[f"JOINTS_{n}"] = builder.array(np.ascontiguousarray(indices[:, 4 * n : 4 * n + 4]))
        attributes[f"WEIGHTS_{n}"] = builder.array(np.ascontiguousarray(weights[:, 4 * n : 4 * n + 4]))
    for entry in _joint_nodes(skin, first=1):
        builder.append("nodes", entry)
    roots = [joint + 1 for joint, parent in enumerate(skin.parents) if parent < 0]
    if len(roots) > 1:  # the joints of a skin need a common root
        roots = [builder.append("nodes", {"name": "root", "children": roots})]
    builder.content["scenes"][0]["nodes"] += roots
    binds = skin.inverse_binds.detach().cpu().double().clone()
    binds[:, 3] = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)
    columns = builder.array(_numbers(binds.mT.reshape(-1, 16)), is_vertex=False)
    joints = [joint + 1 for joint in range(len(skin))]
    node["skin"] = builder.append("skins", {"joints": joints, "inverseBindMatrices": columns})


def _target(builder: Builder, skin: SkinnedMesh, index: int) -> dict[str, int]:
    """Offsets of a morph for positions, and for normals if the mesh has them."""
    assert skin.morphs is not None
    morph = skin.morphs[index]
    target = {"POSITION": builder.array(_numbers(morph))}
    if skin.mesh.normals is not None:
        turned = _turned(skin.mesh, morph) if skin.morph_normals is None else skin.morph_normals[index]
        target["NORMAL"] = builder.array(_numbers(turned))
    if skin.etas is not None and skin.morph_etas is not None:
        target["_ETA"] = builder.array(_numbers(skin.morph_etas[index]))
    return target


def _turned(mesh: Mesh, morph: torch.Tensor) -> torch.Tensor:
    """Offsets of the normals of a mesh whose vertices move by a morph."""
    rest, faces = mesh.vertices, mesh.faces
    return vertex_normals(rest + morph.to(rest), faces) - vertex_normals(rest, faces)


def _add_clip(builder: Builder, clip: Clip, inputs: dict[bytes, int], first: int) -> None:
    if not clip.channels:
        return
    if clip.start < 0:
        raise InputError(f"clip {clip.name} begins at {clip.start:.4g} s; glTF wants times from 0 on")
    animation: dict[str, Any] = {"name": clip.name, "channels": [], "samplers": []}
    for channel in clip.channels:
        times = channel.times.cpu().numpy().astype(np.float32)
        if len(times) > 1 and np.diff(times).min() <= 0:
            raise InputError(f"clip {clip.name} has keys closer together than float32 can represent; resample it")
        key = times.tobytes()
        if key not in inputs:
            inputs[key] = builder.array(times, is_vertex=False)
        values = channel.values.detach().cpu().double()
        if channel.path == "rotation":
            values = values.roll(-1, -1)
            if channel.interpolation != "CUBICSPLINE":
                values = unit(values)
        flat = values.reshape(-1) if channel.path == "weights" else values.reshape(-1, values.shape[-1])
        output = builder.array(_numbers(flat), is_vertex=False)
        animation["samplers"].append({"input": inputs[key], "output": output, "interpolation": channel.interpolation})
        target = {"node": channel.joint + first, "path": channel.path}  # node 0 has the morphs, whose joint is -1
        animation["channels"].append({"sampler": len(animation["samplers"]) - 1, "target": target})
    builder.append("animations", animation)


def _numbers(values: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().cpu().to(torch.float32).numpy())
