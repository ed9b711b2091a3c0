"""The training loop: steps or minutes, exact stop and resume, metrics, evaluation, checkpoints."""

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from vision3d.core.checkpoints import restore_rng
from vision3d.core.errors import ConfigError, FileFormatError, NumericalError, Vision3DError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import Interrupted, RunFolder, StopSignal, finish_step_on_interrupt
from vision3d.training.clock import Clock
from vision3d.training.group import Group
from vision3d.training.tensorboard import Curves

logger = logging.getLogger("vision3d.training")

_STATE = {"trainee", "step", "sums", "seconds", "cpu_s", "source", "best"}


class Trainee(Protocol):
    """The object that a loop trains: parameters, optimizer state, and everything else that the next step depends on."""

    def step(self, step: int, progress: float) -> Mapping[str, Tensor | float]:
        """Do step number `step` (from 0) at this progress in [0, 1); returns values for metrics.jsonl, including `loss`.

        Raises:
            NumericalError: The loss or a gradient is not finite; the state is that before the step. A trainee on a GPU may
                raise it a step later, from the next `step` or `state_dict`; that step has then left the state unchanged.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """State needed for exact resume, as tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """Periodic evaluation on data that is not trained on.

    Attributes:
        every: Steps between evaluations; 0: never.
        measure: Returns the values, logged to metrics.jsonl as `eval_NAME`.
        best: The value that selects the best checkpoint, `checkpoints/best.pt`.
        mode: Whether larger or smaller is better.
    """

    every: int
    measure: Callable[[], Mapping[str, float]]
    best: str | None = None
    mode: Literal["max", "min"] = "max"


