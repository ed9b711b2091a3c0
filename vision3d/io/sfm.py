"""Structure from motion by pycolmap: cameras and points from photographs, or points for known cameras."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.errors import InputError, MissingDependencyError
from vision3d.io.colmap import read_model, write_model
from vision3d.io.images import image_size, is_image, write_image
from vision3d.io.video import read_video
from vision3d.scene.cameras import Cameras
from vision3d.scene.images import PosedImages

logger = logging.getLogger(__name__)

_MAX_EXHAUSTIVE = 80  # photographs of which every pair is compared
_NUM_NEIGHBORS = 20  # with how many of its nearest views a posed view is compared beyond that


def reconstruct(path: Path | str, *, max_size: int = 1600, max_frames: int = 120, seed: int = 0) -> Path:
    """Find the cameras of photographs or of a video; the model is written to `sparse/0` beside the photographs.

    Photographs of one size share one camera (OPENCV model). All pairs of up to 80 photographs are compared, of more (and
    of a video) each with the ones that follow it. The largest connected part is kept; what is left out is logged.

    Args:
        path: A folder of photographs (or with a folder `images`), or a video, whose frames go to NAME_frames.
        max_size: Larger pictures are shrunk to this many pixels on their longer side to look for features.
        max_frames: How many frames of a video are taken, evenly spaced.
        seed: Of the random draws.

    Returns:
        The folder that holds `sparse/0` and the photographs, as `vision3d.io.colmap_dataset.read_frames` reads it.

    Raises:
        MissingDependencyError: pycolmap is not installed.
        InputError: There are fewer than 3 photographs, or they do not fit together.
    """
    pycolmap = _pycolmap()
    path = Path(path)
    is_video = path.is_file()
    folder = _extract_frames(path, max_frames) if is_video else path
    photos = folder / "images" if (folder / "images").is_dir() else folder
    names = sorted(file.name for file in photos.iterdir() if is_image(file))
    if len(names) < 3:
        raise InputError(f"{photos}: got {len(names)} photographs, want at least 3")
    is_single = len({image_size(photos / name) for name in names}) == 1
    with _workplace(pycolmap, seed) as work:
        database = work / "database.db"
        pycolmap.extract_features(
            database,
            photos,
            names,
            camera_mode=pycolmap.CameraMode.SINGLE if is_single else pycolmap.CameraMode.AUTO,
            reader_options=pycolmap.ImageReaderOptions(camera_model="OPENCV" if is_single else "SIMPLE_RADIAL"),
            extraction_options=_extraction(pycolmap, max_size),
            device=pycolmap.Device.cpu,
        )
        if is_video or len(names) > _MAX_EXHAUSTIVE:
            pycolmap.match_sequential(database, _matching(pycolmap), device=pycolmap.Device.cpu)
        else:
            pycolmap.match_exhaustive(database, _matching(pycolmap), device=pycolmap.Device.cpu)
        options = pycolmap.IncrementalPipelineOptions(num_threads=torch.get_num_threads(), random_seed=seed, min_model_size=3)
        models = pycolmap.incremental_mapping(database, photos, work, options)
        if not models:
            raise InputError(f"{photos}: the {len(names)} photographs do not fit together; want more overlap and texture")
        best = max(models.values(), key=lambda model: model.num_reg_images())
        num_found = best.num_reg_images()
        if num_found < 3:
            raise InputError(f"{photos}: only {num_found} of {len(names)} photographs fit together; want at least 3")
        log = logger.info if num_found == len(names) else logger.warning
        log("%s: cameras found for %d of %d photographs, %d points", photos, num_found, len(names), best.num_points3D())
        best.write_binary(work)
        write_model(folder / "sparse" / "0", read_model(work))
    return folder


def triangulate(
    images: PosedImages,
    which: Int64[Tensor, " m"] | None = None,
    *,
    max_size: int = 1600,
    max_error: float = 4.0,
    seed: int = 0,
) -> tuple[Float[Tensor, "p 3"], Float[Tensor, "p 3"]]:
    """Points of the surface, from photographs whose cameras are known; cameras are not changed.

    Args:
        images: Photographs and cameras, at whose size features are looked for.
        which: Views to use; the training views by default, so that held-out views leave no trace.
        max_size: Larger pictures are shrunk to this many pixels on their longer side to look for features.
        max_error: Largest reprojection error of a point [px].
        seed: Of the random draws.

    Returns:
        Points [m] and their colours in [0, 1], on the device of `images`.

    Raises:
        MissingDependencyError: pycolmap is not installed.
        InputError: Fewer than 2 views, or no point was found.
    """
    pycolmap = _pycolmap()
    index = (images.train if which is None else which).tolist()
    if len(index) < 2:
        raise InputError(f"{images.source}: got {len(index)} views to triangulate from, want at least 2")
    cameras = images.cameras[index].to("cpu")
    with _workplace(pycolmap, seed) as work:
        names = []
        for i in index:
            names.append(f"{len(names):06d}.png")
            write_image(work / "images" / names[-1], images.read(i)[0])
        database = work / "database.db"
        pycolmap.extract_features(
            database,
            work / "images",
            names,
            camera_mode=pycolmap.CameraMode.PER_IMAGE,
            reader_options=pycolmap.ImageReaderOptions(camera_model="PINHOLE"),
            extraction_options=_extraction(pycolmap, max_size),
            device=pycolmap.Device.cpu,
        )
        known = _known_reconstruction(pycolmap, database, names, cameras)
        pairs = work / "pairs.txt"
        pairs.write_text("".join(f"{names[a]} {names[b]}\n" for a, b in _pairs(cameras)))
        pycolmap.match_image_pairs(
            database,
            _matching(pycolmap),
            pycolmap.ImportedPairingOptions(match_list_path=pairs),
            device=pycolmap.Device.cpu,
        )
        options = pycolmap.IncrementalPipelineOptions(num_threads=torch.get_num_threads(), random_seed=seed)
        options.mapper.filter_max_reproj_error = max_error
        options.triangulation.complete_max_reproj_error = max_error
        options.triangulation.merge_max_reproj_error = max_error
        result = pycolmap.triangulate_points(known, database, work / "images", work, options=options)
        points = sorted(result.points3D.items())
    if not points:
        raise InputError(f"{images.source}: no point was found in {len(index)} views; are the poses right?")
    xyz = torch.tensor([point.xyz.tolist() for _, point in points], dtype=torch.float32)
    colors = torch.tensor([point.color.tolist() for _, point in points], dtype=torch.float32) / 255
    return xyz.to(images.device), colors.to(images.device)


def _pycolmap() -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise MissingDependencyError("pycolmap", "sfm", "finding cameras and points in photographs") from error
    return pycolmap


@contextlib.contextmanager
def _workplace(pycolmap: Any, seed: int) -> Iterator[Path]:
    """A temporary folder, while pycolmap is quiet and draws from `seed`."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    pycolmap.set_random_seed(seed)
    try:
        with tempfile.TemporaryDirectory(prefix="vision3d-sfm-") as work:
            yield Path(work)
    finally:
        pycolmap.logging.minloglevel = level


