"""Training of the network of hands."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.stage import stage
from vision3d.stages.hand.data.batches import training_batch
from vision3d.stages.hand.data.samples import HandBatch, SampleSource
from vision3d.stages.hand.evaluation.crops import crop_errors
from vision3d.stages.hand.learning import HELD_OUT_SEED, Task, learn
from vision3d.stages.hand.losses import HandLoss
from vision3d.stages.hand.network.backbone import first_parts
from vision3d.stages.hand.network.files import IMAGENET, HandModel, initialize, make_network, save_hand_model
from vision3d.stages.hand.network.hand_net import POOLED, HandNet
from vision3d.stages.hand.template import HandTemplate
from vision3d.stages.hand.train_config import TrainConfig
from vision3d.training.learning import TrainResult, stored
from vision3d.training.options import GROWS, RESUMABLE

MODEL_FILE = "hand.safetensors"


@stage("hand train", {}, resumable=RESUMABLE, grows=GROWS)
def train_hand(
    config: TrainConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> TrainResult[HandModel]:
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
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    source = SampleSource(frames=config.frames, backgrounds=config.backgrounds, furniture=config.furniture, seed=config.seed)
    other = replace(source, frames=replace(config.frames, empty=0.0), seed=HELD_OUT_SEED + config.seed)
    losses = HandLoss(config.loss, HandTemplate.load("right").faces.to(resolve_device(config.device)))

    def make() -> HandNet:
        network = make_network(config.network)
        if config.init is not None:
            initialize(network, config.init)
        for part in first_parts(network.backbone, config.frozen):
            part.requires_grad_(False)
        return network

    def loss(
        network: HandNet, batch: HandBatch, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, Mapping[str, float]]:
        for part in first_parts(network.backbone, config.frozen):
            part.eval()  # norms use the statistics that they have
        images, targets = training_batch(batch, config.augment, generator, config.network.upright)
        total, parts = losses(network(images.to(device)), targets.to(device))
        return total, {f"loss_{name}": float(value) for name, value in parts.items()}

    # Features that know photographs shall not forget them.
    slower = (*POOLED, "backbone.") if config.init == IMAGENET else POOLED
    task = Task("hand", source, other, make, loss, crop_errors, ("pa_mpjpe_mm", "min"), slower)
    learned = learn(task, config, run_folder, progress)
    model = HandModel(learned.network, config.network, learned.card)
    return stored(learned, model, save_hand_model, run_folder, MODEL_FILE)
