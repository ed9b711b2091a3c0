"""Data sets with a COLMAP model: photos in `images`, the model in `sparse/0`."""

from pathlib import Path

import numpy as np

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.io.colmap import ColmapCamera, read_model
from vision3d.io.frames import Frame, FrameList, Lens, checked_viewmat
from vision3d.io.images import is_image
from vision3d.io.transforms_json import smaller_image

_ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_TWO_FOCALS = ("PINHOLE", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV")


def lens_of(camera: ColmapCamera) -> Lens:
    """The lens of a COLMAP camera in OpenCV's coefficients.

    Raises:
        InputError: Its model has no such representation.
    """
    params = camera.params.tolist()
    if camera.model in _ONE_FOCAL:
        params = [params[0], *params]
    elif camera.model not in _TWO_FOCALS:
        supported = ", ".join(sorted(_ONE_FOCAL + _TWO_FOCALS))
        raise InputError(
            f"camera model {camera.model} is not supported; want {supported} (`colmap image_undistorter` makes PINHOLE)"
        )
    model = "fisheye" if camera.model.endswith("FISHEYE") else "pinhole"
    fx, fy, cx, cy, *coeffs = params
    return Lens(model, fx, fy, cx, cy, camera.width, camera.height, tuple(coeffs))


def find_model(folder: Path | str) -> Path | None:
    """The folder of the model in a data set: sparse/0, sparse, colmap/sparse/0, or the folder itself."""
    for name in ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "."):
        candidate = Path(folder) / name
        if any(all((candidate / f"{n}{s}").is_file() for n in ("cameras", "images")) for s in (".bin", ".txt")):
            return candidate
    return None


def read_frames(folder: Path | str, images: Path | str | None = None) -> FrameList:
    """The views of a COLMAP folder, sorted by name, and its points.

    Args:
        folder: Data set with a model, see `find_model`.
        images: Folder of the photos; by default `images` next to the model or above it.

    Raises:
        MissingFileError: No model.
        FileFormatError: A file is damaged, a camera model is not supported, or a pose is wrong.
    """
    folder = Path(folder)
    place = find_model(folder)
    if place is None:
        raise MissingFileError(folder / "sparse/0/cameras.bin", "a COLMAP model in sparse/0, sparse, or the folder itself")
    model = read_model(place)
    photos = Path(images) if images is not None else _photo_folder(folder, place)
    lenses = {}
    for key, camera in model.cameras.items():
        try:
            lenses[key] = lens_of(camera)
        except InputError as error:
            raise FileFormatError(place, f"camera {key}: {error}") from error
    frames = []
    for key, image in sorted(model.images.items(), key=lambda item: item[1].name):
        label = f"image {key}"
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = _rotation(image.qvec), image.tvec
        camtoworld = np.linalg.inv(pose) if np.isfinite(pose).all() else pose
        mask = photos.parent / "masks" / f"{image.name}.png"
        frames.append(
            Frame(
                label=label,
                name=image.name,
                image_path=photos / image.name,
                viewmat=checked_viewmat(place, f"{label} ({image.name})", camtoworld),
                lens=lenses[image.camera_id],
                mask_path=mask if mask.is_file() else None,
            )
        )
    if not frames:
        raise FileFormatError(place, "has no images")
    return FrameList(folder, tuple(frames), model.points.xyz, model.points.rgb / 255.0, smaller_image)


def _photo_folder(folder: Path, place: Path) -> Path:
    above = [folder, *list(place.resolve().parents)[:3]]
    found = next((base / "images" for base in above if (base / "images").is_dir()), None)
    if found is None and any(is_image(file) for file in folder.iterdir()):
        return folder  # photos next to their model, as `vision3d.io.sfm` writes them
    return found or folder / "images"


def _rotation(qvec: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        w, x, y, z = qvec / np.linalg.norm(qvec)  # zero length gives NaN, which is rejected as a pose
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
