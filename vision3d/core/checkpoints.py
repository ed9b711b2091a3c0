"""Checkpoints: tensors and plain values in one file, written atomically, never code."""

import dataclasses
import logging
import pickle
import random
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vision3d
from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, MissingFileError

logger = logging.getLogger("vision3d.core.runs")
_FORMAT = 1
BEST_FILE = "best.pt"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The state that a run needs to resume where it stopped."""

    step: int
    """Number of steps done."""
    config: dict[str, Any]
    """The resolved configuration of the run."""
    state: dict[str, Any]
    """Parameters, optimizer state, counters: nested dicts and lists of tensors and plain values."""
    rng: dict[str, Any]
    """States of the random generators, for `restore_rng`."""
    wall_s: float = 0.0
    """Seconds that the run has taken so far."""


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` atomically; an existing file of that name stays until the new one is complete.

    Raises:
        TypeError: The state contains something other than tensors and plain values; the message names it.
        Vision3DError: The disk is full, broken or read-only.
    """
    payload = {field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}
    _check_plain(payload, "checkpoint")
    payload |= {"format": _FORMAT, "vision3d": vision3d.__version__}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(payload, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk, which torch reports as an error about positions
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path | str, map_location: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint without executing any code in the file.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: The file is damaged, is not a vision3d checkpoint, or contains objects that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a checkpoint")
    _check_sums(path)
    try:
        payload = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        problem = "holds objects other than tensors and plain values, which could run code; nothing was executed"
        raise HiddenCodeError(path, problem) from error
    except MemoryError:
        raise
    except Exception as error:  # torch raises arbitrary exceptions on damaged files
        raise FileFormatError(path, f"is damaged: {_first_line(error)}") from error
    names = {field.name for field in dataclasses.fields(Checkpoint)}
    if not isinstance(payload, dict) or payload.get("format") != _FORMAT or not names <= payload.keys():
        raise FileFormatError(path, f"is not a checkpoint of vision3d {vision3d.__version__}")
    for name, kind in {"step": int, "config": dict, "state": dict, "rng": dict, "wall_s": float}.items():
        if not isinstance(payload[name], kind):
            raise FileFormatError(path, f"got {type(payload[name]).__name__}, want {kind.__name__}", name)
    return Checkpoint(**{name: payload[name] for name in names})


def _check_sums(path: Path) -> None:
    """Compare all parts of the file with their checksums, which torch does not."""
    try:
        if not zipfile.is_zipfile(path):  # also rules out torch's old format, a bare pickle
            raise FileFormatError(path, "is truncated or not a checkpoint")
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (FileFormatError, MemoryError):
        raise
    except Exception as error:  # zipfile raises arbitrary exceptions on damaged files
        raise FileFormatError(path, f"is damaged: {_first_line(error)}") from error
    if damaged is not None:
        raise FileFormatError(path, f"is damaged: the checksum of {damaged} is wrong")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


class HiddenCodeError(FileFormatError):
    """A checkpoint contains objects that could run code when loaded."""


class CheckpointFolder:
    """The checkpoints of one run, `step_000500.pt` and so on.

    Args:
        path: The folder; created when the first checkpoint is written.
        keep: Number of newest checkpoints to keep.
    """

    def __init__(self, path: Path | str, keep: int = 3) -> None:
        self.path, self.keep = Path(path), keep

    def paths(self) -> list[Path]:
        """The checkpoints, oldest first."""
        found = [(int(name[1]), path) for path in self.path.glob("step_*.pt") if (name := _NAME.fullmatch(path.name))]
        return [path for _, path in sorted(found)]

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write the checkpoint under the name of its step and remove all but the newest `keep`."""
        path = self.path / f"step_{checkpoint.step:06}.pt"
        save_checkpoint(path, checkpoint)
        for old in self.paths()[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def save_best(self, checkpoint: Checkpoint) -> Path:
        """Write the checkpoint as `best.pt`, which is kept until a better one is saved."""
        path = self.path / BEST_FILE
        save_checkpoint(path, checkpoint)
        return path

    def latest(self, map_location: torch.device | str = "cpu") -> Checkpoint | None:
        """The newest checkpoint that loads, or None if there are no checkpoints. Damaged ones are skipped with a warning.

        Raises:
            HiddenCodeError: A file contains code. Someone put it there, so no older checkpoint is used silently.
            FileFormatError: None of the checkpoints loads.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                return load_checkpoint(path, map_location)
            except HiddenCodeError:
                raise
            except FileFormatError as error:
                if path == paths[0]:
                    text = f"{error.problem}; no older checkpoint is left. Start the run anew with --overwrite"
                    raise FileFormatError(path, text, error.where) from error
                logger.warning("%s; using the previous checkpoint", error)
        return None


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's random generators (on all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  libraries draw from the global state
    torch.manual_seed(seed)


def capture_rng() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's random generators as tensors and plain values."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Restore the states of the random generators that `capture_rng` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device_state.cpu() for device_state in state["cuda"]])


_NAME = re.compile(r"step_(\d+)\.pt")


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str | int):
                raise TypeError(f"{where}: key {key!r} is {type(key).__name__}, want str or int")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif type(value) not in (int, float, bool, str, type(None)) and not isinstance(value, torch.Tensor):
        raise TypeError(f"{where} is {type(value).__name__}; a checkpoint holds tensors and plain values only")
