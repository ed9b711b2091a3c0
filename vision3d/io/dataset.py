"""Folders of photos with known camera poses."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError, MissingFileError, OutputExistsError
from vision3d.core.progress import ProgressCallback
from vision3d.geometry import se3
from vision3d.io import colmap_dataset, nerf_synthetic, transforms_json
from vision3d.io.depth_maps import write_depth
from vision3d.io.frames import FrameList, assemble
from vision3d.io.images import is_image, write_image
from vision3d.io.ply import write_points
from vision3d.scene.images import PosedImages

Format = Literal["auto", "transforms", "nerf-synthetic", "colmap", "photos"]

WHITE = (1.0, 1.0, 1.0)
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


def load_dataset(
    path: Path | str,
    *,
    format: Format = "auto",
    split_every: int = 8,
    downscale: float = 1,
    skip_missing: bool = False,
    background: tuple[float, float, float] = WHITE,
    normalize: bool = False,
    sfm: bool = False,
    sfm_folder: Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> PosedImages:
    """Load photos with their cameras; everything is checked before this returns (of images only headers and ends).

    Args:
        path: A folder, a transforms.json, or (with `sfm`) a video.
        format: Layout of the folder; auto looks for transforms.json, transforms_train.json, then a COLMAP model.
        split_every: Hold out every N-th view by name, starting with the first, unless the source has its own split; 0 holds out
            nothing.
        downscale: Divides the size of the images (>= 1). Smaller images in the folders images_2, images_4 or images_8 of the
            source are used if they match.
        skip_missing: Drop views whose image is missing, unreadable or truncated instead of raising an error.
        background: Background color in [0, 1] for images with an alpha channel.
        normalize: Translate and scale the world so that the cameras' look-at point is the origin and their median distance
            to it is 1; `PosedImages.normalization` has the transform.
        sfm: Estimate the cameras of a plain folder of photos or of a video with pycolmap if the folder has none.
        sfm_folder: Where these cameras are stored and reused; a folder in the user's cache when None.
        progress: Callback for the steps of `sfm`; None shows progress on standard error.

    Raises:
        MissingFileError: `path` does not exist, or a file that the source needs is missing.
        FileFormatError: A file is damaged, or a frame (named in the message) has a wrong pose, image or camera.
        InputError: There are fewer than 3 views, or no cameras were found (the message lists the files searched for).
        MissingDependencyError: `sfm` needs pycolmap.

    Example:
        >>> images = load_dataset("data/fox", downscale=4, skip_missing=True)
        >>> image, mask, camera = images.read(0)
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(path, "a folder of photos, a transforms.json or a video")
    if format not in get_args(Format):
        raise InputError(f"format: got {format!r}, want {', '.join(get_args(Format))}")
    listed = _listed(path, format)
    if listed is None:
        listed = _by_sfm(path, sfm, sfm_folder, skip_missing, progress)
    images = assemble(listed, split_every=split_every, downscale=downscale, skip_missing=skip_missing, background=background)
    return normalized(images) if normalize else images


def normalized(images: PosedImages) -> PosedImages:
    """The same photos in a world whose origin is the point that the cameras look at, at a median distance of 1.

    The point is the one nearest to all optical axes; for cameras with parallel axes it is their mean position. Axes are not
    rotated.

    Raises:
        InputError: All cameras are at one position.
    """
    matrix = _normalization(images)
    scale, rotmat, shift = se3.split_similarity(matrix)
    points = None if images.points is None else scale * images.points @ rotmat.mT + shift
    before = torch.eye(4).to(matrix) if images.normalization is None else images.normalization
    return replace(
        images,
        cameras=images.cameras.transform(matrix),
        raw_cameras=None if images.raw_cameras is None else images.raw_cameras.transform(matrix),
        points=points,
        depth_scale=images.depth_scale * float(scale),
        normalization=matrix @ before,
    )


def load(path: Path) -> PosedImages:
    """Codec: read the photos of a folder."""
    return load_dataset(path)


