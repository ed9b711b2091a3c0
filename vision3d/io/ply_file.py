"""The container of .ply files: header, and the rows of its `vertex` element in all three encodings."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, MissingFileError

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_NAMES = {"f4": "float", "u1": "uchar", "i4": "int", "f8": "double"}
ENCODINGS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 1 << 16  # bytes
_ROWS_A_CHUNK = 1 << 12  # sized to fit the cache


@dataclass
class Element:
    """An element in the header."""

    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)  # name, numpy type; without lists
    layout: list[tuple[str, str, str | None]] = field(default_factory=list)  # name, numpy type, that of a list's length

    @property
    def has_lists(self) -> bool:
        return any(kind is not None for _, _, kind in self.layout)


@dataclass
class Header:
    """The part of the file before `end_header`."""

    encoding: str
    comments: list[str]
    elements: list[Element]
    size: int


@dataclass
class Table:
    """The rows of one element, read in chunks when columns are requested."""

    path: Path
    comments: list[str]
    names: list[str]
    """Properties in file order."""
    kinds: list[str]
    """Their numpy types; all f8 in ASCII files."""
    count: int
    chunks: Callable[[], Iterator[np.ndarray]]

    def __len__(self) -> int:
        return self.count

    def columns(self, *groups: Sequence[str], dtype: type = np.float32) -> list[np.ndarray]:
        """One array (rows, names) per group of property names; one pass over the file."""
        places = [torch.tensor([self.names.index(name) for name in group]) for group in groups]
        results = [torch.from_numpy(np.empty((self.count, len(group)), dtype)) for group in groups]
        start = 0
        for chunk in self.chunks():
            rows = torch.from_numpy(_matrix(chunk, dtype))
            for result, place in zip(results, places):
                torch.index_select(rows, 1, place, out=result[start : start + len(rows)])
            start += len(rows)
        return [result.numpy() for result in results]


def read_table(path: Path | str, element: str = "vertex") -> Table:
    """Read one element of a .ply file, ASCII or binary of either byte order.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not a .ply, lacks the element, is truncated (the message has the number of rows), or has a bad
            row.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a .ply file")
    with path.open("rb") as file:
        header = _read_header(path, file)
        before: list[Element] = []
        for found in header.elements:
            if found.name == element:
                break
            before.append(found)
        else:
            names = ", ".join(e.name for e in header.elements) or "none"
            raise FileFormatError(path, f"has no element {element!r}; elements: {names}", "header")
        if found.has_lists:
            raise FileFormatError(path, f"element {element!r} has list properties, which are not read", "header")
        if found.count == 0:
            raise FileFormatError(path, f"element {element!r} has 0 rows", "header")
        if not found.properties:
            raise FileFormatError(path, f"element {element!r} has no properties", "header")
        names, kinds = [name for name, _ in found.properties], [kind for _, kind in found.properties]
        if header.encoding == "ascii":
            rows = _read_ascii(path, file, found, sum(e.count for e in before))
            return Table(path, header.comments, names, ["f8"] * len(names), found.count, lambda: iter([rows]))
    chunks = _binary_chunks(path, found, before, header)
    return Table(path, header.comments, names, kinds, found.count, chunks)


def read_elements(path: Path | str, *, with_empty: bool = False) -> dict[str, list[str]]:
    """The elements of a .ply file by name, in file order: their non-list properties, from the header alone.

    Args:
        path: The file.
        with_empty: Include elements without rows.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not a .ply, or its header is damaged.
    """
    header = read_header(path)
    return {e.name: [name for name, _ in e.properties] for e in header.elements if e.count or with_empty}


