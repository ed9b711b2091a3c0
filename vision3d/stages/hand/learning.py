"""The part that the trainings on generated images have in common."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Protocol

import torch
from torch import nn

from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.optim.schedules import one_cycle
from vision3d.stages.hand.training_options import TrainingOptions
from vision3d.training.ema import Ema
from vision3d.training.group import Group
from vision3d.training.loop import Evaluation, Loop
from vision3d.training.network import Loss, NetworkTrainer, adamw
from vision3d.training.weights import Card, in_half, load_strictly

_SLOWER = 0.1
HELD_OUT_SEED = 1_000_000_000
"""Added to the seed of the images of an evaluation."""


class Samples(Protocol):
    """Generated images."""

    def __len__(self) -> int: ...

    def prepare(self, progress: ProgressCallback | None = None) -> None:
        """Make those that are not on disk yet."""
        ...


class Order:
    """Which images a step sees: each pass has its own order, and each process its share.

    Args:
        count: Number of images.
        options: Batch size and seed.
        group: The processes that train together.
    """

    def __init__(self, count: int, options: TrainingOptions, group: Group) -> None:
        self.count, self.size, self.seed = count, options.batch_size, options.seed
        self.share = group.share(options.batch_size)

    def rows(self, step: int) -> torch.Tensor:
        """Numbers of the images."""
        epoch, at = divmod(step, max(1, self.count // self.size))
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
        return order[torch.arange(at * self.size, at * self.size + self.size) % self.count][list(self.share)]

    def generator(self, step: int) -> torch.Generator:
        """Random numbers of a step."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 1009 + self.share.start)


def network_trainer(
    network: nn.Module, loss: Loss, options: TrainingOptions, group: Group, slower: tuple[str, ...] = ()
) -> NetworkTrainer:
    """AdamW in one cycle, with moving averages of the parameters.

    Args:
        network: What is trained.
        loss: As for `NetworkTrainer`.
        options: Rates and decays.
        group: The processes that train together.
        slower: Beginnings of the names of parameters with a tenth of the learning rate.
    """
    optimizer = adamw(
        network, options.lr, options.weight_decay, factor=lambda name: _SLOWER if name.startswith(slower) else 1.0
    )
    return NetworkTrainer(
        network, optimizer, loss, lambda progress: one_cycle(options.lr, progress),
        clip_norm=options.clip_norm, ema=Ema(network, options.ema), autocast=True, group=group,
    )  # fmt: skip


def learn(
    trainer: NetworkTrainer,
    options: TrainingOptions,
    samples: Samples,
    held_out: Samples | None,
    figures: Callable[[], dict[str, float]],
    *,
    best: str,
    mode: Literal["min", "max"],
    run_folder: RunFolder | None,
    progress: ProgressCallback | None,
    group: Group,
) -> Loop:
    """Make the images, then train.

    Args:
        trainer: What is trained.
        options: Steps and checkpoints.
        samples: Images to train on.
        held_out: Images of the evaluations.
        figures: Evaluates the averaged parameters on them.
        best: Name of the figure that decides which checkpoint is the best.
        mode: min or max: which value of it is better.
        run_folder: Output folder.
        progress: Progress callback.
        group: The processes that train together.
    """
    if group.is_first:
        samples.prepare(progress)
        if held_out is not None:
            held_out.prepare(progress)
    group.from_first(None)  # the others wait until the images are there
    evaluation = None
    if held_out is not None:
        evaluation = Evaluation(options.evaluate_every, lambda: averaged(trainer, figures), best=best, mode=mode)
    loop = Loop(
        "train", source="generated hands", steps=options.steps, folder=run_folder, log_every=options.log_every,
        checkpoint_every=options.checkpoint_every, evaluation=evaluation, latest=("lr",), group=group, callback=progress,
    )  # fmt: skip
    if loop.saved is not None:
        trainer.load_state_dict(loop.saved)
    loop.run(trainer)
    return loop


def averaged(trainer: NetworkTrainer, figures: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Figures of the averaged parameters."""
    assert trainer.ema is not None
    with trainer.ema.applied():
        trainer.network.eval()
        return figures()


def rounded(trainer: NetworkTrainer, network: nn.Module) -> None:
    """Load the averaged parameters as they are in a file, in half precision, so that figures are those of the file."""
    assert trainer.ema is not None
    with trainer.ema.applied():
        network.load_state_dict(in_half(trainer.network))
    network.eval()


def begin_with(network: nn.Module, other: nn.Module, path: str) -> None:
    """Load the parameters of another network of the same configuration."""
    load_strictly(network, other.state_dict(), path)


def card(kind: str, options: TrainingOptions, loop: Loop) -> Card:
    """What was trained, for how long."""
    names = {"photographs": options.backgrounds, "sweethome3d-furniture": options.furniture}
    given = [name for name, folder in names.items() if folder is not None]
    data = f"{options.images} generated images of seed {options.seed}" + (f" with {' and '.join(given)}" if given else "")
    about: dict[str, Any] = {"steps": loop.step, "batch_size": options.batch_size}
    if options.init is not None:
        about["init"] = options.init
    return Card.of_now(kind, config={}, data=data, seed=options.seed, cpu_hours=round(loop.cpu_s / 3600, 3), about=about)


def with_figures(made: Card, figures: dict[str, float], count: int) -> Card:
    """The card with figures on held-out images."""
    return replace(made, figures={**figures, "data": f"{count} held-out generated images"})
