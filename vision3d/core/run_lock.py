"""The lock of a run folder: only one process at a time works in it.

`.lock` names the process (id, start time, host). A process that has ended no longer holds it, nor does a later process with
the same id; on another host this cannot be determined, so such a lock is valid until it is removed by hand. The file is read
and changed under `flock`, so that two processes cannot both take over a stale lock.
"""

import atexit
import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vision3d.core.errors import RunInUseError, Vision3DError
from vision3d.core.plain import from_json

LOCK_FILE = ".lock"
_held: Counter[str] = Counter()
"""Locks of this process: how many times each was taken."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds a lock."""

    pid: int
    host: str
    started: str | None
    """Start time of the process, in ticks of the kernel; None if the system does not report it."""
    since: str
    """When it took the lock."""

    @classmethod
    def current(cls) -> "Owner":
        """This process, now."""
        pid = os.getpid()
        return cls(pid, os.uname().nodename, _start_of(pid), time.strftime("%Y-%m-%d %H:%M:%S"))

    @classmethod
    def read(cls, text: bytes) -> "Owner | None":
        """Parse the contents of a lock file; None if they are damaged, as after a crash while they were written."""
        try:
            owner = cls(**from_json(text))
        except (ValueError, TypeError):
            return None
        return owner if isinstance(owner.pid, int) and isinstance(owner.host, str) else None

    def is_this_process(self) -> bool:
        """Whether the owner is this process."""
        return (self.pid, self.host, self.started) == (os.getpid(), os.uname().nodename, _start_of(os.getpid()))

    def has_ended(self) -> bool:
        """Whether the process has certainly ended."""
        if self.host != os.uname().nodename:
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:  # another user's
            pass
        now = _start_of(self.pid)
        return now == _GONE or (None not in (now, self.started) and now != self.started)


class RunLock:
    """The lock of one folder; it is reentrant within a process.

    Args:
        folder: An existing run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK_FILE
        self._key: str | None = None

    def acquire(self) -> None:
        """Take the lock, unless this object already holds it.

        Raises:
            RunInUseError: Another process holds it, or a process on another host, which may have ended.
            Vision3DError: The file cannot be written.
        """
        if self._key is not None:
            return
        try:
            with _opened(self.path) as file:
                owner = Owner.read(os.pread(file, 4096, 0))
                if owner is not None and not owner.is_this_process() and not owner.has_ended():
                    raise RunInUseError(self.folder, _in_use(owner, self.path))
                data = json.dumps(dataclasses.asdict(Owner.current())).encode()
                os.ftruncate(file, 0)
                os.pwrite(file, data, 0)
        except OSError as error:
            if isinstance(error, Vision3DError):
                raise
            raise Vision3DError(f"{self.path}: could not be written ({os.strerror(error.errno or 0)})") from error
        self._key = str(self.path.resolve())
        _held[self._key] += 1

    def release(self) -> None:
        """Release the lock if this object holds it; the file is removed with the last lock of this process."""
        if self._key is not None:
            key, self._key = self._key, None
            _held[key] -= 1
            if _held[key] <= 0:
                del _held[key]
                _remove(Path(key))


def _in_use(owner: Owner, path: Path) -> str:
    if owner.host == os.uname().nodename:
        return f"in use by process {owner.pid} since {owner.since}; wait for it, stop it, or use another --out"
    return (
        f"in use by process {owner.pid} on {owner.host} since {owner.since}; if that process has ended, remove {path}, "
        "else use another --out"
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The lock file, created if missing, with exclusive access."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with contextlib.suppress(OSError):  # file systems without flock
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                if not os.path.samestat(os.fstat(file), os.stat(path)):
                    continue  # removed and created again while we waited
            except FileNotFoundError:
                continue
            yield file
            return
        finally:
            os.close(file)


def _remove(path: Path) -> None:
    """Remove a lock of this process; locks of other processes and missing folders are left alone."""
    with contextlib.suppress(OSError):
        if not path.is_file():
            return
        with _opened(path) as file:
            owner = Owner.read(os.pread(file, 4096, 0))
            if owner is not None and owner.is_this_process():
                path.unlink(missing_ok=True)


def _start_of(pid: int) -> str | None:
    """Start time of a process, unique over all processes and boots; None if the system does not report it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return _GONE if fields[0] in "ZX" else f"{boot} {fields[19]}"
    except (OSError, IndexError):
        return None


_GONE = "ended"
"""`_start_of` a zombie process."""


@atexit.register
def _remove_all() -> None:
    for key in list(_held):
        _remove(Path(key))  # in a forked child the parent's locks stay, since the owner is another process
