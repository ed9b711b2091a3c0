"""Mesh animation: nodes fitted to vertices, few nodes, the fox from eight cameras and from one, time per step, memory.

Reads skinning/elephant* and skinning/fox.glb below VISION3D_DATA. Each part writes results/animation_PART.json.
"""

import argparse
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support import ForeignLoad, add_options, refuse_foreign_load, wall_times, write
from torch import Tensor

from vision3d import Cameras, Mesh, SkinnedMesh
from vision3d.core.config import load_yaml
from vision3d.core.progress import silent
from vision3d.geometry import shapes
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.geometry.deformation_graph import DeformationGraph
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.skinning import linear_blend
from vision3d.stages.animate.dynamic.config import AnimateConfig, FieldConfig
from vision3d.stages.animate.dynamic.footage import Footage, hold_out, read_footage
from vision3d.stages.animate.dynamic.motion import Motion, all_vertices
from vision3d.stages.animate.dynamic.painters import MeshPainter, make_painter
from vision3d.stages.animate.dynamic.run import animate
from vision3d.stages.animate.dynamic.tracking import fit_vertices
from vision3d.stages.animate.dynamic.trainer import Trainer

RATE, SIZE = 30, 128  # frames per second, pixels
HELD_OUT = tuple(f"unseen{i}" for i in range(4))


def data() -> Path:
    folder = os.environ.get("VISION3D_DATA")
    if not folder or not (Path(folder) / "skinning").is_dir():
        sys.exit("error: VISION3D_DATA is not a folder with skinning/")
    return Path(folder) / "skinning"


# The elephant: vertices only


def read_dmat(path: Path) -> Tensor:
    """A binary matrix of libigl, column by column."""
    _, sizes, rest = path.read_bytes().split(b"\n", 2)
    columns, rows = map(int, sizes.split())
    return torch.from_numpy(np.frombuffer(rest, "<f8", columns * rows).reshape(columns, rows).T.copy())


def elephant() -> dict[str, Any]:
    """128 nodes fitted to every n-th of 457 frames, with splines in between, and the true bones keyed at the same frames."""
    from scipy.interpolate import CubicSpline

    mesh = Mesh.load(data() / "elephant.obj")
    weights = read_dmat(data() / "elephant-weights.dmat").float()
    motions = read_dmat(data() / "elephant-anim.dmat").T.reshape(457, 3, 24, 4).permute(0, 2, 1, 3)
    bones = torch.arange(24).expand(len(weights), 24)
    truth = linear_blend(mesh.vertices, weights, bones, motions.float())
    times = torch.arange(457, dtype=torch.float64)
    diagonal = (mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm()
    quats = rotmat_to_quat(motions[..., :3])
    for frame in range(1, 457):
        is_turned = (quats[frame] * quats[frame - 1]).sum(-1, keepdim=True) < 0
        quats[frame] = torch.where(is_turned, -quats[frame], quats[frame])
    results: dict[str, Any] = {"nodes": 128, "neighbors": 4, "frames": 457}
    for every in (10, 3, 2):
        keys = torch.arange(0, 457, every)
        started = time.perf_counter()
        config = AnimateConfig(nodes=128, steps=200)
        motion = fit_vertices(config, mesh, truth[keys], times[keys], progress=silent)
        seconds = time.perf_counter() - started
        errors = (all_vertices(motion, times) - truth).norm(dim=-1).mean(-1) / diagonal
        turns, shifts = (torch.from_numpy(CubicSpline(keys, v[keys].numpy())(times)) for v in (quats, motions[..., 3]))
        keyed = torch.cat([quat_to_rotmat(turns), shifts[..., None]], -1).float()
        control = (linear_blend(mesh.vertices, weights, bones, keyed) - truth).norm(dim=-1).mean(-1) / diagonal
        is_seen = torch.isin(torch.arange(457), keys)
        is_between = ~is_seen & (torch.arange(457) < int(keys[-1]))
        results[f"every_{every}"] = {
            "seen_percent": 100 * float(errors[is_seen].mean()),
            "between_percent": 100 * float(errors[is_between].mean()),
            "true_bones_between_percent": 100 * float(control[is_between].mean()),
            "motion_between_keys_percent": 100 * float((truth[keys[1:]] - truth[keys[:-1]]).norm(dim=-1).mean() / diagonal),
            "seconds": seconds,
        }
        print("elephant", every, results[f"every_{every}"], flush=True)
    return results


# Few nodes: skinning methods


def tube(sides: int = 16, rings: int = 41) -> Mesh:
    """An open tube of radius 0.5 and length 4 along z."""
    angles, z = 2 * math.pi * torch.arange(sides) / sides, torch.linspace(-2, 2, rings)
    ring = 0.5 * torch.stack([angles.cos(), angles.sin()], -1)
    vertices = torch.cat([ring.repeat(rings, 1), z.repeat_interleave(sides)[:, None]], -1)
    corner = torch.arange((rings - 1) * sides)
    right = corner - corner % sides + (corner + 1) % sides
    faces = torch.cat(
        [torch.stack([corner, right, right + sides], -1), torch.stack([corner, right + sides, corner + sides], -1)]
    )
    return Mesh(vertices, faces)


def twisted(points: Tensor, degrees: float) -> Tensor:
    """Twisted about z, in the middle half of the tube."""
    angle = math.radians(degrees) * ((points[:, 2] + 1) / 2).clamp(0, 1)
    x, y, z = points.T
    return torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos(), z], -1)


