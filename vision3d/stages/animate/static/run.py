"""The static stage: checks, training, and output."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from vision3d.core.device import resolve_backend, resolve_device
from vision3d.core.errors import ConfigError, FileFormatError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.io.dataset import WHITE
from vision3d.io.images import write_image
from vision3d.optim import metrics
from vision3d.report import write_run_curves
from vision3d.report.evaluation_sheet import write_evaluation_sheet
from vision3d.scene import Cameras, Mesh, MeshGaussians, PosedImages
from vision3d.stage import stage
from vision3d.stages.animate.cover import warn_of_cover
from vision3d.stages.animate.guidance import Guidance, check_time, load_guidance
from vision3d.stages.animate.guidance.base import Guide
from vision3d.stages.animate.orbits import Orbit
from vision3d.stages.animate.static.config import GROWS, RESUMABLE, StaticConfig
from vision3d.stages.animate.static.images import TargetImages, before_after, draw, load_images, shrunk
from vision3d.stages.animate.static.inflate import inflated_mesh
from vision3d.stages.animate.static.reference import opaque_pixels, reference_images
from vision3d.stages.animate.static.surface import checked_mesh, load_surface
from vision3d.stages.animate.static.trainer import StaticTrainer
from vision3d.training.evaluation import Evaluation, check_held_out, evaluate
from vision3d.training.loop import Loop

logger = logging.getLogger("vision3d.animate")

_SHOWN = 4  # views of the image before and after
_SIDE, _SIDES = 256, ("input view", "quarter turn", "from behind", "three quarters")  # [px], counter-clockwise from above
_FROM_ELSEWHERE = "the image has another viewpoint or shape; want its viewpoint (--view.*) or its camera (--camera FILE)"
_OF_ANOTHER = "want its camera in the world frame of the mesh, and a mesh of its object"
INFLATED = "inflated silhouette, the back mirrors the front; not measured"


@dataclass(frozen=True)
class StaticResult:
    """Result of the static stage."""

    gaussians: MeshGaussians
    """In the world of the mesh."""
    evaluation: Evaluation | None
    """Metrics on the held-out views; None without held-out views."""
    summary: dict[str, Any]
    """Results as plain values: psnr and ssim of held-out views, before and after, Gaussians, steps, times, guidance."""
    run_folder: Path | None = None
    """The run folder, if any."""


@stage(
    "animate static",
    {name: name for name in ("mesh", "data", "image", "camera", "guidance", "force")},
    resumable=RESUMABLE,
    grows=GROWS,
)
def bind_gaussians(
    config: StaticConfig,
    mesh: Mesh | MeshGaussians | Path | str | None = None,
    *,
    data: PosedImages | Path | str | None = None,
    image: Path | str | None = None,
    camera: Cameras | None = None,
    guidance: Path | str | None = None,
    force: bool = False,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> StaticResult:
    """Bind Gaussians to the faces of a mesh, and refine them on images.

    Args:
        config: Options.
        mesh: A mesh with a texture, colors or neither, or Gaussians on one to continue from; or its path. None: the silhouette
            of `image`, inflated; an initial shape whose back mirrors its front.
        data: Photos of it with cameras in its world, or their path.
        image: One image with an alpha channel or a plain background, instead of `data`.
        camera: The camera of `image`; by default that of `config.view`.
        guidance: Folder of a Zero123-class pipeline (see `guidance.load_guidance`) that guides the appearance of the object of
            `image` from other sides.
        force: Run the guidance on a CPU even if it takes long.
        run_folder: Where to write; with a `RunFolder` that has checkpoints the run resumes from the newest. None: nothing
            is written.
        progress: Progress callback.

    Raises:
        InputError: The mesh has no faces, an image or mask is invalid, or no camera sees the mesh.
        ConfigError: No images or both kinds, or the run folder belongs to a run with other options or input.
        BackendError: A guidance would take long on a CPU; the message has the estimate.
        MissingDependencyError: A guidance needs diffusers or transformers.
        NumericalError: The loss or a gradient is not finite; a checkpoint of the previous step was written.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.

    Example:
        >>> from vision3d.stages.animate import StaticConfig, bind_gaussians
        >>> result = bind_gaussians(StaticConfig(per_face=3), "fox.glb", data="photos", run_folder="runs/fox")
        >>> result.summary["psnr_before"], result.summary["psnr"]
    """
    if data is not None and image is not None:
        raise ConfigError("--data, --image", "got both; want photos with cameras, or one image")
    if data is None and image is None and config.steps:
        raise ConfigError("--data or --image", "got neither, want one to refine to; --steps 0 only binds Gaussians")
    for name, value in (("--camera", camera), ("--guidance", guidance)):
        if value is not None and image is None:
            raise ConfigError(name, "goes with --image, which is not given")
    if mesh is None and image is None:
        raise ConfigError("MESH", "is missing; want a mesh, or --image to inflate its silhouette")
    device = resolve_device(config.device, backend=config.backend)
    resolve_backend(config.backend, device)
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    with TemporaryDirectory(prefix="vision3d_") as scratch:
        bound, said, images, orbit = _inputs(config, mesh, data, image, camera, Path(scratch))
        guide = None
        if guidance is not None and images is not None:
            guide = Guide(_guidance(config, guidance, images, device, force), orbit.to(device), images.cameras.to(device))
        stage = _Static(config, bound.to(device), images, orbit, guide, run_folder, progress)
        if mesh is not None and image is not None and images is not None:
            _check_cover(bound.mesh, images, by="--view" if camera is None else "--camera")
        named = [_name(mesh), *([] if images is None else [os.path.abspath(images.source)])]
        named += [] if guide is None else [stage.label]
        stage.restore(" + ".join(named))
        stage.train()
        return stage.finish(said)


class _Static:
    """One run, from checked inputs to files."""

    def __init__(
        self,
        config: StaticConfig,
        bound: MeshGaussians,
        images: PosedImages | None,
        orbit: Orbit,
        guide: Guide | None,
        folder: RunFolder | None,
        callback: ProgressCallback | None,
    ) -> None:
        self.config, self.bound, self.orbit, self.folder, self.callback = config, bound, orbit, folder, callback
        self.targets = self.trainer = None
        self.label = "none" if guide is None else guide.guidance.label
        self.loop: Loop | None = None
        if images is None:
            return
        self.targets = TargetImages.of(images, bound.mesh.to("cpu"), config)
        views = self.targets.views(config, bound.device)
        with Progress(views.num_cached, "read", callback) as bar:
            views.read_all(bar.update)
        check_held_out(self.targets.images, masks=config.masks != "none")
        self.trainer = StaticTrainer(config, bound, self.targets, views, guide)
        logger.info("guidance: %s", self.label)

    def restore(self, source: str) -> None:
        """Resume from the newest checkpoint of the run folder, if there is one."""
        if self.trainer is None or not self.config.steps:
            return
        config = self.config
        self.loop = Loop(
            "refine", source=source, steps=config.steps, folder=self.folder, log_every=config.log_every,
            checkpoint_every=config.checkpoint_every, callback=self.callback,
        )  # fmt: skip
        if self.loop.saved is None:
            return
        try:
            self.trainer.load_state_dict(self.loop.saved)
        except (KeyError, RuntimeError) as error:
            assert self.folder is not None
            raise FileFormatError(self.folder.checkpoints.path, "the checkpoint belongs to a different mesh") from error

    def train(self) -> None:
        """Do all remaining steps."""
        if self.trainer is None:
            return
        if self.trainer.before is None:
            evaluation = self._evaluate(self.bound, None)
            self.trainer.before = {} if evaluation is None else evaluation.mean()
        if self.loop is not None:
            self.loop.run(self.trainer)

    def finish(self, said: dict[str, Any]) -> StaticResult:
        """Evaluate the Gaussians and write the results."""
        gaussians = (self.bound if self.trainer is None else self.trainer.model.finished()).to("cpu").validate()
        path = None if self.folder is None else self.folder.path
        if path is not None:
            gaussians.save(path / "gaussians.safetensors")
        evaluation = self._evaluate(gaussians, None if path is None else path / "renders")
        before = None if self.trainer is None else self.trainer.before
        summary: dict[str, Any] = {
            **({} if evaluation is None else evaluation.mean()),
            **{f"{name}_before": before[name] for name in ("psnr", "ssim") if before},
            "gaussians": gaussians.num_gaussians,
            "faces": gaussians.mesh.num_faces,
            **said,
            "mean_vertex_shift": self._mean_shift(gaussians),
            "steps": 0 if self.loop is None else self.loop.step,
            "training_s": 0.0 if self.loop is None else round(self.loop.seconds, 3),
            "guidance": self.label,
            "device": str(self.bound.device),
        }
        if self.targets is not None:
            images = self.targets.images
            summary |= {"training_views": len(images.train), "held_out_views": len(images.test)}
            if len(images) == 1:
                summary["psnr_of_the_fitted_view"] = self._fitted_psnr(gaussians)
            if path is not None:
                self._write_images(path, gaussians, evaluation, summary)
        return StaticResult(gaussians, evaluation, summary, path)

    def _evaluate(self, gaussians: MeshGaussians, renders: Path | None) -> Evaluation | None:
        """Metrics on the held-out views."""
        if self.targets is None or len(self.targets.images.test) == 0:
            return None
        return evaluate(
            gaussians.to_gaussians(), self.targets.images, background=self.targets.background, valid=self.targets.valid,
            masks=self.config.masks != "none", renders=renders, device=str(self.bound.device), backend=self.config.backend,
            progress=self.callback,
        )  # fmt: skip

    def _mean_shift(self, gaussians: MeshGaussians) -> float:
        """Mean displacement of the vertices, in longest sides of the mesh's box."""
        shifts = gaussians.mesh.vertices - self.bound.mesh.vertices.cpu()
        return float(torch.linalg.vector_norm(shifts, dim=-1).mean()) / self.orbit.size

    def _fitted_psnr(self, gaussians: MeshGaussians) -> float:
        """PSNR on the single training image, which does not measure other views [dB]."""
        assert self.targets is not None
        photo, _, camera = self.targets.images.read(0)
        return metrics.psnr(self._draw(gaussians, camera)[0], photo)

    def _draw(self, gaussians: MeshGaussians, cameras: Cameras) -> list[torch.Tensor]:
        assert self.targets is not None
        scene = gaussians.to(self.bound.device).to_gaussians()
        return draw(scene, cameras, self.targets.background, self.config.backend)

    def _write_images(
        self, path: Path, gaussians: MeshGaussians, evaluation: Evaluation | None, summary: dict[str, Any]
    ) -> None:
        assert self.targets is not None
        images = self.targets.images
        images.cameras.save(path / "cameras.json")
        if evaluation is not None:
            evaluation.save(path / "eval.json")
            write_evaluation_sheet(path / "contact_sheet.png", path / "renders", evaluation, summary)
        elif len(images) > 1:
            logger.warning("no view is held out, so quality is not measured")
        shown = images.test.tolist() or images.train.tolist()
        cameras = images.cameras[shown[:_SHOWN]]
        photos = [images.read(i)[0] for i in shown[:_SHOWN]]
        columns = [photos, self._draw(self.bound, cameras), self._draw(gaussians, cameras)]
        write_image(path / "figures" / "before_after.png", before_after(list(zip(*columns)), ("image", "before", "after")))
        if len(images) == 1:
            around = self._draw(gaussians, self.orbit.around(images.cameras, _SIDE, len(_SIDES)))
            write_image(path / "figures" / "around.png", before_after([around], _SIDES))
        write_run_curves(path / "curves.png", path)


