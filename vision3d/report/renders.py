"""Renders as files: a folder of images, a video or a single image; colors, depth and normals."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import InputError, OutputExistsError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.io.images import SUFFIXES, write_image
from vision3d.io.video import VideoWriter
from vision3d.render import depth_to_rgb, normals_to_rgb, render_scene
from vision3d.render.composite import Drawable
from vision3d.render.meshes.lights import Lights
from vision3d.render.timeline import Timeline
from vision3d.render.views import View
from vision3d.scene import Cameras, FrameSequence, Scene
from vision3d.scene.codecs import suffixes

OutputKind = Literal["folder", "video", "image"]

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")
_OTHER_MEDIA = (".gif", ".avi", ".webm", ".m4v", ".exr", ".hdr", ".npy", ".ply", ".json")
_RANGE_VIEWS, _RANGE_SIDE = 16, 128


def write_renders(
    scene: Scene | Drawable | FrameSequence | Timeline | Sequence[Drawable | FrameSequence],
    cameras: Cameras,
    out: Path | str,
    *,
    depth: bool = False,
    normals: bool = False,
    fps: float | None = None,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    shading: str = "smooth",
    lights: Lights | None = None,
    sh_degree: int | None = None,
    alpha_max: float = 0.99,
    backend: str = "auto",
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Render a scene from each camera to files, written atomically.

    - A folder gets NAME.png, named like the cameras or numbered, and cameras.json; depth goes to depth/NAME.npy
      (expected depth along z [m], float32, 0 in empty pixels) and, as colors, depth/NAME.png; normals in camera
      axes to normals/NAME.png.
    - FILE.mp4 (.mkv, .mov) is a video; depth and normals go to FILE_depth.mp4 and FILE_normals.mp4.
    - FILE.png (.jpg, ...) is a single image of one camera; depth and normals likewise, depth also to FILE_depth.npy.

    Args:
        scene: Gaussians, meshes, several of them, or a scene of them; see `render_scene`. A sequence is rendered over time, one
            image per frame.
        cameras: Without lens distortion, on the scene's device; for a sequence one, or one per frame.
        out: Folder or file, depending on the suffix.
        depth: Whether to write depth as well.
        normals: Whether to write normals as well.
        fps: Frames per second of a video; those of a sequence, or 30, when None.
        background: Background color in [0, 1].
        shading: For meshes: smooth, flat, none, normals, uvs or depth.
        lights: Lights for meshes, for smooth and flat.
        sh_degree: Degree of the harmonics to use; all when None.
        alpha_max: Maximum alpha of one Gaussian.
        backend: auto, native, reference or gsplat.
        overwrite: Replace existing files; other files in the folder are kept.
        progress: Progress callback; None shows progress on standard error.

    Returns:
        The written files, or the folder.

    Raises:
        OutputExistsError: The file exists, or the folder is not empty, and `overwrite` is off.
        InputError: No cameras, more than one for a single image, or sizes differ in a video.

    Example:
        >>> from vision3d.render.camera_paths import path_cameras
        >>> cameras = path_cameras(scene, "orbit", num=12, size=(64, 48))
        >>> write_renders(scene, cameras, "turn.mp4", depth=True)
    """
    out = Path(out)
    kind = output_kind(out)
    timeline = scene if isinstance(scene, Timeline) else Timeline.of(scene)
    if timeline is not None:
        cameras = timeline.cameras(cameras)
        fps = fps or timeline.fps
    fps = fps or 30.0
    _check_cameras(cameras, out, kind)
    targets = _targets(out, kind, ["color", *(["depth"] if depth else []), *(["normals"] if normals else [])])
    if not overwrite:
        _refuse_existing(out, kind, targets)
    drawing = {"shading": shading, "lights": lights, "sh_degree": sh_degree, "alpha_max": alpha_max, "backend": backend}
    with torch.no_grad(), Progress(len(cameras), "render", progress) as bar, ExitStack() as files:
        videos = {layer: files.enter_context(VideoWriter(path, fps=fps)) for layer, path in targets.items() if kind == "video"}
        depth_range = _depth_range(timeline or scene, cameras, drawing) if depth else (None, None)
        mode = "RGB+ED" if depth or normals else "RGB"
        names = _file_names(cameras)
        for i, view in enumerate(render_scene(scene, cameras, backgrounds=background, render_mode=mode, **drawing)):
            images = _images(view, cameras.viewmats[i], depth_range)
            for layer, target in targets.items():
                image = images[layer]
                if kind == "video":
                    videos[layer].append(image)
                    continue
                path = target / names[i] if kind == "folder" else target
                write_image(path, image)
                if layer == "depth":
                    _write_depth(path.with_suffix(".npy"), view)
            bar.update(i + 1)
    if kind == "folder":
        replace(cameras, names=names).save(out / "cameras.json")
        return [out]
    return list(targets.values())


