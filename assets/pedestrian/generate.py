"""Generates the pedestrian, a rigged person who walks.

Run `python generate.py --out FOLDER`, with vision3d and its extra `mesh` installed. The same library versions give the same
bytes. Written: pedestrian.glb.
"""

import argparse
import sys
from pathlib import Path

import fast_simplification
import numpy as np
import torch

from vision3d import Mesh, SkinnedMesh
from vision3d.geometry.isosurface import surface_nets
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.skinning import keep_largest
from vision3d.scene.clip import Channel, Clip

NUM_FACES, CELL, FPS, FRAMES = 2800, 0.012, 24, 26
_BLEND, _SOFTNESS = 0.02, 0.018
"""Radius of the fillets between parts, and distance over which one joint's influence fades into the next one's [m]."""

JOINTS: dict[str, tuple[str, tuple[float, float, float]]] = {
    "pelvis": ("", (0.0, 0.95, 0.0)),
    "spine": ("pelvis", (0.0, 1.08, 0.0)),
    "chest": ("spine", (0.0, 1.26, -0.01)),
    "neck": ("chest", (0.0, 1.48, 0.0)),
    "head": ("neck", (0.0, 1.56, 0.02)),
}
"""Name -> parent and place at rest [m]: y up, looking along z, 1.75 tall."""
for _side, _x in (("l", 1.0), ("r", -1.0)):
    JOINTS |= {
        f"shoulder_{_side}": ("chest", (0.18 * _x, 1.42, -0.01)),
        f"elbow_{_side}": (f"shoulder_{_side}", (0.29 * _x, 1.15, -0.02)),
        f"hand_{_side}": (f"elbow_{_side}", (0.37 * _x, 0.92, 0.02)),
        f"hip_{_side}": ("pelvis", (0.09 * _x, 0.91, 0.0)),
        f"knee_{_side}": (f"hip_{_side}", (0.10 * _x, 0.50, 0.01)),
        f"foot_{_side}": (f"knee_{_side}", (0.10 * _x, 0.09, -0.03)),
    }
NAMES = tuple(JOINTS)
PARENTS = tuple(NAMES.index(parent) if parent else -1 for parent, _ in JOINTS.values())
PLACES = np.array([place for _, place in JOINTS.values()])


def parts() -> list[tuple[str, np.ndarray, np.ndarray, float, float]]:
    """Round cones: joint, two ends and their radii [m]."""
    cones = [
        ("pelvis", (0.06, 0.95, 0.0), (-0.06, 0.95, 0.0), 0.125, 0.125),
        ("spine", (0.04, 1.10, 0.01), (-0.04, 1.10, 0.01), 0.115, 0.115),
        ("chest", (0.07, 1.28, 0.0), (-0.07, 1.28, 0.0), 0.125, 0.125),
        ("chest", (0.13, 1.40, -0.01), (-0.13, 1.40, -0.01), 0.075, 0.075),
        ("neck", (0.0, 1.45, -0.01), (0.0, 1.56, 0.01), 0.06, 0.055),
        ("head", (0.0, 1.60, 0.03), (0.0, 1.655, 0.01), 0.078, 0.095),
        ("head", (0.0, 1.56, 0.07), (0.0, 1.60, 0.06), 0.05, 0.06),
    ]
    for side, x in (("l", 1.0), ("r", -1.0)):
        cones += [
            (f"shoulder_{side}", (0.18 * x, 1.41, -0.01), (0.29 * x, 1.15, -0.02), 0.062, 0.045),
            (f"elbow_{side}", (0.29 * x, 1.15, -0.02), (0.37 * x, 0.92, 0.02), 0.045, 0.032),
            (f"hand_{side}", (0.375 * x, 0.90, 0.03), (0.395 * x, 0.80, 0.05), 0.04, 0.03),
            (f"hip_{side}", (0.085 * x, 0.88, -0.01), (0.10 * x, 0.52, 0.01), 0.09, 0.062),
            (f"knee_{side}", (0.10 * x, 0.50, 0.01), (0.10 * x, 0.30, -0.02), 0.06, 0.058),
            (f"knee_{side}", (0.10 * x, 0.30, -0.02), (0.10 * x, 0.10, -0.03), 0.058, 0.042),
            (f"foot_{side}", (0.10 * x, 0.05, -0.05), (0.115 * x, 0.04, 0.14), 0.05, 0.038),
        ]
    return [(name, np.array(start), np.array(end), first, last) for name, start, end, first, last in cones]


def distances(points: np.ndarray) -> np.ndarray:
    """Signed distance of points (N, 3) to each part, (N, P): to the segment, minus the interpolated radius."""
    columns = []
    for _, start, end, first, last in parts():
        way = end - start
        along = np.clip((points - start) @ way / (way @ way), 0, 1)
        columns.append(np.linalg.norm(points - start - along[:, None] * way, axis=1) - (first + along * (last - first)))
    return np.stack(columns, 1)