class Loop:
    """All steps of a training, in one or several sessions.

    The state of the newest checkpoint is loaded at construction: `saved` is the `state_dict` of the trainee, or None at the
    beginning. The caller constructs the trainee, loads `saved` into it, and calls `run`. Random generators continue from the
    checkpoint, independent of what was drawn in between.

    Args:
        name: Name of the training, for progress and messages.
        source: Description of the training data; a run cannot be resumed on other data.
        old_sources: Descriptions that earlier versions gave to the same data; their runs can be resumed.
        steps: Total number of steps, or None.
        minutes: Wall time from the first step on, or None; with both, whichever ends first.
        folder: Run folder for metrics and checkpoints, and to resume from; None writes nothing.
        log_every: Steps between lines of metrics.jsonl.
        checkpoint_every: Steps between checkpoints; 0: only at the end and when stopped.
        evaluation: Periodic evaluation.
        means: Values that are averaged over the steps of a metrics line; None: all but `latest`. Others are summed.
        latest: Values for which a metrics line has the last step's value.
        shown: Values shown with the progress.
        tensorboard: Whether the metrics are also written to `tensorboard/` in the folder.
        extra: Additional entries of the checkpoint's state.
        group: The processes that train together; only the first has a folder.
        callback: Progress callback.
        stop: Stop signal; None: Ctrl-C and SIGTERM.

    Raises:
        ConfigError: The folder has a run on other data, or `tensorboard` has no folder.
        FileFormatError: The checkpoint belongs to a different kind of training.

    Example:
        loop = Loop("fit", source="43 photos", steps=7000, folder=run_folder)
        trainer = Trainer(config)
        if loop.saved is not None:
            trainer.load_state_dict(loop.saved)
        loop.run(trainer)
    """

    def __init__(
        self,
        name: str,
        *,
        source: str,
        old_sources: Collection[str] = (),
        steps: int | None = None,
        minutes: float | None = None,
        folder: RunFolder | None = None,
        log_every: int = 100,
        checkpoint_every: int = 1000,
        evaluation: Evaluation | None = None,
        means: Collection[str] | None = None,
        latest: Collection[str] = (),
        shown: Sequence[str] = ("loss",),
        tensorboard: bool = False,
        extra: Callable[[], dict[str, Any]] = dict,
        group: Group | None = None,
        callback: ProgressCallback | None = None,
        stop: StopSignal | None = None,
    ) -> None:
        self.name, self.source, self.folder, self.extra = name, source, folder, extra
        self._sources = {source, *old_sources}
        self.log_every, self.checkpoint_every, self.evaluation = log_every, checkpoint_every, evaluation
        self.means, self.latest, self.shown = means, latest, shown
        self.group, self.callback, self._stop = group or Group(), callback, stop
        self.minutes = minutes
        if tensorboard and folder is None and self.group.is_first:
            raise ConfigError("tensorboard", "needs a run folder to write to")
        self.step, self.best = 0, None
        self._sums: dict[str, Tensor | float] = {}
        self._rng = None
        seconds, self._earlier_cpu_s = 0.0, 0.0
        self.saved: dict[str, Any] | None = None
        state = self.group.from_first(self._restored())
        if state is not None:
            self.step, self.saved, self._sums, self.best = state["step"], state["trainee"], state["sums"], state["best"]
            seconds, self._earlier_cpu_s = state["seconds"], state["cpu_s"]
        self.clock = Clock(steps, None if minutes is None else 60 * minutes, seconds)
        self._started_cpu_s: float | None = None
        self._curves = Curves(folder.path if folder is not None and tensorboard else None)

    @property
    def seconds(self) -> float:
        """Wall time of the steps so far, including earlier sessions."""
        return self.clock.seconds()

    @property
    def cpu_s(self) -> float:
        """CPU time of the steps so far, including earlier sessions."""
        return self._earlier_cpu_s + (0.0 if self._started_cpu_s is None else time.process_time() - self._started_cpu_s)

    def run(self, trainee: Trainee) -> None:
        """Do all remaining steps and write a checkpoint at the end.

        Raises:
            NumericalError: A step failed; the state before it was saved.
            Interrupted: The run was stopped; a checkpoint was written.
            Vision3DError: The time was over before the first step.
        """
        if self._stop is not None:
            return self._run(trainee, self._stop)
        with finish_step_on_interrupt() as stop:
            self._run(trainee, stop)

    def _run(self, trainee: Trainee, stop: StopSignal) -> None:
        if self._rng is not None:
            restore_rng(self._rng)
        self.clock.start()
        self._started_cpu_s = time.process_time()
        with Progress(1, self.name, self.callback, quiet=not self.group.is_first) as bar:
            try:
                self._steps(trainee, stop, bar)
                self.save(trainee)
            except NumericalError:
                self.save(trainee)
                raise
        self._curves.close()

    def _steps(self, trainee: Trainee, stop: StopSignal, bar: Progress) -> None:
        while True:
            progress, stopped = self.group.agree(self.clock.progress(self.step), stop.requested)
            if progress >= 1:
                break
            if stopped:
                self.save(trainee)
                raise Interrupted(f"{self.name}: stopped after step {self.step}")
            values = trainee.step(self.step, progress)
            self.step += 1
            self._record(trainee, values)
            bar.total = self.clock.steps_expected(self.step, progress)
            bar.update(self.step, **{name: values[name] for name in self.shown})
        if self.step == 0:
            raise Vision3DError(f"trained 0 steps in --minutes {self.minutes or 0:g}; give more minutes")

    def save(self, trainee: Trainee) -> None:
        """Write a checkpoint."""
        if self.folder is not None:
            self.folder.save_checkpoint(self.step, self._state(trainee))

    def _state(self, trainee: Trainee) -> dict[str, Any]:
        sums = {name: float(value) for name, value in self._sums.items()}
        own = {"step": self.step, "sums": sums, "seconds": self.seconds, "cpu_s": self.cpu_s, "best": self.best}
        return {**own, "source": self.source, "trainee": trainee.state_dict(), **self.extra()}

    def _record(self, trainee: Trainee, values: Mapping[str, Tensor | float]) -> None:
        """Metrics, evaluations and checkpoints due after this step."""
        for name, value in values.items():
            # Numbers on a GPU are added there, since reading one at every step would wait for it.
            number = value.double() if isinstance(value, Tensor) and value.device.type != "cpu" else float(value)
            self._sums[name] = number + (0.0 if name in self.latest else self._sums.get(name, 0.0))
        if self.step % self.log_every == 0:
            means = self._sums.keys() - set(self.latest) if self.means is None else self.means
            sums = {name: float(value) for name, value in self._sums.items()}
            self._log({name: value / self.log_every if name in means else value for name, value in sums.items()})
            self._sums = {}
        if self.evaluation is not None and self.evaluation.every and self.step % self.evaluation.every == 0:
            self._evaluate(trainee, self.evaluation)
        if self.checkpoint_every and self.step % self.checkpoint_every == 0:
            self.save(trainee)

    def _evaluate(self, trainee: Trainee, evaluation: Evaluation) -> None:
        if not self.group.is_first:
            return
        values = evaluation.measure()
        self._log({f"eval_{name}": value for name, value in values.items()})
        value = values.get(evaluation.best, math.nan) if evaluation.best is not None else math.nan
        sign = 1 if evaluation.mode == "max" else -1
        if math.isfinite(value) and (self.best is None or sign * value > sign * self.best):
            self.best = float(value)
            if self.folder is not None:
                self.folder.save_best(self.step, self._state(trainee))

    def _log(self, values: Mapping[str, float]) -> None:
        if self.folder is not None:
            self.folder.log(self.step, **values)
        self._curves.add(self.step, values)

    def _restored(self) -> dict[str, Any] | None:
        """The state of the newest checkpoint of the run folder, in the process that has one."""
        checkpoint = None if self.folder is None else self.folder.restore()
        if self.folder is None or checkpoint is None:
            return None
        state = checkpoint.state
        if not (isinstance(state, dict) and state.keys() >= _STATE):
            path = self.folder.checkpoints.path
            raise FileFormatError(path, f"the checkpoint of step {checkpoint.step} belongs to a different kind of run")
        if state["source"] not in self._sources:
            raise ConfigError(
                "DATA", f"cannot resume {self.folder.path}, which is a run on {state['source']}, with {self.source}"
            )
        self._rng = checkpoint.rng
        return state