def output_kind(out: Path) -> OutputKind:
    """The kind of output for a path.

    Raises:
        InputError: The suffix is that of a format that cannot be written.
    """
    suffix = out.suffix.lower()
    if out.is_dir():
        return "folder"
    if suffix in _OTHER_MEDIA or (suffix in suffixes() and suffix not in SUFFIXES):
        raise InputError(f"{out}: renders cannot be written as {suffix}; want .mp4, .mkv, .mov, .png, .jpg or a folder")
    return "video" if suffix in VIDEO_SUFFIXES else "image" if suffix in SUFFIXES else "folder"


def _check_cameras(cameras: Cameras, out: Path, kind: OutputKind) -> None:
    if len(cameras) == 0:
        raise InputError("cameras: got none, want at least one")
    if kind == "image" and len(cameras) > 1:
        raise InputError(f"{out}: got {len(cameras)} cameras for one image; want one camera, a folder or an .mp4")
    sizes = sorted(set(zip(cameras.width.tolist(), cameras.height.tolist())))
    if kind == "video" and len(sizes) > 1:
        texts = [f"{width}x{height}" for width, height in sizes]
        raise InputError(f"{out}: the cameras have {len(sizes)} sizes ({', '.join(texts[:3])}); a video has one: give a size")


def _targets(out: Path, kind: OutputKind, layers: Sequence[str]) -> dict[str, Path]:
    """Output path of each layer."""
    if kind == "folder":
        return {layer: out if layer == "color" else out / layer for layer in layers}
    return {layer: out if layer == "color" else out.with_stem(f"{out.stem}_{layer}") for layer in layers}


def _refuse_existing(out: Path, kind: OutputKind, targets: Mapping[str, Path]) -> None:
    paths = [out] if kind == "folder" else [*targets.values()]
    for path in paths:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputExistsError(path, "give --overwrite or another --out")


def _depth_range(
    scene: Timeline | Scene | Drawable | FrameSequence | Sequence[Drawable | FrameSequence],
    cameras: Cameras,
    drawing: Mapping[str, object],
) -> tuple[float, float] | tuple[None, None]:
    """Depth range for colors, the same for all frames, from a few small renders."""
    step = -(-len(cameras) // _RANGE_VIEWS)
    few = cameras[::step]
    factor = min(1.0, _RANGE_SIDE / int(torch.maximum(few.width, few.height).max()))
    depths, options = [], {"render_mode": "ED", **drawing}
    few = few.scaled(factor)
    if isinstance(scene, Timeline):
        frames = (render_scene(scene.at(i * step), few[i : i + 1], **options) for i in range(len(few)))  # pyright: ignore[reportArgumentType]
        views = chain.from_iterable(frames)
    else:
        views = render_scene(scene, few, **options)  # pyright: ignore[reportArgumentType]
    for view in views:
        depths.append(view.depth[(view.alpha > 0.5) & (view.depth > 0)])  # pyright: ignore[reportOptionalSubscript, reportOptionalOperand]
    shown = torch.cat(depths).sort().values
    if len(shown) == 0:
        return None, None
    low, high = float(shown[len(shown) // 100]), float(shown[-1 - len(shown) // 100])
    return low, max(high, 1.001 * low)


def _images(view: View, viewmat: Float[Tensor, "4 4"], depth_range: tuple[float | None, float | None]) -> dict[str, Tensor]:
    """The images of a view, one per layer."""
    images = {} if view.image is None else {"color": view.image}
    if view.depth is not None:
        images["depth"] = depth_to_rgb(view.depth, view.alpha, *depth_range)
    if view.normal is not None:
        normal = torch.nn.functional.normalize(view.normal, dim=-1)
        if min(normal.shape[:2]) > 2:
            # Normals from a depth map lack the outermost pixels.
            inner = normal[1:-1, 1:-1].movedim(-1, 0)[None]
            filled = torch.nn.functional.pad(inner, (1, 1, 1, 1), mode="replicate")[0].movedim(0, -1)
            normal = torch.where((normal == 0).all(-1, keepdim=True), filled, normal)
        images["normals"] = normals_to_rgb(normal * view.alpha[..., None], viewmat)
    return images


def _write_depth(path: Path, view: View) -> None:
    depth = torch.where(view.alpha > 0, view.depth, 0)  # pyright: ignore[reportArgumentType, reportCallIssue]
    with atomic_write(path) as temporary:
        np.save(temporary, depth.float().cpu().numpy())


def _file_names(cameras: Cameras) -> tuple[str, ...]:
    """One .png per camera: the stem of its name if all are different, else numbered."""
    digits = max(5, len(str(len(cameras) - 1)))
    stems = [Path(name).stem for name in cameras.names or ()]
    if stems and max(Counter(stems).values()) == 1:
        return tuple(f"{stem}.png" for stem in stems)
    return tuple(f"{i:0{digits}d}{f'_{stems[i]}' if stems else ''}.png" for i in range(len(cameras)))
