"""A single training: one representation and one seed, in its own folder."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.checkpoints import seed_everything
from vision3d.core.errors import ConfigError, FileFormatError
from vision3d.core.machine import git_hash
from vision3d.core.plain import from_json, to_json
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder, StopSignal
from vision3d.optim.schedules import one_cycle
from vision3d.stages.rotation.config import GROWS, RESUMABLE, TrainingConfig
from vision3d.stages.rotation.experiment import QUANTILES, Errors, Experiment
from vision3d.stages.rotation.network_files import RotationNetwork, load_rotation_network, save_rotation_network
from vision3d.training.group import Group
from vision3d.training.loop import Loop
from vision3d.training.network import NetworkTrainer

NETWORK_FILE, RESULT_FILE = "network.safetensors", "result.json"


@dataclass(frozen=True, eq=False)
class Training:
    """One trained and evaluated network."""

    rep: str
    seed: int
    network: RotationNetwork
    errors: Errors
    cpu_s: float
    """CPU-seconds of the training, without the evaluation; with several processes, of this one."""
    loss: float
    """Mean loss over the last tenth of the steps."""


def train(
    experiment: Experiment, config: TrainingConfig, rep: str, seed: int, *, device: torch.device, folder: Path | None,
    stop: StopSignal, progress: ProgressCallback | None,
) -> Training:  # fmt: skip
    """Train and evaluate one network, or load the result of an earlier session of the run.

    With several processes (`Group`), the first one has the folder, and all return the same.
    """
    own, run = dataclasses.replace(config, representations=(rep,), seeds=(seed,)), None
    if folder is not None:
        run = RunFolder.create(folder, own, resume=True, ignore=RESUMABLE, grows=GROWS, keep=config.keep)
    try:
        found = None if folder is None else _finished(experiment, folder, own, rep, seed)
        found = _from_first(experiment, found, rep, seed)
        return found or _trained(experiment, own, rep, seed, device, run, stop, progress)
    finally:
        if run is not None:
            run.unlock()


class _Trainer(NetworkTrainer):
    """Also records the losses of the last tenth of the steps, whose mean is reported."""

    def __init__(
        self, experiment: Experiment, config: TrainingConfig, rep: str, seed: int, device: torch.device, group: Group
    ) -> None:
        self.experiment, self.config, self.seed = experiment, config, seed
        seed_everything(seed)
        network = experiment.network(rep).to(device)
        optimizer = torch.optim.Adam(network.parameters(), config.lr, fused=True)
        super().__init__(network, optimizer, self._loss, self._rate, group=group, what=f"loss of {rep}")
        self.generator = torch.Generator()
        self.tail: list[float] = []

    def step(self, step: int, progress: float) -> dict[str, float]:
        values = super().step(step, progress)
        if step + 1 > 0.9 * self.config.steps:
            self.tail.append(values["loss"])
        return values

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "tail": self.tail}

    def load_state_dict(self, state: dict[str, Any], step: int = 0) -> None:
        super().load_state_dict(state)
        count = max(0, step - math.floor(0.9 * self.config.steps))  # fewer than stored if the number of steps was increased
        self.tail = state["tail"][len(state["tail"]) - count :] if count else []

    def _loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        # A batch depends only on seed and step: the same for all representations, interrupted or not.
        self.generator.manual_seed(self.seed * 1_000_000_007 + step + 1_000_000)
        return self.experiment.loss(self.network, self.generator), {}

    def _rate(self, progress: float) -> float:
        config = self.config
        if config.schedule == "one-cycle":
            return one_cycle(config.lr, progress)
        is_dropped = config.drop_after and round(progress * config.steps) >= config.drop_after
        return config.lr / 10 if is_dropped else config.lr


def _trained(
    experiment: Experiment, config: TrainingConfig, rep: str, seed: int, device: torch.device, run: RunFolder | None,
    stop: StopSignal, progress: ProgressCallback | None,
) -> Training:  # fmt: skip
    group = Group.current()
    loop = Loop(
        f"{rep}, seed {seed}", source=experiment.source, steps=config.steps, folder=run, log_every=config.log_every,
        checkpoint_every=config.checkpoint_every, latest=("lr",), group=group, callback=progress, stop=stop,
    )  # fmt: skip
    trainer = _Trainer(experiment, config, rep, seed, device, group)
    if loop.saved is not None:
        trainer.load_state_dict(loop.saved, loop.step)
    loop.run(trainer)
    trainer.network.eval()
    with torch.inference_mode():
        errors = Errors.of(experiment.errors(trainer.network))
    about = {
        "seed": seed,
        "steps": config.steps,
        "data": experiment.source,
        "unit": experiment.unit,
        "mean_error": errors.mean,
        "training_cpu_s": round(loop.cpu_s, 1),
        "git": git_hash(),
        **experiment.facts(),
    }
    network = RotationNetwork(trainer.network.cpu(), experiment.name, experiment.shape(rep), about)
    training = Training(rep, seed, network, errors, loop.cpu_s, sum(trainer.tail) / len(trainer.tail))
    if run is not None:
        save_rotation_network(run.path / NETWORK_FILE, network)
        values = {
            "source": experiment.source,
            "training_cpu_s": training.cpu_s,
            "loss": training.loss,
            "errors": dataclasses.asdict(errors),
        }
        with atomic_write(run.path / RESULT_FILE) as temporary:
            temporary.write_text(to_json(values) + "\n", "utf-8")
    return training


def _finished(experiment: Experiment, folder: Path, config: TrainingConfig, rep: str, seed: int) -> Training | None:
    """The result of an earlier session, if it has the required number of steps."""
    path = folder / RESULT_FILE
    if not path.is_file() or not (folder / NETWORK_FILE).is_file():
        return None
    try:
        values: dict[str, Any] = from_json(path.read_bytes())
        errors = dict(values["errors"])
        errors["percentiles"] = tuple(map(float, errors["percentiles"]))
        found = Errors(**errors)
        if len(found.percentiles) != QUANTILES + 1:
            raise ValueError("percentiles")
        source, cpu_s, loss = values["source"], float(values["training_cpu_s"]), float(values["loss"])
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(path, "is not the result of a training; delete it and run again with --resume") from error
    if source != experiment.source:
        raise ConfigError("DATA", f"cannot resume {folder}, which is a run on {source}, with {experiment.source}")
    network = load_rotation_network(folder / NETWORK_FILE)
    return None if network.about.get("steps") != config.steps else Training(rep, seed, network, found, cpu_s, loss)


def _from_first(experiment: Experiment, found: Training | None, rep: str, seed: int) -> Training | None:
    """What process 0 has found, in every process."""
    group = Group.current()
    if group.size == 1:
        return found
    sent = None
    if found is not None:
        tensors = dict(found.network.network.state_dict())
        sent = {"errors": dataclasses.asdict(found.errors), "about": found.network.about, "network": tensors}
        sent |= {"cpu_s": found.cpu_s, "loss": found.loss}
    got = group.from_first(sent)
    if found is not None or got is None:
        return found
    network = experiment.network(rep)
    network.load_state_dict(got["network"])
    network = RotationNetwork(network.eval(), experiment.name, experiment.shape(rep), got["about"])
    return Training(rep, seed, network, Errors(**got["errors"]), got["cpu_s"], got["loss"])
