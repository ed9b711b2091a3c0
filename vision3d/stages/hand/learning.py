"""The training that the network of hands and the finder have in common: on generated images, with held-out ones."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.stages.hand.data.images import Batch, ImageSamples, ImageSource
from vision3d.stages.hand.training_options import TrainingOptions
from vision3d.training import learning
from vision3d.training.group import Group
from vision3d.training.learning import Learned, Lesson

HELD_OUT_SEED = 1_000_000_000
"""Added to the seed of the images of an evaluation."""

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

    if group.is_first:
        for images in (samples, held_out):
            if images is not None:
                images.prepare(progress)
    group.from_first(None)  # the others wait until the images are there
    figures = None
    if held_out is not None:
        figures = functools.partial(_figures, task, held_out, options.batch_size)
    lesson = Lesson(
        task.kind, network, loss, _data(options), "generated hands", figures,
        f"{options.evaluate_images} held-out generated images", task.best, task.slower,
        {} if options.init is None else {"init": options.init},
    )  # fmt: skip
    return learning.learn(lesson, options, run_folder, progress, group)


def _figures(task: Task[Network, Batch], images: ImageSamples[Batch], batch_size: int, network: Network) -> dict[str, float]:
    return task.figures(network, images, batch_size)


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


def _data(options: TrainingOptions) -> str:
    """What the images are made of."""
    names = {"photographs": options.backgrounds, "sweethome3d-furniture": options.furniture}
    given = [name for name, folder in names.items() if folder is not None]
    return f"{options.images} generated images of seed {options.seed}" + (f" with {' and '.join(given)}" if given else "")
