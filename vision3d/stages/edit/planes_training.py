"""Training of the encoder and decoder of planes."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.stage import stage
from vision3d.stages.edit.config import PlanesTrainConfig
from vision3d.stages.edit.data.batches import ObjectBatch, training_batch, whole_batch
from vision3d.stages.edit.learning import learn_on_objects, objects_on_disk, sample_of
from vision3d.stages.edit.network.files import FORMAT, KIND, PlanesModel, save_planes_model
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.training.learning import TrainResult, stored
from vision3d.training.options import GROWS, RESUMABLE
from vision3d.training.samples import GeneratedSamples

MODEL_FILE = "edit_planes.safetensors"
_TEXTURE = 1e-4  # weight of the differences of neighboring texels


@stage("edit train-planes", {}, resumable=RESUMABLE, grows=GROWS)
def train_planes(
    config: PlanesTrainConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> TrainResult[PlanesModel]:
    """Train encoder and decoder of planes on objects.

    Args:
        config: Options.
        run_folder: Output folder; a `RunFolder` with checkpoints resumes from the newest.
        progress: Progress callback.

    Raises:
        MissingFileError: The folder has no furniture, or weights to begin with are missing.
        NumericalError: The loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    device = resolve_device(config.device)
    objects, held_out = objects_on_disk(config, progress)
    seed_everything(config.seed)
    network = PlaneNet(config.network).to(device)
    if config.init is not None:
        FORMAT.initialize(network, config.init)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        sample, generator = sample_of(config, objects, step)
        return planes_loss(network, training_batch(sample, config.points, config.queries, generator).to(device))

    figures = None if held_out is None else lambda network: planes_figures(network, held_out, config.points)
    learned = learn_on_objects(config, KIND, network, loss, figures, "psnr", run_folder, progress)
    model = PlanesModel(learned.network, config.network, learned.card)
    return stored(learned, model, save_planes_model, run_folder, MODEL_FILE)


def planes_loss(network: PlaneNet, batch: ObjectBatch) -> tuple[Tensor, dict[str, float]]:
    """Differences of colors and of what is inside."""
    planes = network.encode(batch.points, batch.values)
    values = network.values(planes, batch.places)
    color = torch.nn.functional.smooth_l1_loss(values, batch.place_values, beta=0.05)
    inside = torch.nn.functional.binary_cross_entropy_with_logits(
        network.logits(planes, batch.queries), batch.inside.to(planes)
    )
    rough = planes.diff(dim=3).square().mean() + planes.diff(dim=4).square().mean() + 0.1 * planes.square().mean()
    parts = {"color": color, "inside": inside}
    return 5 * color + inside + _TEXTURE * rough, {f"loss_{name}": float(value.detach()) for name, value in parts.items()}


@torch.no_grad()
def planes_figures(network: PlaneNet, samples: GeneratedSamples, count: int) -> dict[str, float]:
    """PSNR of colors at points on the surface that the encoder has not seen, and IoU of the inside, means over objects."""
    device = next(network.parameters()).device
    psnr, iou = [], []
    for rows in torch.arange(len(samples)).split(8):
        batch = whole_batch(samples.take(rows), count).to(device)
        planes = network.encode(batch.points, batch.values)
        errors = (network.values(planes, batch.places)[..., :3] - batch.place_values[..., :3]).square().mean((1, 2))
        psnr += (-10 * errors.clamp(min=1e-6).log10()).tolist()
        found = network.logits(planes, batch.queries) > 0
        iou += ((found & batch.inside).sum(1) / (found | batch.inside).sum(1).clamp(min=1)).tolist()
    return {"psnr": round(sum(psnr) / len(psnr), 3), "iou": round(sum(iou) / len(iou), 4)}
