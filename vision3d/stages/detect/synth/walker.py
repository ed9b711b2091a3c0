"""People made of the bundled rigged pedestrian: poses of its walk, with clothes and bags."""

import functools
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from vision3d.render.lidar.materials import INDEX
from vision3d.scene.skin import SkinnedMesh
from vision3d.stages.detect.synth.parts import Part, box, ellipsoid, tube

_PHASES = 24
_WEAR = {
    "head": "skin",
    "neck": "skin",
    "hand": "skin",
    "foot": "shoes",
    "pelvis": "trousers",
    "hip": "trousers",
    "knee": "trousers",
}
"""Joint without its side -> material; cloth for others."""
_HEIGHT = 1.735
"""Of the mesh at rest [m]."""


@dataclass(frozen=True, eq=False)
class _Poses:
    vertices: np.ndarray
    """(poses, V, 3) x forward, y left, z up [m]; the first is at rest."""
    faces: np.ndarray
    materials: np.ndarray
    """(F,) uint8."""
    joints: np.ndarray
    """(F,) joint that moves each face most."""
    names: tuple[str, ...]


@functools.cache
def _poses() -> _Poses:
    skin = SkinnedMesh.load(Path(str(files("vision3d") / "assets" / "pedestrian" / "pedestrian.glb")))
    clip = skin.clips[0]
    times = clip.start + (clip.end - clip.start) * torch.arange(_PHASES, dtype=torch.float64) / _PHASES
    posed = torch.cat([skin.at_rest().vertices[None], skin.posed(clip, times)]).numpy()
    faces = skin.mesh.faces.numpy()
    owner = skin.indices.gather(1, skin.weights.argmax(1, keepdim=True))[:, 0].numpy()[faces[:, 0]]
    names = np.array([_WEAR.get(name.partition("_")[0], "cloth") for name in skin.names])
    materials = np.array([INDEX[name] for name in names], np.uint8)[owner]
    middle = skin.mesh.vertices.numpy()[faces].mean(1)
    is_hair = (materials == INDEX["skin"]) & ((middle[:, 1] > 1.67) | ((middle[:, 1] > 1.55) & (middle[:, 2] < 0.0)))
    materials[is_hair] = INDEX["hair"]
    return _Poses(posed[..., [2, 0, 1]], faces, materials, owner, skin.names)


def walker(height: float, girth: float, outfit: str, bag: str, rng: np.random.Generator) -> list[Part]:
    """Parts of a person in a random pose of the walk, sometimes standing.

    Args:
        height: [m].
        girth: Factor on the widths.
        outfit: One of `people.OUTFITS`.
        bag: One of `people.BAGS`.
        rng: Source of all randomness.
    """
    poses = _poses()
    pose = 0 if rng.random() < 0.2 else int(rng.integers(1, len(poses.vertices)))
    scale = height / _HEIGHT
    vertices = poses.vertices[pose] * np.array([girth, girth, 1.0]) * scale
    materials = poses.materials.copy()
    if outfit in ("shorts", "dress", "skirt"):
        materials[np.isin(poses.joints, [k for k, name in enumerate(poses.names) if name.startswith("knee")])] = INDEX["skin"]
    parts: list[Part] = [(vertices.astype(np.float32), poses.faces.astype(np.int32), materials)]

    def place(name: str) -> np.ndarray:
        return vertices[poses.faces[poses.joints == poses.names.index(name)]].reshape(-1, 3).mean(0)

    pelvis, chest, hand = place("pelvis"), place("chest"), place(str(rng.choice(["hand_l", "hand_r"])))
    below = {"coat": 0.34, "skirt": 0.26, "dress": 0.38}.get(outfit, 0.0) * height * rng.uniform(0.7, 1.15)
    if below:
        wide = 0.095 * height * girth * rng.uniform(1.0, 1.15)
        steps = np.outer([0.05 * height, -0.4 * below, -below], [0, 0, 1.0])
        parts.append(tube(pelvis + steps, [wide, wide * 1.15, wide * rng.uniform(1.2, 1.7)], "cloth", 10, ends=False))
    if outfit == "coat":
        path = [pelvis, chest, chest + np.array([0, 0, 0.08 * height])]
        parts.append(tube(path, np.array([0.095, 0.1, 0.06]) * height * girth, "cloth", 10))
    if bag == "backpack":
        size = height * np.array([0.08, 0.09, 0.14]) * rng.uniform(0.8, 1.2)
        parts.append(ellipsoid(size, chest - np.array([0.075 * height * girth + 0.5 * size[0], 0, 0.02]), "bag", 8, 5))
    elif bag == "handbag":
        size = (rng.uniform(0.2, 0.4), rng.uniform(0.08, 0.15), rng.uniform(0.2, 0.4))
        parts.append(box(size, hand - np.array([0, 0, 0.05 + size[2] / 2]), "bag"))
    elif bag == "shoulder":
        side = math.copysign(0.11 * height * girth + 0.05, float(rng.normal()))
        parts.append(box((0.3, 0.12, 0.26), pelvis + np.array([0, side, 0.05]), "bag"))
    return parts
