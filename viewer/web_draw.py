"""Draws layers as nodes of a viser page and updates what changes over time."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import Vision3DError
from vision3d.geometry import se3
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.spherical_harmonics import sh0_to_rgb
from vision3d.io.glb import mesh_bytes
from vision3d.render.meshes.shading import smooth_normals
from vision3d.scene import Boxes, Cameras, GaussianScene, Mesh, PointCloud, PosedImages, Selection
from vision3d.scene.lines import bone_lines, box_lines, frustum_depth, frustum_lines, region_lines
from vision3d.viewer.content import whole_bounds
from vision3d.viewer.layers import Layer, Layers
from vision3d.viewer.viewpoint import Bounds

MAX_FRUSTA = 300
"""More cameras are drawn as one set of lines without photos, as thousands of nodes are too much for a page."""
_THUMBNAIL = 200  # px
_COLORS = [(31, 119, 180), (214, 39, 40), (44, 160, 44), (255, 127, 14), (148, 103, 189), (23, 190, 207), (227, 119, 194)]
_CAMERA_COLOR, _HELD_OUT_COLOR, _SELECTION_COLOR = (60, 60, 60), (214, 39, 40), (255, 170, 0)
_GRAY = 110
_HALF_MAX = float(np.finfo(np.float16).max)
_ALPHA = 0.35  # for meshes with visible bones
_POINT_SIZES = (0.002, 0.01)  # minimum and maximum, relative to the radius of the content


class Drawer:
    """Draws layers in a viser server.

    Args:
        server: A `viser.ViserServer`.
        layers: The layers.
        on_camera: Called with a browser's handle, a layer's name and a camera's index when that camera is clicked.
    """

    def __init__(self, server: Any, layers: Layers, on_camera: Callable[[Any, str, int], None]) -> None:
        self.server, self.layers, self.on_camera = server, layers, on_camera
        self.lock = threading.RLock()
        self._nodes: dict[str, list[Any]] = {}
        self._shown: dict[str, object] = {}  # drawn value of each layer
        self._bounds: Bounds | None = None
        self._frusta: dict[str, tuple[np.ndarray, float]] = {}  # centers and depth of the pyramids with nodes
        self._readers: list[threading.Thread] = []
        self._stop = threading.Event()

    def close(self) -> None:
        """Stops reading photos."""
        self._stop.set()
        for reader in self._readers:
            reader.join()

    @property
    def bounds(self) -> Bounds:
        """Bounds of the layers when sizes were last chosen."""
        if self._bounds is None:
            self._bounds = whole_bounds(self.layers)
        return self._bounds

    def draw(self, time: float, *, is_new: bool = False) -> None:
        """Updates the page to a time; sends only changes.

        Args:
            time: [s].
            is_new: Layers were added or removed, so that sizes must be chosen again.
        """
        with self.lock:
            if is_new:
                self._bounds = None
            for layer in self.layers:
                value = self.layers.frame(layer.name, time)
                if self._shown.get(layer.name) is value:
                    continue
                with self.server.atomic():
                    self._draw(layer, value)
                self._shown[layer.name] = value

    def show(self, name: str, visible: bool) -> None:
        """Shows or hides a layer."""
        with self.lock:
            self.layers.show(name, visible)
            for node in self._nodes.get(name, []):
                node.visible = visible
            bones = self.layers[name]
            for layer in self.layers if bones.rig is not None and bones.parents is not None else ():
                if layer.rig is bones.rig and layer.parents is None:  # the mesh is transparent only if its bones are visible
                    self._shown.pop(layer.name, None)

    def clear_view(self, position: np.ndarray) -> None:
        """Hides the camera pyramids around a viewer's position, whose photos would cover the view.

        Args:
            position: Position of a browser's camera in the world [m].
        """
        with self.lock:
            for name, (centers, depth) in self._frusta.items():
                is_far = np.linalg.norm(centers - position, axis=-1) > 0.5 * depth
                for node, visible in zip(self._nodes.get(name, []), is_far & self.layers[name].visible):
                    if node.visible != visible:
                        node.visible = bool(visible)

    def _draw(self, layer: Layer, value: Any) -> None:
        name = f"/{layer.name}"
        if layer.parents is not None:
            lines, joints = bone_lines(se3.transform_points(layer.transform, value.points.cpu()), layer.parents)
            colors = torch.full((len(value), 3), 0.75) if value.colors is None else value.colors.cpu()
            ends = (_array(colors[joints]) * 255).round().astype(np.uint8)[:, None].repeat(2, 1)
            self._put(layer, [self._lines(layer, lines, ends, 3.0)])
        elif isinstance(value, GaussianScene):
            self._splats(layer, value)
        elif isinstance(value, Mesh):
            seen = value if layer.rig is None else replace(value, normals=smooth_normals(value))
            seen = _see_through(seen) if self._has_bones(layer) else seen
            self._put(layer, [self.server.scene.add_glb(name, mesh_bytes(seen), **_placed(layer))])
        elif isinstance(value, PointCloud):
            placed = _placed(layer)
            smallest, largest = _POINT_SIZES  # in between: about half the spacing of points on a surface
            size = min(max(len(value) ** -0.5, smallest), largest) * self.bounds.radius / placed["scale"]
            points, colors = _array(value.points), _point_colors(value)
            node = self.server.scene.add_point_cloud(
                name, points, colors, point_size=size, point_shape="circle", precision="float32", **placed
            )
            self._put(layer, [node])
        elif isinstance(value, Boxes):
            lines = se3.transform_points(layer.transform, box_lines(value).reshape(-1, 3)).reshape(-1, 2, 3)
            self._put(layer, [self._lines(layer, lines, _box_colors(value))])
        elif isinstance(value, Selection):
            parts = [region_lines(region, self.bounds.radius) for region in value.regions]
            lines = se3.transform_points(layer.transform, torch.cat([torch.zeros(0, 2, 3), *parts]).reshape(-1, 3))
            self._put(layer, [self._lines(layer, lines.reshape(-1, 2, 3), _SELECTION_COLOR)])
        else:
            self._cameras(layer, value)

    def _has_bones(self, layer: Layer) -> bool:
        """Whether the bones in a mesh are visible as well."""
        bones = [other for other in self.layers if other.parents is not None and other.visible]
        return layer.rig is not None and any(other.rig is layer.rig for other in bones)

    def _splats(self, layer: Layer, scene: GaussianScene) -> None:
        """Half floats represent covariances well only near 1, so Gaussians are sent in units of their own size."""
        unit = splat_unit(scene)
        placed = _placed(layer)
        placed["scale"] *= unit
        nodes = self._nodes.get(layer.name)
        if nodes:  # in place, as a new node would fade in at every frame
            nodes[0].buffer, nodes[0].scale = splat_buffer(scene, unit), placed["scale"]
            return
        covars = _half_covars(scene, unit)
        colors = _array(sh0_to_rgb(scene.sh[:, 0]).clamp(0, 1))
        means, opacities = _array(scene.means / unit), _array(scene.opacities[:, None])
        node = self.server.scene.add_gaussian_splats(f"/{layer.name}", means, covars, colors, opacities, **placed)
        self._put(layer, [node])

    def _cameras(self, layer: Layer, value: Cameras | PosedImages) -> None:
        cameras = layer.cameras
        assert cameras is not None
        depth = frustum_depth(cameras, self.bounds.radius)
        if len(cameras) > MAX_FRUSTA or cameras.model != "pinhole":
            self._put(layer, [self._lines(layer, frustum_lines(cameras, depth).flatten(0, 1), _CAMERA_COLOR)])
            return
        is_test = value.is_test.tolist() if isinstance(value, PosedImages) else [False] * len(cameras)
        poses = cameras.camtoworlds.detach().cpu()
        quats = rotmat_to_quat(poses[:, :3, :3]).numpy().astype(float)
        nodes = []
        for i in range(len(cameras)):
            half = 0.5 * float(cameras.height[i] / cameras.Ks[i, 1, 1])
            aspect = float(cameras.width[i] / cameras.height[i] * cameras.Ks[i, 1, 1] / cameras.Ks[i, 0, 0])
            node = self.server.scene.add_camera_frustum(
                f"/{layer.name}/{i}",
                2 * float(np.arctan(half)),
                aspect,
                scale=depth * float(np.cbrt(half * half * aspect / 3)),  # viser's size is the cube root of the pyramid's volume
                thickness=1.5,
                thickness_units="screen",
                color=_HELD_OUT_COLOR if is_test[i] else _CAMERA_COLOR,
                wxyz=quats[i],
                position=poses[i, :3, 3].numpy().astype(float),
                visible=layer.visible,
                cast_shadow=False,
                receive_shadow=False,
            )
            node.on_click(lambda event, i=i: self.on_camera(event.client, layer.name, i))
            nodes.append(node)
        self._put(layer, nodes)
        self._frusta[layer.name] = (poses[:, :3, 3].numpy(), depth)
        if isinstance(value, PosedImages):
            reader = threading.Thread(target=self._photographs, args=(layer.name, value, nodes), daemon=True)
            self._readers.append(reader)
            reader.start()

    def _photographs(self, name: str, images: PosedImages, nodes: list[Any]) -> None:
        """Adds the photos to their pyramids one by one, while the page stays responsive."""
        for i, node in enumerate(nodes):
            if self._stop.is_set() or self._nodes.get(name) is not nodes:
                return
            size = max(int(images.cameras.width[i]), int(images.cameras.height[i]))
            try:
                image = images.read(i, max(1.0, size / _THUMBNAIL))[0]
            except (Vision3DError, OSError):  # a missing photo leaves an empty pyramid
                continue
            with self.lock:
                if not self._stop.is_set():
                    node.image = (image.clamp(0, 1) * 255).round().byte().numpy()

    def _lines(self, layer: Layer, lines: Float[Tensor, "n 2 3"], colors: Any, thickness: float = 2.0) -> Any:
        if not len(lines):
            return self.server.scene.add_frame(f"/{layer.name}", show_axes=False, visible=layer.visible)
        return self.server.scene.add_line_segments(
            f"/{layer.name}", _array(lines), colors, thickness=thickness, thickness_units="screen", visible=layer.visible
        )

    def _put(self, layer: Layer, nodes: list[Any]) -> None:
        for node in self._nodes.get(layer.name, [])[len(nodes) :]:
            node.remove()
        self._nodes[layer.name] = nodes


def _see_through(mesh: Mesh) -> Mesh:
    """The mesh with a small alpha: a page cannot draw lines on top of everything."""
    if mesh.texture is not None:
        return replace(mesh, texture=torch.nn.functional.pad(mesh.texture[..., :3], (0, 1), value=_ALPHA))
    colors = torch.full_like(mesh.vertices, 0.7) if mesh.vertex_colors is None else mesh.vertex_colors[:, :3]
    return replace(mesh, vertex_colors=torch.nn.functional.pad(colors, (0, 1), value=_ALPHA))


def splat_unit(scene: GaussianScene) -> float:
    """Median size of the Gaussians [m]: relative to it, standard deviations of 0.008 to 250 keep full half-float precision."""
    sizes = scene.log_scales.detach().amax(-1)
    return max(float(sizes.median().exp()), 1e-12)


def splat_buffer(scene: GaussianScene, unit: float) -> np.ndarray:
    """Gaussians in the layout of viser's page: 8 words of 32 bits each.

    Three floats of the center, one word used by the page, six half floats of the covariance's upper triangle, and red, green,
    blue and opacity as bytes.

    Args:
        scene: N Gaussians; only colors of degree 0 are used.
        unit: Length of one unit in the buffer [m].
    """
    words = np.zeros((scene.num_gaussians, 32), np.uint8)
    words[:, :12] = _array(scene.means / unit).view(np.uint8)
    halves = _half_covars(scene, unit).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]].astype(np.float16)
    words[:, 16:28] = np.ascontiguousarray(halves).view(np.uint8)
    colors = torch.cat([sh0_to_rgb(scene.sh[:, 0]).clamp(0, 1), scene.opacities[:, None]], 1)
    words[:, 28:] = (_array(colors) * 255).astype(np.uint8)
    return words.view(np.uint32)


def _half_covars(scene: GaussianScene, unit: float) -> np.ndarray:
    """Covariances in units; those that exceed half floats, such as of a sky, are of smaller Gaussians of the same shape."""
    covars = scene.covars.double() / unit**2  # squares of large scales exceed floats, too
    largest = covars.abs().amax((-2, -1), keepdim=True)
    return _array(covars * (_HALF_MAX / largest).clamp(max=1.0))


def _placed(layer: Layer) -> dict[str, Any]:
    scale, rotmat, shift = se3.split_similarity(layer.transform.detach().cpu().double())
    quat = rotmat_to_quat(rotmat).numpy()
    return {"scale": float(scale), "wxyz": quat, "position": shift.numpy(), "visible": layer.visible}


def _point_colors(cloud: PointCloud) -> np.ndarray:
    """Colors, or gray by intensity, or one gray."""
    if cloud.colors is not None:
        return (_array(cloud.colors.clamp(0, 1)) * 255).round().astype(np.uint8)
    gray = torch.full_like(cloud.points[:, 0], _GRAY)
    if cloud.intensity is not None:
        low, high = float(cloud.intensity.min()), float(cloud.intensity.max())
        gray = 30 + 190 * (cloud.intensity - low) / max(high - low, 1e-9)
    return _array(gray[:, None].expand(-1, 3)).astype(np.uint8)


def _box_colors(boxes: Boxes) -> np.ndarray:
    """A color per class, for each end of each line."""
    labels = torch.zeros(len(boxes), dtype=torch.int64) if boxes.labels is None else boxes.labels.cpu()
    colors = np.array(_COLORS, np.uint8)[labels.numpy() % len(_COLORS)]
    return np.repeat(colors[:, None], 28, 1).reshape(-1, 2, 3)


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().to("cpu", torch.float32).numpy())
