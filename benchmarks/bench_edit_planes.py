"""Planes of edits: refinement against a long fit, baked meshes, consistency between views, shapes that are free to change.

Objects are those of the test split of sweethome3d-furniture, which no training has seen. `--splats` adds Gaussians to the
measurement of consistency. The glTF validator needs `make test-viewer`; without it, baked files are not validated.
"""

import argparse
import functools
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, add_options, refuse_foreign_load, write
from torch import Tensor

from vision3d.geometry.cameras import pixel_grid, unproject
from vision3d.geometry.se3 import transform_points
from vision3d.render import render_scene
from vision3d.render.camera_paths import path_cameras
from vision3d.render.triplanes.field import query
from vision3d.render.triplanes.surface import triplane_mesh
from vision3d.render.triplanes.volume import render_triplane, triplane_views
from vision3d.render.views import View
from vision3d.scene import Cameras, GaussianScene, Mesh, Triplane
from vision3d.scene.upright import Axis, axis_vector, up_by_convention
from vision3d.stages.edit import EditConfig, Editor
from vision3d.stages.edit.data.samples import furniture_models, is_inside
from vision3d.stages.edit.evaluation.accuracy import difference
from vision3d.stages.edit.evaluation.consistency import inconsistency
from vision3d.stages.edit.fitting import Observed, fit_planes, refined_planes
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.instructions.targets import apply_edits
from vision3d.stages.edit.objects.files import write_object
from vision3d.stages.edit.objects.points import COUNT, ObjectPoints, points_of_mesh, to_cube, with_material
from vision3d.stages.edit.objects.recolor import recolor_gaussians
from vision3d.stages.edit.run_config import REFINE
from vision3d.stages.edit.transfer import Transfer
from vision3d.stages.edit.views import orbit

STEPS, FIT_STEPS = (10, 30, 100), 2000
FIT_EDITS = [Edit("grey"), Edit("darker"), Edit("metallic"), Edit("color", "red"), Edit("stripes")]
VIEW_EDITS = [Edit("color", "red"), Edit("darker"), Edit("grey"), Edit("stripes"), Edit("wood")]
GRID = 96
VIEWS, VIEW_SIZE, REFIT_STEPS = 12, 96, 200
VALIDATOR = Path(__file__).parents[1] / "tests" / "outside" / "validate_gltf.mjs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("furniture", type=Path, help="folder with .sh3f files of sweethome3d-furniture")
    parser.add_argument("--splats", type=Path, nargs="*", default=[], help="Gaussians (.ply, .spz)")
    parser.add_argument("--fits", type=int, default=8, help="objects to fit planes to, a minute or two each")
    parser.add_argument("--baked", type=int, default=12, help="objects to bake")
    parser.add_argument("--consistent", type=int, default=4, help="objects to compare views of")
    parser.add_argument("--shapes", type=int, default=12, help="objects whose shape is free to change")
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    editor = Editor()
    results: dict[str, Any] = {}
    with ForeignLoad() as load:
        if options.baked:
            results["baked"] = baked(editor, options.furniture, options.baked)
        if options.consistent:
            results["consistency"] = consistency(editor, options.furniture, options.consistent, options.splats)
        if options.shapes:
            results["shapes"] = shapes(editor, options.furniture, options.shapes)
        if options.fits:
            results["fits"] = fits(editor, options.furniture, options.fits)
    print(json.dumps(results, indent=1))
    write("edit_planes", results, load.share)


def test_meshes(furniture: Path, count: int) -> list[tuple[str, Mesh]]:
    """Some objects of the test split."""
    models = furniture_models(furniture, "test")
    rows = torch.randperm(len(models), generator=torch.Generator().manual_seed(0))[:count].tolist()
    return [(item.name, archive.mesh(item)) for archive, item in (models[row] for row in rows)]


