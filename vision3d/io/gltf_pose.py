"""Skinning of glTF meshes and their rest pose: sections 3.7.2.2 (morphs) and 3.7.3 (skins) of glTF 2.0.

A skinned mesh is placed by its joints only, its own node is ignored; morph weights also apply in the rest pose.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from vision3d.core.errors import FileFormatError
from vision3d.io.gltf_container import Gltf
from vision3d.io.gltf_instances import instances

FLOAT = {5126: (False,)}
_JOINTS = {5121: (False,), 5123: (False,)}
_WEIGHTS = {5126: (False,), 5121: (True,), 5123: (True,)}
_UNIT = 1e-6  # lengths and sums of float32 numbers that are 1 up to rounding
_ROUNDING = 1e-3  # negative weights up to this are zero


@dataclass(frozen=True, eq=False)
class RestPose:
    """Transforms that bring the mesh of a node to its rest pose."""

    gltf: Gltf
    matrix: np.ndarray
    """From the node to the world (4, 4); ignored if there are joints."""
    joints: np.ndarray | None
    """From the bind pose to the world in the rest pose, (J, 4, 4)."""
    morph_weights: list[float]

    @classmethod
    def of(cls, gltf: Gltf, node: int, worlds: dict[int, np.ndarray]) -> "list[RestPose]":
        """The rest pose of a node of the scene, one for each copy of its mesh.

        Args:
            gltf: The file.
            node: Its index.
            worlds: Matrices from the nodes of the scene to the world.

        Raises:
            FileFormatError: Its skin or its weights are damaged.
        """
        entry, joints = gltf.item("nodes", node), None
        if "skin" in entry:
            nodes, binds = inverse_binds(gltf, entry["skin"])
            check_joints(gltf, entry["skin"], nodes, worlds)
            joints = np.array([worlds[joint] @ bind for joint, bind in zip(nodes, binds)])
        number = gltf.whole(entry, "mesh", f"nodes[{node}]")
        counts = {len(targets(gltf, primitive, number)) for primitive in gltf.primitives(number)}
        weights = rest_weights(gltf, entry, number, counts.pop(), f"nodes[{node}]") if len(counts) == 1 else []
        return [cls(gltf, worlds[node] @ copy, joints, weights) for copy in instances(gltf, node)]

    def applied(
        self, primitive: dict[str, Any], number: int, vertices: np.ndarray, normals: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None, bool]:
        """Vertices and normals of a primitive of mesh `number` in the rest pose, and whether they are mirrored."""
        for weight, target in zip(self.morph_weights, targets(self.gltf, primitive, number)):
            if weight and "POSITION" in target:
                vertices = vertices + weight * added(self.gltf, target, "POSITION", 3, len(vertices), number)
            if weight and "NORMAL" in target and normals is not None:
                normals = normals + weight * added(self.gltf, target, "NORMAL", 3, len(vertices), number)
        matrices = self.matrix
        if self.joints is not None:
            places, weights, _ = influences(self.gltf, primitive, len(self.joints), len(vertices))
            matrices = np.zeros((len(vertices), 4, 4))
            for place, weight in zip(places.T, weights.T):
                matrices += weight[:, None, None] * self.joints[place]
        elif np.array_equal(matrices, np.eye(4)):
            return vertices.astype(np.float32), None if normals is None else _unit(normals, any(self.morph_weights)), False
        linear = matrices[..., :3, :3]
        vertices = (np.einsum("...ij,...j->...i", linear, vertices) + matrices[..., :3, 3]).astype(np.float32)
        if normals is not None:
            # Cofactors transform normals, also for matrices that flatten.
            columns = [np.cross(linear[..., :, (i + 1) % 3], linear[..., :, (i + 2) % 3]) for i in range(3)]
            cofactors = np.stack(columns, -1) * np.sign(np.linalg.det(linear))[..., None, None]
            normals = _unit(np.einsum("...ij,...j->...i", cofactors, normals), True)
        return vertices, normals, bool(np.median(np.linalg.det(linear)) < 0) if linear.size else False


def unit(quats: Float64[Tensor, "*n 4"]) -> Float64[Tensor, "*n 4"]:
    """Quaternions of unit length; those that have it in float32 are unchanged, so that a file read and written is the same."""
    lengths = torch.linalg.vector_norm(quats, dim=-1, keepdim=True)
    return torch.where((lengths - 1).abs() < _UNIT, quats, quats / lengths)


def summing_to_one(weights: np.ndarray) -> np.ndarray:
    """Rows of weights (float64) with the sum 1; those that have it in float32 are unchanged, as in `unit`."""
    sums = weights.sum(1, keepdims=True)
    return np.where(np.abs(sums - 1) < _UNIT, weights, weights / sums)


def _unit(normals: np.ndarray, is_changed: bool) -> np.ndarray:
    if is_changed:
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = normals / np.where(lengths > 0, lengths, 1)
    return normals.astype(np.float32)


def inverse_binds(gltf: Gltf, number: Any) -> tuple[list[Any], np.ndarray]:
    """The nodes that are the joints of a skin, and its inverse bind matrices (J, 4, 4), float64.

    Raises:
        FileFormatError: No joints, or fewer matrices.
    """
    where, skin = f"skins[{number}]", gltf.item("skins", number)
    nodes = skin.get("joints")
    if not isinstance(nodes, list) or not nodes:
        raise FileFormatError(gltf.path, "has no joints", where)
    binds = np.tile(np.eye(4), (len(nodes), 1, 1))
    if "inverseBindMatrices" in skin:
        rows = gltf.array(skin["inverseBindMatrices"], (16,), FLOAT).astype(np.float64)
        binds = rows.reshape(-1, 4, 4).transpose(0, 2, 1)
    if len(binds) < len(nodes):
        raise FileFormatError(gltf.path, f"has {len(binds)} inverse bind matrices for {len(nodes)} joints", where)
    return nodes, binds[: len(nodes)]


def check_joints(gltf: Gltf, number: Any, nodes: list[Any], known: dict[int, Any]) -> None:
    """Raise a FileFormatError if a joint is not among the nodes of the scene."""
    missing = [node for node in nodes if type(node) is not int or node not in known]
    if missing:
        text = f"names nodes[{str(missing[0])[:40]}] as a joint, which is not in the scene"
        raise FileFormatError(gltf.path, text, f"skins[{number}]")


def influences(gltf: Gltf, primitive: dict[str, Any], num_joints: int, count: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Joint indices within the skin and weights of each vertex (count, K), and the number of weights that did not sum to 1.

    Raises:
        FileFormatError: They are missing or damaged.
    """
    attributes, found = primitive["attributes"], []
    while f"JOINTS_{len(found)}" in attributes and f"WEIGHTS_{len(found)}" in attributes:
        n = len(found)
        pair = (
            gltf.array(attributes[f"JOINTS_{n}"], (4,), _JOINTS),
            gltf.array(attributes[f"WEIGHTS_{n}"], (4,), _WEIGHTS),
        )
        if any(len(part) != count for part in pair):
            text = f"a primitive has {count} vertices, but others in JOINTS_{n} or WEIGHTS_{n}"
            raise FileFormatError(gltf.path, text, "meshes")
        found.append(pair)
    if not found:
        raise FileFormatError(gltf.path, "a mesh with a skin has no JOINTS_0 and WEIGHTS_0", "meshes")
    places = np.concatenate([pair[0] for pair in found], 1).astype(np.int64)
    weights = np.concatenate([pair[1] for pair in found], 1).astype(np.float64)
    if not np.isfinite(weights).all():
        bad = int((~np.isfinite(weights)).any(1).argmax())
        raise FileFormatError(gltf.path, f"weights of vertex {bad} are not finite", "WEIGHTS_0")
    if count and weights.min() < -_ROUNDING:
        bad = int(weights.min(1).argmin())
        raise FileFormatError(gltf.path, f"a weight of vertex {bad} is {weights[bad].min():.3g}, want >= 0", "WEIGHTS_0")
    weights = np.maximum(weights, 0)
    places = np.where(weights > 0, places, 0)
    if count and places.max() >= num_joints:
        bad = int((places >= num_joints).any(1).argmax())
        text = f"vertex {bad} names joint {places[bad].max()}, but its skin has {num_joints}"
        raise FileFormatError(gltf.path, text, "JOINTS_0")
    sums = weights.sum(1)
    if count and sums.min() <= 0:
        raise FileFormatError(gltf.path, f"vertex {int(sums.argmin())} has no positive weight", "WEIGHTS_0")
    used = max(1, int(np.flatnonzero((weights > 0).any(0)).max(initial=0)) + 1)
    return places[:, :used], summing_to_one(weights)[:, :used], int((np.abs(sums - 1) > 0.01).sum())


