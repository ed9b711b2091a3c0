"""Training of the finder of hands."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.errors import ConfigError
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.stage import stage
from vision3d.stages.hand.config import OWN_BACKBONE
from vision3d.stages.hand.finder.batches import training_batch
from vision3d.stages.hand.finder.config import FinderTrainConfig
from vision3d.stages.hand.finder.evaluate import finder_figures
from vision3d.stages.hand.finder.model import KIND, HandFinder, save_finder
from vision3d.stages.hand.finder.network import FinderNet
from vision3d.stages.hand.finder.scenes import SceneSamples, SceneSource
from vision3d.stages.hand.finder.targets import WEIGHTS, losses
from vision3d.stages.hand.learning import HELD_OUT_SEED, Order, begin_with, card, learn, network_trainer, rounded, with_figures
from vision3d.stages.hand.network.files import load_hand_model
from vision3d.stages.hand.training_options import GROWS, RESUMABLE
from vision3d.training.group import Group
from vision3d.training.weights import load_network

MODEL_FILE = "hand_finder.safetensors"


@dataclass(frozen=True)
class FinderTrainResult:
    """Result of a training."""

    model: HandFinder
    summary: dict[str, Any]
    run_folder: Path | None = None


@stage("hand train-finder", {}, resumable=RESUMABLE, grows=GROWS)
def train_finder(
    config: FinderTrainConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> FinderTrainResult:
    """Train the finder of hands on generated images.

    Args:
        config: Options.
        run_folder: Output folder; a `RunFolder` with checkpoints resumes from the newest.
        progress: Progress callback.

    Raises:
        MissingFileError: The folder of backgrounds has no photographs, or weights to begin with are missing.
        NumericalError: The loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    device, group = resolve_device(config.device), Group.current()
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    source = SceneSource(scenes=config.scenes, backgrounds=config.backgrounds, furniture=config.furniture, seed=config.seed)
    samples = SceneSamples(source, config.images, folder=config.samples, workers=config.workers)
    held_out = None
    if config.evaluate_images:
        other = replace(source, seed=HELD_OUT_SEED + config.seed)
        held_out = SceneSamples(other, config.evaluate_images, workers=config.workers)
    seed_everything(config.seed)
    network = FinderNet(config.network)
    if config.init is not None:
        # Fully convolutional: the same parameters for images of any size.
        begin_with(network, load_network(config.init, KIND, type(config.network), FinderNet)[0], config.init)
    if config.backbone is not None:
        begin_with(network.backbone, _backbone_of(config.backbone), config.backbone)
    network.to(device)
    order = Order(len(samples), config, group)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        images, targets = training_batch(samples.take(order.rows(step)), order.generator(step))
        parts = losses(network(images.to(device)), targets.to(device))
        total = sum((WEIGHTS[name] * value for name, value in parts.items()), torch.zeros((), device=device))
        return total, {f"loss_{name}": float(value.detach()) for name, value in parts.items()}

    def figures(of: FinderNet = network) -> dict[str, float]:
        return {} if held_out is None else finder_figures(of, held_out, config.batch_size)

    trainer = network_trainer(network, loss, config, group)
    loop = learn(
        trainer, config, samples, held_out, figures, best="found", mode="max", run_folder=run_folder, progress=progress,
        group=group,
    )  # fmt: skip
    final = FinderNet(config.network).to(device)
    rounded(trainer, final)
    found = figures(final)
    model = HandFinder(final, config.network, with_figures(card(KIND, config, loop), found, config.evaluate_images))
    path = None if run_folder is None else run_folder.path
    if path is not None:
        save_finder(path / MODEL_FILE, model)
    summary = {
        "parameters": model.num_parameters,
        "steps": loop.step,
        "training_cpu_s": round(loop.cpu_s, 1),
        "training_s": round(loop.seconds, 1),
        **found,
        "device": str(device),
    }
    return FinderTrainResult(model, summary, path)


def _backbone_of(source: str) -> nn.Module:
    """The backbone of a network of hands, if it is the finder's."""
    model = load_hand_model(source)
    if model.config.backbone != OWN_BACKBONE:
        raise ConfigError("backbone", f"{source} has {model.config.backbone}, want a network with {OWN_BACKBONE}")
    return model.network.backbone
