"""Vertex animations as .glb: exact morphs, principal morphs, joints with corrective morphs; error, size and time of each.

DATA is a folder with the elephant of libigl and Khronos' fox (`elephant.obj`, `elephant-weights.dmat`, `elephant-anim.dmat`,
`fox.glb`). Errors at the keys are computed by an independent reader from the written file
(`tests/support/gltf_reader.py`), relative to the diagonal of the rest pose.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support import ForeignLoad, add_options, refuse_foreign_load, write
from torch import Tensor

from tests.support.elephant import read_elephant
from tests.support.gltf_reader import Animated
from vision3d.geometry.skinning import linear_blend
from vision3d.optim.motion.skin_fit import FittedSkin, fit_joints, fit_morphs
from vision3d.scene import Mesh, SkinnedMesh

KEYS = 24
"""Number of evenly spaced keys at which the independent reader is evaluated."""


def elephant(folder: Path) -> tuple[Mesh, Tensor, list[float]]:
    """All 457 frames, linear blend skinning of 24 bones with dense weights."""
    mesh, weights, matrices = read_elephant(folder)
    joints = torch.arange(24).expand(mesh.num_vertices, 24)
    frames = linear_blend(mesh.vertices, weights.float(), joints, matrices.float())
    return mesh, frames, [i / 30 for i in range(len(frames))]


def fox(folder: Path) -> tuple[Mesh, Tensor, list[float]]:
    """The walk at 30 frames per second with hybrid skinning, half linear and half dual quaternions."""
    skin = SkinnedMesh.load(folder / "fox.glb")
    times = skin.clip("Walk").times(30)
    frames = skin.posed(skin.clip("Walk"), times, method="hybrid", blends=torch.full((len(skin),), 0.5))
    return skin.mesh, frames, times.tolist()


def measured(make: Callable[[], SkinnedMesh | FittedSkin], mesh: Mesh, frames: Tensor, times: list[float]) -> dict[str, Any]:
    """Metrics of a clip: joints, morphs, bytes, CPU-seconds, and its errors at the keys in the written file."""
    start = time.process_time()
    made = make()
    seconds = time.process_time() - start
    skin = made.skin if isinstance(made, FittedSkin) else made
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.glb"
        skin.save(path)
        size, other = path.stat().st_size, Animated(path)
        keys = np.unique(np.linspace(0, len(times) - 1, min(KEYS, len(times))).round().astype(int))
        found = np.array([other.vertices("frames", float(np.float32(times[key]))) for key in keys])
    diagonal = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    errors = np.linalg.norm(found - frames[keys].numpy(), axis=-1) / diagonal
    metrics = {"joints": len(skin), "morphs": skin.num_morphs, "bytes": size, "cpu_s": round(seconds, 2)}
    metrics |= {"file_max_error": float(errors.max()), "file_mean_error": float(errors.mean())}
    if isinstance(made, FittedSkin):
        metrics |= {"max_error": made.max_error, "mean_error": made.mean_error}
    return metrics


def between(
    make: Callable[[Tensor, list[float]], SkinnedMesh], mesh: Mesh, frames: Tensor, times: list[float]
) -> dict[str, float]:
    """Errors at every second frame of a clip that has keys at the other frames."""
    skin = make(frames[::2], times[::2])
    found = skin.posed(skin.clips[0], times[1:-1:2]) - frames[1:-1:2]
    errors = found.norm(dim=-1) / (mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm()
    return {"max_error": float(errors.max()), "mean_error": float(errors.mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the elephant and the fox")
    add_options(parser)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    results: dict[str, Any] = {"threads": torch.get_num_threads()}
    with ForeignLoad() as load:
        for name, read in (("fox_walk", fox), ("elephant", elephant)):
            mesh, frames, times = read(options.data)
            given = (mesh, frames, times)
            clips: dict[str, Callable[[], SkinnedMesh | FittedSkin]] = {
                "exact morphs": lambda g=given: SkinnedMesh.from_frames(*g)
            }
            for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
                clips[f"principal morphs, {tolerance:g}"] = lambda g=given, t=tolerance: fit_morphs(*g, tolerance=t)
            for joints in (24, 64):
                clips[f"{joints} joints alone"] = lambda g=given, j=joints: fit_joints(*g, num_joints=j, max_morphs=0)
                for tolerance in (1e-3, 1e-4):
                    clips[f"{joints} joints and morphs, {tolerance:g}"] = lambda g=given, j=joints, t=tolerance: fit_joints(
                        *g, num_joints=j, tolerance=t
                    )
            if name == "fox_walk":
                skin = SkinnedMesh.load(options.data / "fox.glb")
                own = {"weights": skin.weights, "indices": skin.indices}
                clips["its own joints alone"] = lambda g=given, o=own: fit_joints(*g, max_morphs=0, **o)
                clips["its own joints and morphs, 0.0001"] = lambda g=given, o=own: fit_joints(*g, **o)
            results[name] = {"vertices": mesh.num_vertices, "frames": len(frames), "clips": {}}
            for kind, make in clips.items():
                metrics = measured(make, *given)
                results[name]["clips"][kind] = metrics
                print(f"{name}, {kind}: {metrics}", flush=True)
            results[name]["between_keys"] = {
                "exact morphs": between(lambda v, t, m=mesh: SkinnedMesh.from_frames(m, v, t), *given),
                "24 joints and morphs, 0.0001": between(lambda v, t, m=mesh: fit_joints(m, v, t, num_joints=24).skin, *given),
            }
            print(f"{name}, between keys: {results[name]['between_keys']}", flush=True)
    write("gltf_motion", results, load.share)


if __name__ == "__main__":
    main()
