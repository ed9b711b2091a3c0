"""What the viewer writes: screenshots, videos of the window, videos of a camera path; under names that are not taken."""

import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from vision3d.io.images import write_image
from vision3d.io.video import VideoWriter

RECORDING_FPS = 20.0


def next_path(folder: Path, stem: str, suffix: str) -> Path:
    """FOLDER/STEM_001SUFFIX, or the number after the highest that is there."""
    pattern = re.compile(rf"{re.escape(stem)}_(\d+){re.escape(suffix)}")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    numbers = [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
    return folder / f"{stem}_{max(numbers, default=0) + 1:03d}{suffix}"


def save_picture(path: Path, pixels: np.ndarray) -> Path:
    """Write bytes (H, W, 3) as a picture, whole or not at all."""
    write_image(path, torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255)
    return path


class _GivenUp(Exception):
    pass


class Recorder:
    """Writes the pictures of a window to a video as they come, each for as long as it was seen.

    Args:
        path: .mp4, .mkv or .mov; appears when the recorder is closed.
        fps: Frames of the video per second.
        clock: Seconds.
    """

    def __init__(self, path: Path, fps: float = RECORDING_FPS, clock: Callable[[], float] = time.perf_counter) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.fps, self._clock = path, fps, clock
        self._video = VideoWriter(path, fps=fps)
        self._last: torch.Tensor | None = None
        self._start = 0.0
        self._lock = threading.Lock()
        self._size: tuple[int, ...] | None = None

    @property
    def num_frames(self) -> int:
        return self._video.num_frames

    def append(self, pixels: np.ndarray) -> None:
        """A picture is seen from now on: bytes (H, W, 3); one of another size than the first is left out."""
        with self._lock:
            if self._last is None:
                self._start, self._size = self._clock(), pixels.shape
            if pixels.shape != self._size:
                return
            self._fill()
            self._last = torch.from_numpy(np.ascontiguousarray(pixels))

    def close(self) -> int:
        """Finish the file; the number of frames. Without a picture there is no file."""
        with self._lock:
            if self._last is not None:
                self._fill()
                self._video.append(self._last)
                self._last = None
                self._video.close()
            return self._video.num_frames

    def _fill(self) -> None:
        """The last picture until now."""
        if self._last is not None:
            until = int((self._clock() - self._start) * self.fps + 1e-6)
            while self._video.num_frames < until:
                self._video.append(self._last)


def write_video(
    path: Path, pictures: Iterable[np.ndarray], fps: float, is_wanted: Callable[[int], bool] = lambda number: True
) -> int:
    """Write pictures (bytes) to a video, whole or not at all.

    Args:
        path: .mp4, .mkv or .mov.
        pictures: Of one size.
        fps: Frames per second.
        is_wanted: Given the number of pictures so far; if it says no, nothing is written.

    Returns:
        The number of frames; 0 when it was given up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with VideoWriter(path, fps=fps) as video:
            for pixels in pictures:
                video.append(torch.from_numpy(np.ascontiguousarray(pixels)))
                if not is_wanted(video.num_frames):
                    raise _GivenUp
            return video.num_frames
    except _GivenUp:
        return 0
