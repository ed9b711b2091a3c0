"""Gaussians on a mesh, refined to images."""

import json
import math
import os
import signal
from dataclasses import replace

import pytest
import torch

from tests.support.balls import ball, bare, photos_of, write_cut_out
from tests.support.photos import blobs
from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError, NumericalError
from vision3d.core.progress import silent
from vision3d.core.runs import Interrupted, RunFolder, read_metrics
from vision3d.io.dataset import load_dataset
from vision3d.io.images import read_image, write_image
from vision3d.scene import Cameras, Mesh, MeshGaussians, load
from vision3d.stages.animate import StaticConfig, bind_gaussians
from vision3d.stages.animate.static.config import ReferenceView, StaticLoss, StaticRates
from vision3d.stages.animate.static.reference import Orbit
from vision3d.stages.animate.static.run import StaticTrainer
from vision3d.stages.animate.static.surface import checked_mesh

FEW = StaticConfig(steps=12, per_face=1, coarse=1, log_every=4, checkpoint_every=5)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return photos_of(ball(), tmp_path_factory.mktemp("photos") / "set")


@pytest.mark.parametrize("per_face", [1, 3, 4, 6])
def test_held_out_views_improve(photos, tmp_path, per_face):
    config = StaticConfig(per_face=per_face, steps=50, coarse=1)
    result = bind_gaussians(config, bare(ball()), data=photos, run_folder=tmp_path / "run", progress=silent)
    summary = result.summary
    assert summary["psnr"] > summary["psnr_before"] + 2
    assert summary["guidance"] == "none" and summary["gaussians"] == 320 * per_face
    assert (summary["training_views"], summary["held_out_views"], summary["mesh_parts"]) == (10, 2, 1)
    again = load(tmp_path / "run" / "gaussians.safetensors")
    assert isinstance(again, MeshGaussians) and torch.equal(again.sh, result.gaussians.sh)
    assert {"gaussians.glb", "cameras.json", "eval.json", "contact_sheet.png", "curves.png", "metrics.jsonl"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["mean"]["psnr"] == pytest.approx(summary["psnr"])
    assert read_image(tmp_path / "run" / "figures" / "before_after.png").shape[1] == 3 * 48 + 8


def test_a_wrong_shape_approaches_the_true_one(photos):
    """A sphere that is 10 % too large shrinks if its vertices may move, and is unchanged otherwise."""
    large = replace(ball(), vertices=1.1 * ball().vertices)
    config = StaticConfig(per_face=3, steps=60, rates=StaticRates(vertices=4e-3))
    moved = bind_gaussians(config, large, data=photos, progress=silent)
    fixed = bind_gaussians(replace(config, vertices=False), large, data=photos, progress=silent)
    radii = torch.linalg.vector_norm(moved.gaussians.mesh.vertices, dim=-1)
    assert 0.56 < float(radii.mean()) < 0.62  # slightly below 0.6, as Gaussians extend over the outline
    assert torch.equal(fixed.gaussians.mesh.vertices, large.vertices)
    assert moved.summary["psnr"] > fixed.summary["psnr"]


def test_colors_of_a_plain_mesh_are_recovered_and_stored_at_its_vertices(photos):
    result = bind_gaussians(StaticConfig(per_face=1, steps=120, coarse=1), bare(ball()), data=photos, progress=silent)
    colors = result.gaussians.mesh.vertex_colors
    seen = ball().vertices[:, 1].abs() < 0.3  # well visible from the ring of cameras
    assert (colors - ball().vertex_colors)[seen].abs().mean() < 0.06
    assert bind_gaussians(replace(FEW, steps=0), bare(ball())).gaussians.mesh.vertex_colors is None


def test_seams_stay_closed_and_normals_follow(photos):
    """Vertices duplicated at a seam move together."""
    whole = ball()
    corners = whole.faces.flatten()
    torn = Mesh(
        1.05 * whole.vertices[corners],
        torch.arange(len(corners)).view(-1, 3),
        normals=whole.vertices[corners] / 0.6,
        vertex_colors=whole.vertex_colors[corners],
    )
    mesh = bind_gaussians(FEW, torn, data=photos, progress=silent).gaussians.mesh
    assert not torch.equal(mesh.vertices, torn.vertices)
    for corner in range(len(whole.vertices)):
        assert len(mesh.vertices[corners == corner].unique(dim=0)) == 1
    torch.testing.assert_close(mesh.normals, torn.normals, atol=0.05, rtol=0)
    torch.testing.assert_close(torch.linalg.vector_norm(mesh.normals, dim=-1), torch.ones(len(corners)))


def metrics(folder):
    return [{key: value for key, value in line.items() if key != "wall_s"} for line in read_metrics(folder / "metrics.jsonl")]


def stop_after(step):
    def report(task, done, total, values):
        if task == "refine" and done == step:
            os.kill(os.getpid(), signal.SIGINT)

    return report


@pytest.mark.parametrize("sh_degree", [0, 1])
def test_resumed_run_is_bitwise_equal_to_an_uninterrupted_one(photos, tmp_path, sh_degree):
    config = replace(FEW, batch_size=3, coarse=2, sh_degree=sh_degree)
    whole = bind_gaussians(config, ball(), data=photos, run_folder=tmp_path / "whole", progress=silent)
    with pytest.raises(Interrupted, match="stopped after step 7"):
        bind_gaussians(config, ball(), data=photos, run_folder=tmp_path / "parts", progress=stop_after(7))
    folder = RunFolder.create(tmp_path / "parts", config, resume=True)
    resumed = bind_gaussians(config, ball(), data=photos, run_folder=folder, progress=silent)
    for name, value in whole.gaussians._tensors().items():
        assert torch.equal(getattr(resumed.gaussians, name), value), name
    assert torch.equal(resumed.gaussians.mesh.vertices, whole.gaussians.mesh.vertices)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert resumed.evaluation == whole.evaluation
    assert resumed.summary == {**whole.summary, "training_s": resumed.summary["training_s"]}


def test_killed_run_resumes_from_its_last_checkpoint(photos, tmp_path):
    whole = bind_gaussians(FEW, ball(), data=photos, run_folder=tmp_path / "run", progress=silent)
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [path.stem for path in checkpoints] == ["step_000010", "step_000012"]
    checkpoints[-1].unlink()
    folder = RunFolder.create(tmp_path / "run", FEW, resume=True)
    again = bind_gaussians(FEW, ball(), data=photos, run_folder=folder, progress=silent)
    assert torch.equal(again.gaussians.log_scales, whole.gaussians.log_scales)


def test_the_seed_determines_the_result(photos):
    def refined(seed):
        return bind_gaussians(replace(FEW, seed=seed), ball(), data=photos, progress=silent).gaussians.sh

    assert torch.equal(refined(1), refined(1)) and not torch.equal(refined(1), refined(2))


def test_checkpoints_of_other_runs_are_rejected(photos, tmp_path):
    bind_gaussians(FEW, ball(), data=photos, run_folder=tmp_path / "run", progress=silent)
    others = photos_of(ball(), tmp_path / "others")
    folder = RunFolder.create(tmp_path / "run", FEW, resume=True)
    with pytest.raises(ConfigError, match=r"which is a run on Mesh \+ .*, with Mesh \+ "):
        bind_gaussians(FEW, ball(), data=others, run_folder=folder, progress=silent)
    with pytest.raises(FileFormatError, match="the checkpoint belongs to a different mesh"):
        bind_gaussians(FEW, ball(1), data=photos, run_folder=folder, progress=silent)


def test_a_loss_that_is_not_finite_stops_the_run_with_a_checkpoint(photos, tmp_path, monkeypatch):
    normal = StaticTrainer._terms

    def broken(self, factor):
        terms = normal(self, factor)
        return terms if len(self.model.optimizer.state) == 0 else {**terms, "rgb": terms["rgb"] * math.nan}

    monkeypatch.setattr(StaticTrainer, "_terms", broken)
    with pytest.raises(NumericalError, match="step 1: the gradient of log_scales is not finite"):
        bind_gaussians(FEW, ball(), data=photos, run_folder=tmp_path / "run", progress=silent)
    folder = RunFolder.create(tmp_path / "run", FEW, resume=True)
    monkeypatch.setattr(StaticTrainer, "_terms", normal)
    mended = bind_gaussians(FEW, ball(), data=photos, run_folder=folder, progress=silent)
    assert torch.equal(mended.gaussians.sh, bind_gaussians(FEW, ball(), data=photos, progress=silent).gaussians.sh)


def test_one_image(tmp_path):
    """From the default camera and from one given by a file; the only metrics are those of the image itself."""
    orbit = Orbit.about(ball().vertices, "y")
    view = ReferenceView(distance=3, fov_deg=30)
    camera = orbit.cameras(torch.tensor([math.radians(5)]), torch.zeros(1), 3, math.radians(30), 64, 48)
    image = write_cut_out(tmp_path / "photo.png", ball(), camera)
    config = StaticConfig(per_face=3, steps=40, view=view, coarse=1)
    told = bind_gaussians(config, bare(ball()), image=image, run_folder=tmp_path / "run", progress=silent)
    given = bind_gaussians(config, bare(ball()), image=image, camera=camera, progress=silent)
    assert told.evaluation is None and "psnr" not in told.summary and told.summary["psnr_of_the_fitted_view"] > 22
    torch.testing.assert_close(given.gaussians.sh, told.gaussians.sh, atol=1e-3, rtol=0)
    assert read_image(tmp_path / "run" / "figures" / "before_after.png").ndim == 3
    assert Cameras.load(tmp_path / "run" / "cameras.json").width.tolist() == [64]


def test_a_warning_for_an_image_from_another_viewpoint(tmp_path, caplog):
    """A long mesh photographed from its end: a warning with the default view, none with the true camera."""
    long = replace(ball(), vertices=ball().vertices * torch.tensor([1.0, 0.4, 0.4]))
    orbit, zero = Orbit.about(long.vertices, "y"), torch.zeros(1)
    view = ReferenceView(elevation_deg=0, azimuth_deg=90, distance=3, fov_deg=30)
    camera = orbit.cameras(zero, zero + math.pi / 2, 3, math.radians(30), 96, 72)
    image, config = write_cut_out(tmp_path / "end.png", long, camera), replace(FEW, steps=0, max_size=64)
    bind_gaussians(replace(config, view=view), long, image=image, progress=silent)
    bind_gaussians(config, long, image=image, camera=camera, progress=silent)
    bind_gaussians(config, image=image, progress=silent)
    assert "does not cover" not in caplog.text
    bind_gaussians(replace(config, view=replace(view, azimuth_deg=0)), long, image=image, progress=silent)
    assert "the mesh does not cover the mask of" in caplog.text and "end.png as --view sees it (IoU 0.4" in caplog.text
    assert "want its viewpoint (--view.*) or its camera (--camera FILE)" in caplog.text
    caplog.clear()
    turned = orbit.cameras(zero, zero, 3, math.radians(30), 96, 72)
    bind_gaussians(config, long, image=image, camera=turned, progress=silent)
    assert "end.png as --camera sees it (IoU 0.4" in caplog.text and "--view" not in caplog.text


def test_a_plain_background_is_equivalent_to_an_alpha_channel(tmp_path, caplog):
    """The run is the same, pixel for pixel, and the user's image is unchanged."""
    camera = Orbit.about(ball().vertices, "y").cameras(torch.zeros(1), torch.zeros(1), 3, math.radians(30), 64, 48)
    cut = read_image(write_cut_out(tmp_path / "cut.png", ball(), camera))
    cut[..., 3] = (cut[..., 3] > 0.5).float()
    write_image(tmp_path / "cut.png", torch.cat([cut[..., :3] * cut[..., 3:], cut[..., 3:]], -1))
    plain = cut[..., :3] * cut[..., 3:]  # on black
    write_image(tmp_path / "plain.png", plain)
    config = replace(FEW, steps=4)
    given = bind_gaussians(config, bare(ball()), image=tmp_path / "cut.png", camera=camera, progress=silent)
    with caplog.at_level("INFO", "vision3d"):
        found = bind_gaussians(config, bare(ball()), image=tmp_path / "plain.png", camera=camera, progress=silent)
    assert "the mask comes from the background color #000000" in caplog.text
    assert torch.equal(found.gaussians.sh, given.gaussians.sh)
    assert torch.equal(found.gaussians.opacity_logits, given.gaussians.opacity_logits)
    assert read_image(tmp_path / "plain.png").shape[2] == 3 and len(list(tmp_path.iterdir())) == 2


def test_directions_about_an_object():
    """Azimuth 0 is the front, +z of glTF and +x for z up; angles round-trip."""
    for up, suffix, front, top in [("auto", ".glb", (0, 0, 1), (0, 1, 0)), ("z", "", (1, 0, 0), (0, 0, 1))]:
        orbit = Orbit.about(ball().vertices + 5, up, suffix)
        cameras = orbit.cameras(torch.tensor([0.0, math.pi / 2]), torch.zeros(2), 2.0, 0.5, 32, 24)
        want = 5 + 2 * 1.2 * torch.tensor([front, top]).float()
        torch.testing.assert_close(cameras.centers, want, atol=0.06, rtol=0)
        elevations, azimuths = torch.tensor([-0.5, 0.3]), torch.tensor([2.9, -1.2])
        found = orbit.angles(orbit.cameras(elevations, azimuths, 2.0, 0.5, 32, 24))
        for got, angle in zip(found, (elevations, azimuths, torch.full((2,), 2.0))):
            torch.testing.assert_close(got.float(), angle, atol=1e-5, rtol=1e-5)


def test_images_without_alpha_count_where_the_mesh_is(tmp_path):
    """The wall behind the sphere is not part of the mesh, and nothing grows over it."""
    path = photos_of(ball(), tmp_path / "set", with_alpha=False, background=(0.2, 0.6, 0.9))
    result = bind_gaussians(StaticConfig(per_face=3, steps=60, coarse=1), bare(ball()), data=path, progress=silent)
    assert result.summary["psnr"] > result.summary["psnr_before"] + 5
    assert float(result.gaussians.to_gaussians().scales.max()) < 0.2
    assert all(view.ms_ssim is None for view in result.evaluation.views)


def test_masks_of_valid_pixels_or_of_the_object(tmp_path):
    silhouettes = [read_image(path)[..., 3:] > 0.5 for path in sorted((photos_of(ball(), tmp_path / "a") / "images").iterdir())]
    masks = [mask.float().expand(-1, -1, 3) for mask in silhouettes]
    path = photos_of(ball(), tmp_path / "b", with_alpha=False, background=(0.2, 0.6, 0.9), masks=masks)
    large = replace(ball(), vertices=1.1 * ball().vertices)
    config = StaticConfig(per_face=1, steps=40, coarse=1, rates=StaticRates(vertices=4e-3))
    radius = {}
    for kind in ("valid", "object"):
        mesh = bind_gaussians(replace(config, masks=kind), large, data=path, progress=silent).gaussians.mesh
        radius[kind] = float(torch.linalg.vector_norm(mesh.vertices, dim=-1).mean())
    assert radius["object"] < radius["valid"] - 0.01  # only the outline reveals that the sphere is too large


def test_gaussians_are_loaded_from_a_file(photos, tmp_path):
    first = bind_gaussians(FEW, ball(), data=photos, run_folder=tmp_path / "run", progress=silent)
    config = replace(FEW, steps=0)
    again = bind_gaussians(config, tmp_path / "run")
    assert torch.equal(again.gaussians.sh, first.gaussians.sh) and again.summary["steps"] == 0
    with pytest.raises(ConfigError, match="parts: largest is for meshes"):
        bind_gaussians(replace(config, parts="largest"), first.gaussians)


def two_balls():
    small = ball(1, 0.2)
    return ball().merge(replace(small, vertices=small.vertices + 2))


def test_a_warning_for_several_parts_and_selection_of_the_largest(caplog):
    mesh, said = checked_mesh(two_balls(), name="a.glb")
    assert said == {"mesh_parts": 2, "border_edges": 0, "crowded_edges": 0, "faces_without_area": 0}
    assert "a.glb: has 2 disconnected parts, the largest with 90 % of the area (--parts largest" in caplog.text
    mesh, said = checked_mesh(two_balls(), "largest")
    assert mesh.num_faces == 320 and torch.equal(mesh.vertices[mesh.faces], ball().vertices[ball().faces])


def test_warnings_for_holes_nonmanifold_edges_and_slivers(caplog):
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0.5, 0, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 1, 3], [1, 0, 4], [0, 5, 5]])
    _, said = checked_mesh(Mesh(vertices, faces), name="b.obj")
    assert said == {"mesh_parts": 2, "border_edges": 7, "crowded_edges": 1, "faces_without_area": 1}
    assert "b.obj: 1 edges have more than two faces (not manifold)" in caplog.text
    assert "b.obj: 1 of 4 faces have no area" in caplog.text


