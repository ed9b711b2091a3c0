"""Run folders: everything that a run was given and produced, and how to resume it.

A run has one folder:

    config.yaml           the resolved configuration; `--config` with it repeats the run
    inputs.yaml           the verb and its inputs; `--resume` needs nothing else
    metrics.jsonl         one JSON object per line: step, wall_s, loss, ...
    summary.json          versions, git hash, device, CPU, threads, seed, peak memory, wall time, command, results
    report.html           all of it on one page
    checkpoints/          step_000500.pt and so on, the newest few
    .lock                 the process that works in it, if any
"""

import contextlib
import dataclasses
import logging
import shutil
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch

import vision3d
from vision3d.core import config as configuration
from vision3d.core.atomic import atomic_write, make_folder, remove_leftovers
from vision3d.core.checkpoints import Checkpoint, CheckpointFolder, capture_rng, restore_rng
from vision3d.core.errors import ConfigError, FileFormatError, OutputExistsError, Vision3DError
from vision3d.core.machine import describe_machine, git_hash, peak_memory
from vision3d.core.plain import from_json, to_json
from vision3d.core.run_files import CONFIG_FILE, HEADER, INPUTS_FILE, is_run_folder
from vision3d.core.run_lock import LOCK_FILE, RunLock

logger = logging.getLogger("vision3d.core.runs")
_WORTHLESS = {CONFIG_FILE, INPUTS_FILE, "summary.json", LOCK_FILE}


class Interrupted(KeyboardInterrupt):
    """The run was stopped by the user; it finished its step and wrote a checkpoint."""


