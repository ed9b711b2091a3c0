"""Meshes of Gaussians fitted to rendered views: distance from the true surface, and textures in held-out views.

`shapes`: a sphere and a torus with analytic colors, rendered by our mesh rasterizer. `demo`: the bundled photo set, whose
surfaces are known analytically, inside a box around the table. `default`: the same photos with default options.
`objects`: textured meshes from files, rendered, fitted, meshed with default options, and compared with their ground truth.
"""

import argparse
import dataclasses
import functools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import mesh_quality
import numpy as np
import torch
from support import ForeignLoad, add_options, refuse_foreign_load, write
from torch import Tensor

from vision3d.core.config import load_yaml
from vision3d.geometry import mesh as geometry, shapes
from vision3d.geometry.cameras import camera_rays, intrinsics, look_at
from vision3d.io.dataset import load_dataset
from vision3d.io.images import write_image
from vision3d.optim.metrics import psnr
from vision3d.render.meshes import interpolate, rasterize, screen_positions, texture, texture_lods
from vision3d.scene import Cameras, GaussianScene, Mesh, PosedImages
from vision3d.stages.fit import FitConfig, fit
from vision3d.stages.mesh import MeshConfig, mesh_scene
from vision3d.stages.mesh.fusion import open3d

SIZE, VIEWS = 192, 40
SAMPLES = 100_000
STEPS = 2000
MESH = MeshConfig(resolution=128, faces=20_000)
SHAPES = {"sphere": shapes.icosphere(6), "torus": shapes.torus(1.0, 0.4, 256, 128)}
DEMO_BOX = (-1.05, -1.05, -0.05, 1.05, 1.05, 1.25)


def pattern(points: Tensor) -> Tensor:
    """Colors from position: waves of several lengths, which give a fit some texture."""
    channels = []
    for k, (slow, fast) in enumerate([(3.0, 7.0), (4.0, 9.0), (5.0, 6.0)]):
        x, y, z = points.roll(k, -1).unbind(-1)
        waves = 0.22 * torch.sin(slow * x + 1.3 * k) * torch.cos(slow * y - k)
        channels.append(0.5 + waves + 0.2 * torch.sin(2.3 * fast * z + fast * x) * torch.sin(2 * fast * y + k))
    return torch.stack(channels, -1).clamp(0, 1)


def drawn(mesh: Mesh, camera: Cameras, samples: int = 3) -> Tensor:
    """Colors and alpha (H, W, 4) of a mesh in a camera, averaged over `samples` x `samples` per pixel.

    A mesh without a texture has the colors of `pattern`.
    """
    width, height = int(camera.width) * samples, int(camera.height) * samples
    positions = screen_positions(mesh.vertices, camera.viewmats, camera.resized(width, height).Ks)
    fragments = rasterize(positions, mesh.faces, width, height)
    mask = (fragments.face_ids >= 0)[..., None].float()
    if mesh.texture is None or mesh.uvs is None:
        colors = pattern(interpolate(mesh.vertices, mesh.faces, fragments))
    else:
        size = (mesh.texture.shape[0], mesh.texture.shape[1])
        lods = texture_lods(positions, mesh.faces, fragments, mesh.uvs, mesh.faces, size)
        colors = texture(mesh.texture, interpolate(mesh.uvs, mesh.faces, fragments), lods=lods)
    both = torch.cat([colors * mask, mask], -1).permute(0, 3, 1, 2)
    rgb, alpha = torch.nn.functional.avg_pool2d(both, samples)[0].permute(1, 2, 0).split([3, 1], -1)
    return torch.cat([rgb / alpha.clamp(min=1e-6), alpha], -1)


