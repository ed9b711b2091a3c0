"""Cameras as JSON: transforms.json of nerfstudio and instant-ngp, and our cameras.json, a superset of it.

Files have camera-to-world poses in OpenGL axes (x right, y up, z backward); they are converted here. Intrinsics are in the
file or in each frame: fl_x fl_y cx cy w h, or camera_angle_x; camera_model and k1 k2 p1 p2 k3 .. for the lens.
"""

import json
import logging
import math
import reprlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import torch

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.core.plain import from_json
from vision3d.geometry.cameras import opencv_to_opengl
from vision3d.io.frames import Frame, FrameList, Lens, checked_viewmat
from vision3d.io.images import SUFFIXES
from vision3d.scene.cameras import Cameras

logger = logging.getLogger(__name__)

_MODELS = {  # camera_model -> projection, names of the lens coefficients used
    "PINHOLE": ("pinhole", ()),
    "SIMPLE_PINHOLE": ("pinhole", ()),
    "SIMPLE_RADIAL": ("pinhole", ("k1",)),
    "RADIAL": ("pinhole", ("k1", "k2")),
    "OPENCV": ("pinhole", ("k1", "k2", "p1", "p2", "k3")),
    "FULL_OPENCV": ("pinhole", ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")),
    "SIMPLE_RADIAL_FISHEYE": ("fisheye", ("k1",)),
    "RADIAL_FISHEYE": ("fisheye", ("k1", "k2")),
    "OPENCV_FISHEYE": ("fisheye", ("k1", "k2", "k3", "k4")),
    "ORTHOPHOTO": ("ortho", ()),
}
_FULL = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_INTRINSICS = ("fl_x", "fl_y", "cx", "cy", "w", "h")
_SPLITS = ("train_filenames", "val_filenames", "test_filenames")


def read_frames(path: Path | str) -> FrameList:
    """The views listed in a transforms.json, each with its lens, and its points; the images need not exist.

    Raises:
        MissingFileError: The file, or the point cloud that it refers to, does not exist.
        FileFormatError: It is not JSON, has no frames, or a frame (named in the message) is incomplete or has a wrong pose.
    """
    path = Path(path)
    content = _read_json(path)
    frames, unit = _with_unit(path, content, _frames(path, content))
    frames = _with_split(path, content, _with_moved(path, frames))
    if any(frame.lens.model == "ortho" for frame in frames):
        raise FileFormatError(path, "has ortho cameras, which are not supported for photos; read them with Cameras.load")
    points = colors = None
    if content.get("ply_file_path"):
        from vision3d.io.ply import read_points

        cloud, cloud_colors = read_points(path.parent / str(content["ply_file_path"]))
        points = cloud.numpy()
        colors = None if cloud_colors is None else cloud_colors.numpy()
    return FrameList(path, tuple(frames), points, colors, smaller_image, unit)


def read_cameras(path: Path | str) -> Cameras:
    """The cameras of a cameras.json or transforms.json in file order, with their lens distortion.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, or has no image size.
    """
    path = Path(path)
    content = _read_json(path)
    frames = _frames(path, content)
    lenses = []
    for frame in frames:
        if frame.lens.width is None or frame.lens.height is None:
            raise FileFormatError(path, f"{frame.label}: w and h are missing, and Cameras.load does not read images")
        lenses.append(frame.lens.filled((frame.lens.width, frame.lens.height)))
    if len({lens.model for lens in lenses}) > 1:
        raise FileFormatError(path, "mixes pinhole and fisheye cameras; want one kind")
    count = max(len(lens.coeffs) for lens in lenses)
    coeffs = torch.zeros(len(lenses), 4 if count <= 4 else 8, dtype=torch.float64)
    for row, lens in zip(coeffs, lenses):
        row[: len(lens.coeffs)] = torch.tensor(lens.coeffs)
    times = [frame.time for frame in frames]
    try:
        return _cameras(content, frames, lenses, coeffs.float() if count else None, times).validate()
    except FileFormatError:
        raise
    except (InputError, ValueError, OverflowError, RuntimeError) as error:
        raise FileFormatError(path, f"holds cameras that are wrong ({str(error).splitlines()[0][:200]})", "frames") from error


def _cameras(
    content: dict[str, Any],
    frames: Sequence[Frame],
    lenses: Sequence[Lens],
    distortion: torch.Tensor | None,
    times: Sequence[float | None],
) -> Cameras:
    return Cameras(
        viewmats=torch.from_numpy(np.stack([frame.viewmat for frame in frames])).float(),
        Ks=torch.tensor([lens.K() for lens in lenses], dtype=torch.float32),
        width=torch.tensor([lens.width for lens in lenses]),
        height=torch.tensor([lens.height for lens in lenses]),
        model=lenses[0].model,
        distortion=distortion,
        names=None if _is_unnamed(content) else tuple(frame.name for frame in frames),
        times=None if any(time is None for time in times) else torch.tensor(times, dtype=torch.float32),
    )


def write_cameras(
    path: Path | str,
    cameras: Cameras,
    *,
    mask_names: Sequence[str | None] | None = None,
    depth_names: Sequence[str | None] | None = None,
    is_test: torch.Tensor | None = None,
    ply_name: str | None = None,
) -> None:
    """Write a transforms.json that nerfstudio and instant-ngp can read, atomically.

    Args:
        path: The file; the cameras' names are image files relative to its folder.
        cameras: Names default to view_00000 and so on.
        mask_names: Mask files relative to the folder, one per camera or None.
        depth_names: Depth maps relative to the folder, one per camera or None.
        is_test: Held-out views; written as train_filenames and test_filenames.
        ply_name: Point cloud file relative to the folder.
    """
    cameras.validate()
    names = cameras.names or tuple(f"view_{i:05d}" for i in range(len(cameras)))
    lenses = [_lens_entries(cameras, i) for i in range(len(cameras))]
    is_shared = all(lens == lenses[0] for lens in lenses)
    camtoworlds = opencv_to_opengl(torch.linalg.inv(cameras.viewmats.detach().cpu().double()))
    content: dict[str, Any] = {"vision3d": {"type": "cameras", "version": 1, "named": cameras.names is not None}}
    content["camera_model"] = _model_name(cameras)
    if is_shared and lenses:
        content |= lenses[0]
    if ply_name is not None:
        content["ply_file_path"] = ply_name
    frames = []
    for i, name in enumerate(names):
        frame: dict[str, Any] = {"file_path": name} if is_shared else {"file_path": name, **lenses[i]}
        if mask_names is not None and mask_names[i] is not None:
            frame["mask_path"] = mask_names[i]
        if depth_names is not None and depth_names[i] is not None:
            frame["depth_file_path"] = depth_names[i]
        if cameras.times is not None:
            frame["time"] = float(cameras.times[i])
        frames.append(frame | {"transform_matrix": camtoworlds[i].tolist()})
    content["frames"] = frames
    if is_test is not None:
        content["train_filenames"] = [name for name, held_out in zip(names, is_test.tolist()) if not held_out]
        content["test_filenames"] = [name for name, held_out in zip(names, is_test.tolist()) if held_out]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def smaller_image(path: Path, factor: int) -> Path | None:
    """The image of the same name in `images_2`, `images_4` or `images_8` next to the folder `images`, if it exists."""
    for i in range(len(path.parts) - 2, -1, -1):
        if path.parts[i] == "images":
            smaller = Path(*path.parts[:i], f"images_{factor}", *path.parts[i + 1 :])
            choices = [smaller, *(smaller.with_suffix(suffix) for suffix in SUFFIXES)]
            return next((choice for choice in choices if choice.is_file()), None)
    return None


def has_photographs(path: Path | str) -> bool:
    """Whether a file is a data set: files of other programs are; ours are if they have a split, or images next to them.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is not JSON, has no frames, or a frame (named in the message) is invalid.
    """
    path = Path(path)
    content = _read_json(path)
    if content.get("vision3d") is None or any(key in content for key in _SPLITS):
        return True
    return not _is_unnamed(content) and any(frame.image_path.is_file() for frame in _frames(path, content))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(path, "a transforms.json")
    try:
        content = from_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FileFormatError(path, f"is not JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise FileFormatError(
            path, "has no list 'frames'; want a transforms.json, or a Selection or Boxes as vision3d writes them"
        )
    if not content["frames"]:
        raise FileFormatError(path, "has no frames", "frames")
    return content


def _is_unnamed(content: dict[str, Any]) -> bool:
    own = content.get("vision3d")
    return isinstance(own, dict) and own.get("named") is False


def _frames(path: Path, content: dict[str, Any]) -> list[Frame]:
    depth_key, _ = _depth_keys(content)
    return [_frame(path, content, i, entry, depth_key) for i, entry in enumerate(content["frames"])]


def _frame(path: Path, content: dict[str, Any], index: int, entry: Any, depth_key: str) -> Frame:
    label = f"frame {index}"
    if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
        raise FileFormatError(path, f"{label} has no file_path")
    name = entry["file_path"]
    try:
        matrix = np.array(entry.get("transform_matrix"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FileFormatError(path, f"{label} ({name}): transform_matrix is not made of numbers") from error
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])
    if matrix.shape != (4, 4):
        raise FileFormatError(path, f"{label} ({name}): transform_matrix has shape {matrix.shape}, want (4, 4)")
    matrix = matrix * [1.0, -1.0, -1.0, 1.0]  # OpenGL to OpenCV camera axes
    mask, depth = entry.get("mask_path"), entry.get(depth_key)
    time = entry.get("time")
    return Frame(
        label=label,
        name=name,
        image_path=_image_file(path.parent, name),
        viewmat=checked_viewmat(path, f"{label} ({name})", matrix),
        lens=_lens(path, f"{label} ({name})", content, entry),
        mask_path=_image_file(path.parent, mask) if isinstance(mask, str) else None,
        depth_path=_image_file(path.parent, depth) if isinstance(depth, str) else None,
        time=_number(path, label, "time", time) if time is not None else None,
    )


def _depth_keys(content: dict[str, Any]) -> tuple[str, str]:
    """Keys of the depth map of a frame and of the unit: those of nerfstudio, or if no frame has one, those of instant-ngp."""
    frames = [entry for entry in content["frames"] if isinstance(entry, dict)]
    is_ngp = any("depth_path" in entry for entry in frames) and not any("depth_file_path" in entry for entry in frames)
    return ("depth_path", "integer_depth_scale") if is_ngp else ("depth_file_path", "depth_unit_scale_factor")


def _with_unit(path: Path, content: dict[str, Any], frames: list[Frame]) -> tuple[list[Frame], float | None]:
    """The meters per unit of the depth maps, if given. instant-ngp reads none without them."""
    _, key = _depth_keys(content)
    unit = None if content.get(key) is None else _number(path, "the file", key, content[key])
    if key == "integer_depth_scale" and (unit is None or unit <= 0):
        count, given = sum(frame.depth_path is not None for frame in frames), "missing" if unit is None else f"{unit:g}"
        text = "%s: %d frames with a depth_path, which is not read: integer_depth_scale is %s, want meters per unit"
        logger.warning(text, path, count, given)
        return [replace(frame, depth_path=None) for frame in frames], None
    if unit is not None and unit <= 0:
        raise FileFormatError(path, f"{key} is {unit:g}, want a number > 0")
    return frames, unit


def _with_moved(path: Path, frames: list[Frame]) -> list[Frame]:
    """Images, masks and depth maps that moved, for example to another machine, found by the ends of their paths."""
    images = _moved(path, "images", {frame.image_path for frame in frames})
    masks = _moved(path, "masks", {frame.mask_path for frame in frames if frame.mask_path is not None})
    depths = _moved(path, "depth maps", {frame.depth_path for frame in frames if frame.depth_path is not None})
    return [
        replace(
            frame,
            image_path=images.get(frame.image_path, frame.image_path),
            mask_path=None if frame.mask_path is None else masks.get(frame.mask_path, frame.mask_path),
            depth_path=None if frame.depth_path is None else depths.get(frame.depth_path, frame.depth_path),
        )
        for frame in frames
    ]


def _moved(source: Path, kind: str, paths: set[Path]) -> dict[Path, Path]:
    missing = sorted(path for path in paths if not path.is_file())
    found: dict[Path, Path] = {}
    for path in missing:
        parts = PurePosixPath(str(path).replace("\\", "/")).parts
        places = (_image_file(source.parent, "/".join(parts[start:])) for start in range(1, len(parts)))
        place = next((place for place in places if place.is_file()), None)
        if place is not None:
            found[path] = place
    taken = {path.resolve() for path in paths if path.is_file()} | {place.resolve() for place in found.values()}
    if len(taken) < len(paths) - len(missing) + len(found):  # two names match one file, so the match is ambiguous
        return {}
    if found:
        first = min(found)
        logger.warning(
            "%s: %d of %d %s are not at the given path; found by name instead (%s for %s)",
            source, len(found), len(paths), kind, found[first], first,
        )  # fmt: skip
    return found


def _image_file(folder: Path, name: str) -> Path:
    """The file of a name: as written, with the path separators of another system, or with the missing suffix added."""
    for spelled in dict.fromkeys((name, name.replace("\\", "/"))):
        path = folder / spelled
        if path.is_file():
            return path
        if path.suffix.lower() not in SUFFIXES:
            for suffix in SUFFIXES:
                if (found := path.with_name(path.name + suffix)).is_file():
                    return found
    return folder / name


def _lens(path: Path, label: str, content: dict[str, Any], entry: dict[str, Any]) -> Lens:
    values: dict[str, float] = {}
    names = (*_INTRINSICS, *_FULL, "camera_angle_x", "camera_angle_y")
    for source in (content, entry):  # values of a frame override those of the file
        for name in names:
            if source.get(name) is not None:
                values[name] = _number(path, label, name, source[name])
    model_name = entry.get("camera_model", content.get("camera_model")) or (
        "OPENCV_FISHEYE" if entry.get("is_fisheye", content.get("is_fisheye")) else "OPENCV"
    )
    if not isinstance(model_name, str) or model_name not in _MODELS:
        raise FileFormatError(path, f"{label}: camera_model {model_name} is not supported; want {', '.join(_MODELS)}")
    model, used = _MODELS[model_name]
    if model_name == "OPENCV" and values.get("k4"):
        raise FileFormatError(path, f"{label}: k4 is given for camera_model OPENCV, where its meaning differs between programs")
    order = ("k1", "k2", "k3", "k4") if model == "fisheye" else _FULL
    coeffs = [values.get(name, 0.0) if name in used else 0.0 for name in order]
    while coeffs and coeffs[-1] == 0:
        coeffs.pop()
    if "fl_x" not in values and "camera_angle_x" not in values:
        raise FileFormatError(path, f"{label}: neither fl_x nor camera_angle_x is given")
    size = {name: round(values[name]) if name in values else None for name in ("w", "h")}
    fy = values.get("fl_y")
    if fy is None and "fl_x" not in values and "camera_angle_y" in values and size["h"]:
        fy = 0.5 * size["h"] / math.tan(0.5 * values["camera_angle_y"])
    return Lens(
        model=model,  # pyright: ignore[reportArgumentType]
        fx=values.get("fl_x"),
        fy=fy,
        cx=values.get("cx"),
        cy=values.get("cy"),
        width=size["w"],
        height=size["h"],
        coeffs=tuple(coeffs),
        angle_x=values.get("camera_angle_x"),
    )


def _number(path: Path, label: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FileFormatError(path, f"{label}: {name} is {reprlib.repr(value)}, want a finite number")
    return float(value)


def _with_split(path: Path, content: dict[str, Any], frames: list[Frame]) -> list[Frame]:
    """The frames in the file's own split; those of val and test are held out."""
    lists: dict[str, set[str]] = {}
    for key in _SPLITS:
        if key in content:
            if not isinstance(content[key], list) or not all(isinstance(name, str) for name in content[key]):
                raise FileFormatError(path, f"{key} is not a list of names")
            lists[key] = set(content[key])
    if "train_filenames" not in lists:
        return frames
    held_out = lists.get("val_filenames", set()) | lists.get("test_filenames", set())
    train = lists["train_filenames"]
    if not any(frame.name in train for frame in frames):
        raise FileFormatError(path, f"none of the {len(train)} names in train_filenames is the file_path of a frame")
    return [replace(f, is_test=f.name not in train) for f in frames if f.name in train or f.name in held_out]


def _model_name(cameras: Cameras) -> str:
    if cameras.model == "ortho":
        return "ORTHOPHOTO"
    if cameras.model == "fisheye":
        return "OPENCV_FISHEYE"
    if cameras.distortion is None:
        return "PINHOLE"
    return "FULL_OPENCV" if bool(cameras.distortion[:, 5:].any()) else "OPENCV"


def _lens_entries(cameras: Cameras, index: int) -> dict[str, float | int]:
    K = cameras.Ks[index].tolist()
    values: dict[str, float | int] = {"fl_x": K[0][0], "fl_y": K[1][1], "cx": K[0][2], "cy": K[1][2]}
    values |= {"w": int(cameras.width[index]), "h": int(cameras.height[index])}
    if cameras.distortion is not None:
        order = ("k1", "k2", "k3", "k4") if cameras.model == "fisheye" else _FULL
        values |= dict(zip(order, cast(list, cameras.distortion[index].tolist())))
    return values