def _extraction(pycolmap: Any, max_size: int) -> Any:
    return pycolmap.FeatureExtractionOptions(max_image_size=max_size, num_threads=torch.get_num_threads(), use_gpu=False)


def _matching(pycolmap: Any) -> Any:
    return pycolmap.FeatureMatchingOptions(num_threads=torch.get_num_threads(), use_gpu=False)


def _extract_frames(path: Path, max_frames: int) -> Path:
    video = read_video(path)
    count = round(video.duration * video.fps)
    step = max(1, -(-count // max_frames))
    folder = path.with_name(f"{path.stem}_frames")
    for i, frame in enumerate(video):
        if i % step == 0:
            write_image(folder / "images" / f"{i:06d}.jpg", frame)
    return folder


def _pairs(cameras: Cameras) -> list[tuple[int, int]]:
    """Which views to compare: all, or the nearest in place and direction."""
    count = len(cameras)
    if count <= _MAX_EXHAUSTIVE:
        return [(a, b) for a in range(count) for b in range(a + 1, count)]
    axes = cameras.camtoworlds[:, :3, 2]
    distances = torch.cdist(cameras.centers, cameras.centers)
    distances = distances / distances.median().clamp(min=1e-12) + 2 * (1 - axes @ axes.mT)
    distances.fill_diagonal_(torch.inf)
    nearest = distances.topk(_NUM_NEIGHBORS, largest=False).indices
    return sorted({(min(a, b), max(a, b)) for a, row in enumerate(nearest.tolist()) for b in row})


def _known_reconstruction(pycolmap: Any, database: Path, names: list[str], cameras: Cameras) -> Any:
    """A reconstruction without points, of our cameras under the ids of the database, which learns the intrinsics."""
    known = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as store:
        for name, K, viewmat in zip(names, cameras.Ks.tolist(), cameras.viewmats.double().numpy()):
            image = store.read_image_with_name(name)
            camera = store.read_camera(image.camera_id)
            camera.params = [K[0][0], K[1][1], K[0][2], K[1][2]]
            camera.has_prior_focal_length = True
            store.update_camera(camera)
            known.add_camera_with_trivial_rig(camera)
            pose = pycolmap.Rigid3d(pycolmap.Rotation3d(viewmat[:3, :3]), viewmat[:3, 3])
            known.add_image_with_trivial_frame(
                pycolmap.Image(name=name, camera_id=image.camera_id, image_id=image.image_id), pose
            )
    return known
