import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.support.cube import write_cube
from tests.support.photos import blobs, ring, write_photos
from vision3d import Cameras, GaussianScene, evaluate
from vision3d.core.errors import ConfigError, InputError, MissingDependencyError, NumericalError, Vision3DError
from vision3d.core.install import install_command
from vision3d.core.progress import silent
from vision3d.core.runs import RunFolder, read_metrics
from vision3d.io.dataset import load_dataset
from vision3d.io.images import image_size
from vision3d.scene import PointCloud
from vision3d.scene.gaussians import FLAT_LOG_SCALE
from vision3d.stages.fit import FitConfig, fit
from vision3d.stages.fit.config import AdcConfig, LossConfig, McmcConfig, RatesConfig
from vision3d.stages.fit.trainer import Trainer
from vision3d.stages.fit.world import tidied
from vision3d.training import clock

# Learning rates of a run of some ten steps.
FAST = RatesConfig(means=2e-3, quats=1e-2, sh0=2e-2)
TINY = FitConfig(
    steps=60,
    max_gaussians=80,
    sh_degree=1,
    rates=FAST,
    mcmc=McmcConfig(refine_every=10),
    adc=AdcConfig(refine_every=10),
    log_every=10,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture(scope="module")
def fitted(photos, tmp_path_factory):
    """A finished run."""
    return fit(replace(TINY, steps=150), photos, run_folder=tmp_path_factory.mktemp("run") / "a", progress=silent)


def test_held_out_views_are_reproduced(fitted):
    assert fitted.summary["psnr"] > 25
    assert fitted.summary["psnr"] > fitted.summary["psnr_nearest"] + 3
    assert fitted.summary["above_nearest"] == pytest.approx(fitted.summary["psnr"] - fitted.summary["psnr_nearest"])
    assert len(fitted.evaluation.views) == 2
    assert fitted.summary["steps"] == 150


def test_run_folder_contains_the_results(fitted):
    folder = fitted.run_folder
    scene = GaussianScene.load(folder / "scene.ply")
    assert torch.equal(scene.means, fitted.scene.means)
    assert scene.num_gaussians == fitted.summary["gaussians"] > 60
    assert (folder / "config.yaml").read_text().startswith("# vision3d run")
    assert len(list((folder / "renders").glob("*.png"))) == 2
    assert min(image_size(folder / "contact_sheet.png")) > 100 and min(image_size(folder / "curves.png")) > 100
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_000150.pt"]
    cameras = Cameras.load(folder / "cameras.json")
    torch.testing.assert_close(cameras.viewmats, fitted.cameras.viewmats, atol=1e-5, rtol=1e-5)
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(10, 151, 10))
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    assert 60 < scene.num_gaussians <= lines[-1]["gaussians"] <= 80  # invisible ones are dropped


def test_removing_invisible_gaussians_changes_no_pixel(fitted, photos):
    scene, cameras = fitted.scene, fitted.cameras
    faint, thin, means = scene.opacity_logits.clone(), scene.log_scales.clone(), scene.means.clone()
    faint[:5], thin[5:10, 1] = -6.0, -30.0
    rough = replace(scene, opacity_logits=faint, log_scales=thin)
    lost = replace(rough[10:13], means=torch.tensor([[2e4, 0, 0], [0, 2e4, 0], [0, 0, -2e4]]) + 0 * means[10:13])
    tidy = tidied(rough.merge(lost), cameras, extent=3.0)
    assert len(tidy) < len(scene) - 4  # five too transparent, three too far, and some invisible ones of the fit
    assert tidy.means.abs().max() < 1e3
    assert tidy.log_scales.min() == pytest.approx(math.log(3e-5))
    psnrs = [evaluate(each, photos).mean()["psnr"] for each in (rough, tidy)]
    assert psnrs[1] == pytest.approx(psnrs[0], abs=1e-2)
    invisible = replace(scene, opacity_logits=torch.full_like(faint, -9.0))
    assert len(tidied(invisible, cameras, 3.0)) == len(scene)  # never empty


