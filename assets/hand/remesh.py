"""The mesh of the hand: exactly 778 vertices, small triangles at joints and tips, 16 edges around the wrist."""

import numpy as np
import torch
from anatomy import FINGERS, WRIST_CUT, Array, Ints
from body import WEBS, distance, projected
from halfedges import Editor, cut

from vision3d.geometry.isosurface import surface_nets

NUM_VERTICES, NUM_BORDER = 778, 16
_LOW, _HIGH = np.array([-0.065, -0.035, -0.035]), np.array([0.095, 0.200, 0.055])


def sizes(points: Array) -> Array:
    """Wanted length of edges [m], up to a common factor: short near the joints and the tips of fingers."""
    found = np.full(len(points), 0.0125)
    for finger in FINGERS:
        for number, place in enumerate(finger.joints):
            near, far = ((0.0080, 0.0115), (0.0058, 0.0074), (0.0054, 0.0070), (0.0048, 0.0066))[number]
            if finger.name == "thumb":
                near, far = ((0.0105, 0.0125), (0.0072, 0.0090), (0.0062, 0.0078), (0.0054, 0.0074))[number]
            scale = finger.radii[number] / 0.009 if number else 1.0
            reach = 1.1 * finger.radii[number] + 0.003
            away = np.clip(np.linalg.norm(points - place, axis=1) / reach - 0.6, 0, 1.6)
            # From `near` at the joint to `far` between two joints, to that of the palm away from the finger.
            own = scale * np.where(away < 0.8, near + (far - near) * away / 0.8, far + (0.0125 - far) * (away - 0.8) / 0.8)
            found = np.minimum(found, own)
    for web in WEBS:
        away = np.linalg.norm(points - (web.start + web.end) / 2, axis=1) / 0.010
        found = np.minimum(found, 0.0056 + np.clip(away - 0.6, 0, 1.6) * 0.0043)
    return found


def fine(cell: float) -> tuple[Array, Ints]:
    """A fine mesh of the surface above the wrist's plane.

    Args:
        cell: Side of the lattice's cells [m].
    """
    axes = [np.arange(low, high, cell) for low, high in zip(_LOW, _HIGH)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    values = np.concatenate([distance(slab.reshape(-1, 3)) for slab in grid]).reshape(grid.shape[:3])
    vertices, faces = surface_nets(torch.from_numpy(-values))
    points = projected(vertices.numpy() * cell + _LOW, rounds=2)
    return cut(points, faces.numpy(), WRIST_CUT)


def coarse(points: Array, faces: Ints) -> tuple[Array, Ints, Ints]:
    """The mesh of `NUM_VERTICES` vertices, and those at the tips of the five fingers."""
    editor = Editor(points, faces, sizes, projected)
    tips = []
    for finger in FINGERS:
        tip = projected(finger.joints[3][None])
        tips.append(int(np.linalg.norm(points - tip, axis=1).argmin()))
        editor.points[tips[-1]] = tip[0]
    editor.fixed = set(tips)
    for count, border in ((6000, 90), (3000, 50), (1800, 32), (1200, 20), (900, NUM_BORDER), (NUM_VERTICES, NUM_BORDER)):
        editor.collapse_to(count, border)
        editor.flip()
        editor.relax()
    for moves in (*range(60, 0, -4), 2, 1):
        editor.even_out(moves)
        for _ in range(3):
            editor.relax()
            editor.flip()
    for _ in range(20):
        editor.relax(0.3)
        editor.flip()
    vertices, triangles, old = editor.result()
    return vertices, triangles, np.array([int(np.flatnonzero(old == tip)[0]) for tip in tips])
