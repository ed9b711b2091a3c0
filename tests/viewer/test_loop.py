"""The rendering thread: pace, coarse first and full quality at rest, nothing stale, errors that do not stop it."""

import threading
import time

import numpy as np
import pytest
import torch

from tests.support.scenes import ring_cameras, ring_scene
from vision3d.viewer.loop import LADDER, SMALLEST_SCALE, Pace, RenderLoop, Request
from vision3d.viewer.models import Splats

WAIT = 60


@pytest.fixture
def shown():
    return []


@pytest.fixture
def loop(shown):
    made = RenderLoop(shown.append, rest=0.05)
    yield made
    made.close()


def request(camera=0, is_moving=True, finish=None, models=None):
    camera = ring_cameras(6, 64, 48)[camera]
    splats = Splats.of(ring_scene(100))
    return Request(models or (lambda: [splats]), camera, (0.0, 0.0, 0.0), is_moving, finish)


def test_the_ladder_goes_from_coarse_to_full_and_never_below_a_quarter():
    assert LADDER[-1] == (1.0, 1.0, None)
    assert min(quality.scale for quality in LADDER) == SMALLEST_SCALE == 0.25  # 320x180 of 1280x720
    work = [quality.scale**2 + 0.5 * quality.share for quality in LADDER]
    assert work == sorted(work)


@pytest.mark.parametrize("work_s", [0.02, 0.2, 2.0])
def test_the_pace_finds_the_best_quality_that_is_in_time(work_s):
    """A machine whose time is linear in the pixels and the Gaussians."""
    pace = Pace(0.1)
    cost = lambda step: work_s * (LADDER[step].scale ** 2 + 0.5 * LADDER[step].share)  # noqa: E731
    for _ in range(40):
        pace.took(cost(pace.step))
    steps = []
    for _ in range(40):
        steps.append(pace.step)
        pace.took(cost(pace.step))
    in_time = [step for step in range(len(LADDER)) if cost(step) <= 0.1]
    best = max(in_time, default=0)
    assert max(steps) <= best + 1
    assert np.median(steps) in (best, max(best - 1, 0))
    assert np.mean([cost(step) > 0.1 for step in steps]) < 0.2 or not in_time


def test_one_slow_image_is_ignored():
    pace = Pace(0.1)
    for _ in range(20):
        pace.took(0.01)
    before = pace.step
    pace.took(0.15)  # once
    pace.took(0.01)
    assert pace.step >= before - 1


def test_images_are_coarse_while_moving_and_in_full_quality_at_rest(loop, shown):
    loop.request(request())
    assert loop.wait(WAIT)
    assert [image.is_whole for image in shown] == [False, True]
    assert all(image.pixels.shape == (48, 64, 3) for image in shown)  # the window's size at any quality
    assert shown[0].render.image.shape[0] < 48


def test_a_request_at_rest_is_drawn_in_full_quality_at_once(loop, shown):
    loop.request(request(is_moving=False))
    assert loop.wait(WAIT)
    assert [image.is_whole for image in shown] == [True]


def test_only_the_newest_request_is_drawn_in_full_quality(loop, shown):
    requests = [request(i % 6) for i in range(12)]
    for one in requests:
        loop.request(one)
    assert loop.wait(WAIT)
    assert [image.request for image in shown if image.is_whole] == [requests[-1]]
    assert len(shown) < 12


def test_a_full_image_is_canceled_by_a_new_request(loop, shown):
    """The second request arrives while the first is being drawn."""
    entered, go_on = threading.Event(), threading.Event()
    splats = Splats.of(ring_scene(100))

    def slow():
        entered.set()
        go_on.wait(WAIT)
        return [splats]

    first, second = request(is_moving=False, models=slow), request(1, is_moving=False)
    loop.request(first)
    assert entered.wait(WAIT)
    loop.request(second)
    go_on.set()
    assert loop.wait(WAIT)
    assert [image.request for image in shown] == [second]


def test_a_constantly_moving_camera_is_visible(loop, shown):
    end = time.perf_counter() + 1.0
    number = 0
    while time.perf_counter() < end:
        loop.request(request(number % 6))
        number += 1
        time.sleep(0.01)
    assert len(shown) > 2


def test_postprocessing_of_full_size_images(loop, shown):
    loop.request(request(finish=lambda pixels: np.full_like(pixels, 7)))
    assert loop.wait(WAIT)
    assert {int(value) for image in shown for value in np.unique(image.pixels)} == {7}


def test_an_error_is_reported_and_the_loop_continues(shown):
    errors = []
    loop = RenderLoop(shown.append, on_error=errors.append)

    def broken():
        raise ValueError("no such frame")

    loop.request(request(models=broken))
    assert loop.wait(WAIT)
    loop.request(request(is_moving=False))
    assert loop.wait(WAIT)
    loop.close()
    assert [str(error) for error in errors] == ["no such frame"]
    assert len(shown) == 1


def test_closing_ends_the_thread(shown):
    loop = RenderLoop(shown.append)
    loop.request(request())
    loop.close()
    assert not any(thread.name == "rendering" and thread.is_alive() for thread in threading.enumerate())


def test_images_are_those_of_the_camera(loop, shown):
    loop.request(request(2, is_moving=False))
    assert loop.wait(WAIT)
    from vision3d.render import render_views

    want = next(render_views(ring_scene(100), ring_cameras(6, 64, 48)[2])).image.clamp(0, 1)
    assert (torch.from_numpy(shown[0].pixels.copy()).float() / 255 - want).abs().max() < 2 / 255
