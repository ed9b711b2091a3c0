"""The training that the network of hands and the finder have in common: on generated images, with held-out ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.optim.schedules import one_cycle
from vision3d.stages.hand.data.images import Batch, ImageSamples, ImageSource
from vision3d.stages.hand.training_options import TrainingOptions
from vision3d.training.ema import Ema
from vision3d.training.group import Group
from vision3d.training.loop import Evaluation, Loop
from vision3d.training.network import NetworkTrainer, adamw
from vision3d.training.weights import Card, in_half

HELD_OUT_SEED = 1_000_000_000
"""Added to the seed of the images of an evaluation."""
_SLOWER = 0.1

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Task(Generic[Network, Batch]):
    """What is learned from generated images."""

    kind: str
    """Of the weights."""
    source: ImageSource[Batch]
    """Images to train on."""
    held_out: ImageSource[Batch]
    """Images of the evaluations."""
    make: Callable[[], Network]
    """The network with its first parameters."""
    loss: Callable[[Network, Batch, torch.Generator, torch.device], tuple[Tensor, Mapping[str, float]]]
    """Of a batch, changed at random; and further metrics."""
    figures: Callable[[Network, ImageSamples[Batch], int], dict[str, float]]
    """Evaluates a network on images, so many at a time."""
    best: tuple[str, Literal["min", "max"]]
    """Name of the figure that decides which checkpoint is the best, and which value of it is better."""
    slower: tuple[str, ...] = ()
    """Beginnings of the names of parameters with a tenth of the learning rate."""


@dataclass(frozen=True)
class Learned(Generic[Network]):
    """A network with the averaged parameters, rounded as in a file, so that the figures are those of the file."""

    network: Network
    """In evaluation mode."""
    card: Card
    summary: dict[str, Any]


def learn(
    task: Task[Network, Batch], options: TrainingOptions, run_folder: RunFolder | None, progress: ProgressCallback | None
) -> Learned[Network]:
    """Make the images, train in one cycle of AdamW, and evaluate.

    Args:
        task: What is learned.
        options: Images, steps and rates.
        run_folder: Output folder.
        progress: Progress callback.
    """
    device, group = resolve_device(options.device), Group.current()
    samples = ImageSamples(task.source, options.images, folder=options.samples, workers=options.workers)
    held_out = None
    if options.evaluate_images:
        held_out = ImageSamples(task.held_out, options.evaluate_images, workers=options.workers)
    seed_everything(options.seed)
    network = task.make().to(device)
    order = _Order(len(samples), options, group)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        return task.loss(network, samples.take(order.rows(step)), order.generator(step), device)

    def figures() -> dict[str, float]:
        return {} if held_out is None else task.figures(network.eval(), held_out, options.batch_size)

    def averaged() -> dict[str, float]:
        with ema.applied():
            return figures()

    ema = Ema(network, options.ema)
    trainer = NetworkTrainer(
        network, adamw(network, options.lr, options.weight_decay, factor=_factor(task.slower)), loss,
        lambda progress: one_cycle(options.lr, progress), clip_norm=options.clip_norm, ema=ema, autocast=True, group=group,
    )  # fmt: skip
    if group.is_first:
        for images in (samples, held_out):
            if images is not None:
                images.prepare(progress)
    group.from_first(None)  # the others wait until the images are there
    name, mode = task.best
    evaluation = None if held_out is None else Evaluation(options.evaluate_every, averaged, best=name, mode=mode)
    loop = Loop(
        "train", source="generated hands", steps=options.steps, folder=run_folder, log_every=options.log_every,
        checkpoint_every=options.checkpoint_every, evaluation=evaluation, latest=("lr",), group=group, callback=progress,
    )  # fmt: skip
    if loop.saved is not None:
        trainer.load_state_dict(loop.saved)
    loop.run(trainer)
    with ema.applied():
        state = in_half(network)
    network.load_state_dict(state)
    found = figures()
    summary = {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "steps": loop.step,
        "training_cpu_s": round(loop.cpu_s, 1),
        "training_s": round(loop.seconds, 1),
        **found,
        "device": str(device),
    }
    return Learned(network.eval(), _card(task.kind, options, loop, found), summary)


def _factor(slower: tuple[str, ...]) -> Callable[[str], float]:
    return lambda name: _SLOWER if name.startswith(slower) else 1.0


class _Order:
    """Which images a step sees: each pass has its own order, and each process its share."""

    def __init__(self, count: int, options: TrainingOptions, group: Group) -> None:
        self.count, self.size, self.seed = count, options.batch_size, options.seed
        self.share = group.share(options.batch_size)

    def rows(self, step: int) -> Tensor:
        """Numbers of the images."""
        epoch, at = divmod(step, max(1, self.count // self.size))
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
        return order[torch.arange(at * self.size, at * self.size + self.size) % self.count][list(self.share)]

    def generator(self, step: int) -> torch.Generator:
        """Random numbers of a step."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 1009 + self.share.start)


def _card(kind: str, options: TrainingOptions, loop: Loop, figures: dict[str, float]) -> Card:
    """What was trained, for how long, and the figures on held-out images."""
    names = {"photographs": options.backgrounds, "sweethome3d-furniture": options.furniture}
    given = [name for name, folder in names.items() if folder is not None]
    data = f"{options.images} generated images of seed {options.seed}" + (f" with {' and '.join(given)}" if given else "")
    about: dict[str, Any] = {"steps": loop.step, "batch_size": options.batch_size}
    if options.init is not None:
        about["init"] = options.init
    return Card.of_now(
        kind, config={}, data=data, seed=options.seed, cpu_hours=round(loop.cpu_s / 3600, 3), about=about,
        figures={**figures, "data": f"{options.evaluate_images} held-out generated images"} if figures else {},
    )  # fmt: skip
