"""Generates the hand template: a rigged right hand with 778 vertices.

Run `python generate.py --out FOLDER`, with vision3d and its extra `mesh` installed. The same library versions give the same
bytes. Written: hand.glb, which any viewer opens, and hand.safetensors, with all that `vision3d.stages.hand.HandTemplate` needs.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import forearm
import numpy as np
import remesh
import rig
import torch
import xatlas
from anatomy import KEYPOINTS, NAMES, PARENTS, PLACES, WRIST_CUT, Array, Ints

from vision3d.io.described import write_described
from vision3d.scene.clip import Clip
from vision3d.stages.hand.gestures import gesture
from vision3d.stages.hand.template import HandTemplate, load_template

CELL, TEXTURE = 0.0025, 1024
FPS, FRAMES = 24, 48


def template() -> dict[str, torch.Tensor]:
    """All tensors of hand.safetensors."""
    fine = remesh.fine(CELL)
    vertices, faces, tips = remesh.coarse(*fine)
    vertices, faces, tips, ring = _ordered(vertices, faces, tips)
    skin = rig.weights(*fine, vertices)
    skin[ring] = np.eye(len(NAMES))[0]
    matrix = rig.joint_matrix(vertices, skin, tips, ring)
    more, more_faces, more_uvs = forearm.forearm(vertices, ring)
    found = {
        "vertices": vertices, "uvs": _unwrapped(vertices, faces), "weights": skin, "joint_matrix": matrix,
        "places": PLACES, "keypoints": KEYPOINTS, "axes": rig.axes(), "limits": rig.limits(), "forearm": more,
        "forearm_uvs": more_uvs,
    }  # fmt: skip
    indices = {"faces": faces, "ring": ring, "tips": tips, "forearm_faces": more_faces, "parents": np.array(PARENTS)}
    floats = {name: torch.from_numpy(np.ascontiguousarray(value)).float() for name, value in found.items()}
    return floats | {name: torch.from_numpy(np.ascontiguousarray(value)).int() for name, value in indices.items()}


def _ordered(vertices: Array, faces: Ints, tips: Ints) -> tuple[Array, Ints, Ints, Ints]:
    """The border first, counter-clockwise seen from the fingers, then the vertices joint by joint from the wrist on."""
    directed = {edge for a, b, c in faces.tolist() for edge in ((a, b), (b, c), (c, a))}
    after = {b: a for a, b in directed if (b, a) not in directed}
    ring = [max(after, key=lambda i: vertices[i, 0])]
    while after[ring[-1]] != ring[0]:
        ring.append(after[ring[-1]])
    if sum(vertices[a, 2] * vertices[b, 0] - vertices[a, 0] * vertices[b, 2] for a, b in pairwise(ring)) < 0:
        ring = [ring[0], *ring[:0:-1]]
    key = np.lexsort((vertices[:, 1], rig.owners(vertices)))
    order = np.array([*ring, *(i for i in key if i not in set(ring))])
    new = np.empty(len(order), np.int64)
    new[order] = np.arange(len(order))
    placed = vertices[order]
    placed[: len(ring), 1] = WRIST_CUT
    faces = new[faces]
    first = faces.argmin(1)
    faces = np.stack([faces[np.arange(len(faces)), (first + k) % 3] for k in range(3)], -1)
    return placed, faces[np.lexsort(faces.T[::-1])], new[tips], np.arange(len(ring))


def _unwrapped(vertices: Array, faces: Ints) -> Array:
    """Texture coordinates of each corner of each face, (F, 3, 2), y down."""
    charts = xatlas.ChartOptions()
    charts.max_iterations, charts.max_cost, charts.normal_deviation_weight = 4, 8.0, 0.6
    packing = xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bruteForce = TEXTURE, 2, True
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32))
    atlas.generate(charts, packing)
    source, corners, uvs = atlas[0]
    assert (source[corners] == faces).all(), "xatlas changed the order of the faces"
    found = uvs[corners].astype(np.float64)
    return np.stack([found[..., 0], 1 - found[..., 1]], -1)


def _closing(hand: HandTemplate) -> Clip:
    """The hand closes to a fist and opens again; the last frame repeats the first."""
    share = 0.5 - 0.5 * torch.cos(2 * torch.pi * torch.arange(FRAMES + 1) / FRAMES)
    start, end = gesture("rest"), gesture("fist")
    return hand.clip(torch.lerp(start, end, share[:, None]), torch.arange(FRAMES + 1) / FPS, "Close")


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make the hand template.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    options = parser.parse_args()
    path = options.out / "hand.safetensors"
    if path.exists() and not options.overwrite:
        parser.error(f"{path} exists; give --overwrite to replace it")
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    write_described(path, "hand_template", 1, {"names": list(NAMES)}, template())

    hand = load_template(path)
    hand.to_skinned_mesh((_closing(hand),)).save(options.out / "hand.glb")
    print(f"{hand}, in {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
