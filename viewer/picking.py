"""Picking: the Gaussian, vertex or point under the mouse, with its index and values."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.render.meshes import rasterize as rasterize_faces, screen_positions
from vision3d.render.splats import kernels
from vision3d.render.splats.records import Camera, Gaussians
from vision3d.scene import Cameras, GaussianScene, Mesh, PointCloud
from vision3d.viewer.layers import Drawable
from vision3d.viewer.models import Dots, Model, Splats, Surface

_REACH = 4.0  # maximum distance from a point in pixels
_NEAR = 0.01


@dataclass(frozen=True, eq=False)
class Pick:
    """A picked element."""

    layer: str
    kind: str
    """Gaussian, vertex or point."""
    index: int
    """Row in the layer's value."""
    position: Float[Tensor, "3"]
    """World position [m]."""
    depth: float
    """Depth along the camera's z [m]."""

    def lines(self, value: Drawable) -> list[str]:
        """Description: index, position, and its values in the layer."""
        at = " ".join(f"{number:.4g}" for number in self.position.tolist())
        return [f"{self.layer}: {self.kind} {self.index}", f"position {at} m", *_values(value, self.index)]


@torch.inference_mode()
def pick(models: Iterable[tuple[str, Model]], camera: Cameras, x: float, y: float) -> Pick | None:
    """The nearest element at an image position, or None.

    Of the Gaussians, the one that contributes most to the pixel's color.

    Args:
        models: Models with the names of their layers.
        camera: A pinhole camera (a batch of one).
        x: Right [px].
        y: Down [px].
    """
    found = [hit for name, model in models if (hit := _pick_one(name, model, camera, x, y)) is not None]
    return min(found, key=lambda hit: hit.depth, default=None)


def _pick_one(name: str, model: Model, camera: Cameras, x: float, y: float) -> Pick | None:
    if isinstance(model, Splats):
        return _pick_splat(name, model, camera, x, y)
    if isinstance(model, Surface):
        return _pick_vertex(name, model, camera, x, y)
    if isinstance(model, Dots):
        return _pick_dot(name, model, camera, x, y)
    return None


def _pick_splat(name: str, splats: Splats, camera: Cameras, x: float, y: float) -> Pick | None:
    size = int(camera.width), int(camera.height)
    view = Camera(camera.viewmats[None], camera.Ks[None], *size, "pinhole", _NEAR, 1e10, 0.0)
    gaussians = Gaussians(splats.means[None], splats.quats[None], splats.scales[None], None, splats.opacities[None])
    backend = "reference" if kernels.resolve("auto", splats.means.device) == "reference" else "native"
    (_, rows), (radii, means2d, depths, conics, compensations) = kernels.kernels(backend).project(
        gaussians, view, eps2d=0.3, antialiased=splats.antialiased, packed=True
    )
    offset = means2d.new_tensor([x, y]) - means2d
    near = (offset.abs() <= radii).all(-1).nonzero()[:, 0]
    dx, dy = offset[near].unbind(-1)
    a, b, c = conics[near].unbind(-1)
    opacity = splats.opacities[rows[near]] * (compensations[near] if splats.antialiased else 1)
    alpha = (opacity * torch.exp(-(0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy))).clamp(max=0.99)
    order = depths[near].argsort()
    order = order[alpha[order] > 1 / 255]
    if not len(order):
        return None
    alpha = alpha[order]
    left = torch.cat([alpha.new_ones(1), (1 - alpha).cumprod(0)[:-1]])
    best = near[order[int((alpha * left).argmax())]]
    row = int(rows[best])
    return Pick(name, "Gaussian", int(splats.rows[row]), splats.means[row].clone(), float(depths[best]))


def _pick_vertex(name: str, surface: Surface, camera: Cameras, x: float, y: float) -> Pick | None:
    # An image of one pixel centered at the position.
    K = camera.Ks[0].clone()
    K[:2, 2] += K.new_tensor([0.5 - x, 0.5 - y])
    mesh = surface.shaded.mesh
    positions = screen_positions(mesh.vertices.float(), camera.viewmats, K[None])
    face, weights, depth = rasterize_faces(positions, mesh.faces, 1, 1, near_plane=_NEAR)
    if int(face) < 0:
        return None
    vertex = int(mesh.faces[int(face), int(weights.argmax())])
    return Pick(name, "vertex", vertex, mesh.vertices[vertex].float().clone(), float(depth))


def _pick_dot(name: str, dots: Dots, camera: Cameras, x: float, y: float) -> Pick | None:
    viewmat, K = camera.viewmats[0], camera.Ks[0]
    seen = dots.points @ viewmat[:3, :3].mT + viewmat[:3, 3]
    z = seen[:, 2]
    away = torch.maximum((K[0, 0] * seen[:, 0] / z + K[0, 2] - x).abs(), (K[1, 1] * seen[:, 1] / z + K[1, 2] - y).abs())
    reach = _REACH * max(1.0, float(camera.height) / 720)
    near = ((z > _NEAR) & (away <= reach)).nonzero()[:, 0]
    if not len(near):
        return None
    row = int(near[z[near].argmin()])
    return Pick(name, "point", int(dots.rows[row]), dots.points[row].clone(), float(z[row]))


def _values(value: Drawable, index: int) -> list[str]:
    if isinstance(value, GaussianScene):
        scales = " ".join(f"{number:.3g}" for number in value.scales[index].tolist())
        lines = [f"opacity {float(value.opacities[index]):.3f}", f"scales {scales} m"]
        if value.labels is not None:
            lines.append(f"label {int(value.labels[index])}")
        return lines
    if isinstance(value, PointCloud):
        lines = []
        if value.colors is not None:
            lines.append("color " + " ".join(f"{number:.2f}" for number in value.colors[index].tolist()))
        if value.intensity is not None:
            lines.append(f"intensity {float(value.intensity[index]):.3g}")
        return lines + [f"{name} {float(numbers[index]):.4g}" for name, numbers in list(value.attributes.items())[:4]]
    if isinstance(value, Mesh) and value.vertex_colors is not None:
        return ["color " + " ".join(f"{number:.2f}" for number in value.vertex_colors[index].tolist())]
    return []
