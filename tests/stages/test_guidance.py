"""Score distillation with a pipeline of random weights; no statement about trained ones."""

import math
import re
import shutil
import sys

import pytest
import torch

from tests.support.tiny_pipeline import CONTEXT, EMBEDDING, write_tiny_pipeline
from vision3d.core.errors import (
    BackendError,
    ConfigError,
    FileFormatError,
    InputError,
    MissingDependencyError,
    MissingFileError,
)
from vision3d.core.install import install_command
from vision3d.stages.animate.guidance import Guidance, SdsConfig, base, check_time, load_guidance
from vision3d.stages.animate.guidance.folder import PARTS, check_folder, label_of
from vision3d.stages.animate.guidance.zero123 import clip_pixels, square
from vision3d.stages.animate.orbits import Orbit, RelativeViews

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    return write_tiny_pipeline(tmp_path_factory.mktemp("pipelines") / "tiny")


@pytest.fixture(scope="module")
def references():
    return torch.rand(2, 40, 48, 3, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def guidance(folder, references):
    return load_guidance(folder, references, SdsConfig(), CPU)


def views(count=3):
    generator = torch.Generator().manual_seed(5)
    draw = torch.rand(3, count, generator=generator, dtype=torch.float64)
    return RelativeViews(draw[0] - 0.5, 6 * draw[1], draw[2], 1.4, torch.arange(count) % 2)


def test_gradient_equals_the_formula(guidance):
    """(1 - abar_t) (eps_u + 3 (eps_c - eps_u) - eps) / batch, from the separate parts of the pipeline."""
    latents = torch.randn(3, 4, 32, 32).requires_grad_()
    loss = guidance.loss_of_latents(latents, views(), torch.Generator().manual_seed(9))
    (found,) = torch.autograd.grad(loss, latents)

    generator = torch.Generator().manual_seed(9)
    times = torch.randint(20, 501, (3,), generator=generator)
    noise = torch.randn(3, 4, 32, 32, generator=generator)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)[times].float()[:, None, None, None]
    v, (weight, bias) = views(), guidance.projection
    camera = torch.stack([v.polar, v.azimuth.sin(), v.azimuth.cos(), torch.full((3,), 1.4).double()], -1).float()
    context = torch.cat([guidance.embeddings[[0, 1, 0]], camera], -1) @ weight.T + bias
    noisy = kept.sqrt() * latents.detach() + (1 - kept).sqrt() * noise
    beside = guidance.latents_of_references[[0, 1, 0]]
    with torch.no_grad():
        plain = guidance.unet(torch.cat([noisy, 0 * beside], 1), times, torch.zeros(3, 1, CONTEXT)).sample
        told = guidance.unet(torch.cat([noisy, beside], 1), times, context[:, None]).sample
    want = (1 - kept) * (plain + 3 * (told - plain) - noise)
    torch.testing.assert_close(3 * found, want, atol=2e-5, rtol=1e-4)
    assert float(loss.detach()) == pytest.approx(float(want.square().sum()) / 6, rel=1e-4)


def test_the_loss_has_exactly_the_given_gradient(guidance, monkeypatch):
    given = torch.randn(2, 4, 32, 32)
    monkeypatch.setattr(guidance, "gradient", lambda *_: given)
    latents = (1e3 * torch.randn(2, 4, 32, 32)).requires_grad_()
    loss = guidance.loss_of_latents(latents, views(2), torch.Generator())
    assert torch.equal(torch.autograd.grad(loss, latents)[0], given / 2)


def test_gradient_reaches_the_images(guidance):
    frames = torch.rand(2, 24, 32, 3).requires_grad_()
    loss = guidance.loss(frames, views(2), torch.Generator().manual_seed(1))
    (grad,) = torch.autograd.grad(loss, frames)
    assert torch.isfinite(grad).all() and (grad.flatten(1).abs().amax(1) > 0).all()
    assert all(not parameter.requires_grad for network in (guidance.unet, guidance.vae) for parameter in network.parameters())


