"""The mesh rasterizer against other renderers, ray casting and finite differences: CPU time, agreement, gradients.

python benchmarks/bench_meshes.py MESHES, a folder with spot.obj, teapot.obj and suzanne.obj. Peers whose packages are missing
are skipped.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mesh_peers import Deodr, Mitsuba, Open3d
from support import ForeignLoad, add_options, cpu_times, refuse_foreign_load, wall_times, write
from torch import Tensor

from vision3d import Mesh
from vision3d.geometry import se3, shapes
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.render.meshes import antialias, draw_attributes, edge_neighbors, interpolate, rasterize, screen_positions

sys.path.insert(0, str(Path(__file__).parents[1]))  # for workloads of the tests
from tests.support.rays import Agreement, draw_view


class Ours:
    """One view of a mesh with vertex colors on black: fragments, colors, silhouettes."""

    def __init__(self, mesh: Mesh, size: int, *, distance: float = 1.1, dtype: torch.dtype = torch.float32) -> None:
        self.mesh, self.size, self.neighbors = mesh, size, edge_neighbors(mesh.faces)
        low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
        center, diagonal = (low + high) / 2, (high - low).norm()
        away = torch.tensor([0.5, 0.3, 0.81])
        pose = look_at(center + distance * diagonal * away, center, torch.tensor([0.0, 1.0, 0.0]))
        self.viewmat = se3.inverse(pose)
        focal = 1.4 * size * distance / 1.1
        self.K = intrinsics(focal, focal, size / 2, size / 2)
        self.vertices = mesh.vertices.to(dtype)
        self.colors = torch.rand(mesh.num_vertices, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
        self.target = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(1)).to(dtype)

    def draw(self, vertices: Tensor, colors: Tensor, backend: str = "native") -> Tensor:
        return self.shade(self.positions(vertices), colors, backend)

    def draw_in_steps(self, vertices: Tensor, colors: Tensor, backend: str = "native") -> Tensor:
        """The same with the separate operations."""
        positions = self.positions(vertices)
        fragments = rasterize(positions, self.mesh.faces, self.size, self.size, backend=backend)
        image = interpolate(colors, self.mesh.faces, fragments, backend=backend)
        return antialias(image, positions, self.mesh.faces, fragments, neighbors=self.neighbors, backend=backend)

    def positions(self, vertices: Tensor) -> Tensor:
        return screen_positions(vertices, self.viewmat[None].to(vertices), self.K[None].to(vertices))

    def shade(self, positions: Tensor, colors: Tensor, backend: str = "native") -> Tensor:
        faces, neighbors = self.mesh.faces, self.neighbors
        return draw_attributes(colors, positions, faces, self.size, self.size, neighbors=neighbors, backend=backend)

    @torch.no_grad()
    def forward(self, backend: str = "native") -> Tensor:
        return self.draw(self.vertices, self.colors, backend)

    def step(self, backend: str = "native", *, in_steps: bool = False) -> tuple[Tensor, Tensor]:
        """Gradients of the sum of squares with respect to vertices and colors."""
        leaves = [value.detach().requires_grad_() for value in (self.vertices, self.colors)]
        draw = self.draw_in_steps if in_steps else self.draw
        loss = torch.nn.functional.mse_loss(draw(*leaves, backend), self.target, reduction="sum")
        vertices, colors = torch.autograd.grad(loss, leaves)
        return vertices, colors

    @torch.no_grad()
    def fragments(self) -> Any:
        positions = screen_positions(self.vertices, self.viewmat[None], self.K[None])
        return rasterize(positions, self.mesh.faces, self.size, self.size)


def available(make: Callable[[], Any]) -> Any:
    """A peer, or None if its package is missing."""
    try:
        return make()
    except ImportError as error:
        print(f"left out: {error}")
        return None


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int = 5) -> dict[str, dict[str, float]]:
    """CPU-seconds of each call, minimum and median; calls alternate, so load by other processes affects all equally."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(cpu_times(call, repeats=7))
    return {
        name: {"min": min(t["min"] for t in times), "median": float(np.median([t["median"] for t in times]))}
        for name, times in taken.items()
    }


