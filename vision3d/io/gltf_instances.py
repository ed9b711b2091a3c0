"""Copies of a mesh at one node of a glTF file: EXT_mesh_gpu_instancing."""

from typing import Any

import numpy as np
import torch

from vision3d.core.errors import FileFormatError
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.io.gltf_container import Gltf

EXTENSION = "EXT_mesh_gpu_instancing"
_FLOAT = {5126: (False,)}
_PARTS = {  # width, types, default
    "TRANSLATION": (3, _FLOAT, [0.0, 0.0, 0.0]),
    "ROTATION": (4, {**_FLOAT, 5120: (True,), 5122: (True,)}, [0.0, 0.0, 0.0, 1.0]),
    "SCALE": (3, _FLOAT, [1.0, 1.0, 1.0]),
}


def instances(gltf: Gltf, node: int) -> np.ndarray:
    """Matrices (n, 4, 4) from each copy of a node's mesh to the node; one identity without the extension.

    Raises:
        FileFormatError: It is damaged.
    """
    entry, where = gltf.item("nodes", node), f"nodes[{node}]"
    extensions = entry.get("extensions")
    found = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
    attributes: Any = found.get("attributes") if isinstance(found, dict) else {} if found is None else None
    if not isinstance(attributes, dict):
        raise FileFormatError(gltf.path, f"{EXTENSION} has no attributes", where)
    rows = {name: gltf.array(attributes[name], (_PARTS[name][0],), _PARTS[name][1]) for name in _PARTS if name in attributes}
    if not rows:
        return np.eye(4)[None]
    counts = {len(values) for values in rows.values()}
    if len(counts) > 1:
        raise FileFormatError(gltf.path, f"{EXTENSION} has attributes of {sorted(counts)} rows, want one number", where)
    count = counts.pop()
    shifts, quats, scales = (
        rows[name].astype(np.float64) if name in rows else np.tile(default, (count, 1))
        for name, (_, _, default) in _PARTS.items()
    )
    if not np.isfinite(np.concatenate([shifts, quats, scales], 1)).all() or not quats.any(1).all():
        raise FileFormatError(gltf.path, f"{EXTENSION} has values that are not finite, or rotations of length zero", where)
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, :3, :3] = quat_to_rotmat(torch.from_numpy(quats[:, [3, 0, 1, 2]])).numpy() * scales[:, None]
    matrices[:, :3, 3] = shifts
    return matrices