def baked(editor: Editor, furniture: Path, count: int) -> dict[str, Any]:
    """Triplanes as .glb, read back and compared with the field in images: PSNR [dB] over pixels that both fill, and over all
    that one of them touches; issues of the validator; CPU seconds."""
    found = []
    for name, mesh in test_meshes(furniture, count):
        field = editor.encode_mesh(mesh, "z", REFINE).source
        cameras = orbit(field, "z", EditConfig(views=4, view_size=192))
        with tempfile.TemporaryDirectory() as folder:
            path, started = Path(folder) / "baked.glb", time.process_time()
            write_object(path, field)
            seconds = time.process_time() - started
            issues, size = validated(path), path.stat().st_size
            again = Mesh.load(path)
        again = replace(again, vertices=again.vertices @ torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), normals=None)
        inner, outer = [], []
        for view, other in zip(
            triplane_views(field, cameras), render_scene(again, cameras, shading="none", backgrounds=(1.0, 1.0, 1.0))
        ):
            assert view.image is not None and other.image is not None
            errors = (view.image - other.image).square().mean(-1)
            inner.append(errors[(view.alpha > 0.99) & (other.alpha > 0.99)])
            outer.append(errors[(view.alpha > 0.01) | (other.alpha > 0.01)])
        found.append({
            "object": name, "inner_db": decibels(torch.cat(inner)), "outer_db": decibels(torch.cat(outer)),
            "inner_share": round(sum(map(len, inner)) / max(1, sum(map(len, outer))), 3), **issues, "faces": again.num_faces,
            "megabytes": round(size / 1e6, 2), "cpu_s": round(seconds, 2),
        })  # fmt: skip
        print(json.dumps(found[-1]), flush=True)
    keys = ("inner_db", "outer_db", "inner_share", "cpu_s")
    return {**{key: round(statistics.mean(row[key] for row in found), 2) for key in keys}, "objects": found}


