"""Differentiable images of a moving mesh: of the mesh itself, or of Gaussians on its faces."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from vision3d.geometry.mesh import weld_vertices
from vision3d.render.meshes import Surface, antialias, base_colors, edge_neighbors, rasterize, screen_positions
from vision3d.render.meshes.shading import first_of_each
from vision3d.render.splats import rasterize as rasterize_splats
from vision3d.scene import Cameras, Mesh, MeshGaussians
from vision3d.scene.colors import linear_to_srgb


class Painter(Protocol):
    """Renders a mesh in many poses."""

    def paint(
        self,
        vertices: Float[Tensor, "f v 3"],
        frames: Int64[Tensor, " i"],
        cameras: Cameras,
        size: tuple[int, int] | None = None,
    ) -> tuple[Float[Tensor, "i h w 3"], Float[Tensor, "i h w"]]:
        """Colors on black, and opacity: image i shows pose frames[i] in camera i, all of the same size.

        Args:
            size: Width and height [px]; None reads them from the first camera, for which the CPU waits if it is on a GPU.
        """
        ...


@dataclass(frozen=True, eq=False)
class MeshPainter:
    """The unlit mesh with its texture or colors. Gradients come from the surface and from its silhouettes."""

    surface: Surface
    faces: Int32[Tensor, "f 3"]
    """Faces of welded vertices, so that texture seams are not silhouettes."""
    first: Int64[Tensor, " w"]
    """One vertex index per position."""
    neighbors: Int32[Tensor, "f 3"]

    @classmethod
    def of(cls, mesh: Mesh) -> "MeshPainter":
        _, _, place = weld_vertices(mesh.vertices, mesh.faces)
        faces = place[mesh.faces].int()
        return cls(Surface.of(mesh), faces, first_of_each(place), edge_neighbors(faces))

    def paint(
        self,
        vertices: Float[Tensor, "f v 3"],
        frames: Int64[Tensor, " i"],
        cameras: Cameras,
        size: tuple[int, int] | None = None,
    ) -> tuple[Float[Tensor, "i h w 3"], Float[Tensor, "i h w"]]:
        width, height = size or _size(cameras)
        positions = screen_positions(vertices[frames], cameras.viewmats, cameras.Ks, cameras.model)
        welded = positions[:, self.first].contiguous()
        fragments = rasterize(welded, self.faces, width, height)
        colors = linear_to_srgb(base_colors(self.surface, positions, fragments))
        layers = torch.cat([colors, (fragments.face_ids >= 0)[..., None].to(colors)], -1)
        layers = antialias(layers, welded, self.faces, fragments, neighbors=self.neighbors)
        return layers[..., :3], layers[..., 3]


@dataclass(frozen=True, eq=False)
class GaussianPainter:
    """Gaussians on the faces, each of which moves with its face."""

    gaussians: MeshGaussians
    backend: str = "auto"

    def paint(
        self,
        vertices: Float[Tensor, "f v 3"],
        frames: Int64[Tensor, " i"],
        cameras: Cameras,
        size: tuple[int, int] | None = None,
    ) -> tuple[Float[Tensor, "i h w 3"], Float[Tensor, "i h w"]]:
        size = size or _size(cameras)
        colors, alphas, order = [], [], []
        for frame in frames.unique().tolist():
            rows = (frames == frame).nonzero()[:, 0]
            scene = self.gaussians.to_gaussians(vertices[frame])
            image, alpha, _ = rasterize_splats(
                scene.means, scene.quats, scene.scales, scene.opacities, scene.sh, cameras.viewmats[rows], cameras.Ks[rows],
                *size, sh_degree=scene.sh_degree, camera_model=cameras.model, backend=self.backend,
            )  # fmt: skip
            colors.append(image)
            alphas.append(alpha[..., 0])
            order.append(rows)
        back = torch.cat(order).argsort()
        return torch.cat(colors)[back], torch.cat(alphas)[back]


def _size(cameras: Cameras) -> tuple[int, int]:
    """Width and height of the first image [px], read at once."""
    width, height = torch.stack([cameras.width[0], cameras.height[0]]).tolist()
    return width, height


def make_painter(source: Mesh | MeshGaussians, renderer: str, per_face: int, backend: str = "auto") -> Painter:
    """The painter for the options; auto depends on the type of the source."""
    if renderer == "auto":
        renderer = "mesh" if isinstance(source, Mesh) else "gaussians"
    if renderer == "mesh":
        return MeshPainter.of(source if isinstance(source, Mesh) else source.mesh)
    if isinstance(source, Mesh):
        source = MeshGaussians.from_mesh(source, per_face)  # pyright: ignore[reportArgumentType]
    return GaussianPainter(source, backend)


def over(
    colors: Float[Tensor, "*batch h w 3"], alphas: Float[Tensor, "*batch h w"], background: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*batch h w 3"]:
    """Composite images on black over a background color."""
    return colors + (1 - alphas[..., None]) * background


def on_white(colors: Float[Tensor, "*batch h w 3"], alphas: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch h w 3"]:
    """Composite images on black over white."""
    return over(colors, alphas, colors.new_ones(3))


def with_views(cameras: Cameras, views: Int64[Tensor, " i"], factor: int) -> Cameras:
    """Select cameras, with images downscaled by `factor`, rounded up."""
    chosen = replace(cameras, names=None, times=None)[views]  # names would be looked up on the CPU
    if factor == 1:
        return chosen
    return chosen.resized(-(-chosen.width // factor), -(-chosen.height // factor))
