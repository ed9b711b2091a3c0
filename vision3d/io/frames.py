"""Views as listed by data sets, and the checks that turn them into `PosedImages`."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError
from vision3d.geometry.distortion import undistorted_K
from vision3d.io.images import check_whole, image_size, upright_size
from vision3d.scene.cameras import Cameras
from vision3d.scene.images import PosedImages

logger = logging.getLogger(__name__)

LensModel = Literal["pinhole", "ortho", "fisheye"]

_MIN_VIEWS = 3
_SKIP = "Run with --skip-missing to skip it."
_FARTHEST = 1e30  # float32 ends at 3e38
_ROTATION_TOLERANCE = 1e-3
_MIN_FISHEYE_FOCAL = 0.5  # relative to the file's: a pinhole image with a wider view would be coarse in its center


@dataclass(frozen=True)
class Lens:
    """Intrinsics as given by a file [px]; None values follow from the image size."""

    model: LensModel = "pinhole"
    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    width: int | None = None
    height: int | None = None
    coeffs: tuple[float, ...] = ()
    """OpenCV's order: k1 k2 p1 p2 k3 k4 k5 k6 (pinhole), k1 k2 k3 k4 (fisheye); trailing zeros may be omitted."""
    angle_x: float | None = None
    """Horizontal field of view [rad], used if fx is None."""

    def filled(self, size: tuple[int, int]) -> "Lens":
        """The lens with missing values filled in, for an image of this width and height."""
        width, height = self.width or size[0], self.height or size[1]
        fx = self.fx
        if fx is None and self.angle_x is not None:
            fx = 0.5 * width / math.tan(0.5 * self.angle_x)
        if fx is None:
            raise InputError("no focal length")
        return replace(
            self,
            fx=fx,
            fy=fx if self.fy is None else self.fy,
            cx=width / 2 if self.cx is None else self.cx,
            cy=height / 2 if self.cy is None else self.cy,
            width=width,
            height=height,
        )

    def K(self) -> list[list[float]]:
        return [[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]]  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Frame:
    """One view of a data set."""

    label: str
    """Its name in the source, for messages: "frame 12"."""
    name: str
    image_path: Path
    viewmat: np.ndarray
    """World to camera, OpenCV axes, (4, 4) float64, checked by `checked_viewmat`."""
    lens: Lens
    mask_path: Path | None = None
    depth_path: Path | None = None
    is_test: bool | None = None
    """None: the source has no split."""
    time: float | None = None


@dataclass(frozen=True)
class FrameList:
    """The views listed by a data set."""

    source: Path
    frames: tuple[Frame, ...]
    points: np.ndarray | None = None
    colors: np.ndarray | None = None
    """In [0, 1]."""
    smaller: Callable[[Path, int], Path | None] | None = None
    """Path of an image at 1/2, 1/4, 1/8 of its size in the source, if it exists."""
    depth_unit: float | None = None
    """Meters per unit of the depth maps; None: millimeters for integers, meters for floats."""


def checked_viewmat(source: Path, label: str, camtoworld: np.ndarray) -> np.ndarray:
    """World-to-camera matrix of a pose, its rotation orthonormalized to full precision.

    Raises:
        FileFormatError: The pose is not finite, singular, scales, shears or reflects.
    """
    if not np.isfinite(camtoworld).all():
        raise FileFormatError(source, f"{label}: the pose holds NaN or infinity")
    if np.abs(camtoworld).max() > _FARTHEST:
        raise FileFormatError(source, f"{label}: the pose holds {np.abs(camtoworld).max():.3g}, want at most {_FARTHEST:g}")
    rotmat, center = camtoworld[:3, :3], camtoworld[:3, 3]
    error = np.abs(rotmat @ rotmat.T - np.eye(3)).max()
    determinant = np.linalg.det(rotmat)
    if abs(determinant) < 1e-9:
        raise FileFormatError(source, f"{label}: the pose is singular (determinant {determinant:.2g})")
    if error > _ROTATION_TOLERANCE or determinant < 0:
        raise FileFormatError(
            source,
            f"{label}: the pose is not a rotation and a position (determinant {determinant:.4g}, R R^T off the "
            f"identity by {error:.2g})",
        )
    u, _, vt = np.linalg.svd(rotmat)
    viewmat = np.eye(4)
    viewmat[:3, :3] = (u @ vt).T
    viewmat[:3, 3] = -viewmat[:3, :3] @ center
    return viewmat


