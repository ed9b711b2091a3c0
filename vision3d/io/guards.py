"""Protection against malicious files: limits on unpacked sizes, and what numpy raises."""

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

from vision3d.core.errors import FileFormatError, MissingFileError

_SLACK, _RATIO = 64 << 20, 20

MAX_PIXELS = 1 << 27
"""Maximum number of pixels of any image: 11585 x 11585."""
MAX_SMALL_PIXELS = 1 << 26
"""Maximum number of pixels of a small file, 8192 x 8192; every byte of the file allows 8 more, up to `MAX_PIXELS`."""
_PIXELS_PER_BYTE = 8

NUMPY_ERRORS = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, SyntaxError, OverflowError, MemoryError, AttributeError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError, struct.error),
)
"""Exceptions of zipfile and numpy for damaged .npy and .npz files."""


def read_bytes(path: Path, want: str) -> bytes:
    """All bytes of a file.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is empty.
    """
    if not path.is_file():
        raise MissingFileError(path, want)
    data = path.read_bytes()
    if not data:
        raise FileFormatError(path, f"is empty (0 bytes), want {want}", 0)
    return data


def size_limit(num_bytes: int) -> int:
    """Maximum unpacked size of a file of `num_bytes`: 64 MiB plus 20 times its size."""
    return _SLACK + _RATIO * num_bytes


def check_size(path: Path, wanted: int, num_bytes: int, where: object, what: str = "unpacks to") -> None:
    """Raise an error for data that unpacks to more than `size_limit`, before it is allocated."""
    if wanted > size_limit(num_bytes):
        text = f"{what} {wanted} bytes, out of a file of {num_bytes}; want at most {size_limit(num_bytes)}"
        raise FileFormatError(path, text, where)


def pixel_limit(num_bytes: int | None = None) -> int:
    """Maximum number of pixels of an image in a file of `num_bytes` or (None) in memory."""
    return MAX_PIXELS if num_bytes is None else min(MAX_PIXELS, MAX_SMALL_PIXELS + _PIXELS_PER_BYTE * num_bytes)


def check_pixels(path: Path | str, width: int, height: int, num_bytes: int | None = None, where: object = None) -> None:
    """Raise an error for an image with too many pixels, before it is decoded or allocated.

    Args:
        path: The file, for the message.
        width: Pixels.
        height: Pixels.
        num_bytes: Size of the file; None for an image in memory, or one to be created.
        where: Position in the file, for the message.

    Raises:
        FileFormatError: It has more than `MAX_PIXELS`, or more than `MAX_SMALL_PIXELS` plus 8 per byte of its file.
    """
    limit = pixel_limit(num_bytes)
    if width * height > limit:
        size = "" if num_bytes is None else f" in {num_bytes} bytes"
        raise FileFormatError(path, f"image has {width}x{height} = {width * height} pixels{size}; want at most {limit}", where)
