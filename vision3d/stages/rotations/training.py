"""The loop of one training: a representation and a seed, in a folder of its own."""

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vision3d.atomic import atomic_write
from vision3d.checkpoints import seed_everything
from vision3d.errors import ConfigError, FileFormatError, NumericalError
from vision3d.machine import git_hash
from vision3d.optim.schedules import one_cycle
from vision3d.plain import to_json
from vision3d.progress import Progress, ProgressCallback
from vision3d.runs import Interrupted, RunFolder, StopSignal
from vision3d.stages.rotations.config import GROWS, RESUMABLE, TrainingConfig
from vision3d.stages.rotations.experiment import QUANTILES, Errors, Experiment
from vision3d.stages.rotations.network_files import RotationNetwork, load_rotation_network, save_rotation_network

NETWORK_FILE, RESULT_FILE = "network.safetensors", "result.json"
"""Options that may change when a run is gone on with."""
_STATE = {"network", "optimizer", "step", "cpu_s", "source"}


@dataclass(frozen=True, eq=False)
class Training:
    """One network, trained and measured."""

    rep: str
    seed: int
    network: RotationNetwork
    errors: Errors
    cpu_s: float
    """CPU-seconds of the training, without the measurement."""
    loss: float
    """Mean over the last tenth of the steps."""


def train(
    experiment: Experiment, config: TrainingConfig, rep: str, seed: int, *, device: torch.device, folder: Path | None,
    stop: StopSignal, progress: ProgressCallback | None,
) -> Training:  # fmt: skip
    """Train and measure one network; or read what an earlier session of the run has left."""
    own = dataclasses.replace(config, representations=(rep,), seeds=(seed,))
    if folder is None:
        return _trained(experiment, own, rep, seed, device, None, stop, progress)
    run = RunFolder.create(folder, own, resume=True, ignore=RESUMABLE, grows=GROWS, keep=config.keep)
    try:
        found = _finished(experiment, folder, own, rep, seed)
        return found or _trained(experiment, own, rep, seed, device, run, stop, progress)
    finally:
        run.unlock()


def _trained(
    experiment: Experiment, config: TrainingConfig, rep: str, seed: int, device: torch.device, run: RunFolder | None,
    stop: StopSignal, progress: ProgressCallback | None,
) -> Training:  # fmt: skip
    loop = _Loop(experiment, config, rep, seed, device, run, progress)
    loop.run(stop)
    return loop.finish()


