"""Shared by readers and writers of Gaussian files: arrays of a scene, axes, quantizers, losses, size limits."""

import logging
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vision3d.core.errors import FileFormatError, MissingDependencyError
from vision3d.geometry.spherical_harmonics import sh_rotation
from vision3d.scene.gaussians import FLAT_LOG_SCALE, GaussianScene, SplatMode

logger = logging.getLogger(__name__)

OPAQUE_LOGIT = 15.0
"""Logit of an opacity of 255 / 255, as in .ply files; 1 - sigmoid(15) = 3e-7."""
any_numbers = np.errstate(over="ignore", invalid="ignore", divide="ignore")
"""Decorator of readers: no numpy warnings for values that `SplatArrays.to_scene` rejects."""
_PIECE = 1 << 20  # bytes decompressed at a time
_BYTE_LOGITS = np.full(256, OPAQUE_LOGIT, np.float32)
_BYTE_LOGITS[0] = -OPAQUE_LOGIT
_BYTE_LOGITS[1:255] = np.log(np.arange(1, 255) / (255 - np.arange(1, 255)))


@dataclass
class SplatArrays:
    """The values of a scene as float32: means (N, 3), quats (N, 4) wxyz, log_scales (N, 3), logits (N,), sh (N, K, 3)."""

    means: np.ndarray
    quats: np.ndarray
    log_scales: np.ndarray
    opacity_logits: np.ndarray
    sh: np.ndarray
    mode: SplatMode = "3dgs"
    antialiased: bool = False

    def __len__(self) -> int:
        return len(self.means)

    @classmethod
    def joined(cls, parts: Sequence["SplatArrays"]) -> "SplatArrays":
        """Concatenate; harmonics are padded to the same number."""

        def all_of(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        means, quats, log_scales = all_of("means"), all_of("quats"), all_of("log_scales")
        return cls(means, quats, log_scales, all_of("opacity_logits"), all_of("sh"))

    def turned(self, signs: Sequence[int]) -> "SplatArrays":
        """In axes that point along or against the current ones.

        Args:
            signs: Three values of +1 or -1, with none or two of them -1, so that this is a rotation.
        """
        x, y, z = signs
        # R' = M R M has the covariance M Sigma M, since the last M only flips axes of the ellipsoid.
        factors = np.array([1, y * z, x * z, x * y], np.float32)
        return SplatArrays(
            self.means * np.array(signs, np.float32),
            self.quats * factors,
            self.log_scales,
            self.opacity_logits,
            self.sh * sh_signs(signs, math.isqrt(self.sh.shape[1]) - 1)[:, None] if self.sh.shape[1] > 1 else self.sh,
            self.mode,
            self.antialiased,
        )

    def to_scene(self, path: Path, *, drop_nan: bool = False) -> GaussianScene:
        """The scene, or an error for the first row that is not finite or has a rotation of length zero.

        Raises:
            FileFormatError: No rows, or invalid rows without `drop_nan`.
        """
        if len(self) == 0:
            raise FileFormatError(path, "holds 0 Gaussians, want at least one")
        arrays = {name: getattr(self, name) for name in ("means", "quats", "log_scales", "opacity_logits", "sh")}
        is_bad = ~self.quats.any(1)
        for values in arrays.values():
            is_bad |= _has_nan(values.reshape(len(self), -1))
        if is_bad.any():
            count, first = int(is_bad.sum()), int(is_bad.argmax())
            if not drop_nan or count == len(self):
                raise FileFormatError(
                    path,
                    f"{count} of {len(self)} Gaussians are not finite or have a rotation of length zero"
                    + ("" if drop_nan else "; drop_nan=True or vision3d convert --filter-nan drops them"),
                    f"row {first}",
                )
            arrays = {name: values[~is_bad] for name, values in arrays.items()}
        tensors = {name: torch.from_numpy(np.require(values, np.float32, ["C", "W"])) for name, values in arrays.items()}
        return GaussianScene(mode=self.mode, antialiased=self.antialiased, **tensors)


def arrays_of(scene: GaussianScene, max_degree: int) -> SplatArrays:
    """The values of a scene with harmonics up to `max_degree` and unit quaternions.

    Raises:
        InputError: The scene is empty or has values that are not finite.
    """
    scene.validate()

    def array(values: Tensor) -> np.ndarray:
        return values.detach().to("cpu", torch.float32).numpy()

    quats = array(scene.quats)
    return SplatArrays(
        array(scene.means),
        quats / np.linalg.norm(quats, axis=1, keepdims=True),
        array(scene.log_scales),
        array(scene.opacity_logits),
        array(scene.sh[:, : (max_degree + 1) ** 2]),
        scene.mode,
        scene.antialiased,
    )


class Losses:
    """What a file cannot store of a scene: collected by its writer, logged as one warning."""

    def __init__(self, path: Path, scene: GaussianScene, *, max_degree: int, modes: bool = False, antialiased: bool = False):
        """Start with the losses that follow from the format: `modes` and `antialiased` say whether it can store these."""
        self.path, self.texts = path, []
        if scene.sh_degree > max_degree:
            self.texts.append(f"harmonics above degree {max_degree} (the scene has degree {scene.sh_degree})")
        if scene.labels is not None:
            self.texts.append("labels")
        if scene.mode != "3dgs" and not modes:
            self.texts.append(f"mode {scene.mode} (will be read as 3dgs)")
        if scene.antialiased and not antialiased:
            self.texts.append("the mark antialiased")

    def clipped(self, name: str, values: np.ndarray, low: float, high: float, unit: str = "") -> None:
        """Count the values outside a range."""
        count = int(((values < low) | (values > high)).sum())
        if count:
            self.texts.append(f"{count} values of {name} beyond {low:.6g} to {high:.6g}{unit} (clipped)")

    def log(self) -> None:
        """Log one warning, or nothing."""
        if self.texts:
            logger.warning("%s does not hold: %s", self.path, "; ".join(self.texts))


class Gunzip:
    """A gzip stream that unpacks no more than requested."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.place, self.inflate = path, data, 0, zlib.decompressobj(31)
        self.rest = b""

    def take(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            FileFormatError: The stream is damaged or ends early.
        """
        pieces, missing = [], count
        while missing:
            if not self.rest and not self.inflate.eof:
                self.rest = self.data[self.place : self.place + _PIECE]
                self.place += len(self.rest)
            try:
                piece = self.inflate.decompress(self.rest, missing)
            except zlib.error as error:
                raise FileFormatError(self.path, f"gzip stream is damaged ({error})", self._where()) from error
            self.rest = self.inflate.unconsumed_tail
            if not piece and (self.inflate.eof or (not self.rest and self.place >= len(self.data))):
                text = f"gzip stream is truncated: {count - missing} of {count} bytes that were expected"
                raise FileFormatError(self.path, text, self._where())
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def has_more(self) -> bool:
        """Whether anything follows."""
        try:
            return bool(self.inflate.decompress(self.rest + self.data[self.place : self.place + _PIECE], 1))
        except zlib.error as error:
            raise FileFormatError(self.path, f"gzip stream is damaged ({error})", self._where()) from error

    def _where(self) -> int:
        return max(0, self.place - len(self.rest))


def zstd_module(purpose: str):
    """The package zstandard.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependencyError("zstandard", "spz", purpose) from error
    return zstandard


def unzstd(path: Path, data: memoryview, count: int, where: int) -> np.ndarray:
    """Unpack a zstd frame of exactly `count` bytes; neither output nor window use more memory than that (or 8 MiB).

    Raises:
        FileFormatError: It is damaged, or has a different length.
    """
    zstandard = zstd_module("reading .spz of version 4")
    window = max(8 << 20, 1 << max(count - 1, 1).bit_length())
    result, place = np.empty(count, np.uint8), 0
    try:
        with zstandard.ZstdDecompressor(max_window_size=min(window, 1 << 30)).stream_reader(data) as reader:
            view = result.data
            while place < count and (num := reader.readinto(view[place : place + _PIECE])):
                place += num
            is_long = place == count and bool(reader.read(1))
    except zstandard.ZstdError as error:
        raise FileFormatError(path, f"zstd stream is damaged ({error})", where) from error
    if place < count or is_long:
        raise FileFormatError(path, f"zstd stream has {'more than ' if is_long else ''}{place} bytes, want {count}", where)
    return result


def logits_of_bytes(values: np.ndarray) -> np.ndarray:
    """Logits of opacities in 255ths; 0 and 255 become -15 and 15."""
    return _BYTE_LOGITS[values]


def opacities_of(logits: np.ndarray) -> np.ndarray:
    """Sigmoid in float64, without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Round and clamp to 0 ... 255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def logs_of_scales(scales: np.ndarray) -> np.ndarray:
    """Natural logarithms [log m]; a scale of zero becomes the thickness 1e-8 m of a 2D Gaussian, a negative one NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(scales.astype(np.float32))
    logs[scales == 0] = FLAT_LOG_SCALE
    return logs


def sh_signs(signs: Sequence[int], degree: int) -> np.ndarray:
    """+1 or -1 for each of the (degree + 1)^2 harmonics when axes are flipped (see `SplatArrays.turned`)."""
    turn = torch.diag(torch.tensor(signs, dtype=torch.float64))
    return sh_rotation(turn, degree).diagonal().round().to(torch.float32).numpy()


def largest_first(quats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest component of unit quaternions and the other three in order, with the sign that makes it positive.

    Args:
        quats: (N, 4), unit length, in any order of the components.

    Returns:
        Index (N,) of the largest, and the others (N, 3) in -sqrt(1/2) to sqrt(1/2).
    """
    largest = np.abs(quats).argmax(1)
    values = quats * np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, -1, 1).astype(np.float32)
    others = np.arange(3) + (np.arange(3) >= np.arange(4)[:, None])
    return largest, np.take_along_axis(values, others[largest], 1)


