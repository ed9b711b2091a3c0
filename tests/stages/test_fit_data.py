import math
from types import SimpleNamespace

import pytest
import torch

from tests.support.photos import ring, write_photos
from vision3d.core.errors import ConfigError, FileFormatError
from vision3d.core.progress import silent
from vision3d.io.dataset import load_dataset
from vision3d.optim.training_views import TrainingViews
from vision3d.scene import Cameras
from vision3d.stages.fit import FitConfig, fit
from vision3d.stages.fit.config import LossConfig, RatesConfig
from vision3d.stages.fit.initial import FARTHEST, NEAREST, focus_distance, random_points
from vision3d.stages.fit.world import World
from vision3d.training.clock import Clock


def views_of(path, **options):
    images = load_dataset(path)
    defaults = {"masks": True, "with_alpha": False, "cache_bytes": 1e9, "device": torch.device("cpu")}
    views = TrainingViews(images, images.train, **{**defaults, **options})
    views.read_all(lambda done: None)
    return images, views


def test_unreadable_image_is_found_before_training(tmp_path):
    photos = write_photos(tmp_path / "set")
    path = photos / "images" / "004.png"
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(FileFormatError, match=r"004\.png"):
        fit(FitConfig(steps=1), photos, progress=silent)


def test_clock_of_steps():
    clock = Clock(10, None)
    assert [clock.progress(step) for step in (0, 5, 10, 11)] == [0.0, 0.5, 1.0, 1.0]
    assert clock.steps_expected(3, 0.3) == 10


def test_the_clock_starts_at_the_first_step(monkeypatch):
    now = iter([100.0, 130.0])
    monkeypatch.setattr("vision3d.training.clock.time", SimpleNamespace(perf_counter=lambda: next(now)))
    clock = Clock(None, 60.0)
    assert clock.seconds() == 0  # excludes earlier work such as structure from motion
    clock.start()
    assert clock.progress(1) == pytest.approx(0.5)


def test_clock_of_seconds_continues_from_earlier_sessions():
    clock = Clock(None, 100.0, seconds=50.0)
    assert clock.progress(0) == pytest.approx(0.5, abs=0.02)
    assert clock.steps_expected(20, 0.5) == 40
    assert Clock(10, 100.0, seconds=30.0).progress(8) == pytest.approx(0.8)
    assert Clock(None, 1.0, seconds=2.0).progress(0) == 1.0


def test_normalization_round_trip():
    cameras = ring(6)
    world = World.around(cameras)
    assert world.extent == pytest.approx(1.1 * float((cameras.centers - cameras.centers.mean(0)).norm(dim=-1).max()))
    inside = world.cameras_in(cameras)
    assert float(inside.centers.norm(dim=-1).max()) == pytest.approx(1 / 1.1, rel=1e-5)
    torch.testing.assert_close(world.cameras_out(inside).viewmats, cameras.viewmats, atol=1e-6, rtol=1e-6)
    points = torch.randn(5, 3)
    want = (points @ cameras.viewmats[0, :3, :3].mT + cameras.viewmats[0, :3, 3]) / world.extent
    got = world.points_in(points) @ inside.viewmats[0, :3, :3].mT + inside.viewmats[0, :3, 3]
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


def test_random_points_are_visible_and_have_the_colors_of_their_pixels(tmp_path):
    photos = write_photos(tmp_path / "set")
    images, views = views_of(photos)
    world = World.around(images.cameras[images.train])
    points, colors = random_points(views, world, 500, torch.Generator().manual_seed(0))
    cameras = world.cameras_in(views.cameras)
    focus = focus_distance(cameras)
    assert focus == pytest.approx(float(images.cameras.centers.norm(dim=-1).median()) / world.extent, rel=0.05)
    depths = (points @ cameras.viewmats[:, 2, :3].T + cameras.viewmats[:, 2, 3]) / focus
    assert bool(((depths > NEAREST - 1e-3) & (depths < FARTHEST + 1e-3)).any(1).all())
    palette = {tuple(color) for i in range(len(views)) for color in views.get(i, 1).image.flatten(0, 1).tolist()}
    assert {tuple(color) for color in colors.tolist()} <= palette


def test_focus_of_parallel_cameras():
    camtoworlds = torch.eye(4).repeat(4, 1, 1)
    camtoworlds[:, 0, 3] = torch.arange(4.0)
    K = torch.tensor([[50.0, 0, 24], [0, 50, 24], [0, 0, 1]])
    assert focus_distance(Cameras.from_camtoworlds(camtoworlds, K, 48, 48)) == 2.0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FitConfig(steps=0), "steps: got 0, want a number > 0"),
        (lambda: FitConfig(steps=-3), "steps: got -3, want a number > 0"),
        (lambda: FitConfig(minutes=math.inf), "minutes: got inf, want a number > 0"),
        (lambda: FitConfig(seed=2**63), r"seed: got 9223372036854775808, want less than 2\^63"),
        (lambda: FitConfig(minutes=-1.0), "minutes: got -1.0, want a number > 0"),
        (lambda: FitConfig(max_gaussians=0), "max_gaussians: got 0, want at least 1"),
        (lambda: FitConfig(sh_degree=5), "sh_degree: got 5, want 0 to 4"),
        (lambda: FitConfig(resolution_start=3), "resolution_start: got 3, want 1, 2, 4 or 8"),
        (lambda: FitConfig(resolution_doublings=(0.5, 0.2)), "resolution_doublings: got"),
        (lambda: FitConfig(alpha_max=1.0), r"alpha_max: got 1.0, want a number in \(0, 0.9999\)"),
        (lambda: FitConfig(background_color=(0.0, 0.0, 2.0)), "background_color: got"),
        (lambda: FitConfig(downscale=0.5), "downscale: got 0.5, want a number >= 1"),
        (lambda: FitConfig(mode="2dgs", antialiased=True), "antialiased: is for modes 3dgs and flat"),
        (lambda: RatesConfig(means=math.nan), "means: got nan, want a number >= 0"),
        (lambda: LossConfig(ssim=1.5), r"ssim: got 1.5, want a number in \[0, 1\]"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_default_length():
    assert FitConfig().total_steps == 7000
    assert FitConfig(minutes=1.0).total_steps is None
    assert FitConfig(minutes=1.0, steps=5).total_steps == 5