def test_an_unusual_mesh_is_refined(photos):
    """Holes, an edge with three faces, a degenerate face, and an unused vertex."""
    whole = ball()
    extra = torch.tensor([[0, 1, 2], [3, 3, 4]])
    edge = whole.faces[0, :2]
    flap = torch.tensor([[int(edge[0]), int(edge[1]), 100]])
    odd = Mesh(
        torch.cat([whole.vertices, torch.full((1, 3), 0.1)]),
        torch.cat([whole.faces[:-30], extra[1:], flap]),
        vertex_colors=torch.cat([whole.vertex_colors, torch.ones(1, 3)]),
    )
    result = bind_gaussians(replace(FEW, steps=6), odd, data=photos, progress=silent)
    assert result.summary["crowded_edges"] >= 1 and result.summary["faces_without_area"] == 1
    result.gaussians.to_gaussians().validate()


def test_the_scale_of_the_world_does_not_matter(photos):
    """Kilometers and meters give the same metrics."""
    images = load_dataset(photos)
    matrix = torch.diag(torch.tensor([1000.0, 1000, 1000, 1]))
    images = replace(images, cameras=images.cameras.transform(matrix))
    result = bind_gaussians(FEW, replace(ball(), vertices=1000 * ball().vertices), data=images, progress=silent)
    reference = bind_gaussians(FEW, ball(), data=photos, progress=silent)
    assert result.summary["psnr"] == pytest.approx(reference.summary["psnr"], abs=0.05)


