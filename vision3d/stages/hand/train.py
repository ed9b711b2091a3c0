"""Training of the network of hands."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.stage import stage
from vision3d.stages.hand.data.batches import training_batch
from vision3d.stages.hand.data.samples import HandSamples, SampleSource
from vision3d.stages.hand.evaluation.crops import crop_errors
from vision3d.stages.hand.learning import HELD_OUT_SEED, Order, begin_with, card, learn, network_trainer, rounded, with_figures
from vision3d.stages.hand.losses import HandLoss
from vision3d.stages.hand.network.files import HandModel, load_hand_model, make_network, save_hand_model
from vision3d.stages.hand.network.hand_net import HandNet
from vision3d.stages.hand.template import HandTemplate
from vision3d.stages.hand.train_config import TrainConfig
from vision3d.stages.hand.training_options import GROWS, RESUMABLE
from vision3d.training.group import Group

_POOLED = ("logits", "log_scale", "rotation", "uv_head.shift", "uv_head.linear")
"""Linear layers on pooled features, which are all positive: at the common rate a step moves their outputs by a crop side."""
MODEL_FILE = "hand.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """Result of a training."""

    model: HandModel
    summary: dict[str, Any]
    run_folder: Path | None = None


@stage("hand train", {}, resumable=RESUMABLE, grows=GROWS)
def train_hand(
    config: TrainConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> TrainResult:
    """Train the network of hands on generated images.

    Args:
        config: Options.
        run_folder: Output folder; a `RunFolder` with checkpoints resumes from the newest.
        progress: Progress callback.

    Raises:
        MissingFileError: The folder of backgrounds has no photographs.
        NumericalError: The loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    device, group = resolve_device(config.device), Group.current()
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    source = SampleSource(frames=config.frames, backgrounds=config.backgrounds, furniture=config.furniture, seed=config.seed)
    samples = HandSamples(source, config.images, folder=config.samples, workers=config.workers)
    held_out = None
    if config.evaluate_images:
        other = replace(source, frames=replace(config.frames, empty=0.0), seed=HELD_OUT_SEED + config.seed)
        held_out = HandSamples(other, config.evaluate_images, workers=config.workers)
    seed_everything(config.seed)
    network = make_network(config.network)
    if config.init is not None:
        begin_with(network, load_hand_model(config.init).network, config.init)
    network.to(device)
    order, losses = Order(len(samples), config, group), HandLoss(config.loss, HandTemplate.load("right").faces.to(device))

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        started = time.process_time()
        images, targets = training_batch(
            samples.take(order.rows(step)), config.augment, order.generator(step), config.network.upright
        )
        waited = time.process_time() - started
        total, parts = losses(network(images.to(device)), targets.to(device))
        return total, {**{f"loss_{name}": float(value) for name, value in parts.items()}, "data_s": waited}

    def figures(of: HandNet = network) -> dict[str, float]:
        return {} if held_out is None else crop_errors(of, held_out, config.batch_size)

    trainer = network_trainer(network, loss, config, group, _POOLED)
    loop = learn(
        trainer, config, samples, held_out, figures, best="pa_mpjpe_mm", mode="min", run_folder=run_folder, progress=progress,
        group=group,
    )  # fmt: skip
    final = make_network(config.network).to(device)
    rounded(trainer, final)
    found = figures(final)
    model = HandModel(final, config.network, with_figures(card("hand", config, loop), found, config.evaluate_images))
    path = None if run_folder is None else run_folder.path
    if path is not None:
        save_hand_model(path / MODEL_FILE, model)
    summary = {
        "parameters": model.num_parameters,
        "steps": loop.step,
        "training_cpu_s": round(loop.cpu_s, 1),
        "training_s": round(loop.seconds, 1),
        **found,
        "device": str(device),
    }
    return TrainResult(model, summary, path)