def from_smallest_three(largest: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The inverse of `largest_first`: unit quaternions (N, 4) in the same order of the components."""
    top = np.sqrt(np.maximum(0, 1 - np.einsum("ij,ij->i", others, others)))
    quats = np.empty((len(others), 4), np.float32)
    for place in range(4):
        rows = np.flatnonzero(largest == place)
        quats[rows, place] = top[rows]
        for column, target in enumerate([i for i in range(4) if i != place]):
            quats[rows, target] = others[rows, column]
    return quats


def morton_order(points: np.ndarray) -> np.ndarray:
    """Order of points (N, 3) along a Z curve of 10 bits per axis, so that neighbors in a file are neighbors in space."""
    low = points.min(0).astype(np.float64)
    span = np.maximum(points.max(0) - low, 1e-30)
    cells = np.minimum((points - low) / span * 1024, 1023).astype(np.uint32)
    for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        cells = (cells | (cells << np.uint32(shift))) & np.uint32(mask)
    keys = cells[:, 0] | (cells[:, 1] << np.uint32(1)) | (cells[:, 2] << np.uint32(2))
    return np.argsort(keys, kind="stable")


def _has_nan(values: np.ndarray) -> np.ndarray:
    """Rows that contain NaN or infinity: their sum is not finite (sums may overflow, so those rows are checked again)."""
    with np.errstate(over="ignore", invalid="ignore"):
        is_bad = ~np.isfinite(values @ np.ones(values.shape[1], np.float32))
    is_bad[is_bad] = ~np.isfinite(values[is_bad]).all(1)
    return is_bad