def read_header(path: Path | str) -> Header:
    """The header of a .ply file.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not a .ply, or its header is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a .ply file")
    with path.open("rb") as file:
        return _read_header(path, file)


def write_table(path: Path | str, columns: Sequence[tuple[str, np.ndarray]], comments: Sequence[str] = ()) -> None:
    """Write a binary little-endian .ply with one element `vertex` atomically.

    Args:
        path: The file.
        columns: Property names and values of equal length; the columns of an array with more axes are named "a b c".
        comments: Lines for the header.
    """
    count = len(columns[0][1])
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {c}" for c in comments), f"element vertex {count}"]
    for names, values in columns:
        lines += [f"property {_NAMES[values.dtype.str[1:]]} {name}" for name in names.split()]
    header = "\n".join([*lines, "end_header", ""]).encode()
    dtypes = [(f"f{i}", values.dtype.newbyteorder("<"), values.shape[1:]) for i, (_, values) in enumerate(columns)]
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        for start in range(0, count, _ROWS_A_CHUNK):
            stop = min(start + _ROWS_A_CHUNK, count)
            rows = np.empty(stop - start, dtypes)
            for i, (_, values) in enumerate(columns):
                rows[f"f{i}"] = values[start:stop]
            file.write(rows.view(np.uint8).data)


def _read_header(path: Path, file: BinaryIO) -> Header:
    if file.readline(8).rstrip(b"\r\n") != b"ply":
        raise FileFormatError(path, "is not a .ply file (it does not begin with the line 'ply')", 0)
    encoding, comments, elements = "", [], []
    while True:
        place = file.tell()
        line = file.readline(_MAX_HEADER)
        if not line.endswith(b"\n"):
            raise FileFormatError(path, "header is truncated before end_header", file.tell())
        words = line.decode("utf-8", "replace").split()
        if words == ["end_header"]:
            break
        try:
            if not words or words[0] == "obj_info":
                continue
            if words[0] == "comment":
                comments.append(line.decode("utf-8", "replace").strip()[len("comment") :].strip())
            elif words[0] == "format":
                encoding = words[1]
                if encoding not in ENCODINGS:
                    raise FileFormatError(path, f"format {encoding[:40]!r} is unknown; want {', '.join(ENCODINGS)}", place)
            elif words[0] == "element":
                elements.append(Element(words[1], int(words[2])))
                if elements[-1].count < 0:
                    raise ValueError
            elif words[0] == "property" and words[1] == "list":
                elements[-1].layout.append((words[4], _TYPES[words[3]], _TYPES[words[2]]))
            elif words[0] == "property":
                if any(name == words[2] for name, _ in elements[-1].properties):
                    raise FileFormatError(path, f"property {words[2]!r} is given twice", place)
                elements[-1].properties.append((words[2], _TYPES[words[1]]))
                elements[-1].layout.append((words[2], _TYPES[words[1]], None))
            else:
                raise ValueError
        except (ValueError, IndexError, KeyError) as error:
            if isinstance(error, FileFormatError):
                raise
            text = line.decode("utf-8", "replace").strip()[:80]
            raise FileFormatError(path, f"header line {text!r} is not understood", place) from error
        if file.tell() > _MAX_HEADER:
            raise FileFormatError(path, f"header has no end_header in its first {_MAX_HEADER} bytes", place)
    if not encoding:
        raise FileFormatError(path, "header has no format line", 0)
    return Header(encoding, comments, elements, file.tell())


def _binary_chunks(path: Path, element: Element, before: list[Element], header: Header) -> Callable[[], Iterator[np.ndarray]]:
    order = ENCODINGS[header.encoding]
    if any(e.has_lists for e in before):
        names = ", ".join(e.name for e in before if e.has_lists)
        raise FileFormatError(path, f"element {names} with lists stands before {element.name}, which is not read", "header")
    offset = header.size + sum(e.count * np.dtype(e.properties).itemsize for e in before)
    dtype = np.dtype([(name, order + kind) for name, kind in element.properties])
    kinds = {kind for _, kind in element.properties}
    plain = np.dtype(order + kinds.pop()) if len(kinds) == 1 else None  # as in Gaussian files: rows are a matrix
    size = path.stat().st_size
    num_whole = max(0, size - offset) // dtype.itemsize  # known before allocating what the header declares
    if num_whole < element.count:
        raise FileFormatError(path, f"is truncated: it holds {num_whole} whole rows of {element.count}", size)

    def chunks() -> Iterator[np.ndarray]:
        with path.open("rb") as file:
            file.seek(offset)
            for start in range(0, element.count, _ROWS_A_CHUNK):
                count = min(_ROWS_A_CHUNK, element.count - start)
                data = file.read(count * dtype.itemsize)
                if len(data) < count * dtype.itemsize:
                    raise FileFormatError(path, "was truncated while reading", file.tell())
                rows = np.frombuffer(data, dtype if plain is None else plain)
                yield rows if plain is None else rows.reshape(count, -1)

    return chunks


def _matrix(chunk: np.ndarray, dtype: type) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 become infinite, which readers reject
        if chunk.dtype.names is None:
            return np.array(chunk, dtype)
        rows = np.empty((len(chunk), len(chunk.dtype.names)), dtype)
        for i, name in enumerate(chunk.dtype.names):
            rows[:, i] = chunk[name]
        return rows


def _read_ascii(path: Path, file: BinaryIO, element: Element, num_before: int) -> np.ndarray:
    for _ in range(num_before):
        if not file.readline():
            break
    lines = 0

    def counted():
        nonlocal lines
        for line in file:
            if line.strip():
                lines += 1
                yield line.decode("ascii", "replace")
            if lines == element.count:
                return

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # numpy warns about an empty file; rows are counted below
            rows = np.loadtxt(counted(), dtype=np.float64, comments=None, ndmin=2)
    except ValueError as error:
        raise FileFormatError(path, f"row {lines} of {element.count} is not understood ({error})") from error
    if rows.size and rows.shape[1] != len(element.properties):
        raise FileFormatError(path, f"rows have {rows.shape[1]} values, want {len(element.properties)}, one a property")
    if lines < element.count:
        raise FileFormatError(path, f"is truncated: it holds {lines} rows of {element.count}", path.stat().st_size)
    return rows
