"""Training of the encoder and decoder of planes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.optim.schedules import one_cycle
from vision3d.stage import stage
from vision3d.stages.edit.config import GROWS, RESUMABLE, PlanesTrainConfig
from vision3d.stages.edit.data.batches import ObjectBatch, training_batch, whole_batch
from vision3d.stages.edit.data.samples import ObjectSource
from vision3d.stages.edit.network.files import KIND, PlanesModel, save_planes_model
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.training.ema import Ema
from vision3d.training.loop import Evaluation, Loop
from vision3d.training.network import NetworkTrainer, adamw
from vision3d.training.samples import GeneratedSamples
from vision3d.training.weights import Card, in_half, load_network, load_strictly

MODEL_FILE = "edit_planes.safetensors"
_HELD_OUT_SEED = 1_000_000_000
_TEXTURE = 1e-4  # weight of the differences of neighboring texels


@dataclass(frozen=True)
class PlanesTrainResult:
    """Result of a training."""

    model: PlanesModel
    summary: dict[str, Any]
    run_folder: Path | None = None


@stage("edit train-planes", {}, resumable=RESUMABLE, grows=GROWS)
def train_planes(
    config: PlanesTrainConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> PlanesTrainResult:
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
    objects = ObjectSource(config.furniture, seed=config.seed).samples(config.objects, config.samples, config.workers)
    held_out = None
    if config.evaluate_objects:
        share = 0.0 if config.furniture is None else 1.0
        source = ObjectSource(config.furniture, "val", share, _HELD_OUT_SEED + config.seed)
        held_out = source.samples(config.evaluate_objects, workers=config.workers)
    for samples in (objects, held_out):
        if samples is not None:
            samples.prepare(progress)
    seed_everything(config.seed)
    network = PlaneNet(config.network).to(device)
    if config.init is not None:
        load_strictly(network, load_network(config.init, KIND, type(config.network), PlaneNet)[0].state_dict(), config.init)

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        epoch, at = divmod(step, max(1, config.objects // config.batch_size))
        rows = objects.order(epoch, config.seed).repeat(2)[at * config.batch_size : (at + 1) * config.batch_size]
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 1009)
        return planes_loss(network, training_batch(objects.take(rows), config.points, config.queries, generator).to(device))

    ema = Ema(network, config.ema)

    def figures() -> dict[str, float]:
        return {} if held_out is None else planes_figures(network.eval(), held_out, config.points)

    def averaged() -> dict[str, float]:
        with ema.applied():
            return figures()

    trainer = NetworkTrainer(
        network, adamw(network, config.lr, config.weight_decay), loss, lambda progress: one_cycle(config.lr, progress),
        clip_norm=config.clip_norm, ema=ema, autocast=True,
    )  # fmt: skip
    evaluation = None if held_out is None else Evaluation(config.evaluate_every, averaged, best="psnr", mode="max")
    loop = Loop(
        "train", source="objects", steps=config.steps, folder=run_folder, log_every=config.log_every,
        checkpoint_every=config.checkpoint_every, evaluation=evaluation, latest=("lr",), callback=progress,
    )  # fmt: skip
    if loop.saved is not None:
        trainer.load_state_dict(loop.saved)
    loop.run(trainer)
    with ema.applied():
        state = in_half(network)
    network.load_state_dict(state)
    found = figures()
    data = f"{config.objects} objects of seed {config.seed}"
    card = Card.of_now(
        KIND, config={}, data=data + ("" if config.furniture is None else ", half of them sweethome3d-furniture"),
        seed=config.seed, cpu_hours=round(loop.cpu_s / 3600, 3),
        about={"steps": loop.step, "batch_size": config.batch_size, **({} if config.init is None else {"init": config.init})},
        figures={**found, "data": f"{config.evaluate_objects} objects not seen"} if found else {},
    )  # fmt: skip
    model = PlanesModel(network.eval(), config.network, card)
    path = None if run_folder is None else run_folder.path
    if path is not None:
        save_planes_model(path / MODEL_FILE, model)
    summary = {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "steps": loop.step,
        "training_cpu_s": round(loop.cpu_s, 1),
        **found,
        "device": str(device),
    }
    return PlanesTrainResult(replace(model), summary, path)


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
