"""Hands in images and videos: files in, joints, meshes and images out."""

import contextlib
import importlib
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision3d.core.device import resolve_device
from vision3d.core.errors import ConfigError, InputError, MissingFileError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.io.images import SUFFIXES, is_image, read_photo
from vision3d.io.video import Video, Webcam, open_webcam, read_video
from vision3d.stage import stage
from vision3d.stages.hand.detections import Detections, Finder
from vision3d.stages.hand.network.files import HandModel, load_hand_model
from vision3d.stages.hand.predict.boxes import read_boxes
from vision3d.stages.hand.predict.files import Outputs, write_animation
from vision3d.stages.hand.predict.predictor import HandPredictor, boxes_of, intrinsics_of
from vision3d.stages.hand.predict.result import HandResult
from vision3d.stages.hand.predict.tracker import HandTracker
from vision3d.stages.hand.run_config import HandConfig

logger = logging.getLogger(__name__)
_WARM_UP = 3
"""Frames that do not count for the times: torch's first calls take longer."""
_LISTED = 5


@dataclass(frozen=True)
class HandFrame:
    """The hands of an image or of a frame."""

    name: str
    """Of the file, or the number of the frame."""
    hands: tuple[HandResult, ...]
    time: float | None = None
    """Of the frame [s]."""


@dataclass(frozen=True)
class HandRun:
    """Result of a run."""

    frames: tuple[HandFrame, ...]
    summary: dict[str, Any]
    run_folder: Path | None = None

    @property
    def hands(self) -> tuple[HandResult, ...]:
        """The hands of the first image."""
        return self.frames[0].hands


