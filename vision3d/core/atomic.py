"""Atomic writes of files and folders: written under a temporary name in the same folder, then renamed."""

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from vision3d.core.errors import Vision3DError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR}

_LEFTOVER = re.compile(r"\.(?P<stem>.*)\.[0-9a-f]{8}\.(?P<kind>tmp|old)(?P<suffix>(?:\.[^.]*)?)")
"""Names of temporary files and folders, as made below."""


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it replaces `path` if the block succeeds and is removed otherwise.

    Readers of `path` see either the old file or the complete new one, even after a crash: the data is flushed to disk before
    the rename. The temporary name keeps the suffix, since some writers choose the format by it. Missing parent folders are
    created.

    Args:
        path: The file to create or replace.

    Yields:
        The path that the block writes to.

    Raises:
        Vision3DError: The disk is full, broken or read-only, the folder is not writable, or a folder has that name; the old
            file is unchanged.

    Example:
        >>> with atomic_write("runs/summary.json") as temporary:
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:100]}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    make_folder(path.parent)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in {*_DISK_ERRORS, None}:  # numpy and Pillow set no errno for an incomplete write
            raise
        state = "the previous file is unchanged" if path.exists() else "no file was left behind"
        reason = str(error) if error.errno is None else os.strerror(error.errno)
        raise Vision3DError(f"{path}: could not be written ({reason}); {state}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; it replaces `path` if the block succeeds and is removed otherwise.

    An existing folder stays until the new one is complete; the caller must have checked that it may be replaced.

    Args:
        path: The folder to create or replace.

    Yields:
        The path of the folder to write; it does not exist yet.
    """
    path = Path(path)
    name = uuid.uuid4().hex[:8]
    temporary, old = (path.with_name(f".{path.stem[:100]}.{name}.{kind}{path.suffix}") for kind in ("tmp", "old"))
    try:
        yield temporary
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path | str) -> int:
    """Remove the temporary files and folders that killed processes left in `folder` and its subfolders.

    No other process may be writing there. A folder that was being replaced when the process was killed gets its name back.

    Returns:
        The number of files and folders removed or renamed.
    """
    count = 0
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _LEFTOVER.fullmatch(name)
            if match is None:
                continue
            path, original = Path(parent, name), Path(parent, match["stem"] + match["suffix"])
            if match["kind"] == "old" and not original.exists():
                os.replace(path, original)
            elif name in folders:
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            count += 1
        folders[:] = [name for name in folders if _LEFTOVER.fullmatch(name) is None]
    return count


def make_folder(path: Path | str) -> None:
    """Create an output folder and its parents if they do not exist.

    Raises:
        Vision3DError: A file has that name, the disk is full, or the folder is not writable.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Vision3DError(f"{path}: the folder could not be created ({os.strerror(error.errno or 0)})") from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
