"""Open3D's own renderer in the window, for machines with a GPU: models as its geometries, the camera from the session."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.scene import Cameras
from vision3d.scene.colors import linear_to_srgb
from vision3d.viewer.loop import Request
from vision3d.viewer.models import Dots, Lines, Model, Splats, Surface
from vision3d.viewer.session import Session

_LINE_WIDTH = 2.0
_NEARER = 0.03  # relative to their distance, for lines always on top
_DOT = 5e-4  # relative to the radius of the bounds
_SUN = 210_000.0  # lux; a surface facing the camera then has its own color
_UNDER_SUN = 0.82  # factor for vertex colors, which Open3D takes as linear
_SH0 = 0.28209479177387814


class HardwareView:
    """A widget that shows a session's requests with Open3D's renderer.

    Args:
        open3d: The module.
        window: The `open3d.visualization.gui` window.
        session: Its requests are passed to `show`.
        on_mouse: Receives mouse events instead of Open3D's camera.
    """

    def __init__(self, open3d: Any, window: Any, session: Session, on_mouse: Callable[[Any], Any]) -> None:
        self._o3d, self._window, self._session = open3d, window, session
        self.widget = open3d.visualization.gui.SceneWidget()
        self.widget.scene = open3d.visualization.rendering.Open3DScene(window.renderer)
        self.widget.scene.show_axes(False)
        # Tone mapping would change colors; the sun is at the camera, like the headlight of the CPU renderer.
        self.widget.scene.view.set_post_processing(False)
        self.widget.scene.view.set_shadowing(False)
        self.widget.scene.scene.enable_indirect_light(False)
        self.widget.scene.scene.enable_sun_light(True)
        self.widget.set_on_mouse(on_mouse)
        self._background: tuple[float, ...] | None = None
        self._names: dict[int, tuple[str, Model]] = {}
        self._count = 0

    def show(self, request: Request) -> None:
        """Shows a request; transfers only new models."""
        scene = self.widget.scene
        if request.background != self._background:
            self._background = request.background
            # Without tone mapping the background is shown as linear.
            color = linear_to_srgb(torch.tensor(request.background))
            scene.set_background([*color.tolist(), 1.0])
        models = {id(model): model for model in request.models()}
        for key in [key for key, (_, model) in self._names.items() if key not in models or _is_on_top(model)]:
            scene.remove_geometry(self._names.pop(key)[0])
        for key, model in models.items():
            if key not in self._names:
                self._count += 1
                name = f"model {self._count}"
                self._names[key] = (name, model)  # keeps the model alive, so that its id stays unique
                self._add(name, _before_all(model, request.camera) if _is_on_top(model) else model)
        self._place(request)
        self.widget.force_redraw()

    def _place(self, request: Request) -> None:
        camera, content = request.camera, self._session.content
        pose = camera.camtoworlds[0].double()
        away = float(torch.linalg.vector_norm(pose[:3, 3] - content.bounds.center.double()))
        near, far = max(1e-3 * content.radius, 1e-4), away + 20 * content.radius
        lens = self.widget.scene.camera
        lens.set_projection(camera.Ks[0].double().numpy(), near, far, float(camera.width), float(camera.height))
        forward = pose[:3, 2].float().numpy()
        self.widget.scene.scene.set_sun_light(forward, np.ones(3, np.float32), _SUN)
        lens.look_at((pose[:3, 3] + pose[:3, 2]).float().numpy(), pose[:3, 3].float().numpy(), -pose[:3, 1].float().numpy())

    def _add(self, name: str, model: Model) -> None:
        o3d, scene = self._o3d, self.widget.scene
        material = o3d.visualization.rendering.MaterialRecord()
        material.sRGB_color = True  # otherwise unset in unlit shaders, with occasional black colors
        if isinstance(model, Splats):
            material.shader = "gaussianSplat"
            material.gaussian_splat_antialias = model.antialiased
            material.gaussian_splat_sh_degree = model.degree
            scene.add_geometry(name, splat_cloud(o3d, model), material)
        elif isinstance(model, Surface):
            mesh = model.shaded.mesh
            shape = o3d.geometry.TriangleMesh(_vectors(o3d, mesh.vertices), _indices(o3d, mesh.faces))
            shape.vertex_normals = _vectors(o3d, model.shaded.normals)
            material.shader = "defaultLit" if model.is_lit else "defaultUnlit"
            if mesh.vertex_colors is not None:
                shape.vertex_colors = _vectors(o3d, mesh.vertex_colors[:, :3])
                if mesh.texture is None and model.is_lit:
                    material.base_color = [_UNDER_SUN, _UNDER_SUN, _UNDER_SUN, 1.0]
            elif mesh.texture is None:
                material.base_color = [*model.shaded.color, 1.0]
            # Otherwise the buffer of coordinates is uninitialized, which leaves occasional white holes.
            places = np.tile([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], (mesh.num_faces, 1))
            if mesh.texture is not None and (uvs := mesh.corner_uvs) is not None:
                places = uvs.reshape(-1, 2).double().numpy() * [1.0, -1.0] + [0.0, 1.0]  # its v axis points up
                pixels = (mesh.texture[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
                material.albedo_img = o3d.geometry.Image(np.ascontiguousarray(pixels))
            shape.triangle_uvs = o3d.utility.Vector2dVector(places)
            scene.add_geometry(name, shape, material)
        elif isinstance(model, Dots):
            # Its point shaders lose colors on Vulkan.
            material.shader, material.gaussian_splat_sh_degree = "gaussianSplat", 0
            scene.add_geometry(name, splat_cloud(o3d, _round(model, _DOT * self._session.content.radius)), material)
        elif isinstance(model, Lines) and len(model.starts):
            ends = torch.stack([model.starts, model.ends], 1).reshape(-1, 3)
            pairs = torch.arange(len(ends)).view(-1, 2).int().numpy()
            lines = o3d.geometry.LineSet(_vectors(o3d, ends), o3d.utility.Vector2iVector(pairs))
            lines.colors = _vectors(o3d, model.colors)
            material.shader, material.line_width = "unlitLine", _LINE_WIDTH * self._window.scaling
            scene.add_geometry(name, lines, material)


def _is_on_top(model: Model) -> bool:
    return isinstance(model, Lines) and model.is_on_top


def _before_all(lines: Model, camera: Cameras) -> Model:
    """The same lines seen from the camera, moved so close to it that nothing hides them."""
    assert isinstance(lines, Lines)
    eye = camera.centers[0].float()
    return replace(lines, starts=torch.lerp(eye, lines.starts, _NEARER), ends=torch.lerp(eye, lines.ends, _NEARER))


def _round(dots: Dots, size: float) -> Splats:
    """Points as small spheres, `size` [m] per pixel of their size."""
    count, scale = len(dots), size * dots.size
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(count, 4)
    scales, opacities = torch.full((count, 3), scale), torch.full((count,), 0.99)
    return Splats(dots.points, quats, scales, opacities, dots.colors, None, 0, "3dgs", False, dots.rows)


def splat_cloud(o3d: Any, splats: Splats) -> Any:
    """Gaussians as a point cloud for Open3D's shader `gaussianSplat`."""
    cloud = o3d.t.geometry.PointCloud()
    sh = (splats.colors[:, None] - 0.5) / _SH0 if splats.sh is None else splats.sh
    logits = torch.logit(splats.opacities, eps=1e-6)
    values = {
        "positions": splats.means, "scale": splats.scales, "rot": splats.quats, "opacity": logits[:, None], "f_dc": sh[:, 0],
    }  # fmt: skip
    if sh.shape[1] > 1:
        values["f_rest"] = sh[:, 1:]
    for name, value in values.items():
        cloud.point[name] = o3d.core.Tensor(np.ascontiguousarray(value.float().numpy()))
    return cloud


def _vectors(o3d: Any, values: Float[Tensor, "n 3"]) -> Any:
    return o3d.utility.Vector3dVector(np.ascontiguousarray(values.double().numpy()))


def _indices(o3d: Any, values: Tensor) -> Any:
    return o3d.utility.Vector3iVector(np.ascontiguousarray(values.int().numpy()))
