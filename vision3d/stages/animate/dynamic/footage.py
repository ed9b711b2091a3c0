"""Clips of one object with masks: reading, and checks before fitting."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError
from vision3d.core.lazy import renamed_attribute
from vision3d.io.dataset import VIDEO_SUFFIXES
from vision3d.io.images import is_image, read_image, read_mask
from vision3d.io.video import read_video
from vision3d.scene import Cameras
from vision3d.scene.resample import resize_area
from vision3d.stages.animate.dynamic.cropping import Crop
from vision3d.stages.animate.masks import mask_of_background

logger = logging.getLogger("vision3d.animate")

Split = Literal["fitted", "unseen_cameras", "unseen_frames"]
SPLITS: tuple[Split, ...] = ("fitted", "unseen_cameras", "unseen_frames")

_MIN = 2


@dataclass(frozen=True, eq=False)
class Footage:
    """M images of a moving object: T times, each with views from one or several cameras."""

    images: UInt8[Tensor, "m h w 4"]
    """Colors (sRGB, not multiplied by alpha) and alpha."""
    cameras: Cameras | None
    """One per image; None if the only camera is unknown."""
    camera_names: tuple[str, ...]
    """Camera of each image."""
    frames: Int64[Tensor, " m"]
    """Time index of each image."""
    times: Float64[Tensor, " t"]
    """[s], ascending."""
    pictures = renamed_attribute("images")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height [px]."""
        return self.images.shape[2], self.images.shape[1]

    def size_at(self, factor: int) -> tuple[int, int]:
        """Width and height of images downscaled by `factor` [px]."""
        width, height = (-(-side // factor) for side in self.size)
        return width, height

    def read(
        self, views: Int64[Tensor, " i"], factor: int = 1, background: Float[Tensor, " 3"] | None = None
    ) -> tuple[Float[Tensor, "i h w 3"], Float[Tensor, "i h w"]]:
        """Images over a background color (white when None) in [0, 1] and their alphas, downscaled by `factor`."""
        values = self.images[views].float() / 255
        alphas = values[..., 3:]
        behind = alphas.new_ones(3) if background is None else background.to(alphas)
        layers = torch.cat([values[..., :3] * alphas + (1 - alphas) * behind, alphas], -1)
        if factor > 1:
            width, height = self.size_at(factor)
            layers = torch.nn.functional.interpolate(layers.movedim(-1, 1), (height, width), mode="area").movedim(1, -1)
        return layers[..., :3], layers[..., 3]

    def to(self, device: torch.device | str) -> "Footage":
        """The same images on another device; times stay."""
        cameras = None if self.cameras is None else self.cameras.to(device)
        return replace(self, images=self.images.to(device), cameras=cameras, frames=self.frames.to(device))


def read_footage(
    path: Path | str,
    *,
    cameras: Path | str | None = None,
    masks: Path | str | None = None,
    fps: float = 24.0,
    resolution: int = 0,
) -> Footage:
    """Read a clip and check it: count, sizes, alpha, masks.

    - A folder of images of one camera, ordered by name; or a video.
    - A folder with a cameras.json (or transforms.json) whose names are its subfolders: one camera each, with the same number of
      images, all taken at the same times.
    - The same with names of images, each of which has a time.

    Args:
        path: The folder or the video.
        cameras: Cameras file; the one in the folder when None. A single camera applies to all images.
        masks: Folder of masks for images without alpha, with the same number and layout.
        fps: Frame rate of images without times.
        resolution: Longest side of the stored images [px]; larger images are downscaled, after cropping to the object if their
            cameras are known. 0 keeps their size.

    Raises:
        MissingFileError: A file or folder does not exist.
        FileFormatError: An image or the cameras file cannot be read.
        InputError: Sizes or counts differ, an image has no alpha and no plain background, or a mask is empty.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(path, "a folder of images or a video")
    if path.is_file():
        return _video(path, cameras, masks, resolution)
    found = Path(cameras) if cameras is not None else _cameras_in(path)
    known = None if found is None else _load_cameras(found)
    folders = sorted(p for p in path.iterdir() if p.is_dir() and any(is_image(file) for file in p.iterdir()))
    if known is None or len(known) == 1:
        files = _image_files(path)
        if not files and folders:
            raise InputError(f"{path}: has folders of images ({_listed(folders)}) but no cameras.json that names them")
        times = torch.arange(len(files), dtype=torch.float64) / fps
        one = None if known is None else known.subset([0] * len(files))
        return _assembled(path, files, _masks_for(path, files, masks), one, ["camera"] * len(files), times, resolution)
    names = known.names
    if names is None:
        raise InputError(f"{found}: its {len(known)} cameras have no names; want those of folders or images in {path}")
    if all((path / name).is_dir() for name in names):
        return _rig(path, known, names, masks, fps, resolution)
    files = [path / name for name in names]
    if missing := [file for file in files if not file.is_file()]:
        raise MissingFileError(missing[0], f"an image or a folder of images, listed in {found}")
    if known.times is None:
        raise InputError(f"{found}: names images without times; want a `time` in each of its frames, or folders as names")
    labels = [str(Path(name).parent) for name in names]
    times = known.times.double()
    return _assembled(path, files, _masks_for(path, files, masks), known, labels, times, resolution)


def hold_out(footage: Footage, reference: int, every: int, cameras: Sequence[str]) -> dict[Split, Int64[Tensor, " m"]]:
    """Split images into training images, unseen cameras, and unseen frames.

    Of every `every` frames the last is held out, but never the reference. Unseen frames are evaluated in the training cameras.

    Raises:
        ConfigError: A camera name is unknown, or nothing remains to train on.
    """
    known = sorted(set(footage.camera_names))
    if unknown := sorted(set(cameras) - set(known)):
        raise ConfigError("hold_out_cameras", f"there is no camera {unknown[0]!r}; there are {', '.join(known)}")
    is_hidden = torch.tensor([name in cameras for name in footage.camera_names])
    frames = footage.frames.cpu()
    is_late = (frames % every == every - 1) & (frames != reference) if every else torch.zeros(len(footage), dtype=torch.bool)
    seen, views = (~is_hidden & ~is_late).nonzero()[:, 0], (is_hidden & ~is_late).nonzero()[:, 0]
    if not len(seen):
        raise ConfigError("hold_out_cameras", f"holds out all {len(known)} cameras; want one to fit to")
    return {"fitted": seen, "unseen_cameras": views, "unseen_frames": (~is_hidden & is_late).nonzero()[:, 0]}


def _rig(path: Path, known: Cameras, names: tuple[str, ...], masks: Path | str | None, fps: float, resolution: int) -> Footage:
    """Several cameras with one folder each."""
    lists = [_image_files(path / name) for name in names]
    counts = {name: len(files) for name, files in zip(names, lists)}
    if len(set(counts.values())) > 1:
        low, high = min(counts, key=lambda n: counts[n]), max(counts, key=lambda n: counts[n])
        raise InputError(f"{path}: {low} has {counts[low]} images, {high} has {counts[high]}; want as many of each camera")
    count = len(lists[0])
    files = [file for found in lists for file in found]
    rows = [i for i in range(len(names)) for _ in range(count)]
    times = torch.arange(count, dtype=torch.float64).repeat(len(names)) / fps
    mask_files = _masks_for(path, files, masks)
    return _assembled(path, files, mask_files, known.subset(rows), [names[i] for i in rows], times, resolution)


def _video(path: Path, cameras: Path | str | None, masks: Path | str | None, resolution: int) -> Footage:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise FileFormatError(path, f"is neither a folder nor a video ({', '.join(VIDEO_SUFFIXES)})")
    video = read_video(path)
    frames = [_shrunk(frame, resolution) for frame in video]
    labels = [f"frame {i}" for i in range(len(frames))]
    known = None if cameras is None else _load_cameras(Path(cameras))
    if known is not None and len(known) != 1:
        raise InputError(f"{cameras}: got {len(known)} cameras for one video, want one")
    times = torch.arange(len(frames), dtype=torch.float64) / video.fps
    found = [None] * len(frames)
    if masks is not None:
        files = _image_files(Path(masks))
        if len(files) != len(frames):
            raise InputError(f"{masks}: got {len(files)} masks for the {len(frames)} frames of {path}")
        found = [_shrunk(read_mask(f, size=(video.width, video.height))[..., None].float(), resolution) for f in files]
    one = None if known is None else known.subset([0] * len(frames))
    return _checked(path, labels, frames, found, one, ["camera"] * len(frames), times)


def _assembled(
    path: Path,
    files: Sequence[Path],
    masks: Sequence[Path] | None,
    cameras: Cameras | None,
    camera_names: Sequence[str],
    times: Float64[Tensor, " m"],
    resolution: int,
) -> Footage:
    if not files:
        raise InputError(f"{path}: has no images; want a folder of frames (PNG, WebP, ...) or a video")
    images, found = [], []
    crop = None if cameras is None or not resolution else _crop(files, masks, camera_names, resolution)
    for index, file in enumerate(files):
        image = read_image(file)
        height, width = image.shape[:2]
        mask = None
        if masks is not None:
            mask = read_mask(masks[index], size=(width, height))[..., None].float()
        if crop is not None:
            image, mask = crop.image(index, image), None if mask is None else crop.image(index, mask)
            if cameras is not None and index == 0:
                cameras = crop.cameras(cameras.resized(width, height))
        images.append(_shrunk(_premultiplied(image), resolution))
        found.append(None if mask is None else _shrunk(mask, resolution))
    labels = [os.path.relpath(file, path) for file in files]
    return _checked(path, labels, images, found, cameras, camera_names, times)


def _crop(files: Sequence[Path], masks: Sequence[Path] | None, names: Sequence[str], resolution: int) -> Crop | None:
    """The windows around the object, if images are larger than the stored size and their masks are known."""
    first = read_image(files[0])
    if max(first.shape[:2]) <= resolution or (masks is None and first.shape[2] != 4):
        return None

    def alphas() -> Iterator[Tensor]:
        for index, file in enumerate(files):
            if masks is not None:
                yield read_mask(masks[index], size=(first.shape[1], first.shape[0])).float()
            else:
                image = read_image(file)
                yield image[..., 3] if image.shape[2] == 4 else torch.ones(image.shape[:2])

    crop = Crop.around(alphas(), names)
    if crop is not None:
        logger.info("images are cropped to %dx%d px around the object", crop.width, crop.height)
    return crop


def _checked(
    path: Path,
    labels: Sequence[str],
    images: list[Tensor],
    masks: Sequence[Tensor | None],
    cameras: Cameras | None,
    camera_names: Sequence[str],
    times: Float64[Tensor, " m"],
) -> Footage:
    first = images[0].shape[:2]
    for label, image in zip(labels, images):
        if image.shape[:2] != first:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (image.shape, first)]
            raise InputError(f"{path}: {label} has {sizes[0]} px, {labels[0]} {sizes[1]}; want frames of one size")
    moments, frames = torch.unique(times, return_inverse=True)
    if len(moments) < _MIN:
        raise InputError(f"{path}: got images of {len(moments)} time, want at least {_MIN} frames")
    alphas = _alphas(path, labels, images, masks)
    layers = []
    for label, image, alpha in zip(labels, images, alphas):
        if not bool((alpha > 0.5).any()):
            raise InputError(f"{path}: the mask of {label} is empty; want the object in every frame")
        # Colors were multiplied by the alpha of their file, so that averages do not include hidden colors.
        own = image[..., 3:] if image.shape[2] == 4 else torch.ones_like(alpha)
        color = image[..., :3] / own.clamp(min=1 / 255)
        layers.append((torch.cat([color, alpha], -1).clamp(0, 1) * 255).round().byte())
    height, width = first
    if cameras is not None:
        if cameras.distortion is not None or cameras.model == "fisheye":
            raise InputError(f"{path}: its cameras have lens distortion; want undistorted images and pinhole cameras")
        cameras = cameras.resized(width, height)
    return Footage(torch.stack(layers), cameras, tuple(camera_names), frames, moments)


def _alphas(
    path: Path, labels: Sequence[str], images: Sequence[Tensor], masks: Sequence[Tensor | None]
) -> list[Float[Tensor, "h w 1"]]:
    """Opacity of every image: from masks, from alpha channels, or from a plain background."""
    given = [mask for mask in masks if mask is not None]
    if given:
        return given
    found = [image[..., 3:] if image.shape[2] == 4 else None for image in images]
    opaque = [i for i, alpha in enumerate(found) if alpha is None or bool((alpha >= 1).all())]
    if not opaque:
        return [alpha for alpha in found if alpha is not None]
    if len(opaque) < len(images):
        count = f"{len(opaque)} of {len(images)} frames"
        raise InputError(f"{path}: {labels[opaque[0]]} has no alpha ({count}); want RGBA frames, or --masks for all")
    alphas, color = mask_of_background([image[..., :3] for image in images])
    if alphas is None:
        raise InputError(f"{path}: {labels[0]} has no alpha and no plain background ({color}); want RGBA frames or --masks")
    logger.info("masks from the background color %s", color)
    return alphas


def _cameras_in(folder: Path) -> Path | None:
    return next((folder / name for name in ("cameras.json", "transforms.json") if (folder / name).is_file()), None)


def _load_cameras(path: Path) -> Cameras:
    if not path.is_file():
        raise MissingFileError(path, "a cameras.json or transforms.json")
    return Cameras.load(path)


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise MissingFileError(folder, "a folder of images")
    return sorted((file for file in folder.iterdir() if is_image(file)), key=_natural)


def _natural(path: Path) -> tuple[int, str]:
    """Sorts 2.png before 10.png: by the length of the final number, then by name."""
    digits = len(path.stem) - len(path.stem.rstrip("0123456789"))
    return (int(path.stem[-digits:]) if digits else -1, path.name)


def _masks_for(path: Path, files: Sequence[Path], masks: Path | str | None) -> list[Path] | None:
    """One mask per image, from folders of the same names: by equal names, else by order."""
    if masks is None:
        return None
    found: dict[Path, Path] = {}
    for folder in dict.fromkeys(file.parent for file in files):
        own = sorted({file for file in files if file.parent == folder}, key=_natural)
        there = _image_files(Path(masks) / os.path.relpath(folder, path))
        named = {mask.stem: mask for mask in there}
        if all(file.stem in named for file in own):
            found |= {file: named[file.stem] for file in own}
        elif len(there) == len(own):
            found |= dict(zip(own, there))
        else:
            raise InputError(f"{masks}: got {len(there)} masks for the {len(own)} frames of {folder}; want one each")
    return [found[file] for file in files]


def _premultiplied(image: Float[Tensor, "h w c"]) -> Float[Tensor, "h w c"]:
    return torch.cat([image[..., :3] * image[..., 3:], image[..., 3:]], -1) if image.shape[2] == 4 else image


def _shrunk(image: Float[Tensor, "h w c"], resolution: int) -> Float[Tensor, "h w c"]:
    height, width = image.shape[:2]
    longest = max(height, width)
    if not resolution or longest <= resolution:
        return image
    ratio = resolution / longest
    return resize_area(image, max(1, round(width * ratio)), max(1, round(height * ratio)))


def _listed(folders: Sequence[Path]) -> str:
    names = [folder.name for folder in folders]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