def test_the_scene_is_in_the_world_of_the_photos(photos, fitted):
    given = load_dataset(photos).cameras
    torch.testing.assert_close(fitted.cameras.viewmats, given.viewmats[~load_dataset(photos).is_test], atol=1e-5, rtol=0)
    assert fitted.scene.means.norm(dim=-1).median() < 1.0  # the blobs are within 0.6 m


def test_fits_do_not_depend_on_scale_and_origin_of_the_world(photos):
    """The same photos in a world 100 times larger and far away give the same quality."""
    images = load_dataset(photos)
    matrix = torch.eye(4)
    matrix[:3] *= 100
    matrix[:3, 3] = torch.tensor([3000.0, -500.0, 800.0])
    moved = replace(
        images,
        cameras=images.cameras.transform(matrix),
        raw_cameras=None,
        points=images.points * 100 + matrix[:3, 3],
    )
    here = fit(replace(TINY, steps=30), images, progress=silent)
    there = fit(replace(TINY, steps=30), moved, progress=silent)
    assert there.summary["psnr"] == pytest.approx(here.summary["psnr"], abs=0.1)
    expected = here.scene.transform(matrix)
    assert (there.scene.means - expected.means).norm(dim=-1).median() < 1.0  # [m], in a scene of size 60


def test_same_seed_same_scene_and_metrics(photos, tmp_path):
    runs = [fit(TINY, photos, run_folder=tmp_path / name, progress=silent) for name in "ab"]
    read = [read_metrics(run.run_folder / "metrics.jsonl") for run in runs]
    lines = [[{key: value for key, value in line.items() if key != "wall_s"} for line in run] for run in read]
    assert lines[0] == lines[1]
    assert torch.equal(runs[0].scene.means, runs[1].scene.means) and torch.equal(runs[0].scene.sh, runs[1].scene.sh)
    other = fit(replace(TINY, seed=1), photos, progress=silent)
    assert not torch.equal(other.scene.quats[:40], runs[0].scene.quats[:40])


@pytest.mark.parametrize("mode", ["3dgs", "2dgs", "flat"])
@pytest.mark.parametrize("strategy", ["mcmc", "adc"])
def test_strategies_and_modes(photos, tmp_path, strategy, mode):
    loss = LossConfig(distortion_start=0.0, normal_start=0.5)
    config = replace(TINY, strategy=strategy, mode=mode, loss=loss, adc=AdcConfig(refine_every=10, grow_grad2d=2e-5))
    result = fit(config, photos, run_folder=tmp_path / "run", progress=silent)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    assert result.scene.mode == mode and result.scene.num_gaussians > 40
    changes = {name for line in lines for name in line}
    assert {"added", "relocated"} <= changes if strategy == "mcmc" else {"duplicated", "split", "pruned"} <= changes
    if mode != "3dgs":
        assert torch.equal(result.scene.log_scales[:, 2], torch.full_like(result.scene.opacity_logits, FLAT_LOG_SCALE))
    else:
        assert float(result.scene.log_scales.min()) > FLAT_LOG_SCALE / 2
    assert GaussianScene.load(tmp_path / "run" / "scene.ply").mode == mode


def test_absolute_gradients_make_adc_grow_more(photos):
    counts = [
        fit(
            replace(TINY, strategy="adc", steps=24, max_gaussians=999, adc=AdcConfig(10, grow_grad2d=2e-4, absgrad=absgrad)),
            photos,
            progress=silent,
        ).scene.num_gaussians
        for absgrad in (False, True)
    ]
    assert counts[1] > counts[0]


def test_random_start(photos, tmp_path):
    result = fit(replace(TINY, init="random", init_count=70), photos, run_folder=tmp_path / "run", progress=silent)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["gaussians"] > 70
    assert result.summary["psnr"] > 12


