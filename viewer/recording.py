"""Files written by the viewer: screenshots and videos of the window or a camera path; existing files are kept."""

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
    """FOLDER/STEM_001SUFFIX, or with the number after the highest existing one."""
    pattern = re.compile(rf"{re.escape(stem)}_(\d+){re.escape(suffix)}")
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    numbers = [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
    return folder / f"{stem}_{max(numbers, default=0) + 1:03d}{suffix}"


def save_image(path: Path, pixels: np.ndarray) -> Path:
    """Writes an image of bytes (H, W, 3) atomically."""
    write_image(path, torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255)
    return path


class _GivenUp(Exception):
    pass


class Recorder:
    """Writes the images of a window to a video as they arrive, each for as long as it was visible.

    Args:
        path: .mp4, .mkv or .mov; created when the recorder is closed.
        fps: Frames of the video per second.
        clock: Returns the time in seconds.
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
        """Adds an image of bytes (H, W, 3) that is visible from now on; images of another size than the first are skipped."""
        with self._lock:
            if self._last is None:
                self._start, self._size = self._clock(), pixels.shape
            if pixels.shape != self._size:
                return
            self._fill()
            self._last = torch.from_numpy(np.ascontiguousarray(pixels))

    def close(self) -> int:
        """Finishes the file and returns the number of frames. Without images, no file is written."""
        with self._lock:
            if self._last is not None:
                self._fill()
                self._video.append(self._last)
                self._last = None
                self._video.close()
            return self._video.num_frames

    def _fill(self) -> None:
        """Repeats the last image until now."""
        if self._last is not None:
            until = int((self._clock() - self._start) * self.fps + 1e-6)
            while self._video.num_frames < until:
                self._video.append(self._last)


def write_video(
    path: Path, images: Iterable[np.ndarray], fps: float, is_wanted: Callable[[int], bool] = lambda number: True
) -> int:
    """Writes images (bytes) to a video atomically.

    Args:
        path: .mp4, .mkv or .mov.
        images: Images of one size.
        fps: Frames per second.
        is_wanted: Called with the number of images so far; if it returns False, nothing is written.

    Returns:
        The number of frames; 0 if canceled.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with VideoWriter(path, fps=fps) as video:
            for pixels in images:
                video.append(torch.from_numpy(np.ascontiguousarray(pixels)))
                if not is_wanted(video.num_frames):
                    raise _GivenUp
            return video.num_frames
    except _GivenUp:
        return 0
