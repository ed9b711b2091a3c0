"""Paths of a command line as content to show, and which of them are still being written."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.checkpoints import CheckpointFolder
from vision3d.core.errors import FileFormatError, InputError, MissingFileError, Vision3DError
from vision3d.core.runs import is_run_folder
from vision3d.io.glb import scene_up
from vision3d.scene import Cameras, FrameSequence, Mesh, Motion, PointCloud, PosedImages, Scene, SkinnedMesh, codecs
from vision3d.scene.upright import turn_to_y_up
from vision3d.viewer.rigs import Rig

logger = logging.getLogger("vision3d.viewer")

_WANT = "a scene, mesh, point cloud, boxes, cameras, a data set, a folder with scene.json, a .zarr or a run folder"
_FILES = ("scene.ply", "cameras.json")  # of a fit run, handled separately
_OTHERS = (".zarr", ".glb", ".safetensors", ".boxes.json")  # outputs of other stages in a run folder


@dataclass(frozen=True, eq=False)
class Item:
    """A value that was read, with a name that is not necessarily unique yet."""

    name: str
    value: Any
    transform: Float[Tensor, "4 4"] = field(default_factory=lambda: torch.eye(4))
    is_visible: bool = True
    """Whether it is visible initially."""
    rig: Rig | None = None
    """For a skinned mesh and its skeleton."""
    parents: tuple[int, ...] | None = None
    """For a skeleton: the parent of each point."""


@dataclass(frozen=True, eq=False)
class Opened:
    """Content of a path at a time."""

    items: tuple[Item, ...]
    signature: tuple = ()
    """Signature of the files that were read: it differs if they have changed."""
    note: str = ""
    """Progress, as a status line."""


@dataclass(frozen=True, eq=False)
class Source:
    """An opened path."""

    path: Path
    opened: Opened
    is_followed: bool = False
    """Whether it is a run folder or a sequence that may still grow."""

    def signature(self) -> tuple:
        """Signature of the files now."""
        return _run_signature(self.path) if is_run_folder(self.path) else _stat(self.path / "times" / ".zarray")


def sources_of(paths: Iterable[Path | str]) -> list[Source]:
    """Opens every path.

    Raises:
        MissingFileError: A path does not exist.
        InputError: A path contains nothing to show, is damaged, or is given twice; or no paths are given.
        MissingDependencyError: A format needs a package that is not installed.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise InputError(f"got no file or folder to show; want {_WANT}")
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise MissingFileError(path, _WANT)
        if path.resolve() in seen:
            raise InputError(f"{path}: given twice; give each file or folder once")
        seen.add(path.resolve())
    return [open_source(path) for path in paths]


def open_source(path: Path) -> Source:
    """Reads the content of a path.

    Raises:
        InputError: It contains nothing to show, or is damaged.
        MissingDependencyError: Its format needs a package that is not installed.
    """
    name = path.resolve().name if path.is_dir() else path.name
    if path.is_dir() and is_run_folder(path):
        return Source(path, _open_run(path, name), is_followed=True)
    if path.is_dir() and not (path / "scene.json").is_file() and ((path / ".zgroup").is_file() or path.suffix == ".zarr"):
        signature = _stat(path / "times" / ".zarray")
        sequence = _checked(path, codecs.load(path))
        items = (Item(_stem(name), sequence), *_cameras_beside(path, _stem(name)))
        opened = Opened(items, signature, f"{_stem(name)}: {len(sequence)} frames")
        return Source(path, opened, is_followed=True)
    return Source(path, Opened(tuple(_items(path, _stem(name)))))


def source_of(value: Any, name: str) -> Source:
    """Wraps a value of `vision3d.scene` as a source.

    Raises:
        InputError: It is an empty scene, has invalid values, or cannot be shown.
    """
    if isinstance(value, str | Path):
        return open_source(Path(value))
    if not hasattr(value, "validate"):
        raise InputError(f"{name}: got {type(value).__name__}, want a path or one of the types of vision3d.scene")
    return Source(Path(name), Opened(tuple(_items_of(Path(name), value, name))))


def _items(path: Path, name: str) -> list[Item]:
    value = _loaded(path)
    items = _items_of(path, value, name)
    if isinstance(value, Mesh) and (up := scene_up(path)) is not None:
        # A mesh of a scene has the coordinates of the scene and its cameras.
        place = torch.eye(4)
        place[:3, :3] = turn_to_y_up(up).T
        items = [replace(item, transform=place) for item in items]
    return [*items, *([] if isinstance(value, Scene | SkinnedMesh | Motion) else _cameras_beside(path, name))]


def _items_of(path: Path, value: Any, name: str) -> list[Item]:
    if isinstance(value, Scene):
        items = []
        for key, item in value.objects.items():
            own = _skin_items(key, item) if isinstance(item, SkinnedMesh) else [Item(key, _checked(path, item))]
            items += [replace(part, transform=_of(value, key)) for part in own]
        if value.cameras is not None and len(value.cameras):
            items.append(Item("cameras", _checked(path, value.cameras)))
        if not items:
            raise InputError(f"{path}: is an empty scene; there is nothing to show")
        return items
    if isinstance(value, SkinnedMesh):
        return _skin_items(name, value)
    if isinstance(value, Motion):
        moving = _moving_joints(path, value)
        return [Item(name, moving), Item(f"{name}.skeleton", moving, parents=value.skeleton.parents)]
    items = [Item(name, _checked(path, value))]
    if isinstance(value, PosedImages) and value.points is not None and len(value.points):
        items.append(Item(f"{name}.points", PointCloud(value.points, value.point_colors)))
    return items


