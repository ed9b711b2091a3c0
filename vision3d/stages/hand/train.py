"""Training of the network of hands."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.optim.schedules import one_cycle
from vision3d.stage import stage
from vision3d.stages.hand.data.batches import training_batch
from vision3d.stages.hand.data.samples import HandSamples, SampleSource
from vision3d.stages.hand.evaluation.crops import crop_errors
from vision3d.stages.hand.losses import HandLoss
from vision3d.stages.hand.network.files import HandModel, make_network, save_hand_model
from vision3d.stages.hand.template import HandTemplate
from vision3d.stages.hand.train_config import GROWS, RESUMABLE, TrainConfig
from vision3d.training.ema import Ema
from vision3d.training.group import Group
from vision3d.training.loop import Evaluation, Loop
from vision3d.training.network import NetworkTrainer, adamw
from vision3d.training.weights import Card, in_half

MODEL_FILE = "hand.safetensors"
HELD_OUT_SEED = 1_000_000_000
"""Added to the seed of the images of an evaluation."""


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
    source = SampleSource(config.frames, config.backgrounds, config.furniture, seed=config.seed)
    samples = HandSamples(source, config.images, folder=config.samples, workers=config.workers)
    held_out = None
    if config.evaluate_images:
        held_out = HandSamples(
            replace(source, frames=replace(config.frames, empty=0.0), seed=HELD_OUT_SEED + config.seed),
            config.evaluate_images,
            workers=config.workers,
        )
    if group.is_first:
        samples.prepare(progress)
        if held_out is not None:
            held_out.prepare(progress)
    group.from_first(None)  # the others wait until the images are there
    trainer = Trainer(config, samples, device, group)
    evaluation = None
    if held_out is not None:
        evaluation = Evaluation(config.evaluate_every, lambda: trainer.errors(held_out), best="pa_mpjpe_mm", mode="min")
    loop = Loop(
        "train", source="generated hands", steps=config.steps, folder=run_folder, log_every=config.log_every,
        checkpoint_every=config.checkpoint_every, evaluation=evaluation, latest=("lr",), group=group, callback=progress,
    )  # fmt: skip
    if loop.saved is not None:
        trainer.load_state_dict(loop.saved)
    loop.run(trainer)
    assert trainer.ema is not None
    with trainer.ema.applied():
        state = in_half(trainer.network)  # rounded as in the file, so that the figures are those of the file
    network = make_network(config.network)
    network.load_state_dict(state)
    card = Card.of_now(
        "hand", config={}, data=f"{config.images} generated images of seed {config.seed}", seed=config.seed,
        cpu_hours=round(loop.cpu_s / 3600, 3), about={"steps": loop.step, "batch_size": config.batch_size},
    )  # fmt: skip
    model = HandModel(network.eval().to(device), config.network, card)
    figures: dict[str, float] = {}
    if held_out is not None:
        figures = crop_errors(model.network, held_out, config.batch_size)
        model.card = replace(card, figures={**figures, "data": f"{len(held_out)} held-out generated images"})
    path = None if run_folder is None else run_folder.path
    if path is not None:
        save_hand_model(path / MODEL_FILE, model)
    summary = {
        "parameters": model.num_parameters,
        "steps": loop.step,
        "training_cpu_s": round(loop.cpu_s, 1),
        "training_s": round(loop.seconds, 1),
        **figures,
        "device": str(device),
    }
    return TrainResult(model, summary, path)


class Trainer(NetworkTrainer):
    """Steps on batches of generated images."""

    def __init__(self, config: TrainConfig, samples: HandSamples, device: torch.device, group: Group) -> None:
        self.config, self.samples, self.device = config, samples, device
        seed_everything(config.seed)
        network = make_network(config.network).to(device)
        optimizer = adamw(network, config.lr, config.weight_decay)
        super().__init__(
            network, optimizer, self._loss, lambda progress: one_cycle(config.lr, progress),
            clip_norm=config.clip_norm, ema=Ema(network, config.ema), autocast=True, group=group,
        )  # fmt: skip
        self.share = group.share(config.batch_size)
        self.hand_loss = HandLoss(config.loss, HandTemplate.load("right").faces.to(device))

    def errors(self, held_out: HandSamples) -> dict[str, float]:
        """Errors of the averaged parameters on held-out images."""
        assert self.ema is not None
        with self.ema.applied():
            self.network.eval()
            return crop_errors(self.network, held_out, self.config.batch_size)

    def rows(self, step: int) -> Tensor:
        """The images of a step: each pass has its own order."""
        size, count = self.config.batch_size, len(self.samples)
        each = max(1, count // size)
        epoch, at = divmod(step, each)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch))
        return order[torch.arange(at * size, at * size + size) % count][list(self.share)]

    def _loss(self, step: int) -> tuple[Tensor, Mapping[str, float]]:
        started = time.process_time()
        batch = self.samples.take(self.rows(step))
        generator = torch.Generator().manual_seed((self.config.seed * 1_000_003 + step) * 1009 + self.share.start)
        images, targets = training_batch(batch, self.config.augment, generator)
        waited = time.process_time() - started
        outputs = self.network(images.to(self.device))
        loss, parts = self.hand_loss(outputs, targets.to(self.device))
        return loss, {**{f"loss_{name}": float(value) for name, value in parts.items()}, "data_s": waited}