def _inputs(
    config: StaticConfig,
    mesh: Mesh | MeshGaussians | Path | str | None,
    data: PosedImages | Path | str | None,
    image: Path | str | None,
    camera: Cameras | None,
    scratch: Path,
) -> tuple[MeshGaussians, dict[str, Any], PosedImages | None, Orbit]:
    """The initial Gaussians, statistics about them, the images, and directions around the object."""
    if mesh is None:
        assert image is not None
        orbit = Orbit.unit(config.view.up)
        images = shrunk(reference_images(image, config.view, orbit, scratch, camera), config.max_size)
        bound, said = _bound(config, inflated_mesh(images, orbit, config.cells))
        return bound, {**said, "shape": INFLATED}, images, orbit
    bound, said = _bound(config, mesh, of_photos=data is not None)
    orbit = Orbit.about(bound.mesh.vertices, config.view.up, _suffix(mesh))
    if image is not None:
        images = shrunk(reference_images(image, config.view, orbit, scratch, camera), config.max_size)
    elif data is None or isinstance(data, PosedImages):
        images = None if data is None else shrunk(data.validate(), config.max_size)
    else:
        images = load_images(data, config)
    return bound, said, images, orbit


def _check_cover(mesh: Mesh, images: PosedImages, by: str) -> None:
    """Warn if the mesh does not match the single image, seen from the camera given by `by`."""
    want = _FROM_ELSEWHERE if by == "--view" else _OF_ANOTHER
    warn_of_cover(mesh, images.cameras, opaque_pixels(images)[None], f"{images.source} as {by} sees it", want)


