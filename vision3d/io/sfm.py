"""Structure from motion by pycolmap: cameras and points from photos, or points for known cameras.

Features are detected in copies of the photos of limited size, rotated like `vision3d.io.images.read_image` does; the cameras
found refer to the photos themselves. pycolmap runs in a process of its own (`vision3d.io.sfm_job`).
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.atomic import atomic_write, make_folder
from vision3d.core.caches import cache_folder
from vision3d.core.errors import FileFormatError, InputError
from vision3d.core.plain import from_json
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.io.colmap import ColmapModel, ColmapPoints, read_model, write_model
from vision3d.io.images import is_image, write_copy, write_image
from vision3d.io.sfm_job import check_pycolmap, run_job, work_folder
from vision3d.io.video import read_video
from vision3d.scene.cameras import Cameras
from vision3d.scene.images import PosedImages

logger = logging.getLogger(__name__)

MAX_SIZE = 1280
MIN_PHOTOS = 3
_INDEX = "sfm.json"
_VERSION = 1
_MAX_EXHAUSTIVE = 80  # number of posed views up to which all pairs are matched
_NUM_NEIGHBORS = 20  # beyond that, number of nearest views that each posed view is matched with
_FEW_FEATURES = 100
_MAX_FEATURES = 4096
_SMALL, _DOUBLED = 1000, -1  # px; smaller photos are upscaled by 2 for feature detection
_FOCALS = {"SIMPLE_RADIAL": 1, "OPENCV": 2}


def find_cameras(
    path: Path | str,
    folder: Path | str | None = None,
    *,
    skip_missing: bool = False,
    max_size: int = MAX_SIZE,
    max_frames: int = 120,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> tuple[Path, Path]:
    """Estimate the cameras of photos or of a video as a COLMAP model; the result is stored and reused.

    Photos of the same size (and of the same lens, by their EXIF data) share a camera. Up to 20 photos, all pairs are matched;
    beyond that, each photo with the 16 that share most of its largest features. The largest connected part is kept; a warning
    has the number of dropped photos.

    Args:
        path: A folder of photos (or with a folder `images`), or a video.
        folder: Where the model is stored, as `sparse/0`; frames of a video go to `images` there. None: a folder in the user's
            cache. An existing model is reused if it is of the same files.
        skip_missing: Drop photos that cannot be read instead of raising an error.
        max_size: Larger photos are downscaled to this many pixels on their longer side for feature detection.
        max_frames: Number of evenly spaced frames of a video to use.
        seed: Seed of random sampling.
        progress: Progress callback.

    Returns:
        The folder with `sparse/0`, and the folder of the photos that it refers to.

    Raises:
        MissingDependencyError: pycolmap is not installed.
        FileFormatError: A photo cannot be read.
        InputError: There are fewer than 3 different photos, or they cannot be registered together.
        Interrupted: Stopped by Ctrl-C or SIGTERM.
    """
    path = Path(path)
    sources = [path] if path.is_file() else _photo_files(path)
    listed = _listed(sources)
    folder = _cache_folder(path, listed) if folder is None else Path(folder)
    photos = folder / "images" if path.is_file() else sources[0].parent if sources else path
    if _read_index(folder).get("files") == listed and (folder / "sparse" / "0" / "images.bin").is_file():
        logger.info("reusing cameras: %s", folder)
        return folder, photos
    check_pycolmap()
    if path.is_file():
        _extract_frames(path, photos, max_frames)
        sources = _photo_files(photos)
    found = _found(sources, photos, skip_missing=skip_missing, max_size=max_size, seed=seed, progress=progress)
    model, result = found
    write_model(folder / "sparse" / "0", model)
    if path.is_dir():
        with contextlib.suppress(OSError):  # for COLMAP and `vision3d fit FOLDER`; not every system supports links
            (folder / "images").unlink(missing_ok=True)
            (folder / "images").symlink_to(photos.resolve(), target_is_directory=True)
    with atomic_write(folder / _INDEX) as temporary:
        content = {"version": _VERSION, "source": str(path.resolve()), **result, "files": listed}
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return folder, photos


def read_summary(folder: Path | str) -> dict[str, Any]:
    """Summary of `find_cameras`: photos, registered, points, error_px; empty if it has not run."""
    index = _read_index(Path(folder))
    return {key: index[key] for key in ("photos", "registered", "points", "error_px") if key in index}


def triangulate(
    images: PosedImages,
    which: Int64[Tensor, " m"] | None = None,
    *,
    max_size: int = 1600,
    max_error: float = 4.0,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> tuple[Float[Tensor, "p 3"], Float[Tensor, "p 3"]]:
    """Triangulate surface points from photos with known cameras; cameras are not changed.

    Args:
        images: Photos and cameras; features are detected at their size.
        which: Views to use; the training views by default, so that held-out views have no influence.
        max_size: Larger photos are downscaled to this many pixels on their longer side for feature detection.
        max_error: Maximum reprojection error of a point [px].
        seed: Seed of random sampling.
        progress: Progress callback.

    Returns:
        Points [m] and their colors in [0, 1], on the device of `images`.

    Raises:
        MissingDependencyError: pycolmap is not installed.
        InputError: Fewer than 2 views, or no point was found.
        Interrupted: Stopped by Ctrl-C or SIGTERM.
    """
    check_pycolmap()
    index = (images.train if which is None else which).tolist()
    if len(index) < 2:
        raise InputError(f"{images.source}: got {len(index)} views to triangulate from, want at least 2")
    cameras = images.cameras[index].to("cpu")
    with work_folder() as work:
        names = [f"{number:06d}.png" for number in range(len(index))]
        for name, i in zip(names, index):
            write_image(work / "images" / name, images.read(i)[0])
        job = {
            "kind": "triangulate",
            "folder": str(work),
            "groups": [[name] for name in names],
            "camera_model": "PINHOLE",
            "max_size": max_size,
            "max_features": 2 * _MAX_FEATURES,
            "first_octave": _DOUBLED,
            "seed": seed,
            "intrinsics": [[K[0][0], K[1][1], K[0][2], K[1][2]] for K in cameras.Ks.tolist()],
            "viewmats": cameras.viewmats.tolist(),
            "pairs": _pairs(cameras),
            "max_error": max_error,
        }
        count = run_job(job, progress)["points"]
        with np.load(work / "points.npz") as points:
            xyz, colors = torch.from_numpy(points["xyz"]), torch.from_numpy(points["rgb"]).float() / 255
    if not count:
        raise InputError(f"{images.source}: no point was found in {len(index)} views; are the poses right?")
    return xyz.to(images.device), colors.to(images.device)


def _photo_files(path: Path) -> list[Path]:
    folder = path / "images" if (path / "images").is_dir() else path
    return sorted(file for file in folder.iterdir() if is_image(file) and file.is_file())


def _listed(sources: Sequence[Path]) -> list[list[Any]]:
    return [[source.name, source.stat().st_size] for source in sources]


def _cache_folder(path: Path, listed: list[list[Any]]) -> Path:
    key = hashlib.sha256(json.dumps([str(path.resolve()), listed]).encode()).hexdigest()[:16]
    return cache_folder("sfm") / f"{path.resolve().stem}-{key}"


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = from_json((folder / _INDEX).read_bytes())
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) and index.get("version") == _VERSION else {}


def _found(
    sources: list[Path], photos: Path, *, skip_missing: bool, max_size: int, seed: int, progress: ProgressCallback | None
) -> tuple[ColmapModel, dict[str, Any]]:
    """The model in pixels of the photos, and statistics about it."""
    if len(sources) < MIN_PHOTOS:
        raise InputError(f"{photos}: got {len(sources)} photos, want at least {MIN_PHOTOS}")
    num_different = len({hashlib.sha256(source.read_bytes()).digest() for source in sources})
    if num_different < MIN_PHOTOS:
        raise InputError(f"{photos}: only {num_different} of {len(sources)} photos differ, want at least {MIN_PHOTOS}")
    with work_folder() as work:
        originals: dict[str, tuple[Path, tuple[int, int]]] = {}
        groups: dict[tuple[Any, ...], list[str]] = {}
        max_side = 0
        with Progress(len(sources), "read photos", progress) as bar:
            for number, source in enumerate(sources):
                copy = f"{number:06d}.jpg"
                try:
                    made = write_copy(source, work / "images" / copy, max_size)
                except FileFormatError as error:
                    if not skip_missing:
                        raise FileFormatError(error.path, f"{error.problem}; run with --skip-missing to skip it") from error
                    logger.warning("left out: %s", error)
                    continue
                originals[copy] = (source, made.size)
                groups.setdefault((made.size, made.lens), []).append(copy)
                max_side = max(max_side, *made.copy_size)
                bar.update(number + 1)
        model_name = "OPENCV" if len(groups) == 1 else "SIMPLE_RADIAL"
        job = {
            "kind": "reconstruct",
            "folder": str(work),
            "groups": list(groups.values()),
            "camera_model": model_name,
            "max_size": max_size,
            "max_features": _MAX_FEATURES,
            "first_octave": _DOUBLED if max_side < _SMALL else 0,
            "seed": seed,
        }
        result = run_job(job, progress)
        _check_found(photos, len(originals), result)
        model = read_model(work / "model")
    registered = {image.name for image in model.images.values()}
    lost = [source.name for copy, (source, _) in originals.items() if copy not in registered]
    log = logger.warning if lost else logger.info
    more = f"; not {', '.join(lost[:5])}{' ...' if len(lost) > 5 else ''}" if lost else ""
    text = "%s: cameras found for %d of %d photos%s, %d points, mean error %.2f px"
    log(text, photos, result["registered"], len(originals), more, result["points"], result["error_px"])
    return _in_photos(model, originals), {"photos": len(originals), "left_out": lost, **result}


def _check_found(photos: Path, count: int, result: dict[str, Any]) -> None:
    """Raise an InputError that explains why fewer than 3 photos could be registered."""
    if result["registered"] >= MIN_PHOTOS:
        return
    if result["features"] < _FEW_FEATURES:
        why = (
            f"half of them have fewer than {max(1, round(result['features']))} features; want sharp photos of textured objects"
        )
    elif not result["pairs"]:
        why = "no two of them show the same surface; want more overlap"
    else:
        why = f"{result['pairs']} pairs overlap; want more overlap, and a camera that moves instead of only rotating"
    raise InputError(f"{photos}: the {count} photos do not fit together: {why}")


def _in_photos(model: ColmapModel, originals: dict[str, tuple[Path, tuple[int, int]]]) -> ColmapModel:
    """The model of the copies converted to the photos: names and sizes."""
    cameras, images, factors = {}, {}, {}
    for key, image in model.images.items():
        source, (width, height) = originals[image.name]
        camera = model.cameras[image.camera_id]
        across = np.array([width / camera.width, height / camera.height])
        params, count = camera.params.copy(), _FOCALS[camera.model]
        params[:count] *= across[:count]
        params[count : count + 2] *= across
        cameras[image.camera_id] = replace(camera, width=width, height=height, params=params)
        images[key] = replace(image, name=source.name, xys=image.xys * across)
        factors[image.camera_id] = across.mean()
    errors = model.points.errors * (float(np.mean(list(factors.values()))) if factors else 1.0)
    points: ColmapPoints = replace(model.points, errors=errors)
    return ColmapModel(cameras, images, points)


def _extract_frames(path: Path, folder: Path, max_frames: int) -> None:
    video = read_video(path)
    count = round(video.duration * video.fps)
    step = max(1, -(-count // max_frames))
    make_folder(folder)
    for i, frame in enumerate(video):
        if i % step == 0:
            write_image(folder / f"{i:06d}.jpg", frame)


def _pairs(cameras: Cameras) -> list[tuple[int, int]]:
    """Pairs of views to match: all, or the nearest by position and direction."""
    count = len(cameras)
    if count <= _MAX_EXHAUSTIVE:
        return [(a, b) for a in range(count) for b in range(a + 1, count)]
    axes = cameras.camtoworlds[:, :3, 2]
    distances = torch.cdist(cameras.centers, cameras.centers)
    distances = distances / distances.median().clamp(min=1e-12) + 2 * (1 - axes @ axes.mT)
    distances.fill_diagonal_(torch.inf)
    nearest = distances.topk(_NUM_NEIGHBORS, largest=False).indices
    return sorted({(min(a, b), max(a, b)) for a, row in enumerate(nearest.tolist()) for b in row})