def test_large_images_are_downscaled(tmp_path):
    path = photos_of(ball(1), tmp_path / "set", size=64)
    result = bind_gaussians(
        replace(FEW, max_size=32, steps=2), ball(1), data=path, run_folder=tmp_path / "run", progress=silent
    )
    assert Cameras.load(tmp_path / "run" / "cameras.json").width.unique().tolist() == [32]
    assert result.summary["steps"] == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: p / "none.glb", MissingFileError, r"none\.glb: does not exist; want a mesh"),
        (lambda p: p, InputError, "is a folder without mesh.glb or gaussians.safetensors"),
        (lambda p: save(blobs(), p / "s.ply"), InputError, "holds a Gaussian scene, want a mesh"),
        (lambda p: Mesh(torch.rand(4, 3), torch.zeros(0, 3, dtype=torch.int64)), InputError, "0 faces, want at least one face"),
        (lambda p: Mesh(torch.zeros(4, 3), torch.tensor([[0, 1, 2]])), InputError, "all 1 faces have zero area"),
        (lambda p: Mesh(torch.full((3, 3), math.nan), torch.tensor([[0, 1, 2]])), InputError, "vertices is not finite"),
    ],
)
def test_wrong_meshes(photos, tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        bind_gaussians(FEW, make(tmp_path), data=photos, progress=silent)


def save(value, path):
    value.save(path)
    return path


def test_wrong_images(photos, tmp_path):
    opaque, empty = tmp_path / "opaque.png", tmp_path / "empty.png"
    write_image(opaque, torch.rand(32, 32, 3))
    write_image(empty, torch.cat([torch.rand(32, 32, 3), torch.zeros(32, 32, 1)], -1))
    camera = Orbit.about(ball().vertices, "y").cameras(torch.zeros(1), torch.zeros(1), 3.0, 0.5, 40, 40)
    cut = write_cut_out(tmp_path / "cut.png", ball(), camera)
    small = camera.resized(32, 40)
    for options, error, message in [
        (
            {"image": tmp_path / "none.png"},
            MissingFileError,
            r"none\.png: does not exist; want an image with an alpha",
        ),
        (
            {"image": opaque},
            InputError,
            r"has neither an alpha channel nor a plain background \(the border has several colors\)",
        ),
        ({"image": empty}, InputError, "its mask is empty"),
        ({"image": cut, "camera": small}, InputError, r"cut\.png: has 40x40 px, its camera 32x40; want the same size"),
        (
            {"image": cut, "camera": small.merge(small)},
            ConfigError,
            "--camera: has 2 cameras, want the one of cut.png",
        ),
        ({"image": cut, "data": photos}, ConfigError, "got both"),
        ({"camera": camera, "data": photos}, ConfigError, "--camera: goes with --image"),
        ({}, ConfigError, "got neither"),
    ]:
        with pytest.raises(error, match=message):
            bind_gaussians(FEW, ball(), progress=silent, **options)


def test_cameras_that_are_not_pinhole(photos):
    images = load_dataset(photos)
    with pytest.raises(InputError, match="cameras are fisheye; animate static takes pinhole cameras"):
        bind_gaussians(FEW, ball(), data=replace(images, cameras=replace(images.cameras, model="fisheye")), progress=silent)


def test_cameras_that_do_not_see_the_mesh(photos, tmp_path):
    away = replace(ball(), vertices=ball().vertices + 100)
    with pytest.raises(InputError, match="none of its cameras sees the mesh; want both in one world frame"):
        bind_gaussians(FEW, away, data=photos, run_folder=tmp_path / "run", progress=silent)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"per_face": 2}, {"steps": -1}, {"opacity": 1.0}, {"coarse": 3}, {"max_size": 8}, {"sh_degree": 5}, {"batch_size": 0},
        {"background_color": (0.0, 2.0, 0.0)}, {"view": ReferenceView(distance=0.2)}, {"view": ReferenceView(fov_deg=180)},
        {"loss": StaticLoss(ssim=1.5)}, {"loss": StaticLoss(mask=-1)}, {"rates": StaticRates(final=0)}, {"seed": -1},
        {"rates": StaticRates(vertices=math.inf)},
    ],
)  # fmt: skip
def test_wrong_options(change):
    with pytest.raises(ConfigError, match=r"got .*want"):
        StaticConfig(**change)