def save(path: Path, value: object) -> None:
    """Codec: write photos, undistorted, with masks, depth maps, points and a transforms.json."""
    if not isinstance(value, PosedImages):
        raise InputError(f"{path}: a data set folder holds PosedImages, got {type(value).__name__}")
    if (path / "transforms.json").exists():
        raise OutputExistsError(path / "transforms.json", "use another folder")
    names, masks, depths = [], [], []
    for i in range(len(value)):
        image, mask, _ = value.read(i)
        names.append(f"images/{i:05d}_{Path(value.names[i]).stem}.png")
        write_image(path / names[-1], image)
        masks.append(None if mask is None else f"masks/{i:05d}.png")
        if mask is not None:
            write_image(path / masks[-1], mask)
        depth = value.read_depth(i)
        depths.append(None if depth is None else f"depths/{i:05d}.npy")
        if depth is not None:
            write_depth(path / depths[-1], depth)
    if value.points is not None:
        write_points(path / "points3D.ply", value.points, value.point_colors)
    transforms_json.write_cameras(
        path / "transforms.json",
        replace(value.cameras, names=tuple(names)),
        mask_names=masks,
        depth_names=depths,
        is_test=value.is_test,
        ply_name=None if value.points is None else "points3D.ply",
    )


def _listed(path: Path, format: str) -> FrameList | None:
    """The views, or None for a folder without cameras."""
    if path.is_file():
        if path.suffix.lower() == ".json":
            return transforms_json.read_frames(path)
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return None
        raise FileFormatError(path, f"is neither a transforms.json nor a video ({', '.join(VIDEO_SUFFIXES)})")
    has = {
        "transforms": (path / "transforms.json").is_file(),
        "nerf-synthetic": (path / "transforms_train.json").is_file(),
        "colmap": colmap_dataset.find_model(path) is not None,
    }
    if format == "auto":
        format = next((name for name, is_there in has.items() if is_there), "photos")
    if format == "transforms":
        return transforms_json.read_frames(path / "transforms.json")
    if format == "nerf-synthetic":
        return nerf_synthetic.read_frames(path)
    return colmap_dataset.read_frames(path) if format == "colmap" else None


def _by_sfm(
    path: Path, sfm: bool, folder: Path | str | None, skip_missing: bool, progress: ProgressCallback | None
) -> FrameList:
    if path.is_dir():
        count = sum(is_image(file) for folder in (path, path / "images") for file in folder.glob("*"))
        what = f"{count} photos without cameras"
        if count == 0 or not sfm:
            looked = "transforms.json, transforms_train.json, sparse/0/cameras.bin, sparse/0/cameras.txt"
            hint = "run with --sfm to find their cameras with pycolmap" if count else "want photos in it, or in images/"
            raise InputError(f"{path}: found {what} (searched for {looked}); {hint}")
    elif not sfm:
        raise InputError(f"{path}: is a video; run with --sfm to find its cameras with pycolmap")
    from vision3d.io.sfm import find_cameras

    model, photos = find_cameras(path, folder, skip_missing=skip_missing, progress=progress)
    return colmap_dataset.read_frames(model, photos)


def _normalization(images: PosedImages) -> Float[Tensor, "4 4"]:
    centers, axes = images.cameras.centers.double(), images.cameras.camtoworlds[:, :3, 2].double()
    # The point with the smallest squared distance to all axes: sum (I - a a^T) (x - c) = 0.
    across = torch.eye(3).to(axes) - axes[:, :, None] * axes[:, None, :]
    normal = across.sum(0)
    values = torch.linalg.eigvalsh(normal)
    if values[0] > 1e-3 * values[2]:
        origin = torch.linalg.solve(normal, (across @ centers[..., None]).sum(0)[:, 0])
    else:
        origin = centers.mean(0)
    distance = torch.linalg.vector_norm(centers - origin, dim=-1).median()
    if not distance > 1e-12:
        raise InputError(f"{images.source}: all cameras are at one position; such a scene cannot be normalized")
    scale = 1 / distance
    return se3.similarity(scale, torch.eye(3).to(axes), -scale * origin).float()