def _guidance(config: StaticConfig, folder: Path | str, images: PosedImages, device: torch.device, force: bool) -> Guidance:
    """The guidance by an image, unless it would take too long."""
    reference = replace(images, background=WHITE).read(0)[0]
    guidance = load_guidance(folder, reference[None], config.sds, device)
    check_time(guidance, config.steps, config.sds.views, config.sds.size, device, force=force)
    return guidance


def _bound(
    config: StaticConfig, source: Mesh | MeshGaussians | Path | str, *, of_photos: bool = False
) -> tuple[MeshGaussians, dict[str, Any]]:
    """The initial Gaussians, and statistics about their mesh."""
    value = source.to("cpu") if isinstance(source, Mesh | MeshGaussians) else load_surface(source, of_photos=of_photos)
    if isinstance(value, MeshGaussians):
        value.validate()
        if config.parts == "largest":
            raise ConfigError("parts", "largest is for meshes; these Gaussians are already bound to one")
        return value, checked_mesh(value.mesh, name=_name(source))[1]
    mesh, said = checked_mesh(value, config.parts, _name(source))
    return MeshGaussians.from_mesh(mesh, config.per_face, opacity=config.opacity, shape=config.shape), said


def _name(source: Mesh | MeshGaussians | Path | str | None) -> str:
    if source is None:
        return INFLATED
    return type(source).__name__ if isinstance(source, Mesh | MeshGaussians) else os.path.abspath(source)


def _suffix(source: Mesh | MeshGaussians | Path | str) -> str:
    return "" if isinstance(source, Mesh | MeshGaussians) else Path(source).suffix
