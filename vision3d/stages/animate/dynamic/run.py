"""The stage: checks, training, and output."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.core.device import resolve_device
from vision3d.core.errors import ConfigError, InputError
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.geometry import mesh as geometry
from vision3d.geometry.deformation_graph import DeformationGraph
from vision3d.report import write_run_curves
from vision3d.scene import Cameras, FrameSequence, Mesh, MeshGaussians, SkinnedMesh
from vision3d.stage import stage
from vision3d.stages.animate.cover import cover, warn_of_cover
from vision3d.stages.animate.dynamic.checks import frame_ious, motion_warnings, stretched_edges
from vision3d.stages.animate.dynamic.config import GROWS, RESUMABLE, AnimateConfig
from vision3d.stages.animate.dynamic.evaluation import MotionEvaluation, evaluate_motion, vertex_errors
from vision3d.stages.animate.dynamic.footage import Footage, hold_out, read_footage
from vision3d.stages.animate.dynamic.joints import JointTree
from vision3d.stages.animate.dynamic.motion import Motion, all_vertices, moving_skin
from vision3d.stages.animate.dynamic.outputs import write_comparison, write_iou_curves, write_sheet
from vision3d.stages.animate.dynamic.painters import make_painter, with_views
from vision3d.stages.animate.dynamic.placing import place_camera
from vision3d.stages.animate.dynamic.pose_search import is_searched
from vision3d.stages.animate.dynamic.surface_rig import surface_skin
from vision3d.stages.animate.dynamic.trainer import Trainer
from vision3d.stages.animate.guidance import check_time, load_guidance
from vision3d.stages.animate.guidance.base import Guide
from vision3d.stages.animate.orbits import Orbit
from vision3d.training.loop import Loop

logger = logging.getLogger("vision3d.animate")

FRAMES, CLIP, VIDEO = "frames.zarr", "animated.glb", "comparison.mp4"
_AT_REST = 0.97  # minimum IoU of the mesh and the masks of a frame in the rest pose


@dataclass(frozen=True)
class AnimateResult:
    """An animated mesh fitted to a clip."""

    sequence: FrameSequence
    """Gaussians on the mesh, and its vertices in each frame."""
    skin: SkinnedMesh
    """The mesh with one morph target per frame, a clip that plays them, and the blend factors of hybrid skinning; `save` writes
    a .glb."""
    motion: Motion
    """The motion at any time."""
    cameras: Cameras
    """One camera per image of the clip."""
    evaluation: MotionEvaluation
    """Metrics of every image."""
    summary: dict[str, Any]
    """Results as plain values: psnr, ssim, iou of training and held-out images, without the reference frame; nodes, steps."""
    run_folder: Path | None = None
    """The run folder, if any."""


@stage(
    "animate fit",
    {name: name for name in ("clip", "mesh", "cameras", "masks", "truth", "guidance", "force")},
    resumable=RESUMABLE,
    grows=GROWS,
)
def animate(
    config: AnimateConfig,
    clip: Footage | Path | str,
    mesh: Mesh | MeshGaussians | SkinnedMesh | Path | str,
    *,
    cameras: Path | str | None = None,
    masks: Path | str | None = None,
    truth: Float[Tensor, "t v 3"] | None = None,
    guidance: Path | str | None = None,
    force: bool = False,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> AnimateResult:
    """Fit the motion of a mesh to a clip with masks, with its joints and the nodes of a deformation graph (`config.fit`).

    Args:
        config: Options.
        clip: Images with masks from one or several cameras, or their path; see `footage.read_footage`.
        mesh: In its rest pose, as in the frame `config.reference`: with a texture or colors, with joints, as Gaussians on a
            mesh, or a file.
        cameras: Cameras file of `clip`, in the world of the mesh. None: the one in its folder; without any, a camera in
            front of the mesh is assumed and moved so that the mesh fills the mask.
        masks: Folder of masks for images without alpha.
        truth: True vertices at the times of the clip, if known; used for evaluation only [m].
        guidance: Folder of a Zero123-class pipeline (`guidance.load_guidance`) that guides the appearance from other sides,
            given the frames of the camera of the reference frame. That camera must be static.
        force: Run the guidance on a CPU even if it takes long.
        run_folder: Output folder; a `RunFolder` with checkpoints resumes from the newest. None: nothing is
            written.
        progress: Progress callback.

    Raises:
        InputError: The clip or the mesh is invalid, or they do not match.
        ConfigError: An option does not match the clip, or the run folder belongs to a different run.
        NumericalError: The loss is not finite; a checkpoint of the previous step was written.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.

    Example:
        >>> from vision3d import animate
        >>> from vision3d.stages.animate import AnimateConfig
        >>> result = animate(AnimateConfig(nodes=64), "frames", "fox.glb", run_folder="runs/fox")
        >>> result.skin.save("fox_moving.glb")
    """
    device = resolve_device(config.device, backend=config.backend)
    source = _loaded_mesh(mesh, config)
    if isinstance(clip, Footage):
        footage, name = clip, "a Footage"
    else:
        footage = read_footage(clip, cameras=cameras, masks=masks, fps=config.fps, resolution=config.resolution)
        name = str(Path(clip).absolute())
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    name = f"{name} ({len(footage)} images)"
    guided = None if guidance is None else (guidance, force)
    fit = _Fit(config, footage.to(device), source.to(device), truth, name, guided, run_folder, progress)
    fit.train()
    return fit.finish()


class _Fit:
    """One run, from checked inputs to files."""

    def __init__(
        self,
        config: AnimateConfig,
        footage: Footage,
        source: Mesh | MeshGaussians | SkinnedMesh,
        truth: Tensor | None,
        name: str,
        guided: tuple[Path | str, bool] | None,
        folder: RunFolder | None,
        callback: ProgressCallback | None,
    ) -> None:
        self.folder, self.callback = folder, callback
        tree = JointTree.of(source) if isinstance(source, SkinnedMesh) else None
        self.source: Mesh | MeshGaussians = source.mesh if isinstance(source, SkinnedMesh) else source
        if tree is not None:
            self.source = tree.skin.mesh
        self.mesh = self.source if isinstance(self.source, Mesh) else self.source.mesh
        _check(config, footage, self.mesh, truth)
        self.footage, self.truth = footage, truth
        self.cameras = _cameras(config, footage, self.mesh)
        self.config = config = self._with_reference(config)
        self.splits = hold_out(footage, config.reference or 0, config.hold_out_every, config.hold_out_cameras)
        seen = self.splits["fitted"]
        guide = None if guided is None else _guide(config, *guided, footage, self.cameras, self.mesh)
        self.label = "none" if guide is None else guide.guidance.label
        self.name = name if guide is None else f"{name} + {self.label}"
        steps = config.total_steps(len(footage.times))
        self.loop: Loop | None = None
        if steps:
            count = len(footage)
            old_source = self.name.replace(f"({count} images)", f"({count} pictures)")
            self.loop = Loop(
                "animate", source=self.name, old_sources=[old_source], steps=steps, folder=folder,
                log_every=config.log_every, checkpoint_every=config.checkpoint_every, latest=("frames",),
                shown=("loss", "frames"), callback=callback,
            )  # fmt: skip
        saved = None if self.loop is None else self.loop.saved
        torch.manual_seed(config.seed)
        if saved is None:
            graph = DeformationGraph.of(self.mesh.vertices, self.mesh.faces, config.nodes, config.neighbors)
        else:
            graph = DeformationGraph(**saved["graph"]).to(self.mesh.device)
            if len(graph.weights) != self.mesh.num_vertices:
                there = (
                    f"is a run on a mesh of {len(graph.weights)} vertices; cannot resume with one of {self.mesh.num_vertices}"
                )
                raise ConfigError("--mesh", f"{folder.path if folder else ''} {there}")
        fitted_times = footage.times[footage.frames.cpu()[seen].unique()]
        is_borrowed = tree is None and _finds_by_joints(config, footage, len(seen))
        if is_borrowed:
            tree = JointTree.of(surface_skin(self.mesh))
        rest = _rest_time(footage.times, config.reference)
        self.motion = Motion(self.mesh, graph, config, fitted_times, rest, tree, is_borrowed=is_borrowed)
        self.painter = make_painter(self.source, config.renderer, config.per_face, config.backend)
        self.trainer = Trainer(config, self.motion, self.painter, footage, self.cameras, seen, guide)
        if saved is not None:
            self.trainer.load_state_dict(saved)
        moved = f"{len(graph)} nodes"
        if tree is not None:
            moved = f"{moved} that begin as {len(tree)} rings" if is_borrowed else f"{len(tree)} joints, {moved}"
        logger.info("%s, %d images to fit to; guidance: %s", moved, len(seen), self.label)

    def _with_reference(self, config: AnimateConfig) -> AnimateConfig:
        """The options with the frame of the rest pose, found in the images or checked against them."""
        wanted = config.reference
        views = (self.footage.frames == (wanted or 0)).nonzero()[:, 0]
        if not len(views):
            return config
        cameras, masks = with_views(self.cameras, views, 1), self.footage.read(views)[1] > 0.5
        if wanted is not None:
            want = "want the frame of the rest pose (--reference N), or --reference -1 if there is none"
            warn_of_cover(self.mesh, cameras, masks, f"frame {wanted}, which should be the rest pose", want)
            return config
        iou = cover(self.mesh, cameras, masks)
        if iou >= _AT_REST:
            return replace(config, reference=0)
        logger.info(
            "frame 0 does not show the rest pose (IoU %.2f), so it is fitted too; to change this give --reference N", iou
        )
        return replace(config, reference=-1)

    def train(self) -> None:
        """Do all remaining steps."""
        if self.loop is not None:
            self.loop.run(self.trainer)

    def finish(self) -> AnimateResult:
        """Evaluate the motion and write the results."""
        config, times = self.config, self.footage.times
        self.trainer.settle()
        vertices = all_vertices(self.motion, times)
        path = None if self.folder is None else self.folder.path
        background = self.trainer.background
        given = self.footage, self.cameras, self.splits, config.reference or 0, background
        frozen = self.mesh.vertices.expand(len(times), -1, -1)
        still = evaluate_motion(self.painter, frozen, *given, progress=self.callback)
        renders = None if path is None else path / "renders"
        evaluation = evaluate_motion(self.painter, vertices, *given, renders=renders, progress=self.callback)
        warnings = motion_warnings(evaluation, self.mesh, vertices)
        for text in warnings:
            logger.warning(text)
        base = self.source
        if isinstance(base, Mesh):
            base = MeshGaussians.from_mesh(base, config.per_face)
        sequence = FrameSequence(base, times, {"vertices": vertices})
        skin = moving_skin(self.motion, vertices, times)
        joints, frozen_ious = self.motion.joints, frame_ious(still)
        ious = frame_ious(evaluation).items()
        rows = [{"frame": frame, "fitted": iou, "frozen": frozen_ious[frame]} for frame, iou in ious]
        summary = {
            **evaluation.mean(),
            **self._vertex_metrics(vertices),
            **{f"frozen_{name}": value for name, value in {**still.mean(), **self._vertex_metrics(frozen)}.items()},
            "largest_stretch": float(stretched_edges(self.mesh, vertices)[1].max()),
            "mask_iou": rows,
            "frames": len(times),
            "cameras": len(set(self.footage.camera_names)),
            "reference": config.reference,
            "joints": 0 if joints is None else len(joints.tree),
            "nodes": len(self.motion.graph) if self.motion.uses_nodes else 0,
            "vertices": self.mesh.num_vertices,
            "faces": self.mesh.num_faces,
            "steps": 0 if self.loop is None else self.loop.step,
            "training_s": 0.0 if self.loop is None else round(self.loop.seconds, 3),
            "guidance": self.label,
            "warnings": warnings,
            "device": str(self.mesh.device),
        }
        if path is not None:
            sequence.save(path / FRAMES)
            skin.save(path / CLIP)
            self.cameras.save(path / "cameras.json")
            shown = self.painter, vertices, self.footage, self.cameras, self.splits["fitted"], background
            write_sheet(path / "figures" / "frames.png", *shown)
            if len(self.splits["unseen_cameras"]) + len(self.splits["unseen_frames"]):
                evaluation.save(path / "eval.json")
            if config.video:
                write_comparison(path / VIDEO, *shown, self.callback)
            write_run_curves(path / "curves.png", path)
            write_iou_curves(path / "figures" / "iou.png", times, rows)
        return AnimateResult(sequence, skin, self.motion, self.cameras, evaluation, summary, path)

    def _vertex_metrics(self, vertices: Tensor) -> dict[str, float]:
        if self.truth is None:
            return {}
        errors = vertex_errors(vertices, self.truth, self.mesh.vertices)
        metrics = {}
        for split in ("fitted", "unseen_frames"):
            frames = self.footage.frames[self.splits[split]].unique()
            frames = frames[frames != self.config.reference]
            if len(frames):
                metrics[f"{split}_vertex_error"] = float(errors[frames].mean())
        return metrics


def _loaded_mesh(
    mesh: Mesh | MeshGaussians | SkinnedMesh | Path | str, config: AnimateConfig
) -> Mesh | MeshGaussians | SkinnedMesh:
    """The mesh, with its joints if it has them and they are requested."""
    if not isinstance(mesh, Mesh | MeshGaussians | SkinnedMesh):
        path = Path(mesh)
        mesh = MeshGaussians.load(path) if path.suffix.lower() == ".safetensors" else _loaded_skin(path) or Mesh.load(path)
    if isinstance(mesh, SkinnedMesh) and (config.fit == "graph" or not len(mesh)):
        mesh = mesh.at_rest()
    if config.fit == "joints" and not isinstance(mesh, SkinnedMesh):
        raise ConfigError("fit", "got joints, but the mesh has none; want a .glb with joints, or auto or graph")
    return mesh.validate()


def _finds_by_joints(config: AnimateConfig, footage: Footage, views: int) -> bool:
    """Whether the motion of a mesh without joints is first found with joints made from rings of its surface.

    This is the case if nodes alone would get lost: no frame shows the rest pose. One camera does not distinguish limbs well
    enough.
    """
    is_open = config.reference is None or config.reference < 0
    is_several = views > len(footage.times)
    return config.motion.kind == "discrete" and is_open and is_several and is_searched(config, len(footage.times))


def _loaded_skin(path: Path) -> SkinnedMesh | None:
    if path.suffix.lower() not in (".glb", ".gltf"):
        return None
    try:
        return SkinnedMesh.load(path)
    except InputError:
        return None  # it is static, or unreadable, which loading the mesh reports


def _check(config: AnimateConfig, footage: Footage, mesh: Mesh, truth: Tensor | None) -> None:
    """Check the mesh and the clip together; unusual but valid input is logged."""
    count = len(footage.times)
    if config.reference is not None and config.reference >= count:
        raise ConfigError("reference", f"got frame {config.reference}, but the clip has {count}, from 0 to {count - 1}")
    if truth is not None and tuple(truth.shape) != (count, mesh.num_vertices, 3):
        want = (count, mesh.num_vertices, 3)
        raise InputError(f"truth: got shape {tuple(truth.shape)}, want {want} as clip and mesh have it")
    faces = geometry.weld_vertices(mesh.vertices, mesh.faces)[1]
    if holes := len(geometry.boundary_edges(faces)):
        logger.warning("mesh: is open at %d edges; its back faces are visible there", holes)
    if not geometry.is_manifold(faces):
        logger.warning("mesh: is not manifold, so normals and stiffness are inaccurate where more than two faces meet")


def _rest_time(times: Float64[Tensor, " t"], reference: int | None) -> float:
    """Time of the rest pose [s]: that of a frame, or one frame before the first."""
    if reference is not None and reference >= 0:
        return float(times[reference])
    return float(times[0] - (times[1] - times[0]))


def _guide(config: AnimateConfig, folder: Path | str, force: bool, footage: Footage, cameras: Cameras, mesh: Mesh) -> Guide:
    """The guidance by the frames of one camera, unless it would take too long."""
    frames = footage.frames.tolist()
    first = frames.index(max(config.reference or 0, 0))
    own = {frame: view for view, frame in enumerate(frames) if footage.camera_names[view] == footage.camera_names[first]}
    views = torch.tensor([own.get(frame, first) for frame in range(len(footage.times))])
    poses = cameras.viewmats.cpu()[views]
    if len(own) < len(views) or not torch.allclose(poses, poses[:1].expand_as(poses), atol=1e-5):
        text = f"camera {footage.camera_names[first]!r} of the reference frame"
        raise ConfigError("--guidance", f"needs one static camera that sees all frames; {text} does not")
    device = footage.images.device
    guidance = load_guidance(folder, footage.read(views.to(device))[0], config.sds, device)
    check_time(guidance, config.total_steps(len(footage.times)), config.sds.views, config.sds.size, device, force=force)
    return Guide(guidance, Orbit.about(mesh.vertices, config.camera.up).to(device), cameras[first : first + 1].to(device))


def _cameras(config: AnimateConfig, footage: Footage, mesh: Mesh) -> Cameras:
    """One camera per image."""
    if footage.cameras is not None:
        return footage.cameras
    frame = max(config.reference or 0, 0)
    view = footage.frames.cpu().tolist().index(frame)
    _, masks = footage.read(torch.tensor([view], device=footage.images.device))
    camera = place_camera(config.camera, mesh, (masks[0] > 0.5).cpu())
    logger.info("no cameras given: placed one so that the mesh fills the mask of frame %d", frame)
    return camera.subset([0] * len(footage))