def speed(mesh: Mesh) -> dict[str, Any]:
    """Image and gradients at 256x256, and the image only."""
    ours = Ours(mesh, 256)
    target = ours.target[0].double().numpy()
    calls: dict[str, Callable[[], Any]] = {"vision3d step": ours.step, "vision3d image": ours.forward}
    calls["vision3d fragments"] = ours.fragments
    calls["vision3d step, separate operations"] = functools.partial(ours.step, in_steps=True)
    deodr = available(lambda: Deodr(mesh, ours.colors, ours.viewmat, ours.K, 256))
    if deodr:
        calls |= {"deodr step": lambda: deodr.step(target), "deodr image": deodr.forward}
        calls["deodr step, compiled part"] = lambda: deodr.raster_step(target)
    rays = {"open3d": available(lambda: Open3d(mesh, ours.viewmat, ours.K, 256))}
    rays["mitsuba"] = available(lambda: Mitsuba(mesh, ours.viewmat, ours.K, 256))
    calls |= {f"{name} first hits": peer.forward for name, peer in rays.items() if peer}
    times = in_turns(calls)
    small = Ours(mesh, 64)  # the reference would take minutes on 256x256
    reference = {
        name: cpu_times(functools.partial(small.step, name), repeats=1, warmup=1)["min"] for name in ("native", "reference")
    }
    ratios = {}
    for name in times:
        kind = {"step": "step", "image": "image"}.get(name.split(",")[0].split()[-1], "fragments")
        if not name.startswith("vision3d"):
            ratios[name] = {key: times[name][key] / times[f"vision3d {kind}"][key] for key in ("min", "median")}
    return {
        "faces": mesh.num_faces,
        "size": 256,
        "threads": 1,
        "cpu_s": times,
        "ratio_to_vision3d": ratios,
        "torch reference, step of 64x64": reference,
    }


def many_faces() -> dict[str, Any]:
    """100 000 faces at 512x512, forward only."""
    vertices, faces = shapes.torus(1.0, 0.45, 250, 200)
    ours = Ours(Mesh(vertices, faces), 512)
    found: dict[str, Any] = {"faces": len(faces), "covered": float((ours.fragments().face_ids >= 0).float().mean())}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found[f"{threads} threads"] = {
            name: {"cpu_s": cpu_times(call, repeats=15), "wall_s": wall_times(call, repeats=15)}
            for name, call in (("fragments", ours.fragments), ("image", ours.forward))
        }
    torch.set_num_threads(1)
    peers = {"open3d": available(lambda: Open3d(ours.mesh, ours.viewmat, ours.K, 512))}
    peers["mitsuba"] = available(lambda: Mitsuba(ours.mesh, ours.viewmat, ours.K, 512))
    found["first hits, 1 thread, cpu_s"] = {name: cpu_times(peer.forward) for name, peer in peers.items() if peer}
    return found


def cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.double().flatten(), b.double().flatten()
    return float(a @ b / (a.norm() * b.norm()))


