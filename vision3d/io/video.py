"""Videos: H.264 through ffmpeg (bundled with imageio-ffmpeg), and numbered PNG files."""

import contextlib
import math
import queue
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError, MissingFileError, ShapeError, Vision3DError
from vision3d.io.guards import check_pixels, pixel_limit
from vision3d.io.images import write_image

_LATEST_S = 5.0
"""How long the time of a frame may come after its pixels [s]."""


class VideoWriter:
    """Writes frames to an H.264 video (yuv420p, which every player supports); the file appears when the writer is closed.

    Frames of odd width or height get a copy of their last column or row, since the format requires even sizes.

    Example:
        >>> with VideoWriter("orbit.mp4", fps=24) as video:
        ...     for image in images:
        ...         video.append(image)
    """

    def __init__(self, path: Path | str, *, fps: float = 30.0, crf: int = 18) -> None:
        """
        Args:
            path: .mp4, .mkv or .mov.
            fps: Frames per second.
            crf: Quality, 0 (lossless) to 51 (worst).

        Raises:
            InputError: The suffix, `fps` or `crf` is out of its range.
        """
        self.path = Path(path)
        if self.path.suffix.lower() not in (".mp4", ".mkv", ".mov"):
            raise InputError(f"{path}: no video format for {self.path.suffix!r}; want .mp4, .mkv or .mov")
        if not fps > 0 or not 0 <= crf <= 51:
            raise InputError(f"{path}: got fps {fps}, crf {crf}; want fps > 0, crf 0 to 51")
        self.fps, self.crf, self.num_frames = fps, crf, 0
        self._size: tuple[int, int] | None = None
        self._encoder: Any = None
        self._errors: Any = None
        self._files = contextlib.ExitStack()

    def append(self, image: Tensor) -> None:
        """Add a frame.

        Args:
            image: (H, W, 3), or (H, W, 1) or (H, W) for gray, in [0, 1] (clamped).

        Raises:
            ShapeError: It is not an image, or differs in size from the first frame.
            InputError: It has values that are not finite, or the writer is closed.
        """
        frame = _to_bytes(image)
        size = frame.shape[1], frame.shape[0]
        if self._encoder is None:
            if self.num_frames:
                raise InputError(f"{self.path}: the writer is closed")
            self._start(size)
        elif size != self._size:
            first = "x".join(map(str, self._size or ()))
            raise ShapeError("frame", f"{size[0]}x{size[1]} px", f"{first} px as the first frame")
        try:
            self._encoder.stdin.write(_padded(frame).data)  # pyright: ignore[reportOptionalMemberAccess]
        except BrokenPipeError:
            self.close()  # which raises the reason
        self.num_frames += 1

    def close(self) -> None:
        """Finish the video and move it to its final name.

        Raises:
            InputError: No frame was added.
        """
        if self._encoder is None:
            if self.num_frames == 0:
                raise InputError(f"{self.path}: got no frames, want at least one")
            return
        with self._files:  # its error handling removes the unfinished file
            encoder, self._encoder = self._encoder, None
            self._end(encoder)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif self._encoder is not None:  # the unfinished file is discarded
            encoder, self._encoder = self._encoder, None
            encoder.kill()
            with contextlib.suppress(OSError):
                encoder.stdin.close()
            encoder.wait()
            with contextlib.suppress(kind):
                self._files.__exit__(kind, error, trace)

    def _start(self, size: tuple[int, int]) -> None:
        temporary = self._files.enter_context(atomic_write(self.path))
        self._errors = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._size = size
        shape = f"{size[0] + size[0] % 2}x{size[1] + size[1] % 2}"
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", shape, "-r", str(self.fps), "-i", "-"]
        # Players assume BT.709 for untagged large videos and BT.601 for small ones: convert to the former and tag it.
        color = ["-vf", "scale=out_color_matrix=bt709:out_range=tv"]
        color += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
        coded = [*color, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(self.crf)]
        command = [_ffmpeg(), "-v", "error", "-y", *raw, *coded, "-movflags", "+faststart", f"file:{temporary}"]
        # In a session of its own: Ctrl-C in the terminal is for the program, which may still finish the video.
        self._encoder = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self._errors, start_new_session=True)

    def _end(self, encoder: subprocess.Popen) -> None:
        with contextlib.suppress(BrokenPipeError):
            encoder.stdin.close()  # pyright: ignore[reportOptionalMemberAccess]
        if encoder.wait():
            self._errors.seek(0)
            lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
            raise Vision3DError(f"{self.path}: ffmpeg failed after {self.num_frames} frames ({(lines or ['no reason'])[-1]})")


