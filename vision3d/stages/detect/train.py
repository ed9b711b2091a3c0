"""Training of a detector."""

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
from vision3d.stages.detect.config import GROWS, RESUMABLE, EvalConfig, StreetsConfig, TrainConfig
from vision3d.stages.detect.data.batches import Batches, Recipe
from vision3d.stages.detect.data.sources import KittiFolder, Source, Streets, has_split, is_generated
from vision3d.stages.detect.evaluate import EvalSource, average_precision, evaluate_to, mean_precision
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.detect.network.files import FORMAT, Detector, save_detector
from vision3d.stages.detect.network.lion import is_decayed
from vision3d.training.ema import Ema
from vision3d.training.group import Group
from vision3d.training.loop import Evaluation, Loop
from vision3d.training.network import NetworkTrainer, adamw
from vision3d.training.weights import Card, in_half

DETECTOR_FILE = "detector.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """Result of a training."""

    detector: Detector
    summary: dict[str, Any]
    run_folder: Path | None = None


@stage("detect train", {"data": "data"}, resumable=RESUMABLE, grows=GROWS)
def train_detector(
    config: TrainConfig,
    data: Source | Path | str,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> TrainResult:
    """Train a detector.

    Args:
        config: Options.
        data: A folder in KITTI's layout, "synth" for generated streets, or a source of sweeps.
        run_folder: Output folder; a `RunFolder` with checkpoints resumes from the newest.
        progress: Progress callback.

    Raises:
        InputError: The data are incomplete or have unknown classes.
        MissingFileError: Weights to begin with are missing.
        FileFormatError: Weights to begin with are damaged, or have other parameters.
        NumericalError: The loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    device, group = resolve_device(config.device), Group.current()
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    source, held_out = _sources(data, config) if isinstance(data, Path | str) else (data, None)
    trainer = Trainer(config, source, device, group)
    evaluation = None
    if held_out is not None:
        evaluation = Evaluation(config.evaluate_every, lambda: trainer.precision(held_out), best="map")
    loop = Loop(
        "train", source=source.name, steps=config.steps, folder=run_folder, log_every=config.log_every,
        checkpoint_every=config.checkpoint_every, evaluation=evaluation, latest=("lr",), group=group, callback=progress,
    )  # fmt: skip
    try:
        if loop.saved is not None:
            trainer.load_state_dict(loop.saved)
        elif group.rank == 0:
            trainer.batches.check()
        loop.run(trainer)
    finally:
        trainer.batches.close()
    ema = trainer.ema
    assert ema is not None
    with ema.applied():
        # Rounded as in the file, so that figures measured now are those of the file.
        state = in_half(trainer.network)
    network = make_network(config.model)
    network.load_state_dict(state)
    card = Card.of_now(
        "detector", config={}, data=source.name, seed=config.seed, cpu_hours=round(loop.cpu_s / 3600, 3),
        about={"steps": loop.step, "batch_size": config.batch_size},
    )  # fmt: skip
    detector = Detector(network.eval().to(device), config.model, card)
    figures, table = {}, {}
    path = None if run_folder is None else run_folder.path
    if held_out is not None:
        evaluation = evaluate_to(path, detector, held_out, EvalConfig(), progress)
        figures, table = mean_precision(evaluation), {"table": evaluation.records()}
        shown = {name: round(value, 2) for name, value in figures.items()}
        detector.card = replace(card, figures={**shown, "data": f"{len(held_out)} held-out frames, 3D AP R40, moderate"})
    if path is not None:
        save_detector(path / DETECTOR_FILE, detector)
    summary = {
        "parameters": detector.num_parameters,
        "steps": loop.step,
        "training_cpu_s": round(loop.cpu_s, 1),
        "training_s": round(loop.seconds, 1),
        **figures,
        "device": str(device),
        **table,
    }
    return TrainResult(detector, summary, path)


def _sources(data: Path | str, config: TrainConfig) -> tuple[Source, EvalSource | None]:
    """Sweeps to train on, and frames to evaluate on: of train.txt and val.txt where a folder has both."""
    classes, count = config.model.classes, config.evaluate_frames
    if is_generated(data):
        held_out = Streets(StreetsConfig(EvalConfig().sensors, count), classes, EvalConfig().seed, "val") if count else None
        return Streets(config.synth, classes, config.seed), held_out
    if not has_split(data, "train"):
        return KittiFolder.open(data, classes), None
    if not count or not has_split(data, "val"):
        return KittiFolder.open(data, classes, "train"), None
    held_out = KittiFolder.open(data, classes, "val")
    return KittiFolder.open(data, classes, "train"), replace(held_out, frames=held_out.frames[:count])


class Trainer(NetworkTrainer):
    """Steps on sectors of labelled sweeps."""

    def __init__(self, config: TrainConfig, source: Source, device: torch.device, group: Group) -> None:
        self.config, self.device = config, device
        seed_everything(config.seed)
        network = make_network(config.model).to(device)
        if config.init is not None:
            FORMAT.initialize(network, config.init)
        self.detector = Detector(network, config.model, Card.of_now("detector", config={}, data="", seed=0, cpu_hours=0))
        optimizer = adamw(network, config.lr, config.weight_decay, is_decayed)
        super().__init__(
            network, optimizer, self._loss, lambda progress: one_cycle(config.lr, progress),
            clip_norm=config.clip_norm, ema=Ema(network, config.ema), autocast=True, group=group,
        )  # fmt: skip
        share = group.share(config.batch_size)
        model = config.model
        recipe = Recipe(
            source, config.augment, model.grid, len(model.classes), config.batch_size, config.min_points, config.seed, share,
            cells=model.cells,
        )  # fmt: skip
        self.batches = Batches(recipe, config.workers)

    def precision(self, held_out: EvalSource) -> dict[str, float]:
        """Average precision of the averaged parameters on held-out frames."""
        assert self.ema is not None
        with self.ema.applied():
            self.network.eval()
            return mean_precision(average_precision(self.detector, held_out))

    def _loss(self, step: int) -> tuple[Tensor, Mapping[str, float]]:
        batch, targets = self.batches(step)
        network = self.detector.network
        return network.head.loss(network(batch.to(self.device)), targets.to(self.device), self.config.loss)
