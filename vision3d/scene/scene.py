"""A scene: named objects in one world, and cameras."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeGuard, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError, MissingFileError, nearest_names
from vision3d.core.inside import inside
from vision3d.core.plain import from_json
from vision3d.scene import codecs
from vision3d.scene.cameras import Cameras
from vision3d.scene.checks import check_shape, html_table
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.sequence import FrameSequence
from vision3d.scene.similarity import Similarity
from vision3d.scene.skin import SkinnedMesh

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_VERSION = 1
T = TypeVar("T")


@runtime_checkable
class SceneObject(Protocol):
    """Types that a scene can contain: types of `vision3d.scene` that have a file format and a device."""

    def to(self, device: torch.device | str) -> Any: ...

    def save(self, path: Path | str) -> None: ...


@dataclass(frozen=True, eq=False)
class Scene:
    """Objects by name, each with its transform to the world.

    Example:
        >>> scene = Scene().add("chair", GaussianScene.load("chair.ply")).add("room", GaussianScene.load("room.ply"))
        >>> scene.gaussians().num_gaussians
    """

    objects: Mapping[str, SceneObject] = field(default_factory=dict)
    """By name: letters, digits, `_`, `.` and `-`."""
    transforms: Mapping[str, Float[Tensor, "4 4"]] = field(default_factory=dict)
    """Object to world, similarities; the identity if missing."""
    cameras: Cameras | None = None

    def __post_init__(self) -> None:
        for name in self.objects:
            if not _NAME.fullmatch(name):
                raise InputError(f"Scene: object name {name!r}; want letters, digits, _ . - with a letter or digit first")
        for name, matrix in self.transforms.items():
            if name not in self.objects:
                raise InputError(f"Scene: a transform is given for {name!r}; {nearest_names(name, self.objects)}")
            check_shape(f"Scene.transforms[{name!r}]", matrix, (4, 4))
        object.__setattr__(self, "objects", MappingProxyType(dict(self.objects)))
        object.__setattr__(self, "transforms", MappingProxyType(dict(self.transforms)))

    def add(self, name: str, value: SceneObject, transform: Float[Tensor, "4 4"] | None = None) -> "Scene":
        """The scene with one more object, or with the object of this name replaced.

        Args:
            name: Letters, digits, `_`, `.` and `-`.
            value: A GaussianScene, Mesh, SkinnedMesh, PointCloud, Boxes, Selection, Cameras, ...: anything with a file format.
            transform: Object to world.
        """
        transforms = {key: matrix for key, matrix in self.transforms.items() if key != name}
        if transform is not None:
            transforms[name] = transform
        return replace(self, objects={**self.objects, name: value}, transforms=transforms)

    def remove(self, name: str) -> "Scene":
        """The scene without one of its objects."""
        self[name]
        return replace(
            self,
            objects={key: value for key, value in self.objects.items() if key != name},
            transforms={key: matrix for key, matrix in self.transforms.items() if key != name},
        )

    def of_type(self, kind: type[T]) -> dict[str, T]:
        """The objects of one type by name, each in its own coordinates; see `transforms`."""
        return {name: value for name, value in self.objects.items() if isinstance(value, kind)}

    def gaussians(self) -> GaussianScene:
        """All Gaussian objects merged, in world coordinates.

        Raises:
            InputError: The scene has no Gaussians, or their modes differ.
        """
        parts = [
            value.transform(self.transforms[name]) if name in self.transforms else value
            for name, value in self.objects.items()
            if isinstance(value, GaussianScene)
        ]
        if not parts:
            raise InputError("Scene: holds no Gaussians")
        return parts[0].merge(*parts[1:])

    def merge(self, *others: "Scene") -> "Scene":
        """The objects of this scene and of others, and the cameras of all that have cameras.

        Raises:
            InputError: Two objects have the same name, or the cameras differ in model.
        """
        objects, transforms, cameras = dict(self.objects), dict(self.transforms), self.cameras
        for other in others:
            if taken := [name for name in other.objects if name in objects]:
                raise InputError(f"merge: both scenes have an object {taken[0]!r}; want other names")
            objects |= other.objects
            transforms |= other.transforms
            if other.cameras is not None:
                cameras = other.cameras if cameras is None else cameras.merge(other.cameras)
        return Scene(objects, transforms, cameras)

    def transform(self, matrix: Float[Tensor, "4 4"]) -> "Scene":
        """The entire scene transformed by a similarity x' = s R x + t: the transform of each object, and the cameras.

        Raises:
            InputError: The matrix shears, reflects or is singular.
        """
        Similarity(matrix, matrix)
        moved = {name: self.transforms[name] if name in self.transforms else torch.eye(4).to(matrix) for name in self.objects}
        transforms = {name: matrix.to(own) @ own for name, own in moved.items()}
        cameras = None if self.cameras is None else self.cameras.transform(matrix)
        return replace(self, transforms=transforms, cameras=cameras)

    @property
    def span(self) -> tuple[float, float]:
        """First and last time of everything that moves [s]; (0, 0) if nothing does."""
        spans = [value.span for value in self.objects.values() if is_moving(value)]
        return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else (0.0, 0.0)

    def at(self, time: float, *, loop: bool | None = None) -> "Scene":
        """The scene at a time [s]: frames of sequences, posed meshes of skins with clips, cameras at that time.

        Args:
            time: Any; times before the start give the first frame, times after the end the last one.
            loop: Whether to repeat after the end; None: skins do, sequences do not.

        Example:
            >>> from vision3d.scene import PointCloud
            >>> points = torch.tensor([[[0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0]]])
            >>> moving = FrameSequence(PointCloud(points[0]), torch.tensor([0.0, 0.5]), {"points": points})
            >>> Scene().add("dot", moving).at(0.7)["dot"].points
            tensor([[1., 1., 1.]])
        """
        objects = {name: at_moment(value, time, loop=loop) for name, value in self.objects.items()}
        return replace(self, objects=objects, cameras=None if self.cameras is None else self.cameras.at(time))

    def validate(self) -> "Scene":
        """Check every object, transform and camera.

        Raises:
            InputError: A value is invalid; the message names the object.
        """
        for name, value in self.objects.items():
            try:
                if hasattr(value, "validate"):
                    value.validate()  # pyright: ignore[reportAttributeAccessIssue]
            except InputError as error:
                raise InputError(f"object {name!r}: {error}") from error
        for name, matrix in self.transforms.items():
            if not bool(torch.isfinite(matrix).all()) or torch.linalg.det(matrix) == 0:
                raise InputError(f"object {name!r}: transform is singular or not finite")
        if self.cameras is not None:
            self.cameras.validate()
        return self

    def to(self, device: torch.device | str) -> "Scene":
        """The same scene on another device."""
        return replace(
            self,
            objects={name: value.to(device) for name, value in self.objects.items()},
            transforms={name: matrix.to(device) for name, matrix in self.transforms.items()},
            cameras=None if self.cameras is None else self.cameras.to(device),
        )

    def save(self, path: Path | str) -> None:
        """Write a folder: one file per object, cameras.json, and scene.json, which lists them and is written last.

        A name that ends in .glb or .gltf gives a single file for glTF viewers, with everything that moves in one animation
        (`vision3d.io.gltf_scene.write_scene`).

        Raises:
            InputError: The name has the suffix of another file format; objects are written to files by their own `save`.
        """
        folder = Path(path)
        if folder.suffix.lower() in codecs.suffixes(writes="Scene") and not folder.is_dir():
            return codecs.save(folder, self)
        codecs.check_folder_name(folder, "a scene")
        entries = []
        taken = {"scene.json", "cameras.json"}
        for name, value in self.objects.items():
            stem, suffix = name, codecs.suffix_of(value)
            while f"{stem}{suffix}" in taken:  # e.g. cameras named "scene", or a selection "a" and cameras "a.selection"
                stem += "_"
            file = f"{stem}{suffix}"
            taken.add(file)
            value.save(folder / file)
            matrix = self.transforms.get(name)
            entry = {"name": name, "file": file, "transform": None if matrix is None else matrix.tolist()}
            if isinstance(value, SkinnedMesh):  # its file format is also that of a Mesh
                entry["type"] = "SkinnedMesh"
            entries.append(entry)
        if self.cameras is not None:
            self.cameras.save(folder / "cameras.json")
        content = {"vision3d": {"type": "scene", "version": _VERSION}, "objects": entries}
        content["cameras"] = None if self.cameras is None else "cameras.json"
        with atomic_write(folder / "scene.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "Scene":
        """Load the scene of a folder written by `save`.

        Raises:
            MissingFileError: The folder, scene.json or a file listed in it does not exist.
            FileFormatError: scene.json is damaged, or lists a file outside its folder.
        """
        folder = Path(path)
        index = folder / "scene.json"
        if not index.is_file():
            raise MissingFileError(index, "a folder with scene.json")
        try:
            content = from_json(index.read_bytes())
            version = content.get("vision3d", {}).get("version", _VERSION)
            entries = [(str(e["name"]), str(e["file"]), e.get("transform")) for e in content["objects"]]
            skins = {str(e["name"]) for e in content["objects"] if e.get("type") in ("SkinnedMesh", "Skin")}
            transforms = {name: torch.tensor(matrix, dtype=torch.float32) for name, _, matrix in entries if matrix is not None}
            camera_file = content.get("cameras")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
            raise FileFormatError(index, f"is not a vision3d scene ({type(error).__name__}: {error})") from error
        if version != _VERSION:
            raise FileFormatError(index, f"is version {version!r} of a scene; version {_VERSION} is read")
        if len({name for name, _, _ in entries}) < len(entries):
            raise FileFormatError(index, "has duplicate object names")
        objects: dict[str, Any] = {
            name: (SkinnedMesh.load if name in skins else codecs.load)(_inside(index, file)) for name, file, _ in entries
        }
        cameras = None if camera_file is None else Cameras.load(_inside(index, str(camera_file)))
        try:
            return cls(objects, transforms, cameras)
        except InputError as error:
            raise FileFormatError(index, str(error)) from error

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, name: str) -> SceneObject:
        if name not in self.objects:
            raise InputError(f"Scene: no object {name!r}; {nearest_names(name, self.objects)}")
        return self.objects[name]

    def __repr__(self) -> str:
        return f"Scene({', '.join(f'{name}={value!r}' for name, value in self.objects.items())}, cameras={self.cameras!r})"

    def _repr_html_(self) -> str:
        return html_table("Scene", [*self.objects.items(), ("cameras", self.cameras)], codecs.preview(self))


def is_moving(value: object) -> TypeGuard[FrameSequence | SkinnedMesh]:
    """Whether an object is animated: a sequence, or a skin with a clip."""
    return isinstance(value, FrameSequence) or (isinstance(value, SkinnedMesh) and bool(value.clips))


def at_moment(value: Any, time: float, *, loop: bool | None = None) -> Any:
    """An object at a time [s], as for `Scene.at`; static objects are returned unchanged."""
    if isinstance(value, FrameSequence):
        return value.at(time, loop=bool(loop))
    if isinstance(value, SkinnedMesh) and value.clips:
        return value.at(time, loop=loop is not False)
    if isinstance(value, Scene):
        return value.at(time, loop=loop)
    return value.at(time) if isinstance(value, Cameras) else value


def _inside(index: Path, name: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise FileFormatError(index, f"names {name[:60]!r}, which is outside its folder")
    return inside(index, name)
