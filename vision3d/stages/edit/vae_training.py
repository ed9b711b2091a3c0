"""Training of the VAE of planes."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.stage import stage
from vision3d.stages.edit.data.batches import whole_batch
from vision3d.stages.edit.data.sources import SourcePool, Sources
from vision3d.stages.edit.diffusion_config import VaeTrainConfig
from vision3d.stages.edit.learning import frozen_planes, learn_on_objects, objects_on_disk, step_generator
from vision3d.stages.edit.network.adapter_files import planes_digest
from vision3d.stages.edit.network.diffusion_files import VAE_FORMAT, VAE_KIND, DescribedVae, VaeModel, save_vae
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.stages.edit.network.vae import TriVae
from vision3d.training.learning import TrainResult, stored
from vision3d.training.options import GROWS, RESUMABLE
from vision3d.training.samples import GeneratedSamples

MODEL_FILE = "edit_vae.safetensors"
_STATISTICS = 48
"""Objects of which means and scales are taken."""


@stage("edit train-vae", {}, resumable=RESUMABLE, grows=GROWS)
def train_vae(
    config: VaeTrainConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> TrainResult[VaeModel]:
    """Train the VAE of the color channels of planes; encoder and decoder of the planes stay as they are.

    Args:
        config: Options.
        run_folder: Output folder; a `RunFolder` with checkpoints resumes from the newest.
        progress: Progress callback.

    Raises:
        MissingFileError: The folder has no furniture, or weights are missing.
        NumericalError: The loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    device = resolve_device(config.device)
    planes = frozen_planes(config.planes, device)
    objects, held_out = objects_on_disk(config, progress)
    seed_everything(config.seed)
    network = TriVae(planes.config, config.network).to(device)
    if config.init is not None:
        VAE_FORMAT.initialize(network, config.init)
    pool = SourcePool(objects, planes.network, config, config.pool, edited=True)
    statistics = pool.draw(0, _STATISTICS, torch.Generator().manual_seed(config.seed)).planes.to(device)
    statistics = statistics[:, :, planes.config.density_channels :]
    network.normalize_by(statistics)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        generator = step_generator(config, step)
        return vae_loss(network, planes.network, pool.draw(step, config.batch_size, generator), config, generator)

    def figures(network: TriVae) -> dict[str, float]:
        assert held_out is not None
        return vae_figures(network, planes.network, held_out, config.points)

    measured = None if held_out is None else figures
    learned = learn_on_objects(config, VAE_KIND, network, loss, measured, "latent_psnr", run_folder, progress)
    learned.network.scale_by(statistics)
    described = DescribedVae(config.network, planes.config, planes_digest(planes))
    model = VaeModel(learned.network, described, learned.card)
    return stored(learned, model, save_vae, run_folder, MODEL_FILE)


def vae_loss(
    network: TriVae, planes: PlaneNet, sources: Sources, config: VaeTrainConfig, generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Errors of normalised planes and of decoded colors, and the divergence of the latents from a normal distribution."""
    device, first = next(network.parameters()).device, planes.config.density_channels
    colors, places = sources.planes[:, :, first:].to(device), sources.places.to(device)
    means, logs = network.distribution(colors)
    noise = torch.randn(means.shape, generator=generator).to(device)
    decoded = network.decode((means + noise * (0.5 * logs).exp()) * network.scale)
    error = ((decoded - colors) / network.std).square().mean()
    with torch.no_grad():
        goal = planes.raw_values(colors, places)
    color = (planes.raw_values(decoded, places).sigmoid() - goal.sigmoid()).abs().mean()
    divergence = 0.5 * (means.square() + logs.exp() - 1 - logs).mean()
    parts = {"loss_planes": error, "loss_color": color, "loss_kl": divergence}
    total = error + config.decoded * color + config.kl * divergence
    return total, {name: float(value.detach()) for name, value in parts.items()}


@torch.no_grad()
def vae_figures(network: TriVae, planes: PlaneNet, samples: GeneratedSamples, count: int) -> dict[str, float]:
    """Mean squared error of normalised planes of held-out objects, and PSNR of colors decoded from latents and from planes."""
    device, first = next(network.parameters()).device, planes.config.density_channels
    errors, sums = [], {"psnr": [], "latent_psnr": []}
    for rows in torch.arange(len(samples)).split(8):
        batch = whole_batch(samples.take(rows), count).to(device)
        source = planes.encode(batch.points, batch.values)
        colors = source[:, :, first:]
        coded = network.decode(network.encode(colors))
        errors += ((coded - colors) / network.std).square().mean((1, 2, 3, 4)).tolist()
        for name, own in (("psnr", colors), ("latent_psnr", coded)):
            found = planes.values(torch.cat([source[:, :, :first], own], 2), batch.places)[..., :3]
            error = (found - batch.place_values[..., :3]).square().mean((1, 2)).clamp(min=1e-6)
            sums[name] += (-10 * error.log10()).tolist()
    means = {name: round(sum(values) / len(values), 3) for name, values in sums.items()}
    return {"latent_mse": round(sum(errors) / len(errors), 5), **means}