def gradients(mesh: Mesh) -> dict[str, Any]:
    """Against finite differences of whole images (float64, smooth loss), and against DEODR from so far away that its
    affine colors are accurate."""
    ours = Ours(mesh, 256, dtype=torch.float64)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 256), torch.linspace(-1, 1, 256), indexing="ij")
    weights = torch.stack([(2 * x + y).sin(), (x - 2 * y).cos(), x * y], -1).double()
    colors = 0.5 + 0.4 * torch.sin(3 * ours.vertices)
    loss = lambda vertices, colors: (ours.draw(vertices, colors)[0] * weights).sum()  # noqa: E731
    leaves = [value.detach().requires_grad_() for value in (ours.vertices, colors)]
    by_vertices, by_colors = torch.autograd.grad(loss(*leaves), leaves)
    center = ours.vertices.mean(0)
    moves = {"shift x": torch.tensor([1.0, 0, 0]).expand_as(center), "shift y": torch.tensor([0, 1.0, 0]), "scale": None}
    ratios = {}
    for name, move in moves.items():
        along = ours.vertices - center if move is None else move.double().expand_as(ours.vertices)
        step = 0.004  # about half a pixel: pixels change their faces in between
        with torch.no_grad():
            ends = [loss(ours.vertices + sign * step * along, colors) for sign in (1, -1)]
        ratios[name] = float((by_vertices * along).sum() / ((ends[0] - ends[1]) / (2 * step)))
    with torch.no_grad():
        change = torch.randn(colors.shape, generator=torch.Generator().manual_seed(2)).double()
        slope = loss(ours.vertices, colors + 0.5 * change) - loss(ours.vertices, colors - 0.5 * change)
    found: dict[str, Any] = {"to finite differences": ratios | {"colors": float((by_colors * change).sum() / slope)}}
    far = Ours(mesh, 256, distance=60, dtype=torch.float64)
    far.colors = colors
    deodr = available(lambda: Deodr(mesh, colors, far.viewmat, far.K, 256))
    if deodr:
        image = far.forward()[0]
        target = image + 0.5 * weights  # a smooth difference
        leaves = [value.detach().requires_grad_() for value in (far.positions(far.vertices), colors)]
        (far.shade(*leaves)[0] - target).square().sum().backward()
        deodr.step(target.numpy())
        # By the positions in the image: DEODR's transformation back to the world uses R instead of its transpose.
        mine = leaves[0].grad[0, :, :2] * leaves[0][0, :, 3:].detach()
        other, other_colors = (torch.from_numpy(value) for value in (deodr.scene.scene_2d.ij_b, deodr.scene.scene_2d.colors_b))
        edge = torch.zeros(mesh.num_vertices, dtype=torch.bool)
        edge[mesh.faces[torch.from_numpy(deodr.scene.scene_2d.edgeflags).any(1)].flatten()] = True
        found["to deodr"] = {
            "image, mean absolute difference": float((torch.from_numpy(deodr.forward()) - image).abs().mean()),
            "cosine by colors": cosine(leaves[1].grad, other_colors),
            "cosine by places, vertices off outlines": cosine(mine[~edge], other[~edge]),
            "cosine by places, vertices of outlines": cosine(mine[edge], other[edge]),
            "vertices of outlines": int(edge.sum()),
            "sum over the vertices of outlines, ratio x and y": (mine[edge].sum(0) / other[edge].sum(0)).tolist(),
        }  # fmt: skip
    return found


def agreement(folder: Path) -> dict[str, Any]:
    """Faces and depths against Open3D's ray casting."""
    import open3d

    found = {}
    for name in ("spot", "teapot", "suzanne"):
        mesh, counts = Mesh.load(folder / f"{name}.obj"), Agreement()
        scene = open3d.t.geometry.RaycastingScene(nthreads=1)
        faces = open3d.core.Tensor(mesh.faces.numpy().astype(np.uint32))
        scene.add_triangles(open3d.core.Tensor(mesh.vertices.numpy()), faces)
        for view in range(6):
            drawn = draw_view(mesh, view, 512)
            rays = torch.cat([drawn.origins, drawn.directions], -1).float().numpy()
            hits = scene.cast_rays(open3d.core.Tensor(rays), nthreads=1)
            depths = torch.from_numpy(hits["t_hit"].numpy()).double()
            ids = torch.from_numpy(hits["primitive_ids"].numpy().astype(np.int64))
            counts.add(drawn, torch.where(depths.isfinite(), ids, -1), depths)
        found[name] = asdict(counts) | {"share": counts.share}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("meshes", type=Path)
    add_options(parser)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(1)
    spot = Mesh.load(options.meshes / "spot.obj")
    results: dict[str, Any] = {}
    with ForeignLoad() as load:
        for name, part in {
            "speed": lambda: speed(spot), "100k faces": many_faces, "gradients": lambda: gradients(spot),
            "open3d_rays": lambda: agreement(options.meshes),
        }.items():  # fmt: skip
            results[name] = part()
            print(name, results[name], flush=True)
    write("meshes", results, load.share)


if __name__ == "__main__":
    main()