def photographs(name: str, folder: Path) -> PosedImages:
    """Views all around a shape, every fifth held out."""
    place = torch.arange(VIEWS) + 0.5
    height, angle = 1 - 2 * place / VIEWS, place * math.pi * (3 - 5**0.5)
    around = (1 - height**2).sqrt()
    eyes = 4 * torch.stack([around * angle.cos(), around * angle.sin(), height], -1)
    K = intrinsics(1.7 * SIZE, 1.7 * SIZE, SIZE / 2, SIZE / 2)
    poses = look_at(eyes, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    cameras = Cameras.from_camtoworlds(poses, K, SIZE, SIZE)
    paths = [folder / f"{i:02d}.png" for i in range(VIEWS)]
    for camera, path in zip(cameras, paths, strict=True):
        write_image(path, drawn(Mesh(*SHAPES[name]), camera))
    return PosedImages(cameras, tuple(paths), torch.arange(VIEWS) % 5 == 2, source=folder)


def fit_config(mode: str, **changes: Any) -> FitConfig:
    """The preset `surface` for 2dgs, the defaults for ellipsoids."""
    base = load_yaml(FitConfig, "surface", stage="fit") if mode == "2dgs" else FitConfig()
    return dataclasses.replace(base, steps=STEPS, sh_degree=1, checkpoint_every=0, **changes)


def fitted_scene(name: str, images: PosedImages, config: FitConfig, cache: Path | None) -> tuple[GaussianScene, Cameras, dict]:
    """The scene of a fit, its training cameras and its metrics; from the cache if available."""
    folder = None if cache is None else cache / name
    if folder is not None and (folder / "fit.json").is_file():
        metrics = json.loads((folder / "fit.json").read_text())
        return GaussianScene.load(folder / "scene.ply"), Cameras.load(folder / "cameras.json"), metrics
    start = time.process_time()
    fitted = fit(config, images)
    metrics = {"fit_psnr": fitted.summary["psnr"], "fit_cpu_s": round(time.process_time() - start, 1)}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        fitted.scene.save(folder / "scene.ply")
        fitted.cameras.save(folder / "cameras.json")
        (folder / "fit.json").write_text(json.dumps(metrics))
    return fitted.scene, fitted.cameras, metrics


def samples_of(mesh: Mesh, count: int = SAMPLES, seed: int = 0) -> Tensor:
    """Points sampled uniformly on a mesh."""
    generator = torch.Generator().manual_seed(seed)
    vertices = mesh.vertices.double()
    shares = geometry.face_areas(vertices, mesh.faces).cumsum(0)
    face = torch.searchsorted(shares / shares[-1], torch.rand(count, generator=generator, dtype=torch.float64))
    a, b, c = vertices[mesh.faces[face.clamp(max=mesh.num_faces - 1)]].unbind(1)
    u, v = torch.rand(2, count, 1, generator=generator, dtype=torch.float64)
    root = u.sqrt()
    return (1 - root) * a + root * (1 - v) * b + root * v * c


def to_mesh(points: Tensor, mesh: Mesh) -> Tensor:
    """Distances of points from a mesh."""
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(o3d.core.Tensor(mesh.vertices.float().numpy()), o3d.core.Tensor(mesh.faces.numpy().astype(np.uint32)))
    return torch.from_numpy(scene.compute_distance(o3d.core.Tensor(points.float().numpy())).numpy()).double()


def to_points(points: Tensor, others: Tensor) -> Tensor:
    """Distances of points from the nearest of `others`."""
    from scipy.spatial import KDTree

    return torch.from_numpy(KDTree(others.numpy()).query(points.numpy())[0])


def to_shape(points: Tensor, name: str) -> Tensor:
    """Signed distances of points from an analytic shape."""
    if name == "sphere":
        return points.norm(dim=-1) - 1
    around = points[:, :2].norm(dim=-1) - 1
    return (around.square() + points[:, 2].square()).sqrt() - 0.4


def chamfer(name: str, mesh: Mesh) -> dict[str, float]:
    """Distances in percent of the diagonal of the shape's box: to the surfaces, and between the samples only."""
    truth = Mesh(*SHAPES[name])
    diagonal = float((truth.vertices.max(0).values - truth.vertices.min(0).values).norm())
    own, true = samples_of(mesh), samples_of(truth, seed=1)
    there, back = to_shape(own, name), to_mesh(true, mesh)
    between = 0.5 * (to_points(own, true).mean() + to_points(true, own).mean())
    values = {
        "mesh_to_truth": there.abs().mean(),
        "truth_to_mesh": back.mean(),
        "chamfer": 0.5 * (there.abs().mean() + back.mean()),
        "chamfer_of_samples": between,
        "bias": there.mean(),
        "max": there.abs().max(),
    }
    return {key: round(100 * float(value) / diagonal, 4) for key, value in values.items()}


def of_shapes(cache: Path | None) -> dict[str, Any]:
    """Sphere and torus, fitted in both modes; for 2dgs also with other depths and Poisson reconstruction."""
    results: dict[str, Any] = {"views": VIEWS, "size": SIZE, "steps": STEPS, "gaussians": 8000, "unit": "% of the diagonal"}
    for name in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            images = photographs(name, Path(folder))
            for mode in ("2dgs", "3dgs"):
                config = fit_config(mode, max_gaussians=8000, init_count=8000, background="random")
                scene, cameras, metrics = fitted_scene(f"{name}_{mode}", images, config, cache)
                row: dict[str, Any] = dict(metrics)
                variants = {"tsdf": MESH}
                if mode == "2dgs":
                    variants["tsdf, median"] = dataclasses.replace(MESH, quantile=0.5, texture_size=0)
                    variants["tsdf, expected depth"] = dataclasses.replace(MESH, depth="expected", texture_size=0)
                    variants["poisson"] = dataclasses.replace(MESH, method="poisson", texture_size=0)
                for kind, mesh_config in variants.items():
                    start = time.process_time()
                    made = mesh_scene(mesh_config, scene, cameras)
                    found = {"mesh_cpu_s": round(time.process_time() - start, 1), **chamfer(name, made.mesh)}
                    found |= {key: made.summary[key] for key in ("faces", "is_closed", "resolution", "seen_share")}
                    if made.mesh.texture is not None:
                        found["psnr"] = _psnr_in_held_out_views(made.mesh, images)
                    row[kind] = found
                    print(name, mode, kind, found, flush=True)
                results.setdefault(name, {})[mode] = row
    return results


def _psnr_in_held_out_views(mesh: Mesh, images: PosedImages) -> float:
    """Mean over the held-out views for the textured mesh and the photos, both on white."""
    found = []
    for index in images.test.tolist():
        rgb, alpha = drawn(mesh, images.cameras[index]).split([3, 1], -1)
        found.append(float(psnr(rgb * alpha + 1 - alpha, images.read(index)[0])))
    return round(sum(found) / len(found), 3)


def of_demo(cache: Path | None) -> dict[str, Any]:
    """The still life of the bundled photo set, inside a box around its table."""
    folder = Path(str(resources.files("vision3d") / "assets" / "demo"))
    sys.path.insert(0, str(folder))
    import scene as still_life

    low, high = torch.tensor(DEMO_BOX, dtype=torch.float64).view(2, 3)

    def hits(camera: Cameras) -> tuple[Tensor, Tensor]:
        """True positions of the pixels (H, W, 3), and a mask of those inside the box."""
        origins, directions = camera_rays(
            camera.camtoworlds[0].double(), camera.Ks[0].double(), int(camera.width), int(camera.height)
        )
        along = still_life.trace(origins.reshape(-1, 3).numpy(), directions.reshape(-1, 3).numpy())[0]
        places = origins + torch.from_numpy(along).view(*origins.shape[:2], 1) * directions
        return places, ((places > low) & (places < high)).all(-1)

    images = load_dataset(folder)
    scene, cameras, metrics = fitted_scene("demo", images, fit_config("2dgs", max_gaussians=20_000), cache)
    results: dict[str, Any] = {"steps": STEPS, **metrics}
    start = time.process_time()
    made = mesh_scene(MeshConfig(box=DEMO_BOX, resolution=256, faces=100_000, texture_size=2048), scene, cameras)
    results |= {"mesh_cpu_s": round(time.process_time() - start, 1), "mesh": made.summary}
    truth = []
    for camera in images.cameras[images.train]:
        places, _ = hits(camera)
        truth.append(places[((places > low - 0.3) & (places < high + 0.3)).all(-1)])
    points = torch.cat(truth)
    # Close surfaces have more pixels; one point per cell of 4 mm makes the samples uniform.
    _, first = np.unique(np.floor(points.numpy() / 0.004).astype(np.int64), axis=0, return_index=True)
    points = points[torch.from_numpy(first)]
    is_inside = ((points > low) & (points < high)).all(-1)
    there, back = to_points(samples_of(made.mesh), points), to_mesh(points[is_inside], made.mesh)
    diagonal = math.dist(DEMO_BOX[:3], DEMO_BOX[3:])
    results |= {
        "truth": f"{int(is_inside.sum())} analytic surface points in the box, visible in training views, one per cell of 4 mm",
        "diagonal_m": diagonal,
        "chamfer": round(50 * float(there.mean() + back.mean()) / diagonal, 4),
        "mesh_to_truth": round(100 * float(there.mean()) / diagonal, 4),
        "truth_to_mesh": round(100 * float(back.mean()) / diagonal, 4),
        "median_mm": {"mesh_to_truth": 1e3 * float(there.median()), "truth_to_mesh": 1e3 * float(back.median())},
    }
    errors, own_errors, covered = [], [], []
    from vision3d.render import render_views

    for index in images.test.tolist():
        camera = images.cameras[index]
        _, is_inside = hits(camera)
        photo = images.read(index)[0]
        rgb, alpha = drawn(made.mesh, camera).split([3, 1], -1)
        view = next(iter(render_views(scene, camera)))
        assert view.image is not None
        errors.append((rgb * alpha - photo).square().mean(-1)[is_inside])
        own_errors.append((view.image.clamp(0, 1) - photo).square().mean(-1)[is_inside])
        covered.append(alpha[..., 0][is_inside])
    for name, found in (("psnr_on_the_table", errors), ("fit_psnr_on_the_table", own_errors)):
        results[name] = round(sum(-10 * math.log10(float(error.mean())) for error in found) / len(found), 3)
    results["covered"] = round(float(torch.cat(covered).mean()), 4)
    return results


def beside_truth(mesh: Mesh, points: Tensor, truth: Callable[[Tensor], Tensor], cameras: Cameras) -> dict[str, float]:
    """Mean distances [m] of surfaces visible to at least 3 cameras: mesh to truth, and points of the truth to the mesh."""
    own = samples_of(mesh)
    own = own[mesh_quality.times_seen(own, cameras, mesh_quality.depths_of(mesh, cameras)) >= 3]
    there, back = truth(own), to_mesh(points, mesh)
    return {"mesh_to_truth": float(there.mean()), "truth_to_mesh": float(back.mean())}


def of_default(cache: Path | None) -> dict[str, Any]:
    """The bundled photo set with default options, ellipsoids of the preset `demo` and 2dgs of the preset `surface`."""
    folder = Path(str(resources.files("vision3d") / "assets" / "demo"))
    sys.path.insert(0, str(folder))
    import scene as still_life

    images = load_dataset(folder)
    cameras = images.cameras[images.train]
    depths, places = [], []
    for camera in cameras:
        width, height = int(camera.width), int(camera.height)
        origins, directions = camera_rays(camera.camtoworlds[0].double(), camera.Ks[0].double(), width, height)
        along = still_life.trace(origins.reshape(-1, 3).numpy(), directions.reshape(-1, 3).numpy())[0]
        hit = origins + torch.from_numpy(along).view(height, width, 1) * directions
        depths.append(((hit - camera.centers[0]) @ camera.camtoworlds[0, :3, 2].double()).float())
        places.append(hit[::2, ::2].reshape(-1, 3))
    points = torch.cat(places)
    points = points[mesh_quality.times_seen(points, cameras, lambda index: depths[index]) >= 3]
    # Close surfaces have more pixels; one point per cell of 8 mm makes the samples uniform.
    _, first = np.unique(np.floor(points.numpy() / 0.008).astype(np.int64), axis=0, return_index=True)
    points = points[torch.from_numpy(first)]
    is_on_table = (points[:, :2].norm(dim=-1) < 1.02) & (points[:, 2] > -0.02)
    photos = [images.read(index)[0] for index in images.test.tolist()]
    results: dict[str, Any] = {"unit": "mm"}
    for mode, steps in (("3dgs", 5000), ("2dgs", 2500)):
        base = load_yaml(FitConfig, "demo" if mode == "3dgs" else "surface", stage="fit")
        config = dataclasses.replace(base, minutes=None, steps=steps, max_gaussians=20_000, checkpoint_every=0)
        scene, trained, metrics = fitted_scene(f"default_{mode}", images, config, cache)
        start = time.process_time()
        made = mesh_scene(MeshConfig(), scene, trained)
        row: dict[str, Any] = {"steps": steps, **metrics, "mesh_cpu_s": round(time.process_time() - start, 1)}
        row |= {"mesh": made.summary, **mesh_quality.topology(made.mesh)}
        for name, truth in (("all", points), ("table", points[is_on_table])):
            low, high = (truth.amin(0) - 0.02, truth.amax(0) + 0.02)
            middles = made.mesh.vertices[made.mesh.faces].mean(1)
            mesh = made.mesh if name == "all" else made.mesh.crop(((middles > low) & (middles < high)).all(-1))
            found = beside_truth(mesh, truth, lambda own: to_points(own, points), cameras)
            row[name] = {key: round(1e3 * value, 2) for key, value in found.items()}
        row |= mesh_quality.psnr_beside_scene(made.mesh, scene, images.cameras[images.test], photos, torch.zeros(3))
        results[mode] = row
        print(mode, row, flush=True)
    return results


def of_objects(files: list[Path], cache: Path | None) -> dict[str, Any]:
    """Textured meshes from files: 56 views of 256x256, every eighth held out, 2500 steps, default options of the mesh."""
    results: dict[str, Any] = {"unit": "% of the diagonal"}
    place = torch.arange(56) + 0.5
    height, angle = 1 - 2 * place / 56, place * math.pi * (3 - 5**0.5)
    around = (1 - height**2).sqrt()
    eyes = 3.2 * torch.stack([around * angle.cos(), height, around * angle.sin()], -1)
    poses = look_at(eyes, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
    cameras = Cameras.from_camtoworlds(poses, intrinsics(345.6, 345.6, 128, 128), 256, 256)
    is_test = torch.arange(56) % 8 == 0
    for path in files:
        truth = Mesh.load(path)
        low, high = truth.vertices.amin(0), truth.vertices.amax(0)
        truth = dataclasses.replace(
            truth, vertices=(2 * (truth.vertices - (low + high) / 2) / (high - low).norm()).contiguous()
        )
        with tempfile.TemporaryDirectory() as name:
            paths = [Path(name) / f"{index:02d}.png" for index in range(56)]
            for camera, file in zip(cameras, paths, strict=True):
                rgb, alpha = mesh_quality.drawn(truth, camera)
                write_image(file, torch.cat([rgb / alpha.clamp(min=1e-6), alpha], -1).clamp(0, 1))
            images = PosedImages(cameras, tuple(paths), is_test, source=Path(name))
            config = FitConfig(steps=2500, max_gaussians=12_000, checkpoint_every=0)
            scene, trained, metrics = fitted_scene(path.stem, images, config, cache)
        start = time.process_time()
        made = mesh_scene(MeshConfig(), scene, trained)
        row: dict[str, Any] = {**metrics, "mesh_cpu_s": round(time.process_time() - start, 1)}
        row |= mesh_quality.topology(made.mesh)
        points = samples_of(truth, seed=1)
        points = points[mesh_quality.times_seen(points, trained, mesh_quality.depths_of(truth, trained)) >= 3]
        found = beside_truth(made.mesh, points, lambda own, truth=truth: to_mesh(own, truth), trained)
        row |= {key: round(50 * value, 4) for key, value in found.items()}
        row["chamfer"] = round(0.5 * (row["mesh_to_truth"] + row["truth_to_mesh"]), 4)
        # The fit uses white behind images with alpha.
        held_out, photos = cameras[is_test], []
        for camera in held_out:
            rgb, alpha = mesh_quality.drawn(truth, camera)
            photos.append(rgb + 1 - alpha)
        row |= mesh_quality.psnr_beside_scene(made.mesh, scene, held_out, photos, torch.ones(3))
        results[path.stem] = row
        print(path.stem, row, flush=True)
    return results


PARTS = {"shapes": of_shapes, "demo": of_demo, "default": of_default}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "objects", []], help="parts to run (default: all but objects)")
    parser.add_argument("--objects", type=Path, nargs="*", default=[], help="textured mesh files for the part objects")
    parser.add_argument("--scenes", type=Path, help="folder in which fitted scenes are cached")
    parser.add_argument("--threads", type=int, default=2)
    add_options(parser)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(options.threads)
    for name in options.parts or PARTS:
        with ForeignLoad() as load:
            part = functools.partial(of_objects, options.objects) if name == "objects" else PARTS[name]
            results = part(options.scenes)
        print(name, results)
        doc = of_objects.__doc__ if name == "objects" else PARTS[name].__doc__
        write(f"mesh_{name}", {"what": doc, **results}, load.share)


if __name__ == "__main__":
    main()