def assemble(
    listed: FrameList,
    *,
    split_every: int = 8,
    downscale: float = 1,
    skip_missing: bool = False,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> PosedImages:
    """Check the views of a data set against its images and build `PosedImages`, sorted by name.

    Only the headers and the ends of the images are read, or entire images with `skip_missing`. See
    `vision3d.io.dataset.load_dataset` for the arguments.

    Raises:
        FileFormatError: An image is missing, cannot be read or does not match its camera; the message names its frame.
        InputError: Fewer than 3 views remain, or the views have different projections.
    """
    source = listed.source
    if not downscale >= 1:
        raise InputError(f"downscale: got {downscale}, want a number >= 1")
    if split_every < 0 or split_every == 1:
        raise InputError(f"split_every: got {split_every}, want 0 (hold out nothing) or at least 2")
    frames = _existing(listed, skip_missing)
    frames = sorted(_with_smaller(listed, frames, downscale), key=lambda frame: frame.name)
    sizes: list[tuple[int, int]] = []
    kept: list[Frame] = []
    for frame in frames:
        try:
            size = image_size(frame.image_path)
            check_whole(frame.image_path, decode=skip_missing)  # to skip it, damage must be known now
        except InputError as error:
            if not skip_missing:
                raise FileFormatError(source, f"{frame.label} names {frame.name}: {error}. {_SKIP}") from error
            logger.warning("%s: %s skipped: %s", source, frame.label, error)
            continue
        lens = _fitting(source, frame, size)
        if lens.width != size[0] or lens.height != size[1]:  # the image has a different size that `_fitting` accepted
            size = _file_size(lens, frame.image_path, size)
        kept.append(replace(frame, lens=lens))
        sizes.append(size)
    if len(kept) < _MIN_VIEWS:
        raise InputError(f"{source}: got {len(kept)} views with images, want at least {_MIN_VIEWS}")
    models = {frame.lens.model for frame in kept}
    if len(models) > 1:
        raise InputError(f"{source}: mixes {' and '.join(sorted(models))} cameras; want one kind")
    full = _cameras(kept)
    raw = full.resized(torch.tensor([w for w, _ in sizes]), torch.tensor([h for _, h in sizes]))
    cameras = _resized(undistorted_cameras(full), raw, downscale)
    is_same = raw.distortion is None and bool((raw.width == cameras.width).all() and (raw.height == cameras.height).all())
    points, colors = _finite_points(listed)
    return PosedImages(
        cameras=cameras,
        image_paths=tuple(frame.image_path for frame in kept),
        is_test=_split(kept, split_every),
        mask_paths=_files(source, "mask", [(frame.label, frame.mask_path) for frame in kept]),
        depth_paths=_files(source, "depth map", [(frame.label, frame.depth_path) for frame in kept]),
        depth_unit=listed.depth_unit,
        points=points,
        point_colors=colors,
        raw_cameras=cameras if is_same else raw,
        background=background,
        source=source,
    ).validate()


def _existing(listed: FrameList, skip_missing: bool) -> list[Frame]:
    found = [frame for frame in listed.frames if frame.image_path.is_file()]
    if len(found) == len(listed.frames):
        return found
    missing = [frame for frame in listed.frames if not frame.image_path.is_file()]
    counts = f"{len(found)} of {len(listed.frames)} images found"
    if not skip_missing:
        raise FileFormatError(
            listed.source,
            f"{missing[0].label} names {missing[0].name}, which does not exist ({counts})." + (f" {_SKIP}" if found else ""),
        )
    logger.warning("%s: %d frames without a file skipped (%s)", listed.source, len(missing), counts)
    return found


def _with_smaller(listed: FrameList, frames: list[Frame], downscale: float) -> list[Frame]:
    """The frames with the source's smaller images, if all of them exist at this size."""
    if listed.smaller is None or downscale not in (2, 4, 8):
        return frames
    paths = [listed.smaller(frame.image_path, int(downscale)) for frame in frames]
    if any(path is None for path in paths):
        return frames
    # The lens keeps the full size: without a lens of its own, a frame does not know the reduction of its image.
    if any(frame.lens.width is None for frame in frames):
        return frames
    return [replace(frame, image_path=path) for frame, path in zip(frames, cast(list[Path], paths))]


def _fitting(source: Path, frame: Frame, size: tuple[int, int]) -> Lens:
    """The lens at the size given by the file, if the image has this size or an integer fraction of it."""
    try:
        lens = frame.lens.filled(size)
    except InputError as error:
        raise FileFormatError(source, f"{frame.label} ({frame.name}): {error}") from error
    wanted = (cast(int, lens.width), cast(int, lens.height))
    if min(wanted) < 1 or not min(cast(float, lens.fx), cast(float, lens.fy)) > 0:
        raise FileFormatError(
            source, f"{frame.label} ({frame.name}): the camera has {wanted[0]}x{wanted[1]} px, focal length {lens.fx:g}"
        )
    numbers = cast(tuple[float, ...], (lens.fx, lens.fy, lens.cx, lens.cy, *lens.coeffs))
    if not all(map(math.isfinite, numbers)):
        raise FileFormatError(source, f"{frame.label} ({frame.name}): the intrinsics hold NaN or infinity")
    if size == wanted or _is_smaller(size, wanted):
        return lens
    upright = upright_size(frame.image_path)
    if upright == wanted or _is_smaller(upright, wanted):
        return lens
    raise FileFormatError(
        source,
        f"{frame.label} names {frame.name}, which has {size[0]}x{size[1]} px; its camera has {wanted[0]}x{wanted[1]}, "
        "which is not an integer multiple",
    )


def _is_smaller(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    factor = round(wanted[0] / size[0])
    return factor >= 2 and all(abs(w / factor - s) < 1 for s, w in zip(size, wanted))


def _file_size(lens: Lens, path: Path, size: tuple[int, int]) -> tuple[int, int]:
    wanted = (cast(int, lens.width), cast(int, lens.height))
    return size if _is_smaller(size, wanted) else upright_size(path)


def _cameras(frames: list[Frame]) -> Cameras:
    lenses = [frame.lens for frame in frames]
    model = lenses[0].model
    coeffs = np.zeros((len(lenses), 4 if model == "fisheye" else 8))
    for row, lens in zip(coeffs, lenses):
        row[: len(lens.coeffs)] = lens.coeffs
    if model == "pinhole" and not coeffs[:, 4:].any():
        coeffs = coeffs[:, :4]
    has_lens = model == "fisheye" or bool(coeffs.any())
    times = [frame.time for frame in frames]
    return Cameras(
        viewmats=torch.from_numpy(np.stack([frame.viewmat for frame in frames])).float(),
        Ks=torch.tensor([lens.K() for lens in lenses], dtype=torch.float32),
        width=torch.tensor([lens.width for lens in lenses]),
        height=torch.tensor([lens.height for lens in lenses]),
        model=model,
        distortion=torch.from_numpy(coeffs).float() if has_lens else None,
        names=tuple(frame.name for frame in frames),
        times=None if any(time is None for time in times) else torch.tensor(times, dtype=torch.float32),
    ).validate()


def undistorted_cameras(cameras: Cameras) -> Cameras:
    """Pinhole cameras of the same size that see only what the distorted images show."""
    if cameras.distortion is None:
        return cameras
    known: dict[tuple[float, ...], Tensor] = {}
    Ks = []
    for i, camera in enumerate(cameras):
        size = (int(camera.width), int(camera.height))
        coeffs = cast(Tensor, camera.distortion)[0]
        key = (*camera.Ks.flatten().tolist(), *coeffs.tolist(), *size)
        if key not in known:
            try:
                known[key] = undistorted_K(camera.Ks[0], coeffs, *size, cast(Literal["pinhole", "fisheye"], camera.model))
            except InputError as error:
                name = f" ({camera.names[0]})" if camera.names else ""
                raise InputError(f"camera {i}{name}: {error}") from error
            if camera.model == "fisheye":
                known[key] = _zoomed(known[key], camera.Ks[0])
        Ks.append(known[key])
    return replace(cameras, Ks=torch.stack(Ks), model="pinhole", distortion=None)


def _zoomed(K: Tensor, raw_K: Tensor) -> Tensor:
    factor = float((_MIN_FISHEYE_FOCAL * raw_K[0, 0] / K[0, 0]).clamp(min=1))
    return torch.cat([torch.cat([K[:2, :2] * factor, K[:2, 2:]], 1), K[2:]])


def _resized(full: Cameras, raw: Cameras, downscale: float) -> Cameras:
    """The cameras at 1/downscale of the full size, or at the files' own size if that is the same up to rounding."""
    sizes = []
    for whole, own in ((full.width, raw.width), (full.height, raw.height)):
        wanted = (whole / downscale).round().long().clamp(min=1)
        # If a data set has smaller images than its cameras state, they are read at their actual size.
        wanted = torch.minimum(wanted, own)
        sizes.append(torch.where((wanted - own).abs() <= 1, own, wanted))
    return full.resized(sizes[0], sizes[1])


def _split(frames: list[Frame], split_every: int) -> Tensor:
    if any(frame.is_test is not None for frame in frames):
        return torch.tensor([bool(frame.is_test) for frame in frames])
    if split_every == 0:
        return torch.zeros(len(frames), dtype=torch.bool)
    return torch.arange(len(frames)) % split_every == 0


def _files(source: Path, kind: str, named: list[tuple[str, Path | None]]) -> tuple[Path | None, ...] | None:
    """The masks or depth maps of all frames, which must exist; None if no frame has one."""
    if all(path is None for _, path in named):
        return None
    for label, path in named:
        if path is not None and not path.is_file():
            raise FileFormatError(source, f"{label} names the {kind} {path}, which does not exist")
    return tuple(path for _, path in named)


def _finite_points(listed: FrameList) -> tuple[Tensor | None, Tensor | None]:
    if listed.points is None or not len(listed.points):
        return None, None
    is_finite = np.isfinite(listed.points).all(1)
    if not is_finite.all():
        logger.warning("%s: %d non-finite points dropped", listed.source, int((~is_finite).sum()))
    if not is_finite.any():
        return None, None
    points = torch.from_numpy(listed.points[is_finite].astype(np.float32))
    colors = None if listed.colors is None else torch.from_numpy(listed.colors[is_finite].astype(np.float32))
    return points, colors
