"""Training of the finder of hands."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vision3d.core.errors import ConfigError
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.stage import stage
from vision3d.stages.hand.config import OWN_BACKBONE
from vision3d.stages.hand.finder.batches import training_batch
from vision3d.stages.hand.finder.config import FinderTrainConfig
from vision3d.stages.hand.finder.evaluate import finder_figures
from vision3d.stages.hand.finder.model import FORMAT, KIND, HandFinder, save_finder
from vision3d.stages.hand.finder.network import FinderNet
from vision3d.stages.hand.finder.scenes import SceneBatch, SceneSource
from vision3d.stages.hand.finder.targets import WEIGHTS, losses
from vision3d.stages.hand.learning import HELD_OUT_SEED, Task, learn
from vision3d.stages.hand.network.files import load_hand_model
from vision3d.training.learning import TrainResult, stored
from vision3d.training.options import GROWS, RESUMABLE

MODEL_FILE = "hand_finder.safetensors"


@stage("hand train-finder", {}, resumable=RESUMABLE, grows=GROWS)
def train_finder(
    config: FinderTrainConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> TrainResult[HandFinder]:
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
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    source = SceneSource(scenes=config.scenes, backgrounds=config.backgrounds, furniture=config.furniture, seed=config.seed)
    other = replace(source, seed=HELD_OUT_SEED + config.seed)

    def make() -> FinderNet:
        network = FinderNet(config.network)
        if config.init is not None:  # fully convolutional: the same parameters for images of any size
            FORMAT.initialize(network, config.init)
        if config.backbone is not None:
            network.backbone.load_state_dict(_backbone_of(config.backbone).state_dict())
        return network

    def loss(
        network: FinderNet, batch: SceneBatch, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, Mapping[str, float]]:
        images, targets = training_batch(batch, generator)
        parts = losses(network(images.to(device)), targets.to(device))
        total = sum((WEIGHTS[name] * value for name, value in parts.items()), torch.zeros((), device=device))
        return total, {f"loss_{name}": float(value.detach()) for name, value in parts.items()}

    task = Task(KIND, source, other, make, loss, finder_figures, ("found", "max"))
    learned = learn(task, config, run_folder, progress)
    model = HandFinder(learned.network, config.network, learned.card)
    return stored(learned, model, save_finder, run_folder, MODEL_FILE)


def _backbone_of(source: str) -> nn.Module:
    """The backbone of a network of hands, if it is the finder's."""
    model = load_hand_model(source)
    if model.config.backbone != OWN_BACKBONE:
        raise ConfigError("backbone", f"{source} has {model.config.backbone}, want a network with {OWN_BACKBONE}")
    return model.network.backbone
