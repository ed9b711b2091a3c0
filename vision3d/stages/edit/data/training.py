"""Objects of a training: those on disk, and which of them a step sees."""

import torch

from vision3d.core.progress import ProgressCallback
from vision3d.stages.edit.config import ObjectTraining
from vision3d.stages.edit.data.samples import ObjectSource
from vision3d.training.samples import GeneratedSamples, Sample

_HELD_OUT_SEED = 1_000_000_000


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


def sample_of(config: ObjectTraining, objects: GeneratedSamples, step: int) -> tuple[Sample, torch.Generator]:
    """The objects of a step, each pass in its own order, and its random numbers."""
    size = config.batch_size
    epoch, at = divmod(step, max(1, config.objects // size))
    rows = objects.order(epoch, config.seed)
    sample = objects.take(rows[torch.arange(at * size, at * size + size) % config.objects])
    return sample, torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 1009)


def objects_of(config: ObjectTraining) -> str:
    """What they are, for a card."""
    data = f"{config.objects} objects of seed {config.seed}"
    return data + (", procedural" if config.furniture is None else ", half of them of sweethome3d-furniture")