def test_the_generator_determines_the_result(guidance):
    def value(seed):
        return float(guidance.loss(torch.full((1, 16, 16, 3), 0.5), views(1), torch.Generator().manual_seed(seed)))

    assert value(1) == value(1) != value(2)


def test_values_that_are_not_finite_count_as_zero(guidance, monkeypatch):
    class Broken(torch.nn.Module):
        dtype = torch.float32

        def forward(self, sample, *_, **__):
            return type("Output", (), {"sample": sample[:, :4] * math.nan})

    monkeypatch.setattr(guidance, "unet", Broken())
    latents = torch.randn(1, 4, 32, 32).requires_grad_()
    loss = guidance.loss_of_latents(latents, views(1), torch.Generator())
    assert float(loss.detach()) == 0 and not torch.autograd.grad(loss, latents)[0].any()


@pytest.mark.parametrize("camera", ["stable-zero123", "zero123"])
def test_the_camera_of_the_network(folder, references, camera):
    guidance = load_guidance(folder, references, SdsConfig(camera=camera), CPU)
    weight, bias = guidance.projection
    same = RelativeViews(torch.zeros(1), torch.zeros(1), torch.zeros(1), 1.2, torch.zeros(1, dtype=torch.int64))
    numbers = torch.tensor([0.0, 0.0, 1.0, 1.2 if camera == "stable-zero123" else 0.0])
    want = torch.cat([guidance.embeddings[0], numbers]) @ weight.T + bias
    torch.testing.assert_close(guidance.context(same)[0], want)


