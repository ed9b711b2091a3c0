"""Files that are whole or not there: written under another name in the same folder, then renamed."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from vision3d.errors import Vision3DError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}


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
        Vision3DError: The disk is full, broken or read-only, or the folder may not be written; an earlier file stays.

    Example:
        >>> with atomic_write("runs/summary.json") as temporary:
        ...     temporary.write_text("{}")
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:100]}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        state = "the earlier file is unchanged" if path.exists() else "nothing was left behind"
        raise Vision3DError(f"{path}: could not be written ({os.strerror(error.errno)}); {state}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