def shapes(editor: Editor, furniture: Path, count: int) -> dict[str, Any]:
    """Shapes before and after edits with `allow_geometry`: IoU of the insides, on a grid; distance of the surfaces (mean of
    both directions) in percent of the diagonal of the object's box."""
    rows = []
    for name, mesh in test_meshes(furniture, count):
        before = editor.encode_mesh(mesh, "z", REFINE)
        for edit in VIEW_EDITS:
            after = editor.apply(before, [edit], free=True).edited
            inside = [query(field, _grid(GRID)).logits > 0 for field in (before.source, after)]
            iou = float((inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum())
            vertices = [triplane_mesh(field, GRID).vertices for field in (before.source, after)]
            low, high = vertices[0].amin(0), vertices[0].amax(0)
            near = [torch.cdist(a[::5], b).amin(1).mean() for a, b in (vertices, vertices[::-1])]
            distance = 50 * float(sum(near) / (high - low).norm())
            rows.append({"object": name, "edit": str(edit), "iou": round(iou, 4), "distance_percent": round(distance, 4)})
        print(json.dumps(rows[-1]), flush=True)
    worst = {"iou": min(row["iou"] for row in rows), "distance_percent": max(row["distance_percent"] for row in rows)}
    means = {key: round(statistics.mean(row[key] for row in rows), 4) for key in worst}
    return {"means": means, "worst": worst, "rows": rows}


def _grid(size: int) -> Tensor:
    at = (2 * torch.arange(size, dtype=torch.float32) + 1) / size - 1
    return torch.cartesian_prod(at, at, at)


def validated(path: Path) -> dict[str, int]:
    """Numbers of errors and warnings of the glTF validator."""
    if shutil.which("node") is None or not (VALIDATOR.parent / "node_modules").is_dir():
        return {}
    done = subprocess.run(["node", str(VALIDATOR), str(path)], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    return {"errors": report["numErrors"], "warnings": report["numWarnings"]}


def decibels(errors: Tensor) -> float:
    return round(float(-10 * errors.mean().clamp(min=1e-6).log10()), 2) if len(errors) else float("nan")


def consistency(editor: Editor, furniture: Path, count: int, splats: Sequence[Path]) -> dict[str, Any]:
    """Inconsistency between neighboring views of an orbit (mean dE2000): of the object as it is, edited by closed forms, with
    each image edited by itself in image coordinates, and fitted to these images again."""
    rows = []
    for name, mesh in test_meshes(furniture, count):
        before = editor.encode_mesh(mesh, "z", REFINE)
        cameras = orbit(before.source, "z", EditConfig(views=VIEWS, view_size=VIEW_SIZE))
        views = list(triplane_views(before.source, cameras))
        own = inconsistency(views, cameras, extent_of(before.source))
        for edit in VIEW_EDITS:
            field = editor.apply(before, [edit]).edited
            painted = [recolored(view, edit) for view in views]
            refit = refit_triplane(editor, before.source, cameras, painted)
            pair = [list(triplane_views(one, cameras)) for one in (field, refit)]
            rows.append(row_of("triplane", name, edit, own, [pair[0], painted, pair[1]], cameras, extent_of(before.source)))
    for path in splats:
        scene = GaussianScene.load(path)
        up: Axis = up_by_convention(scene, path.suffix)
        cameras = path_cameras(scene, "orbit", num=VIEWS, size=(VIEW_SIZE, VIEW_SIZE), up=axis_vector(up))
        views = gaussian_views(scene, cameras)
        low, high = (scene.means.quantile(at, dim=0) for at in (0.02, 0.98))
        extent = float((high - low).norm())
        own, before = inconsistency(views, cameras, extent), editor.encode_gaussians(scene, up, refine=REFINE)
        for edit in VIEW_EDITS:
            after, _ = recolor_gaussians(scene, editor.apply(before, [edit]))
            painted = [recolored(view, edit) for view in views]
            refit = refit_gaussians(scene, cameras, painted)
            pair = [gaussian_views(one, cameras) for one in (after, refit)]
            rows.append(row_of("Gaussians", path.stem, edit, own, [pair[0], painted, pair[1]], cameras, extent))
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("triplane", "Gaussians")}
    keys = ("own", "edited", "each_view", "refit", "refit_error")
    means = {
        kind: {key: round(statistics.mean(row[key] for row in some), 2) for key in keys} for kind, some in kinds.items() if some
    }
    for mean in means.values():
        mean["to_own"], mean["to_each_view"] = (round(mean["edited"] / mean[key], 3) for key in ("own", "each_view"))
        mean["to_refit"] = round(mean["edited"] / mean["refit"], 3)
    return {"means": means, "rows": rows}


def row_of(
    kind: str, name: str, edit: Edit, own: Any, made: list[list[View]], cameras: Cameras, extent: float
) -> dict[str, Any]:
    edited, each_view, refit = (round(inconsistency(views, cameras, extent).delta_e, 3) for views in made)
    errors = [
        difference(first.image[first.alpha > 0.99], last.image[first.alpha > 0.99])
        for first, last in zip(made[0], made[2])
        if first.image is not None and last.image is not None
    ]
    row = {
        "kind": kind, "object": name, "edit": str(edit), "own": round(own.delta_e, 3), "points": own.points, "edited": edited,
        "each_view": each_view, "refit": refit, "refit_error": round(statistics.mean(errors), 2),
    }  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def extent_of(field: Triplane) -> float:
    """Diagonal of a cube [m]."""
    return float(torch.linalg.vector_norm(field.matrix[:3, 0])) * 2 * 3**0.5


def gaussian_views(scene: GaussianScene, cameras: Cameras) -> list[View]:
    with torch.no_grad():
        views = render_scene(scene, cameras, render_mode="RGB+ED", backgrounds=(1.0, 1.0, 1.0))
        return [view._replace(image=None if view.image is None else view.image.clamp(0, 1)) for view in views]


def recolored(view: View, edit: Edit) -> View:
    """An image after an edit that knows nothing of the others: its own means, and places in the image."""
    assert view.image is not None
    solid = view.alpha > 0.5
    rows, columns = solid.nonzero().unbind(1)
    places = torch.stack([columns.float(), torch.zeros(len(rows)), -rows.float()], 1)
    middle, half = (places.amax(0) + places.amin(0)) / 2, (places.amax(0) - places.amin(0)).max() / 2
    image = view.image.clone()
    image[solid] = apply_edits([edit], (places - middle) / half, view.image[solid].clamp(0, 1)).colors
    return view._replace(image=image)


def refit_triplane(editor: Editor, field: Triplane, cameras: Cameras, views: list[View]) -> Triplane:
    """The colors of a triplane fitted to images."""
    points, colors = [], []
    for view, viewmat, K in zip(views, cameras.viewmats, cameras.Ks):
        assert view.depth is not None and view.image is not None
        solid = view.alpha > 0.99
        seen = unproject(pixel_grid(VIEW_SIZE, VIEW_SIZE)[solid][None], view.depth[solid][None], K[None])[0]
        points.append(transform_points(torch.linalg.inv(viewmat), seen))
        colors.append(view.image[solid])
    places = to_cube(field.matrix, torch.cat(points)).clamp(-1, 1)
    observed = Observed(places, with_material(torch.cat(colors)))
    return replace(field, planes=fit_planes(editor.planes.network, field.planes, observed, steps=REFIT_STEPS, lr=0.1))


def refit_gaussians(scene: GaussianScene, cameras: Cameras, views: list[View]) -> GaussianScene:
    """The harmonics of Gaussians fitted to images."""
    sh = scene.sh.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([sh], lr=0.02)
    for step in range(REFIT_STEPS):
        index = step % len(views)
        image = views[index].image
        view = next(render_scene(replace(scene, sh=sh), cameras[index : index + 1], backgrounds=(1.0, 1.0, 1.0)))
        assert view.image is not None and image is not None
        optimizer.zero_grad()
        (view.image - image).abs().mean().backward()
        optimizer.step()
    return replace(scene, sh=sh.detach())


def fits(editor: Editor, furniture: Path, count: int) -> dict[str, Any]:
    """Planes of the encoder, refined by some steps, and fitted for about a minute, of objects of the test split.

    PSNR of colors in images, over the pixels of the object; PSNR at points of the surface that none of them has seen; mean
    dE2000 of edits by closed forms there; CPU seconds.
    """
    generator = torch.Generator().manual_seed(1)
    found = []
    for name, mesh in test_meshes(furniture, count):
        points = points_of_mesh(mesh, "z", 5 * COUNT)
        held_out = _every_fifth(points, 1)
        encoded = editor.encode(_every_fifth(points, 0)).source
        network, row = editor.planes.network, {"object": name}
        cameras = path_cameras(mesh, "orbit", num=4, size=(96, 96), up=axis_vector("z"))
        views = list(render_scene(mesh, cameras, shading="none", backgrounds=(1.0, 1.0, 1.0)))
        others = [_every_fifth(points, start) for start in (0, 2, 3, 4)]
        places, values = (torch.cat([getattr(one, name) for one in others]) for name in ("points", "values"))
        queries = places[torch.randint(len(places), (COUNT,), generator=generator)]
        queries = (queries + 0.05 * torch.randn(COUNT, 3, generator=generator)).clamp(-1, 1)
        inside = is_inside(to_cube(points.matrix, mesh.vertices), mesh.faces, queries)
        of_encoder, of_fit = Observed(others[0].points, others[0].values), Observed(places, values, queries, inside)
        ways = {
            f"{steps} steps": functools.partial(refined_planes, network, encoded.planes, of_encoder, steps) for steps in STEPS
        }
        ways["fit"] = functools.partial(fit_planes, network, encoded.planes, of_fit, steps=FIT_STEPS)
        row["encoder"] = _scores(editor, encoded, held_out, cameras, views)
        for way_name, way in ways.items():
            started = time.process_time()
            field = editor.planes.triplane(way(), points.matrix)
            seconds = time.process_time() - started
            row[way_name] = {**_scores(editor, field, held_out, cameras, views), "cpu_s": round(seconds, 2)}
        found.append(row)
        print(json.dumps(row), flush=True)
    means = {
        name: {key: round(statistics.mean(row[name][key] for row in found), 2) for key in found[0][name]}
        for name in found[0]
        if name != "object"
    }
    return {"means": means, "objects": found}


def _every_fifth(points: ObjectPoints, start: int) -> ObjectPoints:
    return ObjectPoints(points.points[start::5], points.values[start::5], points.weights[start::5], points.matrix)


def _scores(editor: Editor, field: Triplane, held_out: ObjectPoints, cameras: Any, views: list[Any]) -> dict[str, float]:
    images = render_triplane(field, cameras)
    errors = [(image - view.image).square()[view.alpha > 0.99].mean() for image, view in zip(images, views)]
    own = held_out.values[:, :3]
    colors = query(field, held_out.points.clamp(-1, 1)).colors
    differences = []
    for edit in FIT_EDITS:
        goal, after = (apply_edits([edit], held_out.points, before).colors for before in (own, colors))
        differences.append(difference(Transfer.of(colors, after).apply(own).clamp(0, 1), goal))
    return {
        "images_db": round(float(-10 * torch.stack(errors).mean().log10()), 2),
        "points_db": round(float(-10 * (colors - own).square().mean().clamp(min=1e-6).log10()), 2),
        "edits_de": round(statistics.mean(differences), 2),
    }


if __name__ == "__main__":
    main()
