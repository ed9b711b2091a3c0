"""The fit: checks, training, and output."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.device import resolve_backend, resolve_device
from vision3d.core.errors import ConfigError, InputError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.optim.training_views import TrainingViews
from vision3d.report import write_run_curves
from vision3d.report.evaluation_sheet import write_evaluation_sheet
from vision3d.scene import Cameras, GaussianScene, PosedImages
from vision3d.stage import stage
from vision3d.stages.fit.config import GROWS, RESUMABLE, FitConfig
from vision3d.stages.fit.initial import initial_scene
from vision3d.stages.fit.model import scene_of
from vision3d.stages.fit.poses import without_drift, world_drift
from vision3d.stages.fit.snapshot import snapshot_state
from vision3d.stages.fit.trainer import Trainer
from vision3d.stages.fit.world import World, tidied
from vision3d.training.evaluation import BLACK, Evaluation as Measured, background_of, check_held_out, evaluate
from vision3d.training.group import Group
from vision3d.training.loop import Evaluation, Loop

logger = logging.getLogger("vision3d.fit")

MIN_VIEWS = 3
SFM_FOLDER = "sfm"
"""Folder in a run: the cameras found by `sfm`, a COLMAP model with its photos."""


@dataclass(frozen=True)
class FitResult:
    """Result of a fit."""

    scene: GaussianScene
    """The Gaussians in the world of the photos."""
    cameras: Cameras
    """The training cameras, with corrected poses if requested."""
    exposures: Float[Tensor, "m 3 4"] | None
    """Color transform of each training view, photo = A render + b, if requested."""
    evaluation: Measured | None
    """Metrics on the held-out views; None without held-out views."""
    summary: dict[str, Any]
    """Results as plain values: mean psnr, ssim, ... of the held-out views, Gaussians, steps, times."""
    run_folder: Path | None = None
    """The run folder, if any."""


@stage("fit", {"inputs": "data"}, resumable=RESUMABLE, grows=GROWS)
def run(
    config: FitConfig,
    inputs: PosedImages | Path | str,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fit Gaussians to photos with cameras.

    Args:
        config: Options.
        inputs: The photos, or the folder or file to read them from.
        run_folder: Where to write; with a `RunFolder` that has checkpoints the run resumes from the newest. None: nothing
            is written.
        progress: Progress callback.

    Raises:
        InputError: There are too few views, or an image, pose or mask is invalid.
        ConfigError: The run folder belongs to a run with other options or other photos.
        NumericalError: The loss or a gradient is not finite; a checkpoint of the previous step was written.
        Vision3DError: The time was over before the first step.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written, unless `sfm` was still running.

    Example:
        >>> from vision3d.stages.fit import FitConfig, fit
        >>> result = fit(FitConfig(steps=2000), "data/fox", run_folder="runs/fox")
        >>> result.summary["psnr"], result.scene.num_gaussians
    """
    group = Group.current()
    device = resolve_device(config.device, backend=config.backend)
    resolve_backend(config.backend, device)
    group.share(config.batch_size)
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    if run_folder is None and config.tensorboard and group.is_first:  # before the photos are read
        raise ConfigError("tensorboard", "needs a run folder to write to")
    images = _loaded(config, inputs, run_folder, group, progress)
    fit = _Fit(config, images, group, device, run_folder, progress)
    fit.loop.run(fit.trainer)
    return fit.finish()


