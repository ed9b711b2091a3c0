"""`animate static`: PSNR in held-out views of known meshes before and after, for 1, 3, 4 and 6 Gaussians per face.

python benchmarks/bench_static.py DATA [--steps 300] [--size 256]

DATA contains skinning/fox.glb (with a texture) and meshes/spot.obj (colored here). 24 cameras are spread evenly on a sphere,
every sixth is held out; the ground truth is the mesh rendered at three times the size without shading and downscaled.
"""

import argparse
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, add_options, refuse_foreign_load, write

from vision3d import Mesh
from vision3d.geometry.mesh import weld_vertices
from vision3d.io import transforms_json
from vision3d.io.images import write_image
from vision3d.render import render_scene
from vision3d.scene.resample import resize_area
from vision3d.stages.animate import StaticConfig, bind_gaussians
from vision3d.stages.animate.orbits import Orbit

VIEWS, HELD_EVERY, LARGER = 24, 6, 3
NOISE = 0.01  # standard deviation of vertex noise, relative to the longest side of the box


def painted(mesh: Mesh) -> Mesh:
    """The mesh with wave-shaped vertex colors."""
    place = (mesh.vertices - mesh.vertices.amin(0)) / (mesh.vertices.amax(0) - mesh.vertices.amin(0)).max()
    colors = [0.5 + 0.45 * torch.sin(24 * place[:, 1]), 0.2 + 0.7 * place[:, 2], 0.2 + 0.7 * place[:, 0]]
    return replace(mesh, vertex_colors=torch.stack(colors, -1), texture=None, uvs=None)


def noisy(mesh: Mesh) -> Mesh:
    """The mesh with noise on its vertices, the same for coinciding ones."""
    _, _, place = weld_vertices(mesh.vertices, mesh.faces)
    side = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max())
    moves = NOISE * side * torch.randn(int(place.max()) + 1, 3, generator=torch.Generator().manual_seed(0))
    return replace(mesh, vertices=mesh.vertices + moves[place])


def photographs(mesh: Mesh, folder: Path, size: int) -> Path:
    """Writes a data set of rendered views of the mesh with an alpha channel."""
    number = torch.arange(VIEWS) + 0.5
    elevations, azimuths = torch.arcsin(1 - 2 * number / VIEWS), number * math.pi * (3 - 5**0.5)
    cameras = Orbit.about(mesh.vertices, "y").cameras(elevations, azimuths, 2.2, math.radians(40), size, size)
    names = tuple(f"images/{i:03d}.png" for i in range(VIEWS))
    for name, view in zip(names, render_scene(mesh, cameras.scaled(LARGER), shading="none")):
        assert view.image is not None
        image = resize_area(torch.cat([view.image.clamp(0, 1), view.alpha[..., None]], -1), size, size)
        write_image(folder / name, torch.cat([image[..., :3] / image[..., 3:].clamp(min=1e-3), image[..., 3:]], -1))
    is_test = torch.arange(VIEWS) % HELD_EVERY == 3
    transforms_json.write_cameras(folder / "transforms.json", replace(cameras, names=names), is_test=is_test)
    return folder


def refined(mesh: Mesh, data: Path, truth: Mesh | None = None, **options: Any) -> dict[str, Any]:
    """Metrics of one run; with ground truth, also the distance of the vertices from it."""
    begin = time.process_time()
    result = bind_gaussians(StaticConfig(**options), mesh, data=data, progress=lambda *_: None)
    names = ("psnr_before", "psnr", "ssim_before", "ssim", "gaussians", "mean_vertex_shift", "training_s")
    metrics = {name: result.summary[name] for name in names}
    metrics["cpu_s"] = time.process_time() - begin
    if truth is not None:
        side = float((truth.vertices.amax(0) - truth.vertices.amin(0)).max())
        for name, value in (("vertex_error_before", mesh), ("vertex_error", result.gaussians.mesh)):
            metrics[name] = float((value.vertices - truth.vertices).norm(dim=1).mean()) / side
    return metrics


def measure(mesh: Mesh, size: int, steps: int) -> dict[str, Any]:
    """All cases of one mesh."""
    bare = replace(mesh, texture=None, uvs=None, vertex_colors=None)
    cases: dict[str, dict[str, Any]] = {f"per_face_{k}": {"mesh": mesh, "per_face": k} for k in (1, 3, 4, 6)}
    cases["round_at_start"] = {"mesh": mesh, "shape": "round"}
    cases["vertices_fixed"] = {"mesh": mesh, "vertices": False}
    cases["without_colours"] = {"mesh": bare}
    cases["noisy_vertices"] = {"mesh": noisy(mesh), "truth": mesh}
    found: dict[str, Any] = {"faces": mesh.num_faces}
    with tempfile.TemporaryDirectory() as folder:
        data = photographs(mesh, Path(folder), size)
        for name, case in cases.items():
            found[name] = refined(data=data, steps=steps, **case)
            print(name, {key: round(value, 4) for key, value in found[name].items()}, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=256, help="width and height of the images [px]")
    add_options(parser)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(1)
    with ForeignLoad() as load:
        fox = measure(Mesh.load(options.data / "skinning" / "fox.glb"), options.size, options.steps)
        spot = measure(painted(Mesh.load(options.data / "meshes" / "spot.obj")), options.size, options.steps)
    settings = {"views": VIEWS, "held_out_every": HELD_EVERY, "size": options.size, "steps": options.steps}
    write("static", {**settings, "fox": fox, "spot": spot}, load.share)


if __name__ == "__main__":
    main()