class ImageSequenceWriter:
    """Writes frames as numbered PNG files in a folder, with the same methods as `VideoWriter`."""

    def __init__(self, folder: Path | str, *, pattern: str = "{:05d}.png") -> None:
        """
        Args:
            folder: Created with the first frame.
            pattern: Format of a file name, given the frame number from 0.
        """
        self.folder, self.pattern, self.num_frames = Path(folder), pattern, 0

    def append(self, image: Tensor) -> None:
        """Add a frame: (H, W, 3) or (H, W) in [0, 1]; its file is complete when this returns."""
        write_image(self.folder / self.pattern.format(self.num_frames), image)
        self.num_frames += 1

    def close(self) -> None:
        """Does nothing."""

    def __enter__(self) -> "ImageSequenceWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Video:
    """A video file; iterating decodes its frames one by one, as (H, W, 3) floats in [0, 1]."""

    path: Path
    width: int
    height: int
    fps: float
    duration: float
    """Length [s], 0 if the file does not record it."""

    def __iter__(self) -> Iterator[Float[Tensor, "h w 3"]]:
        for frame in self.in_bytes():
            yield torch.from_numpy(frame.numpy().astype(np.float32) / 255)

    def in_bytes(self) -> Iterator[UInt8[Tensor, "h w 3"]]:
        """The frames as bytes."""
        yield from _frames(_input(self.path), self.width, self.height)

    def timed(self) -> Iterator[tuple[float, UInt8[Tensor, "h w 3"]]]:
        """The frames as bytes with their times [s]."""
        for number, frame in enumerate(self.in_bytes()):
            yield number / self.fps, frame


@dataclass(frozen=True)
class Webcam:
    """A camera of this computer; iterating gives its frames until it is unplugged."""

    options: tuple[str, ...]
    """Of ffmpeg, to open it."""
    width: int
    height: int
    fps: float

    def in_bytes(self) -> Iterator[UInt8[Tensor, "h w 3"]]:
        """The frames as bytes, with no more delay than the camera's."""
        for _, frame in self.timed():
            yield frame

    def timed(self) -> Iterator[tuple[float, UInt8[Tensor, "h w 3"]]]:
        """The frames as bytes with the times of their capture, from the first on, ascending [s].

        A camera has its own pace: in the dark it is slower than its frame rate, and a slow reader misses frames. ffmpeg shall
        neither repeat nor drop frames to get even times, and prints those of the device before each frame.
        """
        options = ["-fflags", "nobuffer", *self.options, "-vf", "showinfo=checksum=0", "-fps_mode", "passthrough"]
        with _decoder(options, level="info", stderr=subprocess.PIPE) as decoder:
            stamps: queue.SimpleQueue[float] = queue.SimpleQueue()
            reader = threading.Thread(target=_read_stamps, args=(decoder.stderr, stamps), daemon=True)
            reader.start()
            first, last, wait_s = math.nan, -1 / self.fps, _LATEST_S
            try:
                for number, frame in enumerate(_read_frames(decoder, self.width, self.height)):
                    try:
                        stamp = stamps.get(timeout=wait_s)
                    except queue.Empty:  # another ffmpeg that prints none
                        stamp, wait_s = math.nan, 0.0
                    first = stamp if number == 0 else first
                    at = stamp - first
                    last = at if at > last else last + 1 / self.fps  # also if it is NaN
                    yield last, frame
            finally:
                decoder.kill()
                reader.join()  # before its pipe is closed


def open_webcam(index: int = 0) -> Webcam:
    """Open a camera of this computer: Video4Linux devices, or AVFoundation's on macOS.

    Raises:
        MissingFileError: No camera has this number.
        InputError: It cannot be opened, or this system has neither.
    """
    options = _capture_options(index)
    header, message = _header(list(options))
    if header is None:
        lines = message.strip().splitlines()
        raise InputError(f"webcam {index}: ffmpeg cannot read it ({lines[-1] if lines else 'no reason'})")
    width, height, rate, unit = header
    return Webcam(options, width, height, rate / unit)


