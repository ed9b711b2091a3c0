"""Training of the network that edits planes by a text."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.render.triplanes.field import decode, unclamped
from vision3d.stage import stage
from vision3d.stages.edit.config import AdapterTrainConfig
from vision3d.stages.edit.data.instructions import Instructions
from vision3d.stages.edit.data.sources import SourcePool, Sources
from vision3d.stages.edit.evaluation.accuracy import accuracy
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.instructions.targets import apply_edits
from vision3d.stages.edit.instructions.text import TextEncoder
from vision3d.stages.edit.learning import frozen_planes, instructions_of, learn_on_objects, objects_on_disk, step_generator
from vision3d.stages.edit.network.adapter import AdapterNet
from vision3d.stages.edit.network.adapter_files import FORMAT, KIND, AdapterModel, describe, save_adapter
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.stages.edit.network.texts import reading_loss
from vision3d.training.learning import TrainResult, stored
from vision3d.training.options import GROWS, RESUMABLE

MODEL_FILE = "edit_adapter.safetensors"
_MATERIAL = 0.3  # weight of metallic and roughness beside colors
_READING = 0.1  # weight of the reading of texts
_BAKED = 0.75  # share of objects without materials
_WARMUP = 0.08
_DROPPED = 0.1  # share of the tokens, since people leave out words


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
    planes = frozen_planes(config.planes, device)
    encoder = TextEncoder()
    objects, held_out = objects_on_disk(config, progress)
    instructions = instructions_of(config, encoder)
    seed_everything(config.seed)
    network = AdapterNet(planes.config, config.network).to(device)
    if config.init is not None:
        FORMAT.initialize(network, config.init)

    pool = SourcePool(objects, planes.network, config, config.pool)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        generator = step_generator(config, step)
        sources = pool.draw(step, config.batch_size, generator)
        rows = torch.randint(len(instructions.edits), (config.batch_size,), generator=generator)
        baked = (torch.rand(len(rows), generator=generator) < _BAKED).float()
        return adapter_loss(network, planes.network, sources, instructions, rows, baked, config.compared, generator)

    figures = None if held_out is None else lambda network: accuracy(network, planes, held_out, encoder, config.points)
    learned = learn_on_objects(config, KIND, network, loss, figures, "accuracy", run_folder, progress, _WARMUP)
    model = AdapterModel(learned.network, describe(config.network, planes, encoder), learned.card)
    return stored(learned, model, save_adapter, run_folder, MODEL_FILE)


def adapter_loss(
    network: AdapterNet,
    planes: PlaneNet,
    sources: Sources,
    instructions: Instructions,
    rows: Tensor,
    baked: Tensor,
    compared: int,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Difference between the edited field and the target on the surface, and between texts as read and as meant.

    Args:
        network: The adapter.
        planes: Encoder and decoder, frozen.
        sources: Objects.
        instructions: What is asked for.
        rows: The instruction of each object.
        baked: 1 where there are no materials.
        compared: Number of points of each object at which colors are compared.
        generator: Random numbers.
    """
    device = next(network.parameters()).device
    edits = [instructions.edits[row] for row in rows.tolist()]
    goals = torch.stack([target_values(*each) for each in zip(edits, sources.places, sources.values, baked.bool().tolist())])
    chosen = torch.rand(goals.shape[:2], generator=generator).topk(compared).indices[..., None]
    goals = goals.gather(1, chosen.expand(-1, -1, goals.shape[2])).to(device)
    places = sources.places.gather(1, chosen.expand(-1, -1, 3)).to(device)
    tokens, mask = instructions.take(rows)
    is_dropped = torch.rand(mask.shape, generator=generator) < _DROPPED
    is_dropped[:, 0] = False  # a text has at least one token
    text, reading = network.texts(tokens.to(device), (mask & ~is_dropped).to(device))
    features = network.features(sources.planes.to(device), places, sources.box.to(device), text, reading, baked.to(device))
    # Not clamped: where the decoder is beyond 0 or 1, as metallic is in most objects, there would be no gradient.
    values = unclamped(decode(planes.weights(), "color", features))
    color = torch.nn.functional.smooth_l1_loss(values[..., :3], goals[..., :3], beta=0.05)
    material = torch.nn.functional.smooth_l1_loss(values[..., 3:], goals[..., 3:], beta=0.05)
    read = reading_loss(reading, edits)
    parts = {"loss_color": color, "loss_material": material, "loss_reading": read}
    return color + _MATERIAL * material + _READING * read, {name: float(value.detach()) for name, value in parts.items()}


def target_values(edits: tuple[Edit, ...], places: Tensor, values: Tensor, baked: bool) -> Tensor:
    """Colors and material of points after edits (N, 5)."""
    target = apply_edits(edits, places, values[:, :3], metallic=values[:, 3], roughness=values[:, 4], baked=baked)
    return torch.cat([target.colors, target.metallic[:, None], target.roughness[:, None]], 1)
