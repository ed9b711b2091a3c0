"""Sequences as a folder in the layout of Zarr, version 2: one chunk per frame and channel, so that a slider reads one frame.

    name.zarr/
      .zgroup .zattrs       type of the base, names of the channels
      base.ply              the base object, in its own format
      times/.zarray 0 1 ..  one chunk per frame; its shape is the number of valid frames
      means/.zarray 0.0.0 1.0.0 ..

A frame is written in this order: the chunks of the channels, their shapes, the chunk of its time, the shape of the times. Each
file is written atomically, so all valid frames are complete even if the program is killed. Programs with the zarr package can
read the arrays; here only zlib compression, or none, is supported.
"""

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision3d.core.atomic import atomic_folder, atomic_write, make_folder
from vision3d.core.errors import FileFormatError, InputError, MissingFileError, OutputExistsError, ShapeError
from vision3d.core.inside import inside
from vision3d.core.plain import from_json
from vision3d.scene import codecs
from vision3d.scene.mesh import Mesh
from vision3d.scene.sequence import FrameSequence, channel_shapes

_VERSION = 1
_LEVEL = 1  # zlib level: higher ones hardly compress floats better
_TYPES = {"<f4": torch.float32, "<f8": torch.float64}


class StoredChannel:
    """The frames of one array, read on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = folder / ".zarray"
        content = _read_json(self.index)
        try:
            shape, chunks = tuple(content["shape"]), tuple(content["chunks"])
            is_right = all(type(n) is int and 0 <= n <= 2**40 for n in shape) and len(shape) >= 1 and chunks == (1, *shape[1:])
            is_right = is_right and content["zarr_format"] == 2 and content["order"] == "C" and not content["filters"]
            compressor, dtype = content["compressor"], content["dtype"]
            if not is_right or dtype not in _TYPES or content.get("dimension_separator", ".") != ".":
                raise ValueError(f"shape {shape}, chunks {chunks}, dtype {dtype!r}")
            if compressor is not None and compressor["id"] != "zlib":
                raise ValueError(f"compressor {compressor['id']!r}, want zlib or none")
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                self.index, f"is not an array of one chunk per frame ({type(error).__name__}: {error})"
            ) from error
        self.shape: tuple[int, ...] = shape
        self.dtype, self._is_packed = dtype, compressor is not None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        path = self.folder / _key(index, len(self.shape))
        if not path.is_file():
            raise MissingFileError(path, f"frame {index} of {self.folder.name}")
        data = path.read_bytes()
        size = math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize
        if self._is_packed:
            try:
                stream = zlib.decompressobj()
                data = stream.decompress(data, size + 1)  # at most one byte too many
                if len(data) <= size and not stream.eof:
                    raise zlib.error("cut off")
            except zlib.error as error:
                raise FileFormatError(path, f"is damaged ({error})") from error
        if len(data) != size:
            raise FileFormatError(path, f"holds {'more' if len(data) > size else len(data)} bytes, want {size}")
        return torch.from_numpy(np.frombuffer(data, self.dtype).reshape(self.shape[1:]).copy())

    def __repr__(self) -> str:
        return f"StoredChannel({self.shape}, {self.dtype})"


class _Shortened:
    """The first frames of a channel that has more frames than are valid."""

    def __init__(self, channel: StoredChannel, count: int) -> None:
        self.channel, self.shape = channel, (count, *channel.shape[1:])

    def __getitem__(self, index: int) -> Tensor:
        return self.channel[index]


class SequenceWriter:
    """Appends frames to a .zarr folder; after each frame the folder is complete and readable.

    Example:
        >>> from vision3d.scene import PointCloud
        >>> writer = SequenceWriter("drops.zarr", PointCloud(torch.zeros(2, 3)))
        >>> writer.append(0.0, points=torch.rand(2, 3))
        >>> writer.append(0.1, points=torch.rand(2, 3))
        >>> len(FrameSequence.load("drops.zarr"))
        2
    """

    def __init__(
        self, path: Path | str, base: Any, *, resume: bool = False, keep: int | None = None, compress: bool = True
    ) -> None:
        """Create the folder, or continue after its last complete frame.

        Args:
            path: A folder, usually with the suffix .zarr.
            base: The base object. A mesh with uvs by corner is stored with one uv per vertex (`Mesh.split_seams`), and so are
                its channels.
            resume: Continue an existing folder; its base is kept.
            keep: Continue after this many frames and discard later ones; all when None.
            compress: Compress the frames. Moving floats shrink by a tenth, which takes longer than writing them.

        Raises:
            OutputExistsError: The folder exists and `resume` is not set.
        """
        self.path, self._level = Path(path), _LEVEL if compress else None
        self._given, self._rows = channel_shapes(FrameSequence(base, torch.zeros(0)).base), None
        if isinstance(base, Mesh):  # its file has duplicated vertices at texture seams
            base, self._rows = base.split_seams_with_rows()
        self._shapes = channel_shapes(base)
        self._names: tuple[str, ...] | None = None
        self._count, self._last = 0, -math.inf
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            if not resume:
                raise OutputExistsError(self.path)
            sequence = read_sequence(self.path)
            if channel_shapes(sequence.base) != self._shapes:
                raise InputError(f"{self.path}: holds frames of {sequence.base!r}, not of {base!r}")
            self._names = tuple(sequence.channels) or None
            self._count = len(sequence) if keep is None else min(keep, len(sequence))
            self._forget()
            if self._names and (index := self.path / self._names[0] / ".zarray").is_file():
                self._level = None if _read_json(index)["compressor"] is None else _LEVEL  # the same for all frames
            self._last = float(sequence.times[self._count - 1]) if self._count else -math.inf
            return
        make_folder(self.path)
        self._base = f"base{codecs.suffix_of(base)}"
        base.save(self.path / self._base)
        _write_json(self.path / ".zattrs", self._attributes())
        _write_json(self.path / ".zgroup", {"zarr_format": 2})

    def append(self, time: float, **channels: Tensor) -> None:
        """Write one more frame: the same channels every time, shaped like the base's fields.

        Args:
            time: Later than that of the previous frame [s].
            channels: See `FrameSequence.channels`, without the first axis.

        Raises:
            InputError: The time does not ascend, a channel is missing, unknown or not finite, or has a wrong shape.
        """
        if not math.isfinite(time) or time <= self._last:
            raise InputError(f"{self.path}: time {time} of frame {self._count}, want more than {self._last}")
        if self._names is not None and set(channels) != set(self._names):
            got = ", ".join(sorted(channels)) or "none"
            raise InputError(f"{self.path}: frame {self._count} has the channels {got}; want {', '.join(self._names)}")
        arrays = {}
        for name, value in channels.items():
            if name not in self._shapes:
                raise InputError(f"{self.path}: no channel {name!r}; want {', '.join(self._shapes)}")
            if tuple(value.shape) != self._given[name]:
                raise ShapeError(f"{self.path}: {name}", tuple(value.shape), f"shape {self._given[name]}")
            if self._rows is not None:
                value = value[self._rows.to(value.device)]
            arrays[name] = value.detach().to("cpu", torch.float32).numpy()
            if not np.isfinite(arrays[name]).all():
                raise InputError(f"{self.path}: {name} is not finite in frame {self._count}")
        if self._names is None:
            self._names = tuple(channels)
            _write_json(self.path / ".zattrs", self._attributes())
        for name, values in arrays.items():
            _write_chunk(self.path / name, self._count, values, self._level)
        for name, values in arrays.items():
            _write_shape(self.path / name, self._count + 1, values, self._level)
        moment = np.array(time, np.float64)
        _write_chunk(self.path / "times", self._count, moment, self._level)
        _write_shape(self.path / "times", self._count + 1, moment, self._level)  # from here on the frame is valid
        self._count, self._last = self._count + 1, time

    def _forget(self) -> None:
        """Remove data beyond the valid frames; the times first, since they have the count."""
        for name in ("times", *(self._names or ())):
            index = self.path / name / ".zarray"
            if not index.is_file():
                continue
            content = _read_json(index)
            if content["shape"][0] > self._count:
                _write_json(index, {**content, "shape": [self._count, *content["shape"][1:]]})
            for chunk in index.parent.iterdir():
                if chunk.name.partition(".")[0].isdigit() and int(chunk.name.partition(".")[0]) >= self._count:
                    chunk.unlink()

    def __len__(self) -> int:
        return self._count

    def _attributes(self) -> dict[str, Any]:
        base = getattr(self, "_base", None) or _own(self.path)["base"]
        return {"vision3d": {"type": "sequence", "version": _VERSION, "base": base, "channels": list(self._names or ())}}


def read_sequence(path: Path | str) -> FrameSequence:
    """The complete frames of a .zarr folder; their values are read on demand.

    Raises:
        MissingFileError: The folder, or a file in it, does not exist.
        FileFormatError: It is not a vision3d sequence, or is damaged.
    """
    path = Path(path)
    own = _own(path)
    base = codecs.load(inside(path / ".zattrs", own["base"]))
    channels: dict[str, StoredChannel] = {}
    times = torch.zeros(0, dtype=torch.float64)
    if (path / "times" / ".zarray").is_file():
        stored = StoredChannel(path / "times")
        if len(stored.shape) != 1:
            raise FileFormatError(stored.index, f"has shape {stored.shape}, want one axis")
        for name in own["channels"]:
            channels[name] = StoredChannel(inside(path / ".zattrs", name))
        count = min(len(channel) for channel in (stored, *channels.values()))
        count = min(count, len(os.listdir(path / "times")))  # no more than there are files
        times = torch.stack([stored[i] for i in range(count)]) if count else times
    cut: Mapping[str, Any] = {name: _Shortened(c, len(times)) if len(c) > len(times) else c for name, c in channels.items()}
    try:
        return FrameSequence(base, times.double(), cut).validate()  # pyright: ignore[reportArgumentType]
    except InputError as error:
        raise FileFormatError(path, str(error)) from error


def write_sequence(path: Path | str, sequence: FrameSequence) -> None:
    """Write a sequence; an existing one of this name is replaced when the new one is complete.

    Raises:
        OutputExistsError: `path` exists and is not a sequence.
    """
    path = Path(path)
    if path.exists() and not (path / ".zgroup").is_file():
        raise OutputExistsError(path, "it is not a .zarr folder; use another name")
    sequence.validate()
    with atomic_folder(path) as temporary:
        writer = SequenceWriter(temporary, sequence.base)
        for i, time in enumerate(sequence.times.tolist()):
            writer.append(time, **{name: channel[i] for name, channel in sequence.channels.items()})


def load(path: Path) -> FrameSequence:
    """Codec: read the sequence of a folder."""
    return read_sequence(path)


def save(path: Path, value: FrameSequence) -> None:
    """Codec: write a sequence."""
    write_sequence(path, value)


def _own(path: Path) -> dict[str, Any]:
    """The description of the sequence in .zattrs."""
    index = path / ".zattrs"
    own = _read_json(index).get("vision3d")
    if not isinstance(own, dict) or own.get("type") != "sequence":
        raise FileFormatError(index, "is not a vision3d sequence")
    if own.get("version") != _VERSION:
        raise FileFormatError(index, f"is version {own.get('version')!r} of a sequence; version {_VERSION} is read")
    names = own.get("channels")
    if not isinstance(own.get("base"), str) or not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise FileFormatError(index, "has no base and channels")
    return own


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(path, "a part of a .zarr folder")
    try:
        content = from_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FileFormatError(path, f"is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise FileFormatError(path, "is not a JSON object")
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_chunk(folder: Path, index: int, values: np.ndarray, level: int | None) -> None:
    data = np.ascontiguousarray(values).tobytes()
    with atomic_write(folder / _key(index, values.ndim + 1)) as temporary:
        temporary.write_bytes(data if level is None else zlib.compress(data, level))


def _write_shape(folder: Path, count: int, values: np.ndarray, level: int | None) -> None:
    content = {"zarr_format": 2, "shape": [count, *values.shape], "chunks": [1, *values.shape], "dtype": values.dtype.str}
    content |= {
        "compressor": None if level is None else {"id": "zlib", "level": level},
        "fill_value": 0.0,
        "order": "C",
        "filters": None,
    }
    _write_json(folder / ".zarray", content)


def _key(index: int, num_axes: int) -> str:
    return ".".join([str(index), *["0"] * (num_axes - 1)])