def _capture_options(index: int) -> tuple[str, ...]:
    """Options of ffmpeg that open a camera of this computer."""
    if sys.platform.startswith("linux"):
        device = Path(f"/dev/video{index}")
        if index < 0 or not device.exists():
            raise MissingFileError(device, f"webcam {index}")
        return "-f", "v4l2", "-i", str(device)
    if sys.platform == "darwin":
        return "-f", "avfoundation", "-framerate", "30", "-i", str(index)
    raise InputError(f"webcam {index}: webcams are read on Linux and macOS; want a video file")


def _frames(options: list[str], width: int, height: int) -> Iterator[UInt8[Tensor, "h w 3"]]:
    with _decoder(options) as decoder:
        yield from _read_frames(decoder, width, height)


@contextlib.contextmanager
def _decoder(options: list[str], level: str = "error", stderr: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen]:
    """ffmpeg, writing frames; a reader may stop early."""
    command = [_ffmpeg(), "-hide_banner", "-nostats", "-v", level, *options, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr) as decoder:
        try:
            yield decoder
        finally:
            decoder.kill()


def _read_frames(decoder: subprocess.Popen, width: int, height: int) -> Iterator[UInt8[Tensor, "h w 3"]]:
    count = width * height * 3
    while len(frame := decoder.stdout.read(count)) == count:  # pyright: ignore[reportOptionalMemberAccess]
        yield torch.frombuffer(bytearray(frame), dtype=torch.uint8).view(height, width, 3)


def _read_stamps(messages: Any, stamps: "queue.SimpleQueue[float]") -> None:
    """The times that ffmpeg's filter showinfo prints [s], NaN where a frame has none."""
    for line in messages:
        if found := re.search(rb"showinfo.* n: *\d+ .*pts_time:(\S+)", line):
            stamps.put(math.nan if found[1] == b"NOPTS" else float(found[1]))


def read_video(path: Path | str) -> Video:
    """Open a video; iterating yields its frames, rotated as the camera recorded.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: ffmpeg finds no video in it, or its frames have too many pixels (`guards.pixel_limit`).

    Example:
        >>> video = read_video("orbit.mp4")
        >>> frames = torch.stack(list(video))
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a video")
    header, message = _header(_input(path))
    too_large = re.search(r"size (\d+)x(\d+) exceeds specified max pixel count", message)
    if too_large is not None:
        check_pixels(path, int(too_large[1]), int(too_large[2]), path.stat().st_size)
    if header is None:
        raise FileFormatError(path, "is not a video that ffmpeg can read")
    width, height, rate, unit = header
    length = re.search(r"Duration: (\d+):(\d+):([\d.]+)", message)
    hours, minutes, seconds = map(float, length.groups()) if length else (0.0, 0.0, 0.0)
    return Video(path, width, height, rate / unit, 3600 * hours + 60 * minutes + seconds)


def _header(options: list[str]) -> tuple[tuple[int, int, int, int] | None, str]:
    """Width, height and frame rate (a fraction) of an input, None without a frame; and ffmpeg's messages."""
    # One frame as YUV4MPEG: its header has size and rate of the output.
    command = [_ffmpeg(), *options, "-frames:v", "1", "-pix_fmt", "yuv444p", "-f", "yuv4mpegpipe", "-"]
    result = subprocess.run(command, capture_output=True, check=False)
    header = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) F(\d+):(\d+)", result.stdout)
    message = result.stderr.decode("utf-8", "replace")
    if result.returncode or header is None:
        return None, message
    width, height, rate, unit = map(int, header.groups())
    return (width, height, rate, unit), message


def _input(path: Path) -> list[str]:
    """ffmpeg options for reading a file: frames with too many pixels are rejected before allocation."""
    return ["-max_pixels", str(pixel_limit(path.stat().st_size)), "-i", f"file:{path}"]


def _ffmpeg() -> str:
    from imageio_ffmpeg import get_ffmpeg_exe

    return get_ffmpeg_exe()


def _to_bytes(image: Tensor) -> np.ndarray:
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.numel():
        raise ShapeError("frame", tuple(image.shape), "(H, W), (H, W, 1) or (H, W, 3), not empty")
    values = image.detach().cpu()
    if values.dtype != torch.uint8:
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"frame: {int((~torch.isfinite(values)).sum())} values are not finite")
        values = (values.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return values.expand(-1, -1, 3).numpy()


def _padded(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(frame)