@dataclasses.dataclass(eq=False)
class RunFolder:
    """The folder of one run; use `create` to make it."""

    path: Path
    config: dict[str, Any]
    """The resolved configuration as plain values."""
    ignore: Collection[str] = ()
    """Dotted keys that may differ between a checkpoint and the run that resumes it."""
    grows: Collection[str] = ()
    """Dotted keys that may be larger in the run that resumes."""
    keep: int = 3
    """Number of checkpoints to keep."""
    wall_s: float = dataclasses.field(default=0.0, init=False)
    """Seconds of the earlier sessions of this run."""
    is_in_session: bool = dataclasses.field(default=False, init=False)
    """Whether a `stage.session` is active in it."""

    def __post_init__(self) -> None:
        self._started = time.perf_counter()
        self._made: list[Path] | None = None  # folders that `create` created, innermost first; None: a run existed before
        self.checkpoints = CheckpointFolder(self.path / "checkpoints", self.keep)
        self._lock = RunLock(self.path)

    @classmethod
    def create(
        cls,
        path: Path | str,
        config: Any,
        *,
        overwrite: bool = False,
        resume: bool = False,
        ignore: Collection[str] = (),
        grows: Collection[str] = (),
        keep: int = 3,
    ) -> Self:
        """Create the folder, or open an existing one, and lock it until `unlock` or the end of this process.

        Args:
            path: The folder.
            config: The configuration, a dataclass instance.
            overwrite: Empty an existing run folder first.
            resume: Resume the existing run from its last checkpoint (`restore`); incomplete files are removed.
            ignore: Dotted keys in which the configuration may differ from that of the resumed run.
            grows: Dotted keys whose value may be larger than in the resumed run.
            keep: Number of checkpoints to keep.

        Raises:
            OutputExistsError: The folder is not empty and neither option is given, or it is not a run folder.
            RunInUseError: Another process works in it; nothing was changed.
            ConfigError: The existing run has a different configuration; the message lists the keys.
            Vision3DError: The folder cannot be created or written.
        """
        path = Path(path)
        run = cls(path, configuration.to_dict(config), ignore, grows, keep)
        if path.exists() and not path.is_dir():
            raise OutputExistsError(path, "want a folder; use another --out")
        if not _check_free(path, overwrite=overwrite, resume=resume):
            run._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        make_folder(path)
        run.lock()
        try:
            if _check_free(path, overwrite=overwrite, resume=resume):  # again, now that no other process can change it
                if overwrite:
                    _empty(path)
                else:
                    run._check_config(configuration.read_yaml(path / CONFIG_FILE), path / CONFIG_FILE)
                    remove_leftovers(path)
            with atomic_write(path / CONFIG_FILE) as temporary:
                temporary.write_text(f"{HEADER}{vision3d.__version__}\n{configuration.dump_yaml(config)}", "utf-8")
        except BaseException:
            run.unlock()
            raise
        return run

    @property
    def made_anew(self) -> bool:
        """Whether `create` created the folder or found it empty."""
        return self._made is not None

    def lock(self) -> None:
        """Lock the folder against other processes, until `unlock` or the end of this one.

        Raises:
            RunInUseError: Another process works in it.
        """
        self._lock.acquire()

    def unlock(self) -> None:
        """Allow other processes to use the folder."""
        self._lock.release()

    def log(self, step: int, **values: Any) -> None:
        """Append one line of metrics to metrics.jsonl; it is on disk even if the process is killed right after."""
        line = {
            "step": step,
            "wall_s": round(self.elapsed(), 3),
            **values,
        }
        path = self.path / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(to_json(line) + "\n")
        except OSError as error:
            raise Vision3DError(f"{path}: could not be written ({error.strerror}); the lines before are unchanged") from error

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl so far, parsed."""
        return read_metrics(self.path / "metrics.jsonl")

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> Path:
        """Write a checkpoint after `step` steps: `state` (tensors and plain values) and the random generators."""
        return self.checkpoints.save(Checkpoint(step, self.config, state, capture_rng(), self.elapsed()))

    def save_best(self, step: int, state: dict[str, Any]) -> Path:
        """Write the best checkpoint so far, next to the newest ones."""
        return self.checkpoints.save_best(Checkpoint(step, self.config, state, capture_rng(), self.elapsed()))

    def restore(self, map_location: torch.device | str = "cpu") -> Checkpoint | None:
        """Load the newest checkpoint that loads, and restore the random generators and metrics.jsonl to its step.

        Returns:
            None without a checkpoint: the run starts at step 0, and earlier metrics are removed.

        Raises:
            ConfigError: It belongs to a run with a different configuration; the message lists the keys.
            FileFormatError: It contains code.
        """
        checkpoint = self.checkpoints.latest(map_location)
        if checkpoint is not None:
            self._check_config(checkpoint.config, self.checkpoints.path)
            restore_rng(checkpoint.rng)
            self.wall_s, self._started = checkpoint.wall_s, time.perf_counter()
        self._truncate_metrics(checkpoint.step if checkpoint else -1)
        return checkpoint

    def write_summary(
        self, results: Mapping[str, Any], *, status: str = "done", device: torch.device | str = "cpu"
    ) -> dict[str, Any]:
        """Write summary.json: how the run ended, the machine, and `results` (numbers, strings, lists, dicts)."""
        summary = {
            "status": status,
            "command": sys.argv,
            "vision3d": vision3d.__version__,
            "git": git_hash(),
            "seed": self.config.get("seed"),
            "device": str(device),
            **describe_machine(),
            "wall_s": round(self.elapsed(), 3),
            "peak_memory_bytes": peak_memory(device),
            "results": results,
        }
        with atomic_write(self.path / "summary.json") as temporary:
            temporary.write_text(to_json(summary, indent=2, ascii_only=False) + "\n", "utf-8")
        return summary

    def drop_unused(self) -> bool:
        """Remove the folder if `create` created it or found it empty and only the configuration was written since.

        This lets a command with wrong input be corrected and repeated. Folders that existed before `create` stay.

        Returns:
            Whether the folder was removed or emptied.
        """
        if self._made is None or not self.path.is_dir():
            return self._made is not None
        if {entry.name for entry in self.path.iterdir()} - _WORTHLESS:
            return False
        _empty(self.path)
        self.unlock()
        with contextlib.suppress(OSError):  # a parent may contain something else by now
            for folder in self._made:
                folder.rmdir()
        return True

    def elapsed(self) -> float:
        """Seconds that the run has taken so far, including earlier sessions."""
        return self.wall_s + time.perf_counter() - self._started

    def _check_config(self, other: Mapping[str, Any], where: Path) -> None:
        keys = [key for key in configuration.diff(self.config, other) if key not in self.ignore]
        for key in [key for key in keys if key in self.grows]:
            (was,), (now,) = _flat_values(other, [key]), _flat_values(self.config, [key])
            if isinstance(was, int | float) and isinstance(now, int | float) and now < was:
                raise ConfigError(
                    key, f"got {now}, but {where} has {was}; a run can be resumed with a larger value, not with a smaller one"
                )
        keys = [key for key in keys if key not in self.grows]
        if keys:
            was, now = _flat_values(other, keys), _flat_values(self.config, keys)
            changes = "; ".join(f"{key}: {old} there, {new} here" for key, old, new in zip(keys, was, now))
            raise ConfigError(", ".join(keys), f"cannot resume {where}, which has a different configuration ({changes})")

    def _truncate_metrics(self, step: int) -> None:
        path = self.path / "metrics.jsonl"
        if path.exists():
            kept = [line for line in read_metrics(path) if line["step"] <= step]
            with atomic_write(path) as temporary:
                temporary.write_text("".join(to_json(line) + "\n" for line in kept), "utf-8")


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """Read the lines of a metrics.jsonl; a last line that was cut off by a crash is dropped.

    Raises:
        FileFormatError: Another line is not a JSON object with a step.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines()
    values = []
    for number, line in enumerate(lines, 1):
        try:
            value = from_json(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise FileFormatError(path, "is not a JSON object", f"line {number}") from error
        if not isinstance(value, dict) or not isinstance(value.get("step"), int):
            raise FileFormatError(path, "is not a JSON object with a step", f"line {number}")
        values.append(value)
    return values


class StopSignal:
    """Whether the user asked the loop to stop."""

    requested = False


@contextlib.contextmanager
def finish_step_on_interrupt() -> Iterator[StopSignal]:
    """Ctrl-C or SIGTERM sets `requested` instead of interrupting the step; a second one interrupts at once.

    Example:
        with finish_step_on_interrupt() as stop:
            for step in range(steps):
                train_one_step()
                if stop.requested:
                    run.save_checkpoint(step + 1, state)
                    raise Interrupted(f"stopped after step {step + 1}")
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        logger.warning("stopping after this step; interrupt again to stop at once, without a checkpoint")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _check_free(path: Path, *, overwrite: bool, resume: bool) -> bool:
    """Whether the folder contains a run that may be used; False if it is missing or empty.

    Raises:
        OutputExistsError: The folder contains something that may not be used.
    """
    if not path.exists() or not {entry.name for entry in path.iterdir()} - {LOCK_FILE}:
        return False
    if not (overwrite or resume):
        raise OutputExistsError(path)
    if not is_run_folder(path):
        raise OutputExistsError(path, "it is not a vision3d run folder; use another --out")
    return True


def _empty(folder: Path) -> None:
    """Remove everything but the lock."""
    for path in folder.iterdir():
        if path.name == LOCK_FILE:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _flat_values(config: Mapping[str, Any], keys: Collection[str]) -> list[Any]:
    def at(key: str) -> Any:
        value: Any = config
        for part in key.split("."):
            value = value.get(part, "nothing") if isinstance(value, Mapping) else "nothing"
        return value

    return [at(key) for key in keys]
