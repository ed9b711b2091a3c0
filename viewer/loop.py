"""A rendering thread: coarse images while the camera moves, full quality when it stops; outdated requests are dropped."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vision3d.scene import Cameras
from vision3d.viewer.drawing import Color, Quality, Render, Stale, draw, resized_bytes, to_bytes
from vision3d.viewer.models import Model

SMALLEST_SCALE = 0.25
"""Fraction of the window's width and height while the camera moves: 320x180 of 1280x720."""
LADDER = (
    *(Quality(SMALLEST_SCALE, share, 0) for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2)),
    *(Quality(scale, 1.0, 1) for scale in (SMALLEST_SCALE, 1 / 3, 1 / 2, 2 / 3)),
    Quality(),
)
"""From the lowest cost to full quality."""
_FIRST = 4  # the coarsest step with all Gaussians
_SMOOTHING = 0.4


class Pace:
    """Selects a quality so that each image of a moving camera takes about `budget` seconds.

    It steps down when images take longer, and up when the next step would still be in time: costs are remembered from the last
    use of each step, or extrapolated from its number of pixels and Gaussians.
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.step = _FIRST
        self._costs: dict[int, float] = {}

    @property
    def quality(self) -> Quality:
        return LADDER[self.step]

    def took(self, seconds: float) -> None:
        """Records how long the last image took."""
        known = self._costs.get(self.step, seconds)
        self._costs[self.step] = known + _SMOOTHING * (seconds - known)
        if self._costs[self.step] > self.budget:
            if self.step > 0:
                self.step -= 1
        elif self.step + 1 < len(LADDER) and self._expected(self.step + 1) < 0.8 * self.budget:
            self.step += 1
            self._costs.pop(self.step, None)

    def forget(self) -> None:
        """Resets the costs after a change of content."""
        self._costs.clear()

    def _expected(self, step: int) -> float:
        work = [quality.scale**2 + 0.5 * quality.share for quality in (LADDER[self.step], LADDER[step])]
        guess = self._costs[self.step] * work[1] / work[0]
        # Remembered costs decay, so that each step is tried again eventually.
        if step in self._costs:
            self._costs[step] *= 0.97
            return max(guess, self._costs[step])
        return guess


@dataclass(frozen=True, eq=False)
class Request:
    """A request for an image."""

    models: Callable[[], Sequence[Model]]
    """Creates the models; called in the rendering thread."""
    camera: Cameras
    """Camera of the full-size image."""
    background: Color = (0.0, 0.0, 0.0)
    is_moving: bool = True
    """Whether to draw a coarse image first."""
    finish: Callable[[np.ndarray], np.ndarray] | None = None
    """Postprocesses a full-size image, e.g. blends a photo over it."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A finished image."""

    request: Request
    pixels: np.ndarray
    """Bytes (H, W, 3) at the size of the window, at any quality."""
    render: Render
    quality: Quality
    seconds: float
    is_whole: bool


class RenderLoop:
    """Draws the newest request in a thread of its own and passes images to `show`, which is called in that thread."""

    def __init__(
        self,
        show: Callable[[Shown], None],
        *,
        budget: float = 1 / 14,
        rest: float = 0.12,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        """
        Args:
            show: Receives each image.
            budget: Target time per image while the camera moves [s].
            rest: Time without a new request after which the full-quality image is drawn [s].
            on_error: Receives errors while drawing; the loop continues.
        """
        self.pace = Pace(budget)
        self._show, self._rest, self._on_error = show, rest, on_error
        self._change = threading.Condition()
        self._wanted: Request | None = None
        self._number = 0
        self._is_open = True
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name="rendering", daemon=True)
        self._thread.start()

    def request(self, request: Request) -> None:
        """Requests an image; unfinished earlier requests are dropped."""
        with self._change:
            self._wanted = request
            self._number += 1
            self._idle.clear()
            self._change.notify()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the last request is drawn in full quality; returns whether it happened in time."""
        return self._idle.wait(timeout)

    def close(self) -> None:
        """Stops the thread."""
        with self._change:
            self._is_open = False
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        done = 0
        while True:
            with self._change:
                while self._is_open and self._number == done:
                    self._idle.set()
                    self._change.wait()
                if not self._is_open:
                    self._idle.set()
                    return
                request, done = self._wanted, self._number
            assert request is not None
            try:
                self._serve(request, done)
            except Stale:
                continue
            except Exception as error:  # a thread must not end silently
                if self._on_error is None:
                    raise
                self._on_error(error)

    def _serve(self, request: Request, number: int) -> None:
        """Draws a coarse image at once, and the full-quality one if no new request comes. The coarse one is always finished, so
        that a constantly moving camera is visible."""
        if request.is_moving:
            quality = self.pace.quality
            shown = self._draw(request, quality, is_stale=lambda: not self._is_open)
            self.pace.took(shown.seconds)
            self._show(shown)
            if quality == LADDER[-1]:
                return
            with self._change:
                self._change.wait_for(lambda: self._number != number or not self._is_open, self._rest)
        is_stale = lambda: self._number != number or not self._is_open  # noqa: E731
        if not is_stale():
            self._show(self._draw(request, LADDER[-1], is_stale))

    def _draw(self, request: Request, quality: Quality, is_stale: Callable[[], bool]) -> Shown:
        start = time.perf_counter()
        render = draw(request.models(), request.camera, request.background, quality, is_stale)
        width, height = int(request.camera.width), int(request.camera.height)
        pixels = resized_bytes(to_bytes(render.image), width, height)
        if request.finish is not None:
            pixels = request.finish(pixels)
        return Shown(request, pixels, render, quality, time.perf_counter() - start, quality == LADDER[-1])