def test_directions_relative_to_the_reference():
    orbit = Orbit.about(torch.tensor([[-1.0, -1, -1], [1, 1, 1]]), "y")
    reference = orbit.cameras(torch.tensor([0.1]), torch.tensor([0.3]), 2.0, 0.5, 32, 32)
    others = orbit.cameras(torch.tensor([0.5, -0.2]), torch.tensor([1.3, -0.7]), 3.0, 0.5, 32, 32)
    found = orbit.relative(others, reference)
    torch.testing.assert_close(found.polar.float(), torch.tensor([-0.4, 0.3]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.azimuth.float(), torch.tensor([1.0, -1.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.distance.float(), torch.ones(2), atol=1e-5, rtol=0)
    assert found.reference_polar == pytest.approx(math.pi / 2 - 0.1, abs=1e-5) and found.frame.tolist() == [0, 0]


def test_random_cameras_are_all_around():
    orbit = Orbit.about(torch.tensor([[-1.0, -1, -1], [1, 1, 1]]), "z")
    reference = orbit.cameras(torch.tensor([0.1]), torch.tensor([0.3]), 2.0, 0.5, 64, 32)
    cameras = orbit.random_cameras(400, reference, 24, torch.Generator().manual_seed(0))
    elevations, azimuths, distances = orbit.angles(cameras)
    low, high = math.radians(-10), math.radians(80)
    assert low <= elevations.min() < low + 0.1 and high - 0.1 < elevations.max() <= high
    assert azimuths.min() < -3 and azimuths.max() > 3
    torch.testing.assert_close(distances.float(), torch.full((400,), 2.0), atol=1e-5, rtol=0)
    # The longer side of the reference image corresponds to a side of the square.
    assert float(cameras.Ks[0, 0, 0]) / 12 == pytest.approx(float(reference.Ks[0, 0, 0]) / 32)


def test_images_are_padded_to_squares_with_white():
    wide = square(torch.zeros(1, 2, 6, 3))
    assert wide.shape == (1, 3, 6, 6) and wide[0, 0].sum(1).tolist() == [6, 6, 0, 0, 6, 6]
    tall = square(torch.zeros(1, 5, 2, 3))
    assert tall.shape == (1, 3, 5, 5) and tall[0, 0].sum(0).tolist() == [5, 0, 0, 5, 5]
    gray = clip_pixels(torch.full((1, 3, 10, 10), 0.5))
    assert gray.shape == (1, 3, 224, 224) and float(gray[0, 0, 0, 0]) == pytest.approx(
        (0.5 - 0.48145466) / 0.26862954, abs=1e-5
    )


def test_labels(folder, guidance, tmp_path):
    """A small network is never labeled as Zero123, whatever its folder claims."""
    assert isinstance(guidance, Guidance) and guidance.label.startswith("untrained test pipeline (")
    (tmp_path / "model_index.json").write_text('{"_class_name": "Zero1to3StableDiffusionPipeline"}')
    assert label_of(tmp_path, 10**6) == "untrained test pipeline (1,000,000 parameters)"
    assert label_of(tmp_path, 860_000_000) == "Zero1to3StableDiffusionPipeline (according to its folder)"
    (tmp_path / "model_index.json").unlink()
    assert label_of(tmp_path, 860_000_000) == f"weights without a name from {tmp_path.name}"
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(FileFormatError, match="is not JSON"):
        label_of(tmp_path, 860_000_000)


def test_long_runs_on_a_cpu_are_rejected(guidance, monkeypatch):
    assert 0 < check_time(guidance, 1, 1, 32, CPU, force=False) < base.LONG_S
    monkeypatch.setattr(base, "LONG_S", 0.0)
    with pytest.raises(BackendError, match=r"one step takes \d+\.\d s on this CPU, 300 steps about \d+ minutes; want"):
        check_time(guidance, 300, 1, 32, CPU, force=False)
    assert check_time(guidance, 300, 1, 32, CPU, force=True) > 0


def spoiled(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.bin", "old.ckpt", "vae/a.pt", "x.PTH", "a.pkl"])
def test_folders_with_pickles_are_rejected(tmp_path, name):
    for part in (*PARTS, "cc_projection"):
        (tmp_path / part).mkdir()
    assert check_folder(tmp_path) == tmp_path / "cc_projection"
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=r"which may run code when it is loaded; want \.safetensors alone") as caught:
        check_folder(tmp_path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_folders_are_listed(tmp_path):
    with pytest.raises(MissingFileError, match="none: does not exist; want a folder with unet, vae, image_encoder"):
        check_folder(tmp_path / "none")
    (tmp_path / "vae").mkdir()
    with pytest.raises(InputError, match="lacks the folders unet, image_encoder, scheduler, cc_projection; want"):
        check_folder(tmp_path)


def test_missing_packages(tmp_path, monkeypatch):
    for part in (*PARTS, "cc_projection"):
        (tmp_path / part).mkdir()
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(
        MissingDependencyError, match=r"diffusers and transformers is needed .*" + re.escape(install_command("guidance"))
    ):
        load_guidance(tmp_path, torch.zeros(1, 8, 8, 3), SdsConfig(), CPU)


def test_the_other_name_of_the_projection(folder, references, tmp_path):
    copy = spoiled(folder, tmp_path)
    (copy / "cc_projection").rename(copy / "clip_camera_projection")
    assert load_guidance(copy, references, SdsConfig(), CPU).projection[0].shape == (CONTEXT, EMBEDDING + 4)


def test_damaged_folders(folder, references, tmp_path):
    from safetensors.torch import save_file

    copy = spoiled(folder, tmp_path)
    projection = copy / "cc_projection" / "diffusion_pytorch_model.safetensors"

    def refused(message):
        with pytest.raises(InputError, match=message) as caught:
            load_guidance(copy, references, SdsConfig(), CPU)
        assert "\n" not in str(caught.value)

    save_file({"weight": torch.zeros(CONTEXT, EMBEDDING), "bias": torch.zeros(CONTEXT)}, projection)
    refused(r"the projection has shape \(24, 16\), want \(24, 20\)")
    save_file({"weight": torch.zeros(CONTEXT, EMBEDDING + 4)}, projection)
    refused("holds 1 tensors, want the weight and the bias")
    projection.write_bytes(b"nothing")
    refused("is damaged")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused("cannot be read as a pipeline of diffusers")
    weights.unlink()
    refused("cannot be read as a pipeline of diffusers")


@pytest.mark.parametrize("change", [{"scale": -1}, {"t_min": 0.6}, {"t_max": 1.5}, {"views": 0}, {"size": 8}])
def test_wrong_options(change):
    with pytest.raises(ConfigError, match=r"sds\.\w+: got .*want"):
        SdsConfig(**change)
