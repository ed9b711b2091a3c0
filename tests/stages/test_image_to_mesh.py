"""An initial shape from one image, and its refinement with a guidance of random weights."""

import json
import math
from dataclasses import replace

import pytest
import torch

from tests.stages.test_animate_static import stop_after
from tests.support.balls import ball, photos_of, write_cut_out
from tests.support.refusals import assert_refused
from tests.support.tiny_pipeline import write_tiny_pipeline
from vision3d.core.errors import BackendError, ConfigError, InputError
from vision3d.core.progress import silent
from vision3d.core.runs import Interrupted, RunFolder
from vision3d.geometry import mesh as geometry
from vision3d.geometry.mesh import connected_faces
from vision3d.io.images import read_image, write_image
from vision3d.scene import Mesh
from vision3d.stages.animate import StaticConfig, bind_gaussians
from vision3d.stages.animate.guidance import SdsConfig, base
from vision3d.stages.animate.orbits import Orbit
from vision3d.stages.animate.static.config import ReferenceView, StaticLoss
from vision3d.stages.animate.static.inflate import inflated_mesh
from vision3d.stages.animate.static.reference import reference_images

FEW = StaticConfig(
    steps=6, per_face=1, coarse=1, cells=12, max_size=48, sds=SdsConfig(size=32), loss=StaticLoss(guidance=1e-2),
    view=ReferenceView(distance=3.0, fov_deg=30),
)  # fmt: skip


def reference(path, image):
    write_image(path, image)
    return reference_images(path, ReferenceView(), Orbit.unit("auto"), path.parent)


def disc(size=160, radius=50.0, center=(80.0, 80.0)):
    rows = torch.arange(size) + 0.5
    distance = torch.hypot(rows[:, None] - center[1], rows[None] - center[0])
    alpha = (radius + 0.5 - distance).clamp(0, 1)[..., None]
    color = torch.stack([torch.ones(size, size), rows[:, None].expand(size, size) / size, torch.zeros(size, size)], -1)
    return torch.cat([color, alpha], -1)


@pytest.mark.parametrize("center", [(80.0, 80.0), (95.0, 70.0)])
def test_a_disc_becomes_a_sphere(tmp_path, center):
    images = reference(tmp_path / "disc.png", disc(center=center))
    mesh = inflated_mesh(images, Orbit.unit("auto"), 40)
    meters = 2 * 3.8 * math.tan(math.radians(10)) / 160  # size of a pixel at the center
    radius = 50 * meters
    middle = (mesh.vertices.amin(0) + mesh.vertices.amax(0)) / 2
    radii = torch.linalg.vector_norm(mesh.vertices - middle, dim=-1)
    assert float(radii.mean()) == pytest.approx(radius, rel=0.03) and float(radii.std()) < 0.04 * radius
    volume = float(geometry.volume(mesh.vertices.double(), mesh.faces))
    assert volume == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.08)
    assert connected_faces(mesh.faces)[0] == 1 and geometry.is_closed(mesh.faces)
    # Right and down in the image are +x and -y for a camera on +z.
    assert float(middle[0]) == pytest.approx((center[0] - 80) * meters, abs=0.03)
    assert float(middle[1]) == pytest.approx((80 - center[1]) * meters, abs=0.06)


def test_vertices_have_the_colors_of_the_image(tmp_path):
    mesh = inflated_mesh(reference(tmp_path / "disc.png", disc()), Orbit.unit("auto"), 24)
    rows = 0.5 - mesh.vertices[:, 1] / (2 * 3.8 * math.tan(math.radians(10)))
    assert (mesh.vertex_colors[:, 0] > 0.98).all()
    assert (mesh.vertex_colors[:, 1] - rows).abs().mean() < 0.05


def test_a_ring_keeps_its_hole_and_two_objects_stay_separate(tmp_path):
    ring = disc(radius=60)
    ring[..., 3] -= disc(radius=25)[..., 3]
    torus = inflated_mesh(reference(tmp_path / "ring.png", ring), Orbit.unit("auto"), 40)
    edges = geometry.unique_edges(torus.faces)[0]
    assert torus.num_vertices - len(edges) + torus.num_faces == 0  # Euler characteristic of a torus
    pair = torch.maximum(disc(radius=20, center=(40, 80)), disc(radius=20, center=(120, 80)))
    assert connected_faces(inflated_mesh(reference(tmp_path / "pair.png", pair), Orbit.unit("auto"), 40).faces)[0] == 2


