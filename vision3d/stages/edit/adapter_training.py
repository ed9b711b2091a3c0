"""Training of the network that edits planes by a text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.render.triplanes.field import unclamped
from vision3d.stage import stage
from vision3d.stages.edit.config import AdapterTrainConfig
from vision3d.stages.edit.data.batches import ObjectBatch, source_batch
from vision3d.stages.edit.data.instructions import Instructions, make_instructions
from vision3d.stages.edit.evaluation.accuracy import accuracy
from vision3d.stages.edit.instructions.targets import apply_edit
from vision3d.stages.edit.instructions.text import TextEncoder
from vision3d.stages.edit.learning import learn_on_objects, objects_on_disk, sample_of
from vision3d.stages.edit.network.adapter import AdapterNet
from vision3d.stages.edit.network.adapter_files import FORMAT, KIND, AdapterModel, describe, save_adapter
from vision3d.stages.edit.network.files import load_planes_model
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.training.learning import TrainResult, stored
from vision3d.training.options import GROWS, RESUMABLE

MODEL_FILE = "edit_adapter.safetensors"
_MATERIAL = 0.3  # weight of metallic and roughness beside colors
_BAKED = 0.75  # share of objects without materials
_PHRASES_SEED = 77


@stage("edit train", {}, resumable=RESUMABLE, grows=GROWS)
def train_adapter(
    config: AdapterTrainConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> TrainResult[AdapterModel]:
    """Train the network that edits planes by a text; encoder and decoder of the planes stay as they are.

    Args:
        config: Options.
        run_folder: Output folder; a `RunFolder` with checkpoints resumes from the newest.
        progress: Progress callback.

    Raises:
        MissingFileError: The folder has no furniture, or weights are missing.
        MissingDependencyError: The encoder of texts is not installed.
        NumericalError: The loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    device = resolve_device(config.device)
    planes = load_planes_model(config.planes).to(device)
    planes.network.requires_grad_(False)
    encoder = TextEncoder()
    objects, held_out = objects_on_disk(config, progress)
    instructions = make_instructions(config.phrases, config.two, _PHRASES_SEED + config.seed, encoder)
    seed_everything(config.seed)
    network = AdapterNet(planes.config, config.network).to(device)
    if config.init is not None:
        FORMAT.initialize(network, config.init)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        sample, generator = sample_of(config, objects, step)
        batch = source_batch(sample, config.points, config.queries, generator)
        rows = torch.randint(len(instructions.edits), (config.each * len(batch.points),), generator=generator)
        baked = (torch.rand(len(rows), generator=generator) < _BAKED).float()
        return adapter_loss(network, planes.network, batch, instructions, rows, baked, device)

    figures = None if held_out is None else lambda network: accuracy(network, planes, held_out, encoder, config.points)
    learned = learn_on_objects(config, KIND, network, loss, figures, "accuracy", run_folder, progress)
    model = AdapterModel(learned.network, describe(config.network, planes, encoder), learned.card)
    return stored(learned, model, save_adapter, run_folder, MODEL_FILE)


def adapter_loss(
    network: AdapterNet,
    planes: PlaneNet,
    batch: ObjectBatch,
    instructions: Instructions,
    rows: Tensor,
    baked: Tensor,
    device: torch.device,
) -> tuple[Tensor, dict[str, float]]:
    """Difference between the edited field and the target on the surface.

    Args:
        network: The adapter.
        planes: Encoder and decoder, frozen.
        batch: Sources.
        instructions: What is asked for.
        rows: The instructions of the objects, the same number for each: first those of the first.
        baked: 1 where there are no materials.
        device: Of the networks.
    """
    each = len(rows) // len(batch.points)
    goals = torch.stack([
        target_values(instructions.edits[int(row)], batch.places[at // each], batch.place_values[at // each], bool(baked[at]))
        for at, row in enumerate(rows)
    ]).to(device)  # fmt: skip
    tokens, mask = instructions.take(rows)
    batch = batch.to(device)
    with torch.no_grad():
        source = planes.encode(batch.points, batch.values).repeat_interleave(each, 0)
    places = batch.places.repeat_interleave(each, 0)
    box = torch.stack([places.amin(1), places.amax(1)], 1)
    change = network(source, box, tokens.to(device), mask.to(device), baked.to(device))
    first = planes.config.density_channels
    edited = torch.cat([source[:, :, :first], source[:, :, first:] + change], 2)
    # Not clamped: where the decoder is beyond 0 or 1, as metallic is in most objects, there would be no gradient.
    values = unclamped(planes.raw_values(edited[:, :, first:], places))
    color = torch.nn.functional.smooth_l1_loss(values[..., :3], goals[..., :3], beta=0.05)
    material = torch.nn.functional.smooth_l1_loss(values[..., 3:], goals[..., 3:], beta=0.05)
    return color + _MATERIAL * material, {"loss_color": float(color.detach()), "loss_material": float(material.detach())}


def target_values(edits: tuple[Any, ...], places: Tensor, values: Tensor, baked: bool) -> Tensor:
    """Colors and material of points after edits (N, 5)."""
    for edit in edits:
        target = apply_edit(edit, places, values[:, :3], metallic=values[:, 3], roughness=values[:, 4], baked=baked)
        values = torch.cat([target.colors, target.metallic[:, None], target.roughness[:, None]], 1)
    return values