def bent(points: Tensor, degrees: float) -> Tensor:
    """The middle half bent to an arc with rigid cross-sections, which preserves the volume."""
    full = math.radians(degrees)
    radius, x, beyond = 2 / full, points[:, 0], points[:, 2] - points[:, 2].clamp(-1, 1)
    angle = full * ((points[:, 2] + 1) / 2).clamp(0, 1)
    across = radius - (radius - x) * angle.cos() + beyond * angle.sin()
    return torch.stack([across, points[:, 1], (radius - x) * angle.sin() + beyond * angle.cos()], -1)


def blended(points: Tensor, degrees: float) -> Tensor:
    """A bend as produced by linear skinning of two bones."""
    second = ((points[:, 2] + 1) / 2).clamp(0, 1)
    angle = math.radians(degrees)
    matrix = torch.eye(3)
    matrix[0, 0] = matrix[2, 2] = math.cos(angle)
    matrix[0, 2], matrix[2, 0] = math.sin(angle), -math.sin(angle)
    return (1 - second)[:, None] * points + second[:, None] * (points @ matrix.T)


def ablation() -> dict[str, Any]:
    """Vertex errors of fits with 2 to 8 nodes to twists and bends, with each skinning method."""
    mesh, rows = tube(), []
    diagonal = (mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm()
    once = torch.zeros(1, dtype=torch.float64)
    cases = [("twist", twisted, (60, 120, 170)), ("bend", bent, (60, 90, 120)), ("lbs bend", blended, (60, 120))]
    for kind, deform, angles in cases:
        for degrees in angles:
            for nodes in (2, 3, 5, 8):
                target, row = deform(mesh.vertices, degrees), {"kind": kind, "degrees": degrees, "nodes": nodes}
                for method in ("lbs", "dqs", "hybrid"):
                    config = AnimateConfig(nodes=nodes, method=method, steps=500, motion=FieldConfig(discrete_rate=0.01))
                    motion = fit_vertices(config, mesh, target[None], once, progress=silent)
                    error = (all_vertices(motion, once)[0] - target).norm(dim=-1).mean() / diagonal
                    row[f"{method}_percent"] = 100 * float(error)
                row["ratio"] = row["hybrid_percent"] / min(row["lbs_percent"], row["dqs_percent"])
                rows.append(row)
                print("ablation", row, flush=True)
    ratios = [row["ratio"] for row in rows]
    return {"rows": rows, "largest_ratio": max(ratios), "mean_ratio": sum(ratios) / len(ratios)}


# The fox


def fox(name: str, cameras: int = 8, size: int = SIZE) -> tuple[Mesh, Tensor, Footage]:
    """The mesh in the first frame of a clip, its vertices in all frames, and images from cameras around it and 4 held out."""
    skin = SkinnedMesh.load(data() / "fox.glb")
    clip = skin.clip(name)
    times = clip.times(RATE)
    frames = len(times)
    vertices = skin.posed(clip, times).float()
    mesh = replace(skin.mesh, vertices=vertices[0], normals=None)
    low, high = vertices.amin((0, 1)), vertices.amax((0, 1))
    center, radius = (low + high) / 2, float((high - low).norm()) / 2
    views = [(i / cameras, 10 if i % 2 else 30, f"camera{i}") for i in range(cameras)]
    views += [((i + 0.37) / 4, 25, label) for i, label in enumerate(HELD_OUT)]
    poses = []
    for turn, elevation, _ in views:
        azimuth, rise = 2 * math.pi * turn, math.radians(elevation)
        away = torch.tensor([math.cos(rise) * math.sin(azimuth), math.sin(rise), math.cos(rise) * math.cos(azimuth)])
        poses.append(look_at(center + 0.9 * radius / math.sin(math.radians(20)) * away, center, torch.tensor([0.0, 1.0, 0.0])))
    focal = 0.5 * size / math.tan(math.radians(20))
    placed = Cameras.from_camtoworlds(torch.stack(poses), intrinsics(focal, focal, size / 2, size / 2), size, size)
    rows, when = torch.arange(len(views)).repeat_interleave(frames), torch.arange(frames).repeat(len(views))
    painter, images = MeshPainter.of(mesh), []
    with torch.no_grad():
        for some, moment in zip(rows.split(frames), when.split(frames)):
            colors, alphas = painter.paint(vertices, moment, placed[some])
            straight = colors / alphas[..., None].clamp(min=1 / 255)
            images.append((torch.cat([straight, alphas[..., None]], -1).clamp(0, 1) * 255).round().byte())
    labels = tuple(views[i][2] for i in rows.tolist())
    return mesh, vertices, Footage(torch.cat(images), placed[rows], labels, when, times)


def fitted(config: AnimateConfig, mesh: Mesh, vertices: Tensor, footage: Footage) -> dict[str, Any]:
    """Metrics of a fit, including held-out views in fitted frames."""
    wall, cpu = time.perf_counter(), time.process_time()
    summary = animate(config, footage, mesh, truth=vertices, progress=silent).summary
    return {**summary, "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


EIGHT = replace(load_yaml(AnimateConfig, "quality", stage="animate"), hold_out_every=3, hold_out_cameras=HELD_OUT)


def eight() -> dict[str, Any]:
    """Walk and Run from 8 cameras, 4 more and every third frame held out, and the frozen mesh."""
    results = {}
    for name in ("Walk", "Run"):
        given = fox(name)
        results[name] = {"still": fitted(replace(EIGHT, steps=0), *given), "fitted": fitted(EIGHT, *given)}
        for method, found in results[name].items():
            print(name, method, {k: round(v, 4) for k, v in found.items() if isinstance(v, float)}, flush=True)
    return results


def one() -> dict[str, Any]:
    """The same from one camera at the side: the preset `single`, two more seeds, and without ARAP."""
    results = {}
    for name in ("Walk", "Run"):
        mesh, vertices, footage = fox(name)
        hidden = tuple(sorted(set(footage.camera_names) - {"camera2"}))
        config = replace(load_yaml(AnimateConfig, "single", stage="animate"), hold_out_cameras=hidden)
        loose = replace(config, loss=replace(config.loss, arap=0.0, arap_between=0.0))
        seeds = {f"seed_{seed}": replace(config, seed=seed) for seed in (1, 2)}
        cases = {"still": replace(config, steps=0), "fitted": config, **seeds, "without_arap": loose}
        results[name] = {case: fitted(options, mesh, vertices, footage) for case, options in cases.items()}
        for method, found in results[name].items():
            print(name, method, {k: round(v, 4) for k, v in found.items() if isinstance(v, float)}, flush=True)
    return results


# A walking rigged character, rendered by a different program


def character(*kinds: str, folder: Path | None = None, seeds: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    """Fits to the cameras c0 to c3 or to c0 alone, h0 and h1 held out. Without a folder: CesiumMan, in T-pose at rest."""
    folder = folder or data().parent / "clips" / "cesium_man"
    (mesh,), footage = folder.glob("*.glb"), read_footage(folder)
    truth = torch.from_numpy(np.load(folder / "truth.npz")["vertices"]).float()
    diagonal = (truth[0].amax(0) - truth[0].amin(0)).norm()
    four = AnimateConfig(hold_out_cameras=("h0", "h1"))
    single = AnimateConfig(hold_out_cameras=("c1", "c2", "c3", "h0", "h1"))
    options = {"auto": four, "graph": replace(four, fit="graph"), "one_camera": single}
    cases = {
        f"{name}_seed{seed}": replace(config, seed=seed) for seed in seeds for name, config in options.items() if name in kinds
    }
    results = {}
    for name, config in cases.items():
        cpu = time.process_time()
        found = animate(config, footage, mesh, truth=truth, progress=silent)
        cpu = time.process_time() - cpu
        moved = torch.stack([found.sequence.channels["vertices"][i] for i in range(len(truth))])
        errors = 100 * (moved - truth).norm(dim=-1) / diagonal
        row = {"mean_percent": float(errors.mean()), "max_percent": float(errors.max()), "cpu_s": cpu}
        row["p95_percent"] = float(errors.flatten().quantile(0.95))
        row["frame_percent"] = errors.mean(1).tolist()
        for camera in ("h0", "h1"):
            seen = [view for view in found.evaluation.views if view.camera == camera]
            row[f"{camera}_iou"] = sum(view.iou for view in seen) / len(seen)
            row[f"{camera}_psnr"] = sum(view.psnr for view in seen) / len(seen)
        results[name] = {**row, **found.summary}
        print(name, row, flush=True)
    return results


# Time and memory


def prepared(mesh: Mesh, config: AnimateConfig) -> Trainer:
    """A trainer on 8 frames of 2 cameras in which the mesh stretches."""
    center = (mesh.vertices.amax(0) + mesh.vertices.amin(0)) / 2
    poses = [
        look_at(center + torch.tensor(eye), center, torch.tensor([0.0, 1.0, 0.0])) for eye in ((0.0, 0.5, 4.0), (4.0, 0.5, 0.0))
    ]
    K = intrinsics(1.6 * SIZE, 1.6 * SIZE, SIZE / 2, SIZE / 2)
    cameras = Cameras.from_camtoworlds(torch.stack(poses), K, SIZE, SIZE)
    vertices = torch.stack([center + (mesh.vertices - center) * torch.tensor([1 + 0.03 * i, 1.0, 1.0]) for i in range(8)])
    rows, when = torch.arange(2).repeat_interleave(8), torch.arange(8).repeat(2)
    with torch.no_grad():
        colors, alphas = MeshPainter.of(mesh).paint(vertices, when, cameras[rows])
    images = (torch.cat([colors, alphas[..., None]], -1).clamp(0, 1) * 255).round().byte()
    footage = Footage(images, cameras[rows], ("a",) * 8 + ("b",) * 8, when, torch.arange(8, dtype=torch.float64) / 24)
    graph = DeformationGraph.of(mesh.vertices, mesh.faces, config.nodes, config.neighbors)
    motion = Motion(mesh, graph, config, footage.times, 0.0)
    painter = make_painter(mesh, config.renderer, config.per_face)
    return Trainer(config, motion, painter, footage, cameras[rows], hold_out(footage, 0, 0, ())["fitted"])


def colored(vertices: Tensor, faces: Tensor) -> Mesh:
    return Mesh(vertices, faces, vertex_colors=0.5 + 0.5 * torch.sin(7 * vertices))


def step() -> dict[str, Any]:
    """A step at 128 px on a ring of 2000 faces: 4 frames in 2 cameras, with all losses."""
    mesh, results = colored(*shapes.torus(1.0, 0.35, 50, 20)), {"faces": 2000, "images_per_step": 8}
    for name, renderer, per_face in (("mesh", "mesh", 1), ("gaussians_k1", "gaussians", 1), ("gaussians_k6", "gaussians", 6)):
        config = AnimateConfig(renderer=renderer, per_face=per_face, coarse=1, grow=0.0)
        trainer = prepared(mesh, config)
        results[name] = wall_times(lambda t=trainer: t.step(300, 300 / t.steps), repeats=9)
        print(name, results[name], flush=True)
    return results


def memory() -> dict[str, Any]:
    """Peak memory of a process that fits a torus of 20 000 vertices for 20 steps."""
    mesh = colored(*shapes.torus(1.0, 0.35, 200, 100))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    trainer = prepared(mesh, AnimateConfig(nodes=256, grow=0.0, coarse=1))
    for number in range(20):
        trainer.step(number, number / trainer.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"vertices": mesh.num_vertices, "nodes": 256, "before_bytes": before, "peak_bytes": peak}
    print("memory", found, flush=True)
    return found


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "memory": memory, "step": step, "elephant": elephant, "ablation": ablation, "eight": eight, "one": one,
    "character": lambda: character("auto", "one_camera"), "character_graph": lambda: character("graph"),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("parts", nargs="*", help=f"parts to run: {', '.join(PARTS)} (default: all, in one process)")
    parser.add_argument("--clip", type=Path, help="measure the clip in this folder instead, as CesiumMan is, with seed 0")
    options = parser.parse_args()
    parts = PARTS
    if options.clip is not None:
        parts = {options.clip.name: lambda: character("auto", "graph", folder=options.clip, seeds=(0,))}
    if unknown := set(options.parts) - set(parts):
        sys.exit(f"error: unknown part {', '.join(sorted(unknown))}, want any of {', '.join(parts)}")
    if not options.busy:
        refuse_foreign_load()
    for name in options.parts or parts:
        torch.manual_seed(0)
        with ForeignLoad() as load:
            results = parts[name]()
        write(f"animation_{name}", {"threads": torch.get_num_threads(), **results}, load.share)


if __name__ == "__main__":
    main()
