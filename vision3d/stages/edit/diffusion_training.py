"""Training of the diffusion model that edits latents of planes by a text."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.stage import stage
from vision3d.stages.edit.data.instructions import Instructions
from vision3d.stages.edit.data.pairs import PairPool, Pairs
from vision3d.stages.edit.diffusion_config import DiffusionTrainConfig, Sampling
from vision3d.stages.edit.evaluation.accuracy import accuracy
from vision3d.stages.edit.instructions.text import TextEncoder
from vision3d.stages.edit.learning import frozen_planes, instructions_of, learn_on_objects, objects_on_disk, step_generator
from vision3d.stages.edit.network.adapter_files import planes_digest
from vision3d.stages.edit.network.denoiser import TIMES, DiffusionNet, make_schedule
from vision3d.stages.edit.network.diffusion_files import (
    DIFFUSION_FORMAT,
    DIFFUSION_KIND,
    DescribedDiffusion,
    DiffusionModel,
    changing,
    load_vae,
    save_diffusion,
)
from vision3d.training.learning import TrainResult, stored
from vision3d.training.options import GROWS, RESUMABLE

MODEL_FILE = "edit_diffusion.safetensors"
_EVALUATED = Sampling(steps=10)


@stage("edit train-diffusion", {}, resumable=RESUMABLE, grows=GROWS)
def train_diffusion(
    config: DiffusionTrainConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> TrainResult[DiffusionModel]:
    """Train the denoiser of latents of planes; encoder, decoder and VAE of the planes stay as they are.

    Args:
        config: Options.
        run_folder: Output folder; a `RunFolder` with checkpoints resumes from the newest.
        progress: Progress callback.

    Raises:
        MissingFileError: The folder has no furniture, or weights are missing.
        MissingDependencyError: diffusers or the encoder of texts is not installed.
        NumericalError: The loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    device = resolve_device(config.device)
    planes = frozen_planes(config.planes, device)
    vae = load_vae(config.vae).check(planes)
    encoder = TextEncoder()
    seed_everything(config.seed)
    network = DiffusionNet(planes.config, vae.config.vae, config.network).to(device)
    network.vae.load_state_dict(vae.network.state_dict())
    if config.init is not None:
        DIFFUSION_FORMAT.initialize(network, config.init)
    objects, held_out = objects_on_disk(config, progress)
    instructions = instructions_of(config, encoder)
    seed_everything(config.seed)
    pool = PairPool(objects, planes.network, network, instructions, config)
    signal, noise = noise_levels(device)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        generator = step_generator(config, step)
        pairs = pool.draw(step, config.batch_size, generator)
        return diffusion_loss(network, pairs, instructions, signal, noise, config.dropped, generator), {}

    described = DescribedDiffusion(config.network, vae.config.vae, planes.config, planes_digest(planes), encoder.digest)

    def figures(network: DiffusionNet) -> dict[str, float]:
        assert held_out is not None
        change = changing(network, _EVALUATED, 0)
        return accuracy(change, planes, held_out, encoder, config.points, 3)

    measured = None if held_out is None else figures
    learned = learn_on_objects(config, DIFFUSION_KIND, network, loss, measured, "accuracy", run_folder, progress)
    model = DiffusionModel(learned.network, described, learned.card)
    return stored(learned, model, save_diffusion, run_folder, MODEL_FILE)


def noise_levels(device: torch.device) -> tuple[Tensor, Tensor]:
    """Factors of latents and noise at each time of the schedule; at the last one, there is noise only."""
    kept = make_schedule().alphas_cumprod.to(device)
    return kept.sqrt(), (1 - kept).sqrt()


def diffusion_loss(
    network: DiffusionNet,
    pairs: Pairs,
    instructions: Instructions,
    signal: Tensor,
    noise: Tensor,
    dropped: float,
    generator: torch.Generator,
) -> Tensor:
    """Squared error of the velocity at random times.

    Args:
        network: The denoiser.
        pairs: Latents before and after.
        instructions: What was asked for.
        signal: Of `noise_levels`.
        noise: The same.
        dropped: Share of samples without the text, without the source, and without both.
        generator: Random numbers.
    """
    device, count = signal.device, len(pairs.source)
    target, drawn = pairs.target.to(device), torch.randn(pairs.target.shape, generator=generator).to(device)
    times = torch.randint(TIMES, (count,), generator=generator)
    chance = torch.rand(count, generator=generator)
    has_text = (chance >= 2 * dropped).to(device)
    has_source = ((chance < dropped) | (chance >= 3 * dropped)).to(device)
    tokens, mask = instructions.take(pairs.rows)
    times = times.to(device)
    alpha, sigma = (values[times][:, None, None, None] for values in (signal, noise))
    found = network.predict(
        alpha * target + sigma * drawn, times, pairs.source.to(device), pairs.shape.to(device), tokens.to(device),
        mask.to(device), has_text, has_source,
    )  # fmt: skip
    return torch.nn.functional.mse_loss(found, alpha * drawn - sigma * target)
