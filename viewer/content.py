"""Models to draw for the layers at a time: one per layer, created when its value changes and cached until then."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.geometry import se3
from vision3d.geometry.spherical_harmonics import rgb_to_sh0
from vision3d.scene import Boxes, Cameras, GaussianScene, Mesh, PointCloud, PosedImages, Selection
from vision3d.scene.lines import bone_lines, frustum_depth, frustum_lines, region_lines
from vision3d.scene.selection import Region
from vision3d.viewer.layers import Drawable, Layer, Layers
from vision3d.viewer.models import COLORS, Dots, Lines, Model, Splats, Surface
from vision3d.viewer.viewpoint import Bounds

CAMERA_COLOR = torch.tensor([0.55, 0.72, 0.95])
CHOSEN_COLOR = torch.tensor([1.0, 0.62, 0.2])
_SELECTED = torch.tensor([1.0, 0.55, 0.1])
_SAMPLE = 20_000  # Gaussians sampled for the bounds
_ALONE = 2.0  # maximum extent, relative to that of the main part, of an object without surroundings
_REGION_COLOR = torch.tensor([1.0, 0.75, 0.25])


class Content:
    """Models of the layers.

    Args:
        layers: The layers.
        dot_size: Size of a point [px] in an image 720 pixels high.
    """

    def __init__(self, layers: Layers, dot_size: int = 2) -> None:
        self.layers, self.dot_size = layers, dot_size
        self.photographs: Sequence[Surface] = ()
        """Photos in the frusta of their cameras, drawn with the frusta."""
        self._made: dict[str, tuple[tuple, Model]] = {}
        self._joined: dict[tuple[str, bool], tuple[tuple, Splats]] = {}
        self._tinted: dict[str, tuple[tuple, Splats | Dots]] = {}
        self.bounds = whole_bounds(layers)
        self.radius = max(self.bounds.radius, 1e-9)
        self._lock = threading.RLock()

    @property
    def camera_layers(self) -> list[Layer]:
        """Layers that contain cameras."""
        return [layer for layer in self.layers if layer.cameras is not None and len(layer.cameras)]

    def models(
        self,
        time: float = 0.0,
        *,
        chosen: tuple[str, int] | None = None,
        with_cameras: bool = True,
        regions: Sequence[Region] = (),
        mark: Float[Tensor, "3"] | None = None,
        path: Float[Tensor, "n 3"] | None = None,
    ) -> list[Model]:
        """Models to draw: Gaussians of one kind joined, selected points in another color.

        Args:
            time: [s].
            chosen: Layer and index of the highlighted camera.
            with_cameras: Whether to draw frusta and their photos.
            regions: Selected regions, also drawn as outlines.
            mark: Point to mark with a cross.
            path: Points of a camera path.
        """
        with self._lock:
            models = self._of_layers(time, chosen, with_cameras, regions)
        extra = [Lines.of(region_lines(region, 0.5 * self.radius), _REGION_COLOR) for region in regions]
        if mark is not None:
            half = 0.02 * self.radius * torch.eye(3)
            extra.append(Lines.of(torch.stack([mark.float() - half, mark.float() + half], 1), CHOSEN_COLOR))
        if path is not None and len(path) > 1:
            extra.append(Lines.of(torch.stack([path[:-1], path[1:]], 1), COLORS[2]))
        return models + ([Lines.joined(extra)] if extra else [])

    def named(self, time: float) -> list[tuple[str, Model]]:
        """The models of the visible layers by name, for picking."""
        with self._lock:
            pairs = [
                (layer.name, self.model(layer, time))
                for layer in self.layers
                if layer.visible and layer.kind not in ("cameras", "skeleton")
            ]
        return [(name, model) for name, model in pairs if model is not None]

    def _of_layers(
        self, time: float, chosen: tuple[str, int] | None, with_cameras: bool, regions: Sequence[Region]
    ) -> list[Model]:
        models: list[Model] = []
        splats: dict[tuple[str, bool], list[tuple[str, Splats]]] = {}
        for layer in self.layers:
            if not layer.visible or (layer.kind == "cameras" and not with_cameras):
                continue
            model = self._tint(layer.name, self.model(layer, time, chosen), regions)
            if isinstance(model, Splats):
                kind = "2dgs" if model.mode == "2dgs" else "3dgs"
                splats.setdefault((kind, model.antialiased), []).append((layer.name, model))
            elif model is not None:
                models.append(model)
        for kind, parts in splats.items():
            models.append(self._join(kind, [part for _, part in parts]))
        if with_cameras and any(layer.visible for layer in self.camera_layers):
            models += self.photographs
        return models

    def model(self, layer: Layer, time: float, chosen: tuple[str, int] | None = None) -> Model | None:
        """The model of one layer, visible or not; None if it draws nothing."""
        value = self.layers.frame(layer.name, time)
        mine = chosen[1] if chosen is not None and chosen[0] == layer.name else None
        key = (value, layer.transform, mine, self.dot_size)
        known = self._made.get(layer.name)
        if known is not None and all(a is b or (isinstance(a, int) and a == b) for a, b in zip(known[0], key)):
            return known[1]
        model = self._make(value, layer, mine)
        if model is not None:
            self._made[layer.name] = (key, model)
        return model

    def _make(self, value: Drawable, layer: Layer, chosen: int | None) -> Model | None:
        matrix = layer.transform
        is_moved = not torch.equal(matrix.cpu(), torch.eye(4))
        if layer.parents is not None and isinstance(value, PointCloud):
            lines, joints = bone_lines(se3.transform_points(matrix, value.points.cpu()), layer.parents)
            colors = COLORS[:1].expand(len(value), 3) if value.colors is None else value.colors.cpu()
            return Lines.of(lines, colors[joints], is_on_top=True)
        if isinstance(value, GaussianScene):
            return Splats.of(value.transform(matrix) if is_moved else value)
        if isinstance(value, Mesh):
            before = self._made.get(layer.name, (None, None))[1]
            mesh = value.transform(matrix) if is_moved else value
            return Surface.of(mesh, before if isinstance(before, Surface) else None)
        if isinstance(value, PointCloud):
            return Dots.of(value.transform(matrix) if is_moved else value, self.dot_size)
        if isinstance(value, Boxes):
            return Lines.of_boxes(value, matrix) if len(value) else None
        if isinstance(value, Cameras | PosedImages):
            cameras = layer.cameras
            if cameras is None or not len(cameras):
                return None
            cameras = cameras.to("cpu")
            colors = CAMERA_COLOR.repeat(len(cameras), 1)
            if chosen is not None:
                colors[chosen] = CHOSEN_COLOR
            return Lines.of(frustum_lines(cameras, frustum_depth(cameras, self.radius)), colors[:, None])
        if isinstance(value, Selection) and value.regions:
            segments = torch.cat([region_lines(region, 0.5 * self.radius) for region in value.regions])
            return Lines.of(se3.transform_points(matrix, segments.flatten(0, 1)).view(-1, 2, 3), _REGION_COLOR)
        return None

    def _join(self, kind: tuple[str, bool], parts: list[Splats]) -> Splats:
        key = tuple(map(id, parts))
        known = self._joined.get(kind)
        if known is None or known[0][0] != key:
            known = ((key, parts), Splats.joined(parts))  # keeps the parts alive, so that their ids stay unique
            self._joined[kind] = known
        return known[1]

    def _tint(self, name: str, model: Model | None, regions: Sequence[Region]) -> Model | None:
        if not regions or not isinstance(model, Splats | Dots):
            return model
        key = (model, *regions)
        known = self._tinted.get(name)
        if known is None or len(known[0]) != len(key) or any(a is not b for a, b in zip(known[0], key)):
            points = model.means if isinstance(model, Splats) else model.points
            colors = model.colors.clone()
            mask = inside(points, regions)
            colors[mask] = 0.4 * colors[mask] + 0.6 * _SELECTED
            changed = replace(model, colors=colors)
            if isinstance(model, Splats) and isinstance(changed, Splats) and model.sh is not None:
                changed = replace(changed, sh=_recolored(model.sh, mask, colors))
            known = (key, changed)
            self._tinted[name] = known
        return known[1]


def whole_bounds(layers: Layers) -> Bounds:
    """Bounds of the layers, extended to all Gaussians if these are one object without surroundings."""
    bounds = layers.bounds
    radius = bounds.radius
    for layer in layers:
        value = layers.frame(layer.name)
        if isinstance(value, GaussianScene) and value.num_gaussians:
            some = value[:: max(1, value.num_gaussians // _SAMPLE)]
            means = se3.transform_points(layer.transform.to(some.means), some.means[some.opacities > 0.1]).cpu()
            if len(means):
                reach = float(torch.linalg.vector_norm(means - bounds.center, dim=-1).quantile(0.995))
                radius = max(radius, reach) if reach < _ALONE * bounds.radius else radius
    return replace(bounds, radius=radius)


def inside(points: Float[Tensor, "n 3"], regions: Sequence[Region]) -> Bool[Tensor, " n"]:
    """Mask of points in any of the regions."""
    mask = torch.zeros(len(points), dtype=torch.bool)
    for region in regions:
        mask |= region.contains(points)
    return mask


def _recolored(sh: Float[Tensor, "n k 3"], mask: Bool[Tensor, " n"], colors: Float[Tensor, "n 3"]) -> Float[Tensor, "n k 3"]:
    sh = sh.clone()
    sh[mask] = 0.0
    sh[mask, 0] = rgb_to_sh0(colors[mask])
    return sh
