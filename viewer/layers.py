"""What both viewers show: the files and folders of a command line as layers in one world, with one time line.

A layer is something to draw under a name. Sequences are read frame by frame; run folders and sequences that are still being
written are followed with `refresh`. Nothing here draws.
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
from vision3d.scene import Boxes, Cameras, FrameSequence, GaussianScene, Mesh, MeshGaussians, PointCloud, PosedImages, Selection
from vision3d.viewer.frames import FrameCache
from vision3d.viewer.rigs import Rig
from vision3d.viewer.sources import Opened, Source, open_source, sources_of
from vision3d.viewer.viewpoint import Bounds, Viewpoint, bounds_of, guess_up, start_viewpoint

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
    """One thing to draw."""

    name: str
    """Unique in its `Layers`; without slashes."""
    kind: Kind
    """What its frames are, which is how it is drawn."""
    value: Drawable | FrameSequence
    """As it was read; a `FrameSequence` moves. Cameras come as `PosedImages` where there are photographs."""
    transform: Float[Tensor, "4 4"]
    """Its own coordinates to the world, a similarity."""
    visible: bool
    source: Path
    """What it was read from."""
    rig: Rig | None = None
    """Of a mesh that moves by a skin, and of its skeleton: what plays, and in which colours."""
    parents: tuple[int, ...] | None = None
    """Of a skeleton: the parent of each of its points, -1 for a root."""

    @property
    def times(self) -> Float[Tensor, " t"]:
        """Times of its frames [s]; empty where it stands still."""
        return self.value.times.double() if isinstance(self.value, FrameSequence) else torch.zeros(0, dtype=torch.float64)

    @property
    def cameras(self) -> Cameras | None:
        """The cameras in the world, of a layer that has some."""
        value = self.value.cameras if isinstance(self.value, PosedImages) else self.value
        return value.transform(self.transform) if isinstance(value, Cameras) else None

    def frame_index(self, time: float) -> int:
        """The frame that shows at a time: the last one that is not later; the first before it begins."""
        # Times went through text, or through float32 in a file, so a frame counts a little before its time.
        slack = 1e-6 * max(1.0, abs(time))
        return max(int(torch.searchsorted(self.times, time + slack, right=True)) - 1, 0)


class Layers:
    """All layers of a viewer.

    Args:
        sources: What was opened, as `sources_of` gives it.
        up: Direction that is up; guessed when None.
        max_bytes: Frames of sequences are kept up to this size.
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
        """Read everything that the paths hold; of sequences and photographs only what says how many there are.

        Args:
            paths: Scenes of Gaussians, meshes, points, boxes, cameras, data sets, folders with scene.json, .zarr folders, run
                folders.
            up: See the class.
            max_bytes: See the class.

        Raises:
            MissingFileError: There is nothing at a path.
            InputError: A path holds nothing that can be shown, is damaged, or is given twice.
            MissingDependencyError: A format needs a package that is not there.

        Example:
            >>> layers = Layers.open(["scene.ply", "boxes.json"])
            >>> [layer.name for layer in layers]
        """
        return cls(sources_of(paths), up=up, max_bytes=max_bytes)

    def refresh(self) -> list[str]:
        """Read again what is still being written.

        Returns:
            Names of the layers that are new or have another value. What cannot be read at this moment stays as it is.
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
            except (Vision3DError, OSError) as error:  # a file in the middle of being written or removed
                logger.debug("%s", error)
                continue
            self._sources[number] = newer
            changed += self._put(number, newer.opened)
        return changed

    def show(self, name: str, visible: bool) -> None:
        """Make a layer visible or not."""
        self._layers[name] = replace(self[name], visible=visible)

    def change_rig(self, name: str, *, clip: str | None = None, colors: str | None = None) -> None:
        """Let another clip of a skin play, or colour it otherwise; its skeleton goes along.

        Args:
            name: Layer of its mesh or of its skeleton.
            clip: Name of the clip, or `rigs.REST`; as it is when None.
            colors: See `Rig.colors`; as they are when None.

        Raises:
            InputError: There is no such layer, clip, colouring or joint, or the layer shows no skin.
        """
        before = self[name].rig
        if before is None:
            raise InputError(f"layer {name} has no clips; want a mesh that moves by a skin")
        rig = before.changed(clip, colors)
        for layer in self:
            if layer.rig is before:
                value = rig.surface() if layer.parents is None else rig.skeleton()
                self._layers[layer.name] = replace(layer, rig=rig, value=value)

    @property
    def rigs(self) -> dict[str, Rig]:
        """The skins that are shown, by the layers of their meshes."""
        return {layer.name: layer.rig for layer in self if layer.rig is not None and layer.parents is None}

    def frame(self, name: str, time: float = 0.0) -> Drawable:
        """What a layer shows at a time [s], in its own coordinates."""
        layer = self[name]
        if not isinstance(layer.value, FrameSequence):
            return layer.value
        if not len(layer.value):
            return self._frames.get(layer.value, None)
        return self._frames.get(layer.value, layer.frame_index(time))

    def frame_at(self, time: float) -> dict[str, Drawable]:
        """What every layer shows at a time [s], by name, hidden ones too."""
        return {name: self.frame(name, time) for name in self._layers}

    @property
    def times(self) -> Float[Tensor, " t"]:
        """The times of all frames of all sequences [s], ascending; empty where nothing moves."""
        return torch.cat([torch.zeros(0, dtype=torch.float64), *(layer.times for layer in self)]).unique()

    def nearest_time(self, time: float) -> float:
        """The time itself [s], or the nearest one at which something moves; 0 where nothing does."""
        times = self.times
        return min(max(time, float(times[0])), float(times[-1])) if len(times) else 0.0

    @property
    def bounds(self) -> Bounds:
        """Where most of what is shown lies, over the whole time."""
        parts = []
        for layer in self:
            if layer.kind == "skeleton":
                continue
            moments = [float(layer.times[i]) for i in (0, -1)] if len(layer.times) else [0.0]
            parts += [(self.frame(layer.name, moment), layer.transform) for moment in moments]
        return bounds_of(parts)

    @property
    def up(self) -> Float[Tensor, "3"]:
        """Direction that is up in the world: as given, of the cameras, or as the kinds of files have it."""
        return guess_up(list(self)) if self._given_up is None else self._given_up

    @property
    def start(self) -> Viewpoint:
        """Where a viewer begins: at the first camera, or where all is in view."""
        return start_viewpoint(list(self), self.bounds, self.up)

    @property
    def is_followed(self) -> bool:
        """Whether anything may still change, so that `refresh` is worth its while."""
        return any(source.is_followed for source in self._sources)

    def note(self) -> str:
        """How far what is followed has come, for a line in the window; empty where there is nothing to say."""
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
        for name, rig in chosen:  # what was read again goes on as it was
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
    """How much is in a layer, for its row."""
    count = {
        GaussianScene: lambda: f"{value.num_gaussians:,} Gaussians",  # pyright: ignore[reportAttributeAccessIssue]
        Mesh: lambda: f"{value.num_faces:,} faces",  # pyright: ignore[reportAttributeAccessIssue]
        PointCloud: lambda: f"{value.num_points:,} {'points' if layer.parents is None else 'joints'}",  # pyright: ignore[reportAttributeAccessIssue]
        Boxes: lambda: f"{len(value):,} boxes",  # pyright: ignore[reportArgumentType]
        Cameras: lambda: f"{len(value):,} cameras",  # pyright: ignore[reportArgumentType]
        PosedImages: lambda: f"{len(value):,} photographs",  # pyright: ignore[reportArgumentType]
        Selection: lambda: f"{len(value.regions):,} regions",  # pyright: ignore[reportAttributeAccessIssue]
    }[type(value)]()
    frames = f", {len(layer.times):,} frames" if len(layer.times) else ""
    return count.replace(",", " ") + frames
