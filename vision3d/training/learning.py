"""From a network and its loss to weights with figures: one cycle of AdamW with moving averages, evaluations, a card."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from torch import nn

from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.optim.schedules import one_cycle
from vision3d.training.ema import Ema
from vision3d.training.group import Group
from vision3d.training.loop import Evaluation, Loop
from vision3d.training.network import Loss, NetworkTrainer, adamw
from vision3d.training.options import NetworkTraining
from vision3d.training.weights import Card, in_half

_SLOWER = 0.1

Network = TypeVar("Network", bound=nn.Module)
Model = TypeVar("Model")


@dataclass(frozen=True)
class Learned(Generic[Network]):
    """A network with the averaged parameters, rounded as in a file, so that the figures are those of the file."""

    network: Network
    """In evaluation mode."""
    card: Card
    summary: dict[str, Any]


@dataclass(frozen=True)
class TrainResult(Generic[Model]):
    """Result of a training."""

    model: Model
    summary: dict[str, Any]
    run_folder: Path | None = None


@dataclass(frozen=True)
class Lesson(Generic[Network]):
    """What a network learns."""

    kind: str
    """Of the weights."""
    network: Network
    """With its first parameters, on its device."""
    loss: Loss
    """Of a step, on this process's part of the batch; and further metrics."""
    data: str
    """What it learns from, for the card."""
    source: str
    """The same in a word or two, to tell a resumed run from another."""
    figures: Callable[[Network], dict[str, float]] | None = None
    """Evaluates the network, in evaluation mode, on held-out samples; None: there are none."""
    held_out: str = ""
    """What these are, for the card."""
    best: tuple[str, Literal["min", "max"]] = ("loss", "min")
    """Name of the figure that decides which checkpoint is the best, and which value of it is better."""
    slower: tuple[str, ...] = ()
    """Beginnings of the names of parameters with a tenth of the learning rate."""
    warmup: float = 0.3
    """Fraction of training at which the learning rate is highest."""
    about: Mapping[str, Any] | None = None
    """More for the card."""


def learn(
    lesson: Lesson[Network],
    options: NetworkTraining,
    run_folder: RunFolder | None,
    progress: ProgressCallback | None,
    group: Group | None = None,
) -> Learned[Network]:
    """Train in one cycle of AdamW, and evaluate.

    Args:
        lesson: What is learned.
        options: Steps, rates, and how often to write what.
        run_folder: Output folder; one with checkpoints resumes from the newest.
        progress: Progress callback.
        group: The processes that train together.

    Raises:
        NumericalError: The loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    network, measure = lesson.network, lesson.figures
    ema = Ema(network, options.ema)

    def figures() -> dict[str, float]:
        return {} if measure is None else measure(network.eval())

    def averaged() -> dict[str, float]:
        with ema.applied():
            return figures()

    trainer = NetworkTrainer(
        network, adamw(network, options.lr, options.weight_decay, factor=_factor(lesson.slower)), lesson.loss,
        lambda progress: one_cycle(options.lr, progress, lesson.warmup), clip_norm=options.clip_norm, ema=ema, autocast=True,
        group=group,
    )  # fmt: skip
    name, mode = lesson.best
    evaluation = None if measure is None else Evaluation(options.evaluate_every, averaged, best=name, mode=mode)
    loop = Loop(
        "train", source=lesson.source, steps=options.steps, folder=run_folder, log_every=options.log_every,
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
        "device": str(next(network.parameters()).device),
    }
    card = Card.of_now(
        lesson.kind, config={}, data=lesson.data, seed=options.seed, cpu_hours=round(loop.cpu_s / 3600, 3),
        about={"steps": loop.step, "batch_size": options.batch_size, **(lesson.about or {})},
        figures={**found, "data": lesson.held_out} if found else {},
    )  # fmt: skip
    return Learned(network.eval(), card, summary)


def stored(
    learned: Learned[Any], model: Model, save: Callable[[Path, Model], None], run_folder: RunFolder | None, name: str
) -> TrainResult[Model]:
    """Write the model of a training to its run folder, if it has one, and return the result.

    Args:
        learned: The training.
        model: Its network as a model.
        save: Writes the model to a path.
        run_folder: Output folder.
        name: Name of the file.
    """
    path = None if run_folder is None else run_folder.path
    if path is not None:
        save(path / name, model)
    return TrainResult(model, learned.summary, path)


def _factor(slower: tuple[str, ...]) -> Callable[[str], float]:
    return lambda name: _SLOWER if name.startswith(slower) else 1.0