def test_a_speck_in_a_large_image_is_rejected_or_a_small_mesh(tmp_path):
    speck = disc(radius=2.2)
    mesh = inflated_mesh(reference(tmp_path / "speck.png", speck), Orbit.unit("auto"), 16)
    assert isinstance(mesh.validate(), Mesh)
    thin = torch.zeros(400, 400, 4)
    thin[200, 100:300] = 1
    with pytest.raises(InputError, match=r"thin\.png: its silhouette is too thin to be inflated on 16 cells"):
        inflated_mesh(reference(tmp_path / "thin.png", thin), Orbit.unit("auto"), 16)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    orbit = Orbit.unit("auto")
    camera = orbit.cameras(torch.tensor([math.radians(5)]), torch.zeros(1), 3.0, math.radians(30), 48, 48)
    return write_cut_out(tmp_path_factory.mktemp("photo") / "photo.png", ball(), camera)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return write_tiny_pipeline(tmp_path_factory.mktemp("pipelines") / "tiny")


def test_a_single_image_becomes_gaussians(photo, tmp_path):
    result = bind_gaussians(replace(FEW, steps=30), image=photo, run_folder=tmp_path / "run", progress=silent)
    assert result.summary["shape"] == "inflated silhouette, the back mirrors the front; not measured"
    assert result.summary["guidance"] == "none" and result.summary["psnr_of_the_fitted_view"] > 18
    assert read_image(tmp_path / "run" / "figures" / "around.png").shape[1] == 4 * 256 + 12


def test_a_guidance_is_used_and_labeled(photo, pipeline, tmp_path):
    plain = bind_gaussians(FEW, image=photo, progress=silent)
    guided = bind_gaussians(FEW, image=photo, guidance=pipeline, run_folder=tmp_path / "run", progress=silent)
    assert guided.summary["guidance"].startswith("untrained test pipeline (")
    assert not torch.equal(guided.gaussians.sh, plain.gaussians.sh)
    config = replace(FEW, log_every=2)
    bind_gaussians(config, image=photo, guidance=pipeline, run_folder=tmp_path / "more", progress=silent)
    lines = [json.loads(line) for line in (tmp_path / "more" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["loss_guidance"] > 0 for line in lines) and len(lines) == 3


def test_a_guided_run_resumes_bitwise(photo, pipeline, tmp_path):
    whole = bind_gaussians(FEW, image=photo, guidance=pipeline, progress=silent)
    with pytest.raises(Interrupted):
        bind_gaussians(FEW, image=photo, guidance=pipeline, run_folder=tmp_path / "run", progress=stop_after(3))
    folder = RunFolder.create(tmp_path / "run", FEW, resume=True)
    resumed = bind_gaussians(FEW, image=photo, guidance=pipeline, run_folder=folder, progress=silent)
    assert torch.equal(resumed.gaussians.sh, whole.gaussians.sh)
    assert torch.equal(resumed.gaussians.mesh.vertices, whole.gaussians.mesh.vertices)
    folder = RunFolder.create(tmp_path / "run", FEW, resume=True)
    with pytest.raises(ConfigError, match=r"which is a run on inflated silhouette.* \+ untrained test pipeline"):
        bind_gaussians(FEW, image=photo, run_folder=folder, progress=silent)


def test_long_guided_runs_need_force(photo, pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "LONG_S", 0.0)
    with pytest.raises(BackendError, match=r"6 steps about 0 minutes; want a GPU .* or --force"):
        bind_gaussians(FEW, image=photo, guidance=pipeline, run_folder=tmp_path / "run", progress=silent)
    assert not (tmp_path / "run").exists()
    assert (
        bind_gaussians(replace(FEW, steps=1), image=photo, guidance=pipeline, force=True, progress=silent).summary["steps"] == 1
    )


def test_combinations_of_inputs(photo, tmp_path):
    data = photos_of(ball(1), tmp_path / "set")
    for options, message in [
        ({"mesh": ball(), "data": data, "guidance": tmp_path}, "--guidance: goes with --image"),
        ({"data": data}, "MESH: is missing; want a mesh, or --image"),
    ]:
        with pytest.raises(ConfigError, match=message):
            bind_gaussians(FEW, progress=silent, **options)


def test_command_line(cli, photo, tmp_path):
    (tmp_path / "weights" / "unet").mkdir(parents=True)
    (tmp_path / "weights" / "unet" / "model.bin").write_bytes(b"\x80\x04.")
    out = tmp_path / "run"
    command = ("animate", "static", "--image", photo, "--cells", 12, "--steps", 2, "--out", out)
    assert_refused(cli(*command, "--guidance", tmp_path / "weights", "--quiet"), "model.bin, which may run code")
    assert_refused(cli(*command, "--guidance", tmp_path / "none", "--quiet"), "none: does not exist; want a folder with unet")
    assert not out.exists()
    code, text, err = cli(*command)
    assert code == 0 and "shape: inflated silhouette" in text, err


def test_command_line_with_a_guidance(cli, photo, pipeline, tmp_path):
    command = ("animate", "static", "--image", photo, "--cells", 12, "--steps", 2, "--sds.size", 32, "--out", tmp_path / "run")
    code, text, err = cli(*command, "--guidance", pipeline)
    assert code == 0 and "guidance: untrained test pipeline (" in text and "zero123" not in text.lower(), err
    assert "Loading" not in err
