"""A thread that draws: coarse while the camera moves, whole when it rests, and never what is no longer wanted."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vision3d.scene import Cameras
from vision3d.viewer.models import Model
from vision3d.viewer.picture import Color, Picture, Quality, Stale, draw, resized_bytes, to_bytes

SMALLEST_SCALE = 0.25
"""Of the window's width and height, while the camera moves: 320x180 of 1280x720."""
LADDER = (
    *(Quality(SMALLEST_SCALE, share, 0) for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2)),
    *(Quality(scale, 1.0, 1) for scale in (SMALLEST_SCALE, 1 / 3, 1 / 2, 2 / 3)),
    Quality(),
)
"""From the least work to the whole picture."""
_FIRST = 4  # the coarsest picture of everything
_SMOOTHING = 0.4


class Pace:
    """Chooses the quality of moving pictures so that each takes about `budget` seconds.

    A step is taken down when pictures take longer, and up when the next better ones would still be in time: their cost is
    remembered from when they were last drawn, or guessed from the pixels and Gaussians that they have more.
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.step = _FIRST
        self._costs: dict[int, float] = {}

    @property
    def quality(self) -> Quality:
        return LADDER[self.step]

    def took(self, seconds: float) -> None:
        """Say how long the last picture took."""
        known = self._costs.get(self.step, seconds)
        self._costs[self.step] = known + _SMOOTHING * (seconds - known)
        if self._costs[self.step] > self.budget:
            if self.step > 0:
                self.step -= 1
        elif self.step + 1 < len(LADDER) and self._expected(self.step + 1) < 0.8 * self.budget:
            self.step += 1
            self._costs.pop(self.step, None)

    def forget(self) -> None:
        """What is shown has changed, so old costs say nothing."""
        self._costs.clear()

    def _expected(self, step: int) -> float:
        work = [quality.scale**2 + 0.5 * quality.share for quality in (LADDER[self.step], LADDER[step])]
        guess = self._costs[self.step] * work[1] / work[0]
        # A known cost counts less and less, so that a step is tried again some time.
        if step in self._costs:
            self._costs[step] *= 0.97
            return max(guess, self._costs[step])
        return guess


@dataclass(frozen=True, eq=False)
class Request:
    """A picture that is wanted."""

    models: Callable[[], Sequence[Model]]
    """Makes what is drawn; called in the thread that draws."""
    camera: Cameras
    """Of the whole picture."""
    background: Color = (0.0, 0.0, 0.0)
    is_moving: bool = True
    """Whether a coarse picture should come first."""
    finish: Callable[[np.ndarray], np.ndarray] | None = None
    """Changes the bytes of a picture of full size, e.g. blends a photograph over it."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture that was drawn."""

    request: Request
    pixels: np.ndarray
    """Bytes (H, W, 3) at the size of the window, whatever the quality."""
    picture: Picture
    quality: Quality
    seconds: float
    is_whole: bool


class PictureLoop:
    """Draws the newest request in a thread of its own and hands pictures to `show`, which is called in that thread."""

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
            show: Takes each picture.
            budget: Seconds that a picture should take while the camera moves.
            rest: Seconds without a new request after which the whole picture is drawn.
            on_error: Takes what goes wrong while drawing; the loop goes on.
        """
        self.pace = Pace(budget)
        self._show, self._rest, self._on_error = show, rest, on_error
        self._change = threading.Condition()
        self._wanted: Request | None = None
        self._number = 0
        self._is_open = True
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)
        self._thread.start()

    def request(self, request: Request) -> None:
        """Ask for a picture; earlier requests that are not finished are dropped."""
        with self._change:
            self._wanted = request
            self._number += 1
            self._idle.clear()
            self._change.notify()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the last request is drawn whole; whether that happened in time."""
        return self._idle.wait(timeout)

    def close(self) -> None:
        """End the thread."""
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
        """A coarse picture at once, and the whole one if nothing new comes; the coarse one is finished whatever comes, so
        that a camera which moves all the time is seen."""
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
        picture = draw(request.models(), request.camera, request.background, quality, is_stale)
        width, height = int(request.camera.width), int(request.camera.height)
        pixels = resized_bytes(to_bytes(picture.image), width, height)
        if request.finish is not None:
            pixels = request.finish(pixels)
        return Shown(request, pixels, picture, quality, time.perf_counter() - start, quality == LADDER[-1])