def surface() -> tuple[np.ndarray, np.ndarray]:
    """The smooth union of all parts, about NUM_FACES faces; soles are flat at y = 0."""
    axes = [np.arange(-0.52, 0.52, CELL), np.arange(-0.06, 1.82, CELL), np.arange(-0.26, 0.30, CELL)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    near = distances(grid.reshape(-1, 3)) / _BLEND
    low = near.min(1)
    union = _BLEND * (low - np.log(np.exp(low[:, None] - near).sum(1)))
    union = np.maximum(union, -grid.reshape(-1, 3)[:, 1])  # the ground
    vertices, faces = surface_nets(torch.from_numpy(-union.reshape(grid.shape[:3])))
    points = vertices.numpy() * CELL + [axis[0] for axis in axes]
    points, triangles = fast_simplification.simplify(
        points.astype(np.float32), faces.numpy().astype(np.int32), target_count=NUM_FACES, agg=5.0
    )
    return points.astype(np.float64), triangles.astype(np.int64)


def weights(vertices: np.ndarray) -> np.ndarray:
    """Weights of each vertex for each joint: a soft minimum of the distances to its parts."""
    near = distances(vertices)
    share = np.exp(-(near - near.min(1, keepdims=True)) / _SOFTNESS)
    joints = np.zeros((len(vertices), len(NAMES)))
    for column, (name, *_) in enumerate(parts()):
        joints[:, NAMES.index(name)] += share[:, column]
    return joints / joints.sum(1, keepdims=True)


def turn(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """R_y(yaw) R_x(pitch) R_z(roll), in degrees: a positive pitch nods, or swings a hanging limb backward."""
    (cx, sx), (cy, sy), (cz, sz) = ((np.cos(a), np.sin(a)) for a in np.radians([pitch, yaw, roll]))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return about_y @ about_x @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])


def walk(t: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The pose at a fraction t of a walking cycle in place, and the offset of the pelvis [m]."""
    wave = 2 * np.pi * t
    pose = {
        "pelvis": turn(2, 5 * np.sin(wave), 2.5 * np.cos(wave)),
        "spine": turn(2, -4 * np.sin(wave), -2 * np.cos(wave)),
        "chest": turn(1, -6 * np.sin(wave)),
        "head": turn(-4, 4 * np.sin(wave)),
    }
    for side, start, sign in (("l", 0.0, 1.0), ("r", np.pi, -1.0)):
        own = wave + start
        swing = 26 * np.sin(own) + 4
        bend = 8 + 12 * max(0.0, np.sin(own + 0.3)) ** 2 + 50 * max(0.0, np.cos(own + 0.15)) ** 2
        pose[f"hip_{side}"] = turn(-swing)
        pose[f"knee_{side}"] = turn(bend)
        pose[f"foot_{side}"] = turn(0.6 * (swing - bend) - 6 + 14 * max(0.0, -np.sin(own - 0.5)))
        pose[f"shoulder_{side}"] = turn(20 * np.sin(own), 0, -12 * sign)
        pose[f"elbow_{side}"] = turn(-18 + 14 * np.sin(own), 0, -4 * sign)
    return pose, np.array([0.012 * np.sin(wave), 0.015 * np.cos(2 * wave) - 0.025, 0.0])


def clip() -> Clip:
    """One cycle of the walk; the last frame repeats the first."""
    times = torch.arange(FRAMES + 1, dtype=torch.float64) / FPS
    rotmats, shifts = np.tile(np.eye(3), (FRAMES + 1, len(NAMES), 1, 1)), np.zeros((FRAMES + 1, 3))
    for frame in range(FRAMES + 1):
        pose, shifts[frame] = walk((frame % FRAMES) / FRAMES)
        for joint, rotmat in pose.items():
            rotmats[frame, NAMES.index(joint)] = rotmat
    quats = rotmat_to_quat(torch.from_numpy(rotmats)).float()
    channels = [Channel("rotation", joint, times, quats[:, joint]) for joint in range(len(NAMES))]
    root = torch.from_numpy(PLACES[0] + shifts).float()
    return Clip("Walk", (Channel("translation", 0, times, root), *channels))


def pedestrian() -> SkinnedMesh:
    """The mesh with its joints and clip; it stands on y = 0."""
    vertices, faces = surface()
    kept, indices = keep_largest(torch.from_numpy(weights(vertices)), 4)
    places = torch.from_numpy(PLACES).float()
    above = torch.stack([places[parent] if parent >= 0 else torch.zeros(3) for parent in PARENTS])
    binds = torch.eye(4).repeat(len(places), 1, 1)
    binds[:, :3, 3] = -places
    return SkinnedMesh(
        Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces)),
        NAMES,
        PARENTS,
        translations=places - above,
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(len(places), 1),
        scales=torch.ones(len(places), 3),
        inverse_binds=binds,
        indices=indices,
        weights=kept.float(),
        clips=(clip(),),
    )


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make the pedestrian.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    options = parser.parse_args()
    path = options.out / "pedestrian.glb"
    if path.exists() and not options.overwrite:
        parser.error(f"{path} exists; give --overwrite to replace it")
    torch.set_num_threads(1)
    skin = pedestrian()
    skin.save(path)
    print(f"{skin}: {len(skin.mesh.faces)} faces, {path.stat().st_size} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