def test_masked_pixels_have_no_influence(tmp_path):
    """Pixels under a mask are arbitrary: the scene is bitwise the same."""
    mask = torch.ones(48, 48, dtype=torch.bool)
    mask[10:30, 5:25] = False

    def soiled(index, image):
        return torch.where(mask[..., None], image, torch.rand(48, 48, 3))

    clean = write_photos(tmp_path / "clean", masks=[mask] * 12)
    dirty = write_photos(tmp_path / "dirty", masks=[mask] * 12, change=soiled)
    config = replace(TINY, steps=20, init="random", init_count=60)
    runs = [fit(config, path, progress=silent) for path in (clean, dirty)]
    assert torch.equal(runs[0].scene.means, runs[1].scene.means)
    assert runs[0].summary["psnr"] == runs[1].summary["psnr"]
    unmasked = [fit(replace(config, masks=False), path, progress=silent).scene.means for path in (clean, dirty)]
    assert not torch.equal(*unmasked)


def test_random_backgrounds_keep_transparent_parts_empty(tmp_path):
    photos = write_photos(tmp_path / "set", with_alpha=True, background=(1.0, 1.0, 1.0))
    result = fit(replace(TINY, steps=150, background="random"), photos, progress=silent)
    assert result.summary["background"] == [1.0, 1.0, 1.0]  # behind transparent parts of the held-out views
    assert result.summary["psnr"] > 20
    black = load_dataset(photos, background=(0.0, 0.0, 0.0))

    # A scene that had learned the white background would fail on black.
    assert evaluate(result.scene, black, nearest=False).mean()["psnr"] > 20


def test_background_color(tmp_path):
    photos = write_photos(tmp_path / "set", background=(0.0, 1.0, 0.0))
    config = replace(TINY, background="color", background_color=(0.0, 1.0, 0.0))
    told, untold = fit(config, photos, progress=silent), fit(TINY, photos, progress=silent)
    assert told.summary["background"] == [0.0, 1.0, 0.0] and untold.summary["background"] == [0.0, 0.0, 0.0]
    assert told.summary["psnr"] > untold.summary["psnr"] + 3


def test_minutes_limit_the_run(photos, monkeypatch):
    """With a fake clock that advances by one second per call, the run ends within a few calls after its 90 seconds."""
    looks = itertools.count()
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: float(next(looks))))
    summary = fit(replace(TINY, steps=None, minutes=1.5), photos, progress=silent).summary
    assert 0 <= summary["training_s"] - 90 < 5
    assert 20 < summary["steps"] <= 90  # one to four calls per step


def test_steps_limit_a_run_within_its_minutes(photos):
    assert fit(replace(TINY, steps=5, minutes=10.0), photos, progress=silent).summary["steps"] == 5


def test_a_run_without_a_step_fails(photos, tmp_path, cli):
    with pytest.raises(Vision3DError, match="trained 0 steps in --minutes 1e-12; give more minutes") as caught:
        fit(replace(TINY, steps=None, minutes=1e-12), photos, progress=silent)
    assert caught.value.exit_code == 1
    code, _, err = cli("fit", photos, "--minutes", 1e-12, "--out", tmp_path / "run", "--quiet")
    assert code == 1 and err.splitlines() == ["error: trained 0 steps in --minutes 1e-12; give more minutes"]
    assert not (tmp_path / "run" / "scene.ply").exists()


def test_a_scene_worse_than_the_nearest_photo_is_a_warning(photos, tmp_path, cli):
    code, _, err = cli("fit", photos, "--steps", 1, "--max-gaussians", 5, "--out", tmp_path / "run", "--json")
    assert code == 0
    results = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    (warning,) = results["warnings"]
    assert results["psnr"] < results["psnr_nearest"]
    assert warning.startswith(f"held-out PSNR {results['psnr']:.2f} dB after 1 steps is below the")
    assert f"warning: {warning}" in err and warning in (tmp_path / "run" / "report.html").read_text()


def test_small_cache_gives_the_same_scene(photos):
    few = replace(TINY, steps=12, resolution_start=1)
    want = fit(few, photos, progress=silent).scene
    got = fit(replace(few, cache_gb=3 * 48 * 48 * 3 / 1e9), photos, progress=silent).scene
    assert torch.equal(got.means, want.means)


