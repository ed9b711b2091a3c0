"""The stage `animate fit`: a bending worm, from images to files; exact resume; unusual meshes."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from tests.support.clips import worm
from tests.support.stopping import lines
from tests.support.tiny_pipeline import write_tiny_pipeline
from vision3d import animate
from vision3d.core.checkpoints import load_checkpoint, save_checkpoint
from vision3d.core.errors import ConfigError, InputError
from vision3d.core.progress import silent
from vision3d.core.runs import Interrupted, RunFolder
from vision3d.geometry import shapes
from vision3d.scene import FrameSequence, Mesh, MeshGaussians, SkinnedMesh
from vision3d.stages.animate.dynamic import run as module, trainer as trainer_module
from vision3d.stages.animate.dynamic.config import AnimateConfig, CameraConfig, FieldConfig, LossConfig
from vision3d.stages.animate.dynamic.footage import Footage
from vision3d.stages.animate.dynamic.placing import place_camera
from vision3d.stages.animate.dynamic.run import AnimateResult
from vision3d.stages.animate.guidance import SdsConfig

FEW = AnimateConfig(nodes=10, steps=12, frames_per_step=2, checkpoint_every=5, log_every=3, video=False)


def fitted(clip, config, **options) -> AnimateResult:
    return animate(config, clip.footage(), clip.mesh, progress=silent, **options)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["discrete", "mlp", "hexplane"])
def test_the_bending_of_a_worm_is_recovered(kind):
    """Held-out cameras and frames are much better than with a frozen worm."""
    clip = worm(frames=7, cameras=4, size=64)
    config = AnimateConfig(
        nodes=16, steps=300, hold_out_every=3, hold_out_cameras=("cam3",), motion=FieldConfig(kind=kind), video=False
    )
    still = fitted(clip, replace(config, steps=0), truth=clip.vertices).summary
    found = fitted(clip, config, truth=clip.vertices).summary
    assert found["unseen_cameras_psnr"] > 30 and found["unseen_cameras_psnr"] > still["unseen_cameras_psnr"] + 8
    assert found["unseen_frames_psnr"] > still["unseen_frames_psnr"] + 5
    assert found["unseen_cameras_iou"] > 0.95
    assert found["unseen_frames_vertex_error"] < min(0.03, 0.5 * still["unseen_frames_vertex_error"])
    assert found["guidance"] == "none"


def test_files_of_a_run(tmp_path):
    clip = worm(frames=5, cameras=2)
    config = replace(FEW, hold_out_every=3, video=True, reference=1)
    shifted = replace(clip, mesh=replace(clip.mesh, vertices=clip.vertices[1]))
    result = fitted(shifted, config, truth=clip.vertices, run_folder=tmp_path / "run")
    path = tmp_path / "run"
    moving = FrameSequence.load(path / "frames.zarr").validate()
    assert isinstance(moving.base, MeshGaussians) and len(moving) == 5
    vertices = torch.stack([moving.channels["vertices"][i] for i in range(5)])
    assert torch.equal(vertices[1], clip.vertices[1])  # the reference is bitwise exact
    assert torch.equal(vertices, result.sequence.channels["vertices"])
    skin = SkinnedMesh.load(path / "animated.glb")
    assert skin.fps == 24
    played = skin.posed(skin.clips[0], clip.times)
    poses, graph = result.motion.field(clip.times), result.motion.graph
    ends = [graph.deform(clip.vertices[1], *poses, method=method) for method in ("dqs", "lbs")]
    etas = skin.etas_at(skin.clips[0], clip.times)
    torch.testing.assert_close(torch.lerp(*ends, etas[..., None]), vertices, atol=1e-5, rtol=0)
    assert 0 < etas.min() < etas.max() < 1
    assert skin.mesh.num_vertices == clip.mesh.num_vertices
    torch.testing.assert_close(played, vertices, atol=1e-6, rtol=0)
    evaluation = json.loads((path / "eval.json").read_text())
    assert {row["split"] for row in evaluation["views"]} == {"unseen_frames"} and len(evaluation["views"]) == 2
    assert all((path / "renders" / row["file"]).is_file() for row in evaluation["views"])
    assert (path / "comparison.mp4").stat().st_size > 1000 and (path / "figures" / "frames.png").is_file()
    assert {"loss", "rgb_loss", "arap_loss", "frames"} <= lines(path)[0].keys()
    assert result.summary["unseen_frames_vertex_error"] > 0


def stop_at_step(count):
    """A progress callback that simulates Ctrl-C after a number of steps."""

    def stop(task, step, total, values):
        if task == "animate" and step == count:
            os.kill(os.getpid(), signal.SIGINT)

    return stop


def test_robust_weights_once_all_frames_are_added(monkeypatch):
    """Stiffness is initially that of the mesh, then falls where edges stretch and bend most; constant with --loss.limit 0."""
    monkeypatch.setattr(trainer_module, "_YIELD_EVERY", 1)
    clip, seen = worm(frames=3, cameras=2), []
    step = trainer_module.Trainer.step

    def watched(self, number, progress):
        values = step(self, number, progress)
        strains = self._strains()
        is_much = strains > strains.quantile(0.9)
        shares = (self.arap.weights / self.stiff.weights.clamp(min=1e-30))[self.stiff.weights > 0]
        seen.append((float(shares.min()), float(shares.max()), float(shares[is_much[self.stiff.weights > 0]].mean())))
        return values

    monkeypatch.setattr(trainer_module.Trainer, "step", watched)
    fitted(clip, replace(FEW, steps=40))
    assert all(share == (1, 1, 1) for share in seen[:5])
    least, most, of_much = seen[-1]
    assert 0 < least < of_much < most <= 1 and of_much < 0.95
    seen.clear()
    fitted(clip, replace(FEW, steps=40, loss=LossConfig(limit=0)))
    assert all(share == (1, 1, 1) for share in seen)


HELD = ("arap", "arap_between", "edges")


def test_stiffness_falls_to_its_final_fraction(monkeypatch):
    clip, terms = worm(frames=3, cameras=2), {}
    normal = trainer_module.Trainer._stiffness

    def watched(self, poses, deformed, count, since):
        found = normal(self, poses, deformed, count, since)
        holds = []
        for final in (1.0, 0.1):
            self.config = replace(self.config, loss=replace(self.config.loss, final=final))
            holds.append({name: term.item() for name, term in normal(self, poses, deformed, count, since).items()})
        terms[since] = [holds[1][name] / max(holds[0][name], 1e-30) for name in holds[0] if name in HELD]
        return found

    monkeypatch.setattr(trainer_module.Trainer, "_stiffness", watched)
    fitted(clip, replace(FEW, steps=40))
    for since, ratios in terms.items():
        if min(ratios) > 0:  # an unmoved mesh has zero energy
            assert ratios == pytest.approx([0.1**since] * len(ratios), rel=1e-4)
    assert len(ratios) == len(HELD) and min(ratios) == pytest.approx(0.1 ** max(terms), rel=1e-4) and max(terms) > 0.9


@pytest.mark.parametrize("kind", ["discrete", "mlp", "hexplane"])
@pytest.mark.parametrize("stop_at", [4, 9])
def test_a_stopped_run_resumes_bitwise(kind, stop_at, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "_YIELD_EVERY", 4)  # at step 8: a run that stops at 9 must store the robust weights
    clip = worm(frames=5, cameras=2)
    config = replace(FEW, motion=FieldConfig(kind=kind))
    whole = fitted(clip, config, run_folder=tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"stopped after step {stop_at}"):
        animate(config, clip.footage(), clip.mesh, progress=stop_at_step(stop_at), run_folder=tmp_path / "parts")
    torch.rand(100)  # the random state is restored
    again = fitted(clip, config, run_folder=RunFolder.create(tmp_path / "parts", config, resume=True))
    assert torch.equal(whole.sequence.channels["vertices"], again.sequence.channels["vertices"])
    for name, value in whole.motion.field.state_dict().items():
        assert torch.equal(value, again.motion.field.state_dict()[name]), name
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")


def test_the_graph_of_a_checkpoint_is_used_on_resume(tmp_path, monkeypatch):
    clip = worm(frames=3, cameras=1)
    fitted(clip, FEW, run_folder=tmp_path)
    monkeypatch.setattr("vision3d.stages.animate.dynamic.run.DeformationGraph.of", lambda *_: pytest.fail("made anew"))
    config = replace(FEW, steps=14)
    fitted(clip, config, run_folder=RunFolder.create(tmp_path, config, resume=True, ignore=("steps",)))


def test_a_run_of_an_earlier_version_is_resumed(tmp_path):
    clip = worm(frames=3, cameras=1)
    fitted(clip, FEW, run_folder=tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        checkpoint = load_checkpoint(path)
        assert checkpoint.state["source"] == "a Footage (3 images)"
        checkpoint.state["source"] = "a Footage (3 pictures)"
        save_checkpoint(path, checkpoint)
    config = replace(FEW, steps=14)
    fitted(clip, config, run_folder=RunFolder.create(tmp_path, config, resume=True, ignore=("steps",)))


def test_a_run_is_resumed_only_with_the_same_clip_and_mesh(tmp_path):
    clip = worm(frames=3, cameras=1)
    fitted(clip, FEW, run_folder=tmp_path)
    with pytest.raises(ConfigError, match=r"cannot resume .*, which is a run on a Footage \(3 images\), with a Footage"):
        fitted(worm(frames=4, cameras=1), FEW, run_folder=RunFolder.create(tmp_path, FEW, resume=True))
    other = clip.mesh.crop(torch.arange(clip.mesh.num_faces) > 40)
    folder = RunFolder.create(tmp_path, FEW, resume=True)
    with pytest.raises(ConfigError, match=f"on a mesh of 162 vertices; cannot resume with one of {other.num_vertices}"):
        animate(FEW, clip.footage(), other, run_folder=folder, progress=silent)


def test_the_seed_determines_the_result():
    clip = worm(frames=4, cameras=2)
    first, same, other = (fitted(clip, replace(FEW, seed=seed)).sequence.channels["vertices"] for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)


@pytest.mark.parametrize("per_face", [1, 6])
def test_gaussians_are_fitted_instead_of_the_mesh(per_face):
    clip = worm(frames=3, cameras=2)
    bound = MeshGaussians.from_mesh(clip.mesh, per_face)
    given = animate(FEW, clip.footage(), bound, progress=silent)
    made = fitted(clip, replace(FEW, renderer="gaussians", per_face=per_face))
    assert torch.equal(given.sequence.channels["vertices"], made.sequence.channels["vertices"])
    assert isinstance(given.sequence.base, MeshGaussians) and torch.equal(given.sequence.base.sh, bound.sh)
    mesh = animate(replace(FEW, renderer="mesh"), clip.footage(), bound, progress=silent)
    assert not torch.equal(mesh.sequence.channels["vertices"], made.sequence.channels["vertices"])


def test_a_default_camera_is_placed():
    clip = worm(frames=3, cameras=1, size=48)
    footage = replace(clip.footage(), cameras=None)
    result = animate(replace(FEW, steps=2), footage, clip.mesh, progress=silent)
    assert len(result.cameras) == 3
    view = result.cameras[0]
    points = clip.mesh.vertices @ view.viewmats[0, :3, :3].mT + view.viewmats[0, :3, 3]
    pixels = points @ view.Ks[0].mT
    pixels = pixels[:, :2] / pixels[:, 2:]
    rows = (footage.images[0, ..., 3] > 127).nonzero().float()
    # It looks from the front, the true camera from slightly above.
    torch.testing.assert_close(pixels.amin(0).flip(0), rows.amin(0), atol=2.5, rtol=0)
    torch.testing.assert_close(pixels.amax(0).flip(0), rows.amax(0) + 1, atol=2.5, rtol=0)


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_a_default_camera_is_upright(up):
    vertices, faces = shapes.box((1.0, 2.0, 3.0))
    mask = torch.zeros(40, 60, dtype=torch.bool)
    mask[10:30, 12:50] = True
    camera = place_camera(CameraConfig(up=up, azimuth=30, elevation=20), Mesh(vertices, faces), mask)
    axis = torch.eye(3)["xyz".index(up)]
    in_camera = camera.viewmats[0, :3, :3] @ axis
    assert abs(float(in_camera[0])) < 1e-6 and float(in_camera[1]) < 0  # y points down
    with pytest.raises(InputError, match="mask: is empty"):
        place_camera(CameraConfig(), Mesh(vertices, faces), mask & False)


# Meshes


def with_mesh(clip, mesh):
    return animate(replace(FEW, steps=3), clip.footage(), mesh, progress=silent)


def test_a_warning_for_a_mesh_with_holes(caplog):
    clip = worm(frames=3, cameras=1)
    mesh = clip.mesh.crop(torch.arange(clip.mesh.num_faces) > 3)
    with caplog.at_level("WARNING", "vision3d"):
        result = with_mesh(clip, mesh)
    assert "mesh: is open at" in caplog.text and bool(result.sequence.channels["vertices"][2].isfinite().all())


def test_a_mesh_of_several_parts_moves_by_parts():
    clip = worm(frames=3, cameras=1)
    vertices, faces = shapes.icosphere(1, 0.1)
    colors = torch.ones(len(vertices), 3)
    ball = Mesh(vertices + torch.tensor([0.0, 0.6, 0.0]), faces, vertex_colors=colors)
    with pytest.warns(UserWarning, match="has 2 disconnected parts"):
        result = with_mesh(clip, clip.mesh.merge(ball))
    assert bool(result.sequence.channels["vertices"][2].isfinite().all())


def test_a_mesh_that_is_not_manifold_is_fitted_with_a_warning(caplog):
    clip = worm(frames=3, cameras=1)
    third = torch.cat([clip.mesh.faces[0, :2], torch.tensor([100])])  # a third face at an edge
    faces = torch.cat([clip.mesh.faces, third[None]])
    with caplog.at_level("WARNING", "vision3d"):
        result = with_mesh(clip, replace(clip.mesh, faces=faces))
    assert "mesh: is not manifold" in caplog.text and bool(result.sequence.channels["vertices"][2].isfinite().all())


def test_wrong_meshes_and_options():
    clip = worm(frames=3, cameras=1)
    with pytest.raises(InputError, match="0 faces, want at least one face"):
        with_mesh(clip, Mesh(torch.eye(3), torch.empty(0, 3, dtype=torch.int64)))
    with pytest.raises(InputError, match="not finite"):
        with_mesh(clip, replace(clip.mesh, vertices=clip.mesh.vertices * torch.nan))
    with pytest.raises(ConfigError, match="reference: got frame 3, but the clip has 3, from 0 to 2"):
        fitted(clip, replace(FEW, reference=3))
    with pytest.raises(InputError, match="truth: got shape"):
        fitted(clip, FEW, truth=clip.vertices[:2])


def test_no_frame_needs_to_show_the_rest_pose(caplog):
    """A worm that is already bent in the first frame: that frame is fitted like all others; otherwise there is a warning."""
    clip = worm(frames=4, bend=1.6)
    given = clip.footage()
    later = given.frames > 0
    names = tuple(name for name, keep in zip(given.camera_names, later.tolist()) if keep)
    cameras = replace(given.cameras[later], names=None)
    footage = Footage(given.images[later], cameras, names, given.frames[later] - 1, clip.times[1:])
    config = replace(FEW, steps=60)
    fixed = animate(replace(config, reference=0), footage, clip.mesh, progress=silent)
    assert "does not cover the mask of frame 0, which should be the rest pose (IoU 0." in caplog.text
    assert torch.equal(fixed.sequence.channels["vertices"][0], clip.mesh.vertices)
    caplog.clear()
    free = animate(config, footage, clip.mesh, truth=clip.vertices[1:], progress=silent)
    assert "does not cover" not in caplog.text and "fitted_vertex_error" in free.summary and free.summary["reference"] == -1
    off = (free.sequence.channels["vertices"][0] - clip.vertices[1]).norm(dim=-1).mean()
    assert off < 0.6 * (clip.mesh.vertices - clip.vertices[1]).norm(dim=-1).mean()
    assert torch.equal(free.motion.vertices(clip.times[:1]), clip.mesh.vertices[None])


# Guidance


class Whiter:
    """A guidance towards white images that records its inputs."""

    label = "wants white"

    def __init__(self):
        self.asked = []

    def loss(self, frames, views, generator):
        self.asked.append((frames.detach(), views))
        return (1 - frames).square().mean()


def test_a_guidance_gets_the_frames_from_random_views(monkeypatch):
    whiter, given = Whiter(), []
    monkeypatch.setattr(module, "load_guidance", lambda folder, references, *_: given.append(references) or whiter)
    monkeypatch.setattr(module, "check_time", lambda *_, **__: 0.0)
    clip, config = worm(), replace(FEW, sds=SdsConfig(views=3, size=24), loss=LossConfig(guidance=100.0))
    found = fitted(clip, config, guidance="folder")
    assert found.summary["guidance"] == "wants white" and len(whiter.asked) == FEW.steps
    frames, views = whiter.asked[-1]
    assert frames.shape == (3, 24, 24, 3) and 0.5 < frames.mean() < 0.999
    assert int(views.frame.max()) < 5 and views.azimuth.std() > 0
    torch.testing.assert_close(given[0], clip.footage().read(torch.arange(5))[0])  # from the first camera
    assert not torch.equal(found.sequence.channels["vertices"], fitted(clip, FEW).sequence.channels["vertices"])


def test_a_guidance_needs_one_static_camera():
    clip = worm(cameras=1)
    footage = clip.footage()
    viewmats = footage.cameras.viewmats.clone()
    viewmats[2, 2, 3] += 0.5
    moving = replace(footage, cameras=replace(footage.cameras, viewmats=viewmats))
    with pytest.raises(ConfigError, match="--guidance: needs one static camera that sees all frames; camera 'cam0'"):
        animate(FEW, moving, clip.mesh, guidance="folder", progress=silent)


def test_a_guidance_with_random_weights(tmp_path):
    """A pipeline with random weights: it is labeled as such, and a stopped run resumes bitwise."""
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    pipeline = write_tiny_pipeline(tmp_path / "tiny")
    config = replace(FEW, steps=4, sds=SdsConfig(size=32))
    whole = fitted(worm(), config, guidance=pipeline)
    assert whole.summary["guidance"].startswith("untrained test pipeline (")
    with pytest.raises(Interrupted):
        animate(config, worm().footage(), worm().mesh, guidance=pipeline, run_folder=tmp_path / "run", progress=stop_at_step(2))
    folder = RunFolder.create(tmp_path / "run", config, resume=True)
    resumed = fitted(worm(), config, guidance=pipeline, run_folder=folder)
    assert torch.equal(resumed.sequence.channels["vertices"], whole.sequence.channels["vertices"])
    folder = RunFolder.create(tmp_path / "run", config, resume=True)
    with pytest.raises(ConfigError, match=r"is a run on .* \+ untrained test pipeline"):
        fitted(worm(), config, run_folder=folder)