class _Loop:
    def __init__(
        self, experiment: Experiment, config: TrainingConfig, rep: str, seed: int, device: torch.device,
        folder: RunFolder | None, progress: ProgressCallback | None,
    ) -> None:  # fmt: skip
        self.experiment, self.config, self.rep, self.seed = experiment, config, rep, seed
        self.device, self.folder, self.callback = device, folder, progress
        seed_everything(seed)
        self.network = experiment.network(rep).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), config.lr, fused=True)
        self.generator = torch.Generator()
        self.step, self.cpu_s = 0, 0.0
        self.sum, self.count = 0.0, 0  # of the losses since the last line of the log
        self.tail: list[float] = []
        self._restore()

    def run(self, stop: StopSignal) -> None:
        """All steps that are left."""
        config = self.config
        self.network.train()
        started, before = time.process_time(), self.cpu_s
        with Progress(config.steps, f"{self.rep}, seed {self.seed}", self.callback) as bar:
            while self.step < config.steps:
                if stop.requested:
                    self._save()
                    raise Interrupted(f"stopped after step {self.step} of {self.rep}, seed {self.seed}")
                loss = self._one_step()
                self.step += 1
                self.cpu_s = before + time.process_time() - started
                self.sum, self.count = self.sum + loss, self.count + 1
                if self.step > 0.9 * config.steps:
                    self.tail.append(loss)
                if self.step % config.log_every == 0:
                    if self.folder is not None:
                        rate = self.optimizer.param_groups[0]["lr"]
                        self.folder.log(self.step, loss=self.sum / self.count, lr=rate)
                    self.sum, self.count = 0.0, 0
                if config.checkpoint_every and self.step % config.checkpoint_every == 0:
                    self._save()
                bar.update(self.step, loss=loss)
        self._save()

    def finish(self) -> Training:
        """Measure the network and write what it came to."""
        self.network.eval()
        with torch.inference_mode():
            errors = Errors.of(self.experiment.errors(self.network))
        about = {
            "seed": self.seed,
            "steps": self.config.steps,
            "data": self.experiment.source,
            "unit": self.experiment.unit,
            "mean_error": errors.mean,
            "training_cpu_s": round(self.cpu_s, 1),
            "git": git_hash(),
            **self.experiment.facts(),
        }
        network = RotationNetwork(self.network.cpu(), self.experiment.name, self.experiment.shape(self.rep), about)
        training = Training(self.rep, self.seed, network, errors, self.cpu_s, sum(self.tail) / len(self.tail))
        if self.folder is not None:
            save_rotation_network(self.folder.path / NETWORK_FILE, network)
            values = {
                "source": self.experiment.source,
                "training_cpu_s": self.cpu_s,
                "loss": training.loss,
                "errors": dataclasses.asdict(errors),
            }
            with atomic_write(self.folder.path / RESULT_FILE) as temporary:
                temporary.write_text(to_json(values) + "\n", "utf-8")
        return training

    def _one_step(self) -> float:
        config = self.config
        rate = config.lr
        if config.schedule == "one-cycle":
            rate = one_cycle(config.lr, self.step / config.steps)
        elif config.drop_after and self.step >= config.drop_after:
            rate = config.lr / 10
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # A batch follows from seed and step alone: the same for all representations, interrupted or not.
        self.generator.manual_seed(self.seed * 1_000_000_007 + self.step + 1_000_000)
        loss = self.experiment.loss(self.network, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NumericalError(self.step, f"loss of {self.rep}", "give a smaller --lr")
        self.optimizer.step()
        return value

    def _save(self) -> None:
        if self.folder is not None:
            state = {
                "network": dict(self.network.state_dict()),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "cpu_s": self.cpu_s,
                "source": self.experiment.source,
                "sums": [self.sum, self.count, *self.tail],
            }
            self.folder.save_checkpoint(self.step, state)

    def _restore(self) -> None:
        if self.folder is None or (state := self.folder.restore_state(_STATE, self.experiment.source)) is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.cpu_s = state["step"], state["cpu_s"]
        self.sum, self.count, *tail = state["sums"]
        count = max(0, self.step - math.floor(0.9 * self.config.steps))  # fewer than are there where the steps have grown
        self.tail = tail[len(tail) - count :] if count else []


def _finished(experiment: Experiment, folder: Path, config: TrainingConfig, rep: str, seed: int) -> Training | None:
    """What an earlier session has left, if it made as many steps as are wanted."""
    path = folder / RESULT_FILE
    if not path.is_file() or not (folder / NETWORK_FILE).is_file():
        return None
    try:
        values: dict[str, Any] = json.loads(path.read_text("utf-8"))
        errors = dict(values["errors"])
        errors["percentiles"] = tuple(map(float, errors["percentiles"]))
        found = Errors(**errors)
        if len(found.percentiles) != QUANTILES + 1:
            raise ValueError("percentiles")
        source, cpu_s, loss = values["source"], float(values["training_cpu_s"]), float(values["loss"])
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(path, "is no result of a training; remove it and go on with --resume") from error
    if source != experiment.source:
        raise ConfigError("DATA", f"{folder} is a run on {source}; cannot go on from it")
    network = load_rotation_network(folder / NETWORK_FILE)
    return None if network.about.get("steps") != config.steps else Training(rep, seed, network, found, cpu_s, loss)
