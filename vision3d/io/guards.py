"""What keeps a file that nobody vouches for from doing harm: bounds on what it unpacks to, names that stay in its folder."""

from pathlib import Path

from vision3d.core.errors import FileFormatError, MissingFileError

_SLACK, _RATIO = 64 << 20, 20

MAX_PIXELS = 1 << 27
"""Most pixels that any image may have: 11585 x 11585."""
MAX_SMALL_PIXELS = 1 << 26
"""Pixels that a small file may hold, 8192 x 8192; every byte of the file allows 8 more, up to `MAX_PIXELS`."""
_PIXELS_PER_BYTE = 8


def read_bytes(path: Path, want: str) -> bytes:
    """All bytes of a file.

    Raises:
        MissingFileError: There is no such file.
        FileFormatError: It has 0 bytes.
    """
    if not path.is_file():
        raise MissingFileError(path, want)
    data = path.read_bytes()
    if not data:
        raise FileFormatError(path, f"is empty (0 bytes), want {want}", 0)
    return data


def size_limit(num_bytes: int) -> int:
    """How much a file of `num_bytes` may unpack to: 64 MiB and 20 times its size."""
    return _SLACK + _RATIO * num_bytes


def check_size(path: Path, wanted: int, num_bytes: int, where: object, what: str = "unpacks to") -> None:
    """Refuse what unpacks to more than `size_limit`, before any of it is allocated."""
    if wanted > size_limit(num_bytes):
        text = f"{what} {wanted} bytes, out of a file of {num_bytes}; want at most {size_limit(num_bytes)}"
        raise FileFormatError(path, text, where)


def pixel_limit(num_bytes: int | None = None) -> int:
    """How many pixels an image may have, in a file of `num_bytes` or (None) in memory."""
    return MAX_PIXELS if num_bytes is None else min(MAX_PIXELS, MAX_SMALL_PIXELS + _PIXELS_PER_BYTE * num_bytes)


def check_pixels(path: Path | str, width: int, height: int, num_bytes: int | None = None, where: object = None) -> None:
    """Refuse an image of too many pixels, before any of it is decoded or allocated.

    Args:
        path: The file, for the message.
        width: Pixels.
        height: Pixels.
        num_bytes: Size of the file, or None where there is none: an image in memory, or one to be made.
        where: Place in the file, for the message.

    Raises:
        FileFormatError: It has more than `MAX_PIXELS`, or more than `MAX_SMALL_PIXELS` and 8 for each byte of its file.
    """
    limit = pixel_limit(num_bytes)
    if width * height > limit:
        size = "" if num_bytes is None else f" in {num_bytes} bytes"
        raise FileFormatError(path, f"image has {width}x{height} = {width * height} pixels{size}; want at most {limit}", where)


def inside(index: Path, name: str) -> Path:
    """The file `name` beside `index`, which names it.

    Raises:
        FileFormatError: It is outside the folder, or is no name of a file.
    """
    path, folder = index.parent / name, index.parent.resolve()
    try:
        is_inside = "\0" not in name and path.resolve().is_relative_to(folder)
        path.exists()
    except (OSError, RuntimeError) as error:  # too long, or links in a circle
        raise FileFormatError(index, f"names {name[:60]!r}, which cannot be read ({error})") from error
    if not is_inside:
        raise FileFormatError(index, f"names {name!r}, which is outside its folder")
    return path
