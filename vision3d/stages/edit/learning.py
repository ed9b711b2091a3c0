"""What the trainings on objects have in common: objects on disk, which of them a step sees, and the loop."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import nn

from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.stages.edit.config import AdapterTrainConfig, ObjectTraining
from vision3d.stages.edit.data.instructions import Instructions, make_instructions
from vision3d.stages.edit.data.samples import ObjectSource
from vision3d.stages.edit.diffusion_config import DiffusionTrainConfig
from vision3d.stages.edit.instructions.text import TextEncoder
from vision3d.stages.edit.network.files import PlanesModel, load_planes_model
from vision3d.training.learning import Learned, Lesson, learn
from vision3d.training.network import Loss
from vision3d.training.samples import GeneratedSamples, Sample

Network = TypeVar("Network", bound=nn.Module)

_HELD_OUT_SEED, _PHRASES_SEED = 1_000_000_000, 77


def objects_on_disk(
    config: ObjectTraining, progress: ProgressCallback | None
) -> tuple[GeneratedSamples, GeneratedSamples | None]:
    """Objects to train on, and held-out ones; missing ones are made.

    Raises:
        MissingFileError: The folder has no furniture.
    """
    objects = ObjectSource(config.furniture, seed=config.seed).samples(config.objects, config.samples, config.workers)
    held_out = None
    if config.evaluate_objects:
        share = 0.0 if config.furniture is None else 1.0
        source = ObjectSource(config.furniture, "val", share, _HELD_OUT_SEED + config.seed)
        held_out = source.samples(config.evaluate_objects, workers=config.workers)
    for samples in (objects, held_out):
        if samples is not None:
            samples.prepare(progress)
    return objects, held_out


def frozen_planes(path: str, device: torch.device) -> PlanesModel:
    """Encoder and decoder of planes, which stay as they are.

    Args:
        path: A file, or the name of bundled weights.
        device: Where they shall be.
    """
    planes = load_planes_model(path).to(device)
    planes.network.requires_grad_(False)
    return planes


def instructions_of(config: AdapterTrainConfig | DiffusionTrainConfig, encoder: TextEncoder) -> Instructions:
    """The instructions of a training."""
    return make_instructions(config.phrases, config.two, _PHRASES_SEED + config.seed, encoder, basic=config.basic)


def step_generator(config: ObjectTraining, step: int) -> torch.Generator:
    """Random numbers of a step, besides those of its objects."""
    return torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 1013)


def sample_of(config: ObjectTraining, objects: GeneratedSamples, step: int) -> tuple[Sample, torch.Generator]:
    """The objects of a step, each pass in its own order, and its random numbers."""
    size = config.batch_size
    epoch, at = divmod(step, max(1, config.objects // size))
    rows = objects.order(epoch, config.seed)
    sample = objects.take(rows[torch.arange(at * size, at * size + size) % config.objects])
    return sample, torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 1009)


def learn_on_objects(
    config: ObjectTraining,
    kind: str,
    network: Network,
    loss: Loss,
    figures: Callable[[Network], dict[str, float]] | None,
    best: str,
    run_folder: RunFolder | None,
    progress: ProgressCallback | None,
    warmup: float = 0.3,
) -> Learned[Network]:
    """Train a network on objects.

    Args:
        config: Options.
        kind: Kind of the weights.
        network: The network with its first parameters, on its device.
        loss: As for `Lesson`.
        figures: Metrics on held-out objects; None: there are none.
        best: Name of the metric whose maximum decides which checkpoint is the best.
        run_folder: Output folder.
        progress: Progress callback.
        warmup: As for `Lesson`.
    """
    data = "procedural" if config.furniture is None else "half of them of sweethome3d-furniture"
    lesson = Lesson(
        kind, network, loss, f"{config.objects} objects of seed {config.seed}, {data}", "objects", figures,
        f"{config.evaluate_objects} held-out objects", (best, "max"),
        warmup=warmup, about={} if config.init is None else {"init": config.init},
    )  # fmt: skip
    with flushed_denormals():
        return learn(lesson, config, run_folder, progress)


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers below 1e-38 count as 0: a CPU computes with them many times as slowly."""
    had_denormals = bool(torch.tensor([1e-39]) + 0 > 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(not had_denormals)