class _Fit:
    """One run, from checked inputs to files."""

    def __init__(
        self,
        config: FitConfig,
        images: PosedImages,
        group: Group,
        device: torch.device,
        folder: RunFolder | None,
        progress: ProgressCallback | None,
    ) -> None:
        self.config, self.images, self.group = config, images, group
        self.folder, self.callback = folder, progress
        self.world = World.around(images.cameras[images.train])
        self.background = images.background if config.background == "color" else background_of(images)
        self.views = TrainingViews(
            images, images.train, masks=config.masks, with_alpha=config.background == "random",
            depth_scale=1 / self.world.extent if config.loss.depth > 0 else None,
            cache_bytes=1e9 * config.cache_gb, device=device,
        )  # fmt: skip
        with Progress(self.views.num_cached, "read", progress) as bar:
            self.views.read_all(bar.update)
        if group.is_first:
            check_held_out(images, masks=config.masks)
        self.loop = Loop(
            "fit",
            source=_source(self.views.names),
            steps=config.total_steps,
            minutes=config.minutes,
            folder=folder,
            log_every=config.log_every,
            checkpoint_every=config.checkpoint_every,
            evaluation=Evaluation(config.eval_every, self._measure, best="psnr"),
            means=("loss",),
            latest=("gaussians", "progress"),
            shown=("loss", "gaussians"),
            tensorboard=config.tensorboard,
            extra=lambda: {"snapshot": snapshot_state(self.world, *self._settled())},
            group=group,
            callback=progress,
        )
        saved = self.loop.saved
        if saved is None:
            scene = initial_scene(config, images, self.views, self.world, progress)
        else:
            scene = scene_of(saved["model"]["params"], config)
        behind = None if self.background == BLACK else torch.tensor(self.background, device=device)
        cameras = self.world.cameras_in(self.views.cameras)
        self.trainer = Trainer(config, scene.to(device), self.views, cameras, behind, group)
        if saved is not None:
            self.trainer.load_state_dict(saved)

    def finish(self) -> FitResult:
        """Evaluate the scene and write the results."""
        seconds, steps = self.loop.seconds, self.loop.step
        scene, cameras = self._results()
        scene = tidied(scene, cameras, self.world.extent, self.config.alpha_max)
        path = None if self.folder is None else self.folder.path
        if path is not None:
            scene.save(path / "scene.ply")
            cameras.save(path / "cameras.json")
        evaluation = self._evaluation(scene, path) if self.group.is_first else None
        means = evaluation.mean() if evaluation else {}
        warnings = _warnings(means, steps)
        for text in warnings:
            logger.warning(text)
        summary = {
            **means,
            "gaussians": scene.num_gaussians,
            "steps": steps,
            "training_s": round(seconds, 3),
            "training_views": len(self.views),
            "held_out_views": len(self.images.test),
            "background": list(self.background),
            "device": str(scene.device),
            **({"cameras_found": found} if (found := _cameras_found(path)) else {}),
            **({"warnings": warnings} if warnings else {}),
        }
        if path is not None:
            if evaluation is not None:
                evaluation.save(path / "eval.json")
                write_evaluation_sheet(path / "contact_sheet.png", path / "renders", evaluation, summary)
            write_run_curves(path / "curves.png", path)
        return FitResult(scene, cameras, self.trainer.exposure_matrices(), evaluation, summary, path)

    def _measure(self) -> dict[str, float]:
        evaluation = self._evaluation(self._results()[0], None)
        return {} if evaluation is None else evaluation.mean()

    def _evaluation(self, scene: GaussianScene, path: Path | None) -> Measured | None:
        if len(self.images.test) == 0:
            logger.warning("no view is held out, so quality is not measured (--split-every 8)")
            return None
        return evaluate(
            scene,
            self.images,
            background=self.background,
            alpha_max=self.config.alpha_max,
            masks=self.config.masks,
            exposed=self.config.exposure_opt,
            renders=None if path is None else path / "renders",
            device=str(scene.device),
            backend=self.config.backend,
            progress=self.callback,
        )

    def _results(self) -> tuple[GaussianScene, Cameras]:
        """The current Gaussians and training cameras in the world of the photos, without drift."""
        scene, (cameras, drift) = self.world.scene_out(self.trainer.scene()), self._settled()
        return (scene if drift is None else without_drift(scene, drift)), cameras

    def _settled(self) -> tuple[Cameras, Tensor | None]:
        """The current training cameras without drift, and the similarity that removed it from them; None without `pose_opt`."""
        cameras = self._cameras()
        if not self.config.pose_opt:
            return cameras, None
        drift = world_drift(cameras, self.views.cameras, self.world.extent)
        return cameras.transform(drift.to(cameras.viewmats)), drift

    def _cameras(self) -> Cameras:
        """The current training cameras, in the world of the photos."""
        return self.world.cameras_out(replace(self.views.cameras, viewmats=self.trainer.corrected_viewmats().cpu()))


def _source(names: Sequence[str]) -> str:
    """Description of the data of a run, for its checkpoints and messages."""
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return f"{len(names)} photos ({names[0]} to {names[-1]}, {digest})"


def _warnings(means: dict[str, float], steps: int) -> list[str]:
    """Problems of a result, one sentence each."""
    if means.get("above_nearest", 0.0) >= 0:
        return []
    return [
        f"held-out PSNR {means['psnr']:.2f} dB after {steps} steps is below the {means['psnr_nearest']:.2f} dB of showing the "
        "nearest training photo instead; train longer (--minutes, --steps), or check the cameras"
    ]


def _cameras_found(path: Path | None) -> dict[str, Any]:
    """Summary of `sfm`, from the run folder."""
    from vision3d.io.sfm import read_summary

    return {} if path is None else read_summary(path / SFM_FOLDER)


def _check_depth(config: FitConfig, images: PosedImages) -> None:
    """Raise for a weight without depth maps, and mention depth maps without a weight."""
    count = sum(images.depth_paths[i] is not None for i in images.train.tolist()) if images.depth_paths is not None else 0
    if config.loss.depth > 0 and count == 0:
        raise ConfigError("loss.depth", f"got {config.loss.depth}, but no training view of {images.source} has a depth map")
    if config.loss.depth == 0 and count > 0:
        logger.info("%d training views have depth maps, which are not used (--loss.depth 0.5)", count)


def _loaded(
    config: FitConfig,
    inputs: PosedImages | Path | str,
    folder: RunFolder | None,
    group: Group,
    progress: ProgressCallback | None,
) -> PosedImages:
    """The checked photos; with `sfm` process 0 finds the cameras, in the run folder, and the others read them."""
    if isinstance(inputs, PosedImages):
        images = inputs
    else:
        from vision3d.io.dataset import WHITE, load_dataset

        def load(sfm_folder: str | None) -> PosedImages:
            return load_dataset(
                inputs,
                split_every=config.split_every,
                downscale=config.downscale,
                skip_missing=config.skip_missing,
                background=config.background_color or WHITE,
                sfm=config.sfm,
                sfm_folder=sfm_folder,
                progress=progress,
            )

        sfm_folder = None if folder is None else str(folder.path / SFM_FOLDER)
        images = load(sfm_folder) if group.is_first else None
        sfm_folder = group.from_first(sfm_folder)  # the others wait here
        images = images or load(sfm_folder)
    if config.background_color is not None:
        images = replace(images, background=config.background_color)
    images.validate()
    if images.cameras.model != "pinhole":
        raise InputError(f"{images.source}: cameras are {images.cameras.model}; fit takes pinhole cameras")
    _check_depth(config, images)
    if len(images.train) < MIN_VIEWS:
        held = f" ({len(images.test)} more are held out)" if len(images.test) else ""
        raise InputError(f"{images.source}: {len(images.train)} training views{held}; want at least {MIN_VIEWS}")
    return images
