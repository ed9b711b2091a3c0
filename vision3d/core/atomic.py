"""Files that are whole or not there: written under another name in the same folder, then renamed."""

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
    """A temporary path beside `path`, which takes its place when the block ends well and vanishes otherwise.

    Whoever opens `path` finds the earlier file or the new one, whole, also after a crash: the data is on the disk
    before the name changes. The temporary name keeps the suffix, by which some writers choose their format. Missing
    parent folders are made.

    Args:
        path: The file to make or to replace.

    Yields:
        Where the block writes.

    Raises:
        Vision3DError: The disk is full, broken or read-only, the folder may not be written, or a folder is in the way; an
            earlier file stays.

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
        if error.errno not in {*_DISK_ERRORS, None}:  # numpy and Pillow have no number for a write that came to an end
            raise
        state = "the previous file is unchanged" if path.exists() else "no file was left behind"
        reason = str(error) if error.errno is None else os.strerror(error.errno)
        raise Vision3DError(f"{path}: could not be written ({reason}); {state}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """A temporary folder beside `path`, which takes its place when the block ends well and vanishes otherwise.

    An earlier folder stays until the new one is whole; the caller has seen to it that it may be replaced.

    Args:
        path: The folder to make or to replace.

    Yields:
        Where the block writes; the folder is not there yet.
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
    """Remove the temporary files and folders that killed processes have left in `folder` and below.

    Nobody else may be writing there. A folder that was being replaced when the process was killed gets its name back.

    Returns:
        How many were removed or renamed.
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
    """Make a folder for output and its parents, where they are not there.

    Raises:
        Vision3DError: A file is in the way, or the disk is full or may not be written.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Vision3DError(f"{path}: the folder could not be made ({os.strerror(error.errno or 0)})") from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
