"""Content of both viewers: files and folders of the command line as layers in one world with one time line.

A layer is a drawable value with a name. Sequences are read frame by frame; run folders and sequences that are still being
written are updated with `refresh`. Nothing here draws.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, Vision3DError, nearest_names
from vision3d.scene import (
    Boxes,
    Cameras,
    FrameSequence,
    GaussianScene,
    Mesh,
    MeshGaussians,
    PointCloud,
    PosedImages,
    Selection,
    SkinnedMesh,
)  # fmt: skip
from vision3d.viewer.frames import FrameCache
from vision3d.viewer.rigs import Rig
from vision3d.viewer.sources import Opened, Source, open_source, sources_of
from vision3d.viewer.viewpoint import Bounds, Viewpoint, bounds_of, differing_ups, guess_up, start_viewpoint

logger = logging.getLogger("vision3d.view")

Kind = Literal["gaussians", "mesh", "points", "boxes", "cameras", "selection", "skeleton"]
Drawable: TypeAlias = GaussianScene | Mesh | PointCloud | Boxes | Cameras | PosedImages | Selection
_KINDS: dict[type, Kind] = {
    GaussianScene: "gaussians",
    MeshGaussians: "gaussians",
    Mesh: "mesh",
    PointCloud: "points",
    Boxes: "boxes",
    Cameras: "cameras",
    PosedImages: "cameras",
    Selection: "selection",
}


@dataclass(frozen=True, eq=False)
class Layer:
    """A named value to draw."""

    name: str
    """Unique in its `Layers`; without slashes."""
    kind: Kind
    """Kind of its frames, which determines how it is drawn."""
    value: Drawable | FrameSequence
    """The value as read; a `FrameSequence` is animated. Cameras with photos are `PosedImages`."""
    transform: Float[Tensor, "4 4"]
    """Local to world coordinates, a similarity transform."""
    visible: bool
    source: Path
    """Path it was read from."""
    rig: Rig | None = None
    """For a skinned mesh and its skeleton: the selected clip and coloring."""
    parents: tuple[int, ...] | None = None
    """For a skeleton: parent of each point, -1 for a root."""

    @property
    def times(self) -> Float[Tensor, " t"]:
        """Times of its frames [s]; empty if it is static."""
        return self.value.times.double() if isinstance(self.value, FrameSequence) else torch.zeros(0, dtype=torch.float64)

    @property
    def cameras(self) -> Cameras | None:
        """The cameras in world coordinates, if the layer has any."""
        value = self.value.cameras if isinstance(self.value, PosedImages) else self.value
        return value.transform(self.transform) if isinstance(value, Cameras) else None

    def frame_index(self, time: float) -> int:
        """The frame shown at a time: the last one not later; before the start, the first."""
        # Times lose precision in text or float32 files, so a frame counts as shown slightly before its time.
        slack = 1e-6 * max(1.0, abs(time))
        return max(int(torch.searchsorted(self.times, time + slack, right=True)) - 1, 0)


class Layers:
    """All layers of a viewer.

    Args:
        sources: Opened paths or values, from `sources_of`.
        up: Up direction; guessed when None.
        max_bytes: Maximum size of cached frames.
    """

    def __init__(self, sources: Iterable[Source], *, up: Float[Tensor, "3"] | None = None, max_bytes: float = 5e8) -> None:
        self._sources = list(sources)
        self._given_up = up
        self._frames = FrameCache(max_bytes)
        self._layers: dict[str, Layer] = {}
        self._names: dict[tuple[int, str], str] = {}
        for number, source in enumerate(self._sources):
            self._put(number, source.opened)

    @classmethod
    def open(cls, paths: Iterable[Path | str], *, up: Float[Tensor, "3"] | None = None, max_bytes: float = 5e8) -> "Layers":
        """Reads the contents of all paths; of sequences and photos, only their number.

        Args:
            paths: Gaussian scenes, meshes, points, boxes, cameras, data sets, folders with scene.json, .zarr folders, run
                folders.
            up: See the class.
            max_bytes: See the class.

        Raises:
            MissingFileError: A path does not exist.
            InputError: A path contains nothing to show, is damaged, or is given twice.
            MissingDependencyError: A format needs a package that is not installed.

        Example:
            >>> layers = Layers.open(["scene.ply", "boxes.json"])
            >>> [layer.name for layer in layers]
        """
        layers = cls(sources_of(paths), up=up, max_bytes=max_bytes)
        if up is None and (note := differing_ups(layers)):
            logger.warning("%s", note)
        return layers

    def refresh(self) -> list[str]:
        """Rereads files that are still being written.

        Returns:
            Names of new or changed layers. Files that cannot be read at the moment keep their previous content.
        """
        changed = []
        for number, source in enumerate(self._sources):
            if not source.is_followed:
                continue
            signature = source.signature()
            if signature == source.opened.signature:
                continue
            try:
                newer = open_source(source.path)
            except (Vision3DError, OSError) as error:  # a file being written or removed
                logger.debug("%s", error)
                continue
            self._sources[number] = newer
            changed += self._put(number, newer.opened)
        return changed

    def show(self, name: str, visible: bool) -> None:
        """Shows or hides a layer."""
        self._layers[name] = replace(self[name], visible=visible)

    def change_value(self, name: str, value: GaussianScene | Mesh | SkinnedMesh) -> None:
        """Shows another value of the same kind in a layer; a skinned mesh keeps its clip and coloring.

        Raises:
            InputError: The layer does not exist, or is of another kind.
        """
        layer = self[name]
        if isinstance(value, SkinnedMesh) != (layer.rig is not None) or (
            not isinstance(value, SkinnedMesh) and _KINDS[type(value)] != layer.kind
        ):
            raise InputError(f"layer {name} shows {layer.kind}, got {type(value).__name__}")
        if layer.rig is None or not isinstance(value, SkinnedMesh):
            self._layers[name] = replace(layer, value=value)
            return
        rig = replace(layer.rig, skin=value)
        for other in self:
            if other.rig is layer.rig:
                shown = rig.surface() if other.parents is None else other.value
                self._layers[other.name] = replace(other, rig=rig, value=shown)

    def change_rig(self, name: str, *, clip: str | None = None, colors: str | None = None) -> None:
        """Selects a clip or coloring of a skinned mesh and its skeleton.

        Args:
            name: Layer of the mesh or of its skeleton.
            clip: Name of the clip, or `rigs.REST`; unchanged when None.
            colors: See `Rig.colors`; unchanged when None.

        Raises:
            InputError: The layer, clip, coloring or joint does not exist, or the layer is not skinned.
        """
        before = self[name].rig
        if before is None:
            raise InputError(f"layer {name} has no clips; want a skinned mesh")
        rig = before.changed(clip, colors)
        for layer in self:
            if layer.rig is before:
                value = rig.surface() if layer.parents is None else rig.skeleton()
                self._layers[layer.name] = replace(layer, rig=rig, value=value)

    @property
    def rigs(self) -> dict[str, Rig]:
        """The skinned meshes, by layer name."""
        return {layer.name: layer.rig for layer in self if layer.rig is not None and layer.parents is None}

    def frame(self, name: str, time: float = 0.0) -> Drawable:
        """Value of a layer at a time [s], in its own coordinates."""
        layer = self[name]
        if not isinstance(layer.value, FrameSequence):
            return layer.value
        if not len(layer.value):
            return self._frames.get(layer.value, None)
        return self._frames.get(layer.value, layer.frame_index(time))

    def frame_at(self, time: float) -> dict[str, Drawable]:
        """Values of all layers at a time [s], by name, including hidden ones."""
        return {name: self.frame(name, time) for name in self._layers}

    @property
    def times(self) -> Float[Tensor, " t"]:
        """Times of all frames of all sequences [s], ascending; empty if everything is static."""
        return torch.cat([torch.zeros(0, dtype=torch.float64), *(layer.times for layer in self)]).unique()

    def nearest_time(self, time: float) -> float:
        """The time itself [s], clamped to the animated range; 0 if everything is static."""
        times = self.times
        return min(max(time, float(times[0])), float(times[-1])) if len(times) else 0.0

    @property
    def bounds(self) -> Bounds:
        """Bounds of most of the content over all times."""
        parts = []
        for layer in self:
            if layer.kind == "skeleton":
                continue
            moments = [float(layer.times[i]) for i in (0, -1)] if len(layer.times) else [0.0]
            parts += [(self.frame(layer.name, moment), layer.transform) for moment in moments]
        return bounds_of(parts)

    @property
    def up(self) -> Float[Tensor, "3"]:
        """Up direction of the world: as given, from the cameras, or by the convention of the file type."""
        return guess_up(list(self)) if self._given_up is None else self._given_up

    @property
    def start(self) -> Viewpoint:
        """Initial viewpoint: the first camera, or one with everything in view."""
        return start_viewpoint(list(self), self.bounds, self.up)

    @property
    def is_followed(self) -> bool:
        """Whether anything may still change, so that `refresh` is useful."""
        return any(source.is_followed for source in self._sources)

    def note(self) -> str:
        """Progress of the followed sources, as a status line; empty if no source reports any."""
        return "; ".join(source.opened.note for source in self._sources if source.opened.note)

    def _put(self, number: int, opened: Opened) -> list[str]:
        changed, chosen = [], []
        for item in opened.items:
            key = (number, item.name)
            name = self._names.setdefault(key, _unused(item.name, self._names.values()))
            before = self._layers.get(name)
            kind = _KINDS[type(item.value.base if isinstance(item.value, FrameSequence) else item.value)]
            value = item.value.to_gaussians() if isinstance(item.value, MeshGaussians) else item.value
            visible = item.is_visible if before is None else before.visible
            if item.parents is not None:
                kind = "skeleton"
            path = self._sources[number].path
            self._layers[name] = Layer(name, kind, value, item.transform, visible, path, item.rig, item.parents)
            if before is not None and before.rig is not None and item.rig is not None and item.parents is None:
                chosen.append((name, before.rig))
            changed.append(name)
        for name, rig in chosen:  # keeps its choices after a reload
            same = self.rigs[name].like(rig)
            self.change_rig(name, clip=same.clip, colors=same.colors)
        return changed

    def __getitem__(self, name: str) -> Layer:
        if name not in self._layers:
            raise InputError(f"unknown layer {name!r}; {nearest_names(name, self._layers)}")
        return self._layers[name]

    def __iter__(self) -> Iterator[Layer]:
        return iter(list(self._layers.values()))

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"Layers({', '.join(f'{layer.name}: {layer.kind}' for layer in self)})"


def _unused(name: str, taken: Iterable[str]) -> str:
    name, taken = name.replace("/", "_"), set(taken)
    if name not in taken:
        return name
    return next(other for i in range(2, len(taken) + 3) if (other := f"{name}_{i}") not in taken)


def describe(layer: Layer, value: Drawable) -> str:
    """Number of elements in a layer, for its row."""
    points = "points" if layer.parents is None else "joints"
    number, names = {
        GaussianScene: lambda: (value.num_gaussians, "Gaussians"),  # pyright: ignore[reportAttributeAccessIssue]
        Mesh: lambda: (value.num_faces, "faces"),  # pyright: ignore[reportAttributeAccessIssue]
        PointCloud: lambda: (value.num_points, points),  # pyright: ignore[reportAttributeAccessIssue]
        Boxes: lambda: (len(value), "boxes"),  # pyright: ignore[reportArgumentType]
        Cameras: lambda: (len(value), "cameras"),  # pyright: ignore[reportArgumentType]
        PosedImages: lambda: (len(value), "photos"),  # pyright: ignore[reportArgumentType]
        Selection: lambda: (len(value.regions), "regions"),  # pyright: ignore[reportAttributeAccessIssue]
    }[type(value)]()
    frames = f", {_counted(len(layer.times), 'frames')}" if len(layer.times) else ""
    return _counted(number, names) + frames


def _counted(number: int, names: str) -> str:
    """1 box, 2 boxes, 12 000 faces."""
    name = names if number != 1 else names.removesuffix("es" if names == "boxes" else "s")
    return f"{number:,} {name}".replace(",", " ")
