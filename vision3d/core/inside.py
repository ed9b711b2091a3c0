"""File names in files, which must stay in the folder."""

from pathlib import Path

from vision3d.core.errors import FileFormatError


def inside(index: Path, name: str) -> Path:
    """The file `name` next to `index`, which refers to it.

    Raises:
        FileFormatError: It is outside the folder, the folder itself, or not a valid file name.
    """
    path, folder = index.parent / name, index.parent.resolve()
    try:
        place = path.resolve() if "\0" not in name else None
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, circular links, not encodable
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise FileFormatError(index, f"names {name[:60]!r}, which cannot be read ({reason})") from error
    if place == folder:  # a folder that contains itself would be read forever
        raise FileFormatError(index, f"names {name[:60]!r}, its own folder; want a file in it")
    if place is None or not place.is_relative_to(folder):
        raise FileFormatError(index, f"names {name[:60]!r}, which is outside its folder")
    return path