def targets(gltf: Gltf, primitive: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """The morph targets of a primitive of mesh `number`."""
    found = primitive.get("targets", [])
    if not isinstance(found, list) or not all(isinstance(target, dict) for target in found):
        raise FileFormatError(gltf.path, "targets is not a list of objects", f"meshes[{number}]")
    return found


def added(gltf: Gltf, values: dict[str, Any], name: str, width: int, count: int, number: int) -> np.ndarray:
    """The rows that a morph target adds, or an attribute of our own: one row per vertex."""
    rows = gltf.array(values[name], (width,), FLOAT)
    if len(rows) != count:
        raise FileFormatError(gltf.path, f"{len(rows)} rows of {name} for {count} vertices", f"meshes[{number}]")
    return rows


def rest_weights(gltf: Gltf, node: dict[str, Any], number: int, count: int, where: str) -> list[float]:
    """Morph weights of a node's mesh in the rest pose: its own, else those of the mesh."""
    weights = node.get("weights", gltf.item("meshes", number).get("weights", [0.0] * count))
    if not isinstance(weights, list) or len(weights) != count:
        raise FileFormatError(gltf.path, f"weights is not a list of {count} numbers", where)
    if not all(type(weight) in (int, float) and abs(weight) < 1e30 for weight in weights):
        raise FileFormatError(gltf.path, "weights contains values that are not finite numbers", where)
    return [float(weight) for weight in weights]