def _skin_items(name: str, skin: SkinnedMesh) -> list[Item]:
    """The mesh, and its joints if there are more than the node it is attached to."""
    rig = Rig.of(skin)
    items = [Item(name, rig.surface(), rig=rig)]
    if len(skin) > 1:
        items.append(Item(f"{name}.skeleton", rig.skeleton(), rig=rig, parents=skin.parents))
    return items


def _cameras_beside(path: Path, name: str) -> list[Item]:
    """The cameras of a run's scene or frames: hidden, but they define the up direction and the initial view."""
    cameras = path.with_name(_FILES[1])
    is_of_run = path.name == _FILES[0] or (path.suffix == ".zarr" and is_run_folder(path.parent))
    if not is_of_run or not cameras.is_file():
        return []
    try:
        return [Item(f"{name}.cameras", _checked(cameras, Cameras.load(cameras)), is_visible=False)]
    except Vision3DError as error:
        logger.debug("%s", error)
        return []


def _moving_joints(path: Path, motion: Motion) -> FrameSequence:
    """The joints of motion capture as animated points."""
    if not len(motion):
        raise InputError(f"{path}: contains no poses; there is nothing to show")
    positions = _checked(path, motion).positions()
    return FrameSequence(PointCloud(positions[0]), motion.times, {"points": positions})


def _loaded(path: Path) -> Any:
    from vision3d.io.dataset import load_dataset
    from vision3d.io.images import READ_ONLY, SUFFIXES

    if path.is_dir():
        if (path / "transforms.json").is_file() and not (path / "scene.json").is_file():
            return load_dataset(path, skip_missing=True)
        is_ours = any((path / name).is_file() for name in ("scene.json", "meta.json", "frames.json"))
        return codecs.load(path) if is_ours else load_dataset(path, skip_missing=True)
    opens = [suffix for suffix in codecs.suffixes() if suffix not in (*SUFFIXES, *READ_ONLY)]
    if path.suffix.lower() not in opens:
        what = repr(path.suffix) if path.suffix else "a name without suffix"
        raise InputError(f"{path}: no viewer for {what}; want {', '.join(opens)}, or a folder")
    if path.suffix.lower() == ".json":
        from vision3d.io.json_types import type_of
        from vision3d.io.transforms_json import has_photographs

        if type_of(path) not in ("boxes", "selection", "sog") and has_photographs(path):
            return load_dataset(path, skip_missing=True)
    return _read(path)


def _read(path: Path) -> Any:
    """Reads a file; an animated glTF file as a skinned mesh."""
    if path.suffix.lower() in (".glb", ".gltf"):
        from vision3d.io.gltf import can_move

        if can_move(path):
            try:
                return SkinnedMesh.load(path)
            except FileFormatError as error:
                logger.warning("%s; it is shown in its rest pose", error)
    return codecs.load(path)


def _checked(path: Path, value: Any) -> Any:
    try:
        return value.validate()
    except InputError as error:
        raise FileFormatError(path, str(error)) from error


def _of(scene: Scene, name: str) -> Tensor:
    return scene.transforms.get(name, torch.eye(4)).to(torch.float32)


def _stem(name: str) -> str:
    """A file's name without its suffixes: `car` for `car.boxes.json`."""
    for suffix in (".boxes.json", ".selection.json", *codecs.suffixes()):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def _open_run(path: Path, name: str) -> Opened:
    """Opens the final scene of a run or its newest checkpoint, and its other outputs."""
    signature, newest = _run_signature(path), _newest(path)
    items, note = [], ""
    if newest is not None and newest.suffix == ".pt":
        from vision3d.stages.fit.snapshot import load_snapshot

        snapshot = load_snapshot(newest)
        items = [Item(name, snapshot.scene), Item(f"{name}.cameras", snapshot.cameras)]
        note = f"{name}: step {snapshot.step}"
    elif newest is not None:
        items = [Item(name, _checked(newest, codecs.load(newest)))]
        cameras = path / "cameras.json"
        if cameras.is_file():
            items.append(Item(f"{name}.cameras", _checked(cameras, Cameras.load(cameras))))
        note = f"{name}: done"
    for file in _others(path):
        value, own = _read(file), f"{name}.{_stem(file.name)}"
        items += _skin_items(own, value) if isinstance(value, SkinnedMesh) else [Item(own, _checked(file, value))]
        items += _cameras_beside(file, name)
    is_running = not (path / "summary.json").is_file()
    if not items and not is_running:
        raise InputError(f"{path}: is a run folder with nothing to show; want scene.ply, a checkpoint, or {', '.join(_OTHERS)}")
    return Opened(tuple(items), signature, note if items else f"{name}: waiting for the first checkpoint")


def _newest(path: Path) -> Path | None:
    """scene.ply, unless the run was resumed afterwards."""
    is_moving = any(file.suffix == ".zarr" for file in _others(path))  # its checkpoints are particles, not scenes
    checkpoints = [] if is_moving else CheckpointFolder(path / "checkpoints").paths()
    found = [file for file in [*checkpoints[-1:], path / "scene.ply"] if file.is_file()]
    try:
        return max(found, key=lambda file: file.stat().st_mtime_ns, default=None)
    except OSError:  # an old checkpoint that has just been removed
        return None


def _others(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.name.endswith(_OTHERS) and file.name not in _FILES)


def _run_signature(path: Path) -> tuple:
    newest = _newest(path)
    files = [newest, path / "cameras.json", path / "summary.json", *_others(path)]
    files += [file / "times" / ".zarray" for file in _others(path) if file.suffix == ".zarr"]
    return tuple(_stat(file) for file in files if file is not None)


def _stat(path: Path) -> tuple:
    try:
        state = path.stat()
    except OSError:
        return (str(path), None)
    return (str(path), state.st_mtime_ns, state.st_size)
