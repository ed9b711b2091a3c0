"""Generated samples: each depends only on a seed and its index; made by worker processes, stored in shards on disk."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision3d.core.atomic import make_folder
from vision3d.core.caches import cache_folder
from vision3d.core.checkpoints import capture_rng, restore_rng, seed_everything
from vision3d.core.errors import FileFormatError, InputError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.io.described import read_described, write_described

logger = logging.getLogger("vision3d.training")

Sample = dict[str, Tensor]
_KIND, _VERSION = "samples", 1


class GeneratedSamples:
    """Any number of samples of a generator, in the same order on every machine.

    Sample i is `make(i)` after seeding all random generators from `seed` and i. Shards are written atomically, so that a
    stopped generation can continue; shards on disk are reused by every later run with the same `version`, `seed` and `options`.
    Batches are read through the page cache of the system, so a data set may be larger than the memory.

    Args:
        make: Makes the sample of an index: tensors of the same shapes and dtypes for all. With workers it must be importable.
        count: Total number of samples.
        name: Name of the data set, for its folder and messages.
        version: Must change when `make` changes, so that older shards are not reused.
        seed: Seed of all samples.
        options: Everything else that the samples depend on, as plain values.
        shard_size: Samples per file.
        folder: Folder of the shards; None: `samples/NAME_DIGEST` in the cache (`VISION3D_CACHE`).
        workers: Processes that make samples; 0: this one.

    Raises:
        InputError: A size is below 1.

    Example:
        samples = GeneratedSamples(make_scan, 20_000, name="scans", version=3, workers=2)
        samples.prepare()
        for step, rows in samples.batches(32, epochs=10, seed=0):
            batch = samples.take(rows)  # name -> (32, ...)
    """

    def __init__(
        self,
        make: Callable[[int], Sample],
        count: int,
        *,
        name: str,
        version: int = 1,
        seed: int = 0,
        options: dict[str, Any] | None = None,
        shard_size: int = 256,
        folder: Path | str | None = None,
        workers: int = 0,
    ) -> None:
        for label, value in (("count", count), ("shard_size", shard_size)):
            if value < 1:
                raise InputError(f"{label}: got {value}, want at least 1")
        self.make, self.count, self.name, self.seed, self.workers = make, count, name, seed, workers
        self.shard_size = shard_size
        identity = {"name": name, "version": version, "seed": seed, "options": options or {}, "shard_size": shard_size}
        text = json.dumps(identity, sort_keys=True)
        self.identity = json.loads(text)  # as it is read from a shard: tuples become lists
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.folder = Path(folder) if folder is not None else cache_folder("samples") / f"{name}_{digest}"
        self._files: dict[int, Any] = {}

    def __len__(self) -> int:
        return self.count

    @property
    def num_shards(self) -> int:
        """Number of files."""
        return math.ceil(self.count / self.shard_size)

    def prepare(self, progress: ProgressCallback | None = None) -> None:
        """Make the missing shards."""
        missing = [shard for shard in range(self.num_shards) if not self._is_whole(shard)]
        if not missing:
            return
        make_folder(self.folder)
        done = self.num_shards - len(missing)
        with Progress(self.num_shards, f"generate {self.name}", progress) as bar:
            for number, _ in enumerate(self._written(missing), done + 1):
                bar.update(number)
        self._files.clear()  # the last shard may have grown and been replaced

    def take(self, rows: Sequence[int] | Tensor) -> Sample:
        """A batch of these samples, name -> (len(rows), ...).

        Raises:
            InputError: A row is out of range.
            FileFormatError: A shard is damaged, or of other samples; the message has its path, so that it can be removed.
        """
        indices = [int(row) for row in rows]
        if not all(0 <= index < self.count for index in indices):
            raise InputError(f"rows: got {min(indices)} to {max(indices)}, want 0 to {self.count - 1}")
        files = [self._open(index // self.shard_size) for index in indices]
        places = [index % self.shard_size for index in indices]
        names = files[0].keys() if files else ()
        return {name: torch.cat([file.get_slice(name)[at : at + 1] for file, at in zip(files, places)]) for name in names}

    def batches(self, size: int, *, epochs: int, seed: int = 0, first: int = 0) -> Iterator[tuple[int, Tensor]]:
        """(step, rows) of all steps from `first` on; the order of each epoch depends only on seed and epoch.

        An incomplete last batch of an epoch is dropped.
        """
        each = self.count // size
        if not each:
            raise InputError(f"size: got batches of {size} of {self.count} samples")
        for step in range(first, epochs * each):
            epoch, at = divmod(step, each)
            yield step, self.order(epoch, seed)[at * size : (at + 1) * size]

    def order(self, epoch: int, seed: int = 0) -> Tensor:
        """The order of the samples in an epoch."""
        return torch.randperm(self.count, generator=torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63))

    def _written(self, shards: list[int]) -> Iterator[None]:
        arguments = [(self.make, self._rows(shard), self.seed, self._path(shard), self.identity) for shard in shards]
        if not self.workers:
            for argument in arguments:
                yield _write_shard(*argument)
            return
        # Not forked: a thread of this process may hold a lock when forking.
        with ProcessPoolExecutor(self.workers, mp_context=get_context("spawn")) as pool:
            yield from pool.map(_write_shard, *zip(*arguments))

    def _rows(self, shard: int) -> range:
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.count))

    def _path(self, shard: int) -> Path:
        return self.folder / f"shard_{shard:06}.safetensors"

    def _is_whole(self, shard: int) -> bool:
        """Whether the shard on disk has all of its samples; the last one grows with `count`."""
        if not self._path(shard).is_file():
            return False
        return len(next(iter(self._read(shard).values()))) >= len(self._rows(shard))

    def _open(self, shard: int) -> Any:
        if shard not in self._files:
            from safetensors import safe_open

            if not self._is_whole(shard):
                raise InputError(f"{self._path(shard)}: is not prepared; call prepare() first")
            self._files[shard] = safe_open(self._path(shard), framework="pt")
        return self._files[shard]

    def _read(self, shard: int) -> Sample:
        path = self._path(shard)
        own, tensors = read_described(path, _KIND, _VERSION, "samples", ("identity",))
        if own["identity"] != self.identity:
            raise FileFormatError(path, f"holds other samples ({own['identity']}); want {self.identity}")
        if not tensors or len({len(tensor) for tensor in tensors.values()}) != 1:
            raise FileFormatError(path, "holds tensors of different lengths")
        return tensors


def _write_shard(make: Callable[[int], Sample], rows: range, seed: int, path: Path, identity: dict[str, Any]) -> None:
    state = capture_rng()
    made = []
    for index in rows:
        seed_everything((seed * 1_000_000_007 + index) % 2**63)
        made.append(make(index))
    restore_rng(state)
    stacked = {name: torch.stack([sample[name] for sample in made]) for name in made[0]}
    write_described(path, _KIND, _VERSION, {"identity": identity}, stacked)