def test_antialiased_scene(photos, tmp_path):
    result = fit(replace(TINY, antialiased=True, steps=10), photos, run_folder=tmp_path / "run", progress=silent)
    assert result.scene.antialiased
    assert GaussianScene.load(tmp_path / "run" / "scene.ply").antialiased


def test_eval_every_adds_held_out_metrics(photos, tmp_path):
    fit(replace(TINY, steps=10, eval_every=5), photos, run_folder=tmp_path / "run", progress=silent)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines if "eval_psnr" in line] == [5, 10]


def test_tensorboard_is_optional(photos, tmp_path):
    config = replace(TINY, steps=10, tensorboard=True)
    with pytest.raises(ConfigError, match="tensorboard: needs a run folder"):
        fit(config, photos, progress=silent)
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=re.escape(install_command("tensorboard"))):
            fit(config, photos, run_folder=tmp_path / "run", progress=silent)
    else:
        fit(config, photos, run_folder=tmp_path / "run", progress=silent)
        assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_tensorboard_has_the_curves(photos, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(replace(TINY, tensorboard=True, eval_every=30), photos, run_folder=tmp_path / "a", progress=silent)
    curves = EventAccumulator(str(tmp_path / "a" / "tensorboard")).Reload()
    for name in ("loss", "eval_psnr"):
        lines = [line for line in read_metrics(tmp_path / "a" / "metrics.jsonl") if name in line]
        assert len(lines) > 1 and [event.step for event in curves.Scalars(name)] == [line["step"] for line in lines]
        assert [event.value for event in curves.Scalars(name)] == pytest.approx([line[name] for line in lines], rel=1e-6)


def test_a_gradient_that_is_not_finite_stops_with_a_checkpoint(photos, tmp_path, monkeypatch):
    render = Trainer._loss
    calls = []

    def poisoned(self, image, view, background):
        calls.append(1)
        loss = render(self, image, view, background)
        return loss * (math.nan if len(calls) == 8 else 1)

    monkeypatch.setattr(Trainer, "_loss", poisoned)
    with pytest.raises(NumericalError, match="step 7: the loss is not finite") as caught:
        fit(TINY, photos, run_folder=tmp_path / "run", progress=silent)
    assert caught.value.quantity == "the loss"
    checkpoint = RunFolder.create(tmp_path / "run", TINY, resume=True).restore()
    assert checkpoint.step == 7
    params = checkpoint.state["trainee"]["model"]["params"]
    assert all(bool(value.isfinite().all()) for value in params.values())


def test_the_gradient_that_is_not_finite_is_named(photos, monkeypatch):
    from vision3d.stages.fit.model import Model

    pull_back = Model.pull_back

    def poisoned(self, leaves):
        pull_back(self, leaves)
        self.params["quats"].grad[3, 1] = math.inf

    monkeypatch.setattr(Model, "pull_back", poisoned)
    with pytest.raises(NumericalError, match="step 0: the gradient of quats is not finite"):
        fit(TINY, photos, progress=silent)


def test_too_few_views(tmp_path):
    photos = write_photos(tmp_path / "set", cameras=ring(4), held_out=(0, 1))
    with pytest.raises(InputError, match=r"2 training views \(2 more are held out\); want at least 3"):
        fit(TINY, photos, progress=silent)


def test_cameras_at_one_position(photos):
    images = load_dataset(photos)
    viewmats = images.cameras.viewmats.clone()
    viewmats[:, :3, 3] = 0
    images = replace(images, cameras=replace(images.cameras, viewmats=viewmats), raw_cameras=None)
    with pytest.raises(InputError, match="all training cameras are at one position"):
        fit(TINY, images, progress=silent)


def test_tiny_images(tmp_path):
    photos = write_photos(tmp_path / "set", cameras=ring(6, size=8), held_out=(0,))
    with pytest.raises(InputError, match=r"images/001\.png has 8x8 px, want at least 11x11"):
        fit(TINY, photos, run_folder=tmp_path / "run", progress=silent)
    assert not (tmp_path / "run").exists()


def test_missing_points(tmp_path):
    photos = write_photos(tmp_path / "set", with_points=False)
    with pytest.raises(InputError, match="has no points; use --init random, or --init sfm"):
        fit(replace(TINY, init="points"), photos, progress=silent)


def test_no_held_out_views(tmp_path, caplog):
    photos = write_photos(tmp_path / "set", held_out=())
    result = fit(replace(TINY, steps=3, split_every=0), photos, progress=silent)
    assert result.evaluation is None and "psnr" not in result.summary
    assert "no view is held out" in caplog.text


def test_summary_is_plain(fitted):
    assert json.loads(json.dumps(fitted.summary)) == fitted.summary


@pytest.mark.slow
def test_initialization_from_points_triangulated_by_pycolmap(tmp_path):
    pytest.importorskip("pycolmap")
    cube = write_cube(tmp_path)
    start = fit(FitConfig(steps=1, init="sfm", sh_degree=0), cube, progress=silent).scene
    assert start.num_gaussians > 300
    assert (start.means.abs().amax(-1) - 1).abs().median() < 0.01


@pytest.mark.slow
def test_500_gaussians_are_recovered(tmp_path):
    photos = write_photos(tmp_path / "set", scene=blobs(500), cameras=ring(40, size=128), held_out=range(0, 40, 5))
    result = fit(FitConfig(steps=1500, max_gaussians=2000, init_count=1000, init="random"), photos, progress=silent)
    assert result.summary["psnr"] > 30


def test_a_fit_from_the_gaussians_of_a_file_starts_with_them(photos, fitted, tmp_path, caplog):
    """Without learning, the result is the file; it was written in the world of the photos."""
    still = RatesConfig(*[1e-12] * 6)
    path = fitted.run_folder / "scene.ply"
    config = replace(TINY, steps=2, init=path, rates=still)
    with caplog.at_level("INFO", logger="vision3d"):
        again = fit(config, photos, progress=silent)
    assert f"{len(fitted.scene)} initial Gaussians ({path})" in caplog.text
    assert again.summary["psnr"] == pytest.approx(fitted.summary["psnr"], abs=0.1)
    assert again.summary["psnr"] > fit(replace(TINY, steps=2), photos, progress=silent).summary["psnr"] + 5


def test_a_fit_from_the_points_of_a_file(photos, tmp_path, caplog):
    PointCloud(torch.rand(30, 3), torch.rand(30, 3)).save(tmp_path / "points.ply")
    with caplog.at_level("INFO", logger="vision3d"):
        fit(replace(TINY, steps=1, init=tmp_path / "points.ply"), photos, progress=silent)
    assert "30 initial Gaussians (points of a file)" in caplog.text


def test_files_that_a_fit_cannot_start_from(photos, fitted, tmp_path):
    scene = fitted.scene
    scene.save(tmp_path / "a.ply")
    for change, text in (
        ({"max_gaussians": 20}, rf"a\.ply: {len(scene)} Gaussians are more than --max-gaussians 20"),
        ({"mode": "2dgs"}, r"a\.ply: holds Gaussians of mode 3dgs; fit with --mode 3dgs"),
        ({"init": tmp_path / "none.ply"}, r"none\.ply: does not exist"),
    ):
        with pytest.raises(InputError, match=text):
            fit(replace(TINY, **({"init": tmp_path / "a.ply"} | change)), photos, progress=silent)
    with pytest.raises(ConfigError, match=r"init: got 'pointz', want auto, points, random, sfm, or a file"):
        FitConfig(init=Path("pointz"))


def test_a_fit_from_a_file_on_the_command_line(cli, photos, fitted, tmp_path):
    options = ("--steps", 1, "--max-gaussians", 80, "--sh-degree", 1, "--quiet", "--out", tmp_path / "out")
    code, _, err = cli("fit", photos, "--init", fitted.run_folder / "scene.ply", *options)
    assert code == 0, err
    assert "scene.ply" in (tmp_path / "out" / "config.yaml").read_text()
    assert cli("fit", photos, "--init", "pointz", *options)[0] == 2