@stage("hand run", {"inputs": "path", "boxes": "boxes", "webcam": "webcam"})
def hand(
    config: HandConfig,
    inputs: Tensor | Path | str | None = None,
    *,
    boxes: Path | str | None = None,
    webcam: int | None = None,
    model: HandModel | None = None,
    finder: Finder | None = None,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> HandRun:
    """Find the hands in an image, in every image of a folder, or in a video.

    Args:
        config: Options.
        inputs: An image, a folder of images, a video, or an image (H, W, 3) of bytes; None with `webcam`.
        boxes: .json with the boxes of hands by name of the image (`predict.boxes.read_boxes`); images that it does not name go
            to the finder.
        webcam: Number of a camera of this computer, instead of `inputs`.
        model: The network; None loads `config.weights`.
        finder: The finder; None loads `config.finder_weights` where boxes are missing.
        run_folder: Receives NAME.json, NAME_overlay.png and meshes of each image; of a video frames/NUMBER.json, overlay.mp4
            and hands.glb. None: nothing is written.
        progress: Progress callback, called for every image.

    Raises:
        InputError: A file cannot be read, no image is found, or a box is outside its image.
        ConfigError: Both or neither of inputs and webcam are given.

    Example:
        >>> from vision3d import HandConfig, hand  # doctest: +SKIP
        >>> hand(HandConfig(), "photo.jpg").hands[0].joints_3d  # doctest: +SKIP
    """
    device = resolve_device(config.device)
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    if (inputs is None) == (webcam is None):
        raise ConfigError("path", "got neither or both of PATH and --webcam, want one of them")
    source = open_webcam(webcam) if webcam is not None else _source(inputs)
    known = {} if boxes is None else read_boxes(boxes)
    _check_names(known, source, boxes)
    model = load_hand_model(config.weights) if model is None else model
    is_moving = isinstance(source, Video | Webcam)
    if finder is None:
        finder = _finder(config, source, known, device)
    turner = None
    if model.config.upright and not hasattr(finder, "turns"):
        turner = _load_finder(config.finder_weights, device)
    predictor = HandPredictor(model, config, finder, turner=turner, device=device, for_video=is_moving)
    path = None if run_folder is None else run_folder.path
    with Outputs(path, config, source.fps if isinstance(source, Video | Webcam) else None) as outputs:
        if isinstance(source, Video | Webcam):
            frames, more = _video(source, predictor, known, outputs, progress)
        else:
            frames, more = _images(source, predictor, known, outputs, progress)
    found = [hand for frame in frames for hand in frame.hands]
    without = [frame.name for frame in frames if not frame.hands]
    if without:
        listed = ", ".join(without[:_LISTED]) + (f" and {len(without) - _LISTED} more" if len(without) > _LISTED else "")
        logger.warning("no hand found in %d of %d images: %s", len(without), len(frames), listed)
    if config.intrinsics is None:
        logger.info("intrinsics are %s; distances scale with its focal length (--fov, --intrinsics)", config.intrinsics_source)
    summary = {
        "images": len(frames),
        "hands": len(found),
        "right": sum(hand.side == "right" for hand in found),
        "left": sum(hand.side == "left" for hand in found),
        "without_hand": len(without),
        "intrinsics": config.intrinsics_source,
        **more,
        "device": str(device),
    }
    return HandRun(tuple(frames), summary, path)


def find_images(path: Path | str) -> list[Path]:
    """An image, or the images of a folder by name.

    Raises:
        MissingFileError: The path does not exist.
        InputError: The folder has no images, or two of the same name.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise MissingFileError(path, "an image, a folder of images, or a video")
    found = sorted(file for file in path.iterdir() if is_image(file) and file.is_file())
    if not found:
        raise InputError(f"{path}: has no images ({', '.join(SUFFIXES)})")
    stems = [file.stem for file in found]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise InputError(f"{path}: has several images called {twice}; their results would have the same names")
    return found


def _source(inputs: Tensor | Path | str | None) -> "list[Path] | Tensor | Video":
    if isinstance(inputs, Tensor):
        return inputs
    assert inputs is not None
    path = Path(inputs)
    return read_video(path) if path.is_file() and not is_image(path) else find_images(path)


def _check_names(known: dict[str, Detections], source: Any, boxes: Path | str | None) -> None:
    if not known:
        return
    if isinstance(source, list):
        unknown = sorted(known.keys() - {path.name for path in source})
        text = "is not one of the images"
    else:
        unknown = sorted(name for name in known if not name.isdecimal())
        text = "is not the number of a frame"
    if unknown:
        raise InputError(
            f"{boxes}: {unknown[0]!r} {text}; want {'names of files' if isinstance(source, list) else '0, 1, ...'}"
        )


def _finder(config: HandConfig, source: Any, known: dict[str, Detections], device: torch.device) -> Finder | None:
    """The finder, where boxes are missing."""
    has_boxes = isinstance(source, list) and all(path.name in known for path in source)
    is_moving = isinstance(source, Video | Webcam)
    if config.finder_weights is None and (config.box is not None or has_boxes or (is_moving and "0" in known)):
        return None
    return _load_finder(config.finder_weights, device)


def _load_finder(weights: str | None, device: torch.device) -> Any:
    """The package is imported when a finder is needed only."""
    return importlib.import_module("vision3d.stages.hand.finder").load_finder(weights, device)


def _images(
    source: "Sequence[Path] | Tensor",
    predictor: HandPredictor,
    known: dict[str, Detections],
    outputs: Outputs,
    progress: ProgressCallback | None,
) -> tuple[list[HandFrame], dict[str, Any]]:
    config, frames, seconds = predictor.config, [], []
    images = [source] if isinstance(source, Tensor) else source
    with Progress(len(images), "hand", progress) as bar:
        for number, item in enumerate(images, 1):
            image = item if isinstance(item, Tensor) else read_photo(item)
            name = "image" if isinstance(item, Tensor) else item.name
            K = intrinsics_of(config, image.shape[1], image.shape[0])
            started = time.perf_counter()
            with _naming(name):
                hands = predictor(image, known.get(name, _given(config)), K)
            seconds.append(time.perf_counter() - started)
            with _naming(name):
                outputs.add_image(name, image, hands, K)
            frames.append(HandFrame(name, tuple(hands)))
            bar.update(number, hands=len(hands))
    return frames, {"median_s": round(sorted(seconds)[len(seconds) // 2], 4)}


def _video(
    source: Video | Webcam,
    predictor: HandPredictor,
    known: dict[str, Detections],
    outputs: Outputs,
    progress: ProgressCallback | None,
) -> tuple[list[HandFrame], dict[str, Any]]:
    config, frames, seconds = predictor.config, [], []
    tracker = HandTracker(predictor)
    K = intrinsics_of(config, source.width, source.height)
    total = config.frames or (round(source.duration * source.fps) if isinstance(source, Video) else 0)
    stream = itertools.islice(source.timed(), config.frames or None)
    with Progress(total, "hand", progress) as bar, _one_thread(), _ending(frames):
        for number, (at, image) in enumerate(stream):
            given = known.get(str(number), _given(config) if number == 0 else None)
            started = time.perf_counter()
            with _naming(f"frame {number}"):
                hands = tracker(image, at, given, K)
            seconds.append(time.perf_counter() - started)
            with _naming(f"frame {number}"):
                outputs.add_frame(number, at, image, hands, K)
            frames.append(HandFrame(f"{number:06d}", tuple(hands), at))
            bar.update(number + 1, hands=len(hands))
    if not frames:
        raise InputError("video: has no frame that can be decoded")
    if outputs.path is not None and config.meshes:
        write_animation(outputs.path / "hands.glb", [frame.hands for frame in frames], [frame.time or 0.0 for frame in frames])
    return frames, _times(seconds)


@contextlib.contextmanager
def _ending(frames: Sequence[HandFrame]) -> Iterator[None]:
    """Ctrl-C ends a webcam or a video as if it were over, once there is a frame."""
    try:
        yield
    except KeyboardInterrupt:
        if not frames:
            raise
        logger.warning("interrupted: the %d frames so far are written", len(frames))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Operations on one crop are too small for several threads, whose waiting for each other takes longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Errors about an image start with its name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _given(config: HandConfig) -> Detections | None:
    if config.box is None:
        return None
    return boxes_of([config.box], [None if config.side == "auto" else config.side])


def _times(seconds: Sequence[float]) -> dict[str, float]:
    """Frames per second and latencies of finding and following, without decoding and drawing."""
    counted = sorted(seconds[_WARM_UP:] or seconds)
    return {
        "fps": round(len(counted) / sum(counted), 1),
        "p50_ms": round(1000 * counted[len(counted) // 2], 2),
        "p90_ms": round(1000 * counted[int(0.9 * len(counted))], 2),
    }
