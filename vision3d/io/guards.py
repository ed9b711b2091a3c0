"""What keeps a file that nobody vouches for from doing harm: bounds on what it unpacks to, names that stay in its folder."""

from pathlib import Path

from vision3d.errors import FileFormatError, MissingFileError

_SLACK, _RATIO = 64 << 20, 20


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
