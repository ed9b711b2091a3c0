"""Fits a mesh to the rendered views: vertices and texture together, by gradient descent through the mesh rasterizer.

Surfaces from depth maps are lumpy and, at outlines, too small by a fraction of a pixel. Vertices move in
u = (I + smoothness L) x, with the graph Laplacian L, by Adam with one step size for all (Nicolet et al. 2021, Large Steps in
Inverse Rendering): neighbors move together, and nothing is flattened as by a smoothness term.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry import mesh as geometry
from vision3d.optim.adam import SplatAdam
from vision3d.render.baking.normals import normals_of
from vision3d.render.baking.texels import is_own
from vision3d.render.baking.views import Maps, SceneViews
from vision3d.render.meshes import antialias, edge_neighbors, interpolate, rasterize, screen_positions, texture, texture_lods
from vision3d.scene import Cameras, Mesh

SMOOTHNESS = 1.5
"""Weight of the graph Laplacian: moves are smooth over about its square root in edges."""
_STEP = 6.0
"""Initial step of the vertex that moves most, before smoothing [pixels]."""
_LAST_STEP = 0.05
"""Final factor of the step size."""
_RATE = 0.02
"""Initial step of the texture, which decays to a tenth."""
_BETAS = (0.9, 0.99)


def refine(mesh: Mesh, views: SceneViews, steps: int, step: Callable[[int, float], None], seed: int = 0) -> Mesh:
    """The mesh with vertices and texture fitted to the views (Adam, one view per step).

    A view is compared to the mesh on a random background, antialiased, so that outlines count. Where a view shows something in
    front of the mesh that the mesh lacks, the texture is not trained. Faces, uvs and texels that no view uses are unchanged.

    Args:
        mesh: With uvs and a texture; vertices at borders of charts are duplicated at the same position.
        views: Rendered scene.
        steps: Number of compared views.
        step: Called with the number of finished steps and the loss.
        seed: Seed of the order of views and of backgrounds.

    Raises:
        InputError: The mesh has no uvs or no texture.
    """
    if mesh.texture is None or mesh.uvs is None:
        raise InputError("mesh: has no texture; want one with uvs and a texture")
    start, faces, copies = geometry.weld_vertices(mesh.vertices, mesh.faces)
    kept = (copies[mesh.faces] != copies[mesh.faces].roll(1, 1)).all(1)
    scene = _Drawing(faces, mesh.uvs, mesh.faces[kept], edge_neighbors(faces), mesh.texture.shape[0])
    solve = _smoothing(faces, len(start))
    pixel = _pixel(start, views.cameras.to("cpu"))
    colors = {"texels": mesh.texture.clone().requires_grad_()}
    optimizer = SplatAdam(colors, {"texels": _RATE}, betas=_BETAS, eps=1e-8)
    moved, mean, square = torch.zeros_like(start), torch.zeros_like(start), 0.0
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    places = start
    for number in range(steps):
        if not order:
            order = torch.randperm(len(views), generator=generator).tolist()
        index = order.pop()
        maps, background = views[index], torch.rand(3, generator=generator)
        vertices = places.clone().requires_grad_()
        shown = scene.draw(vertices, colors["texels"], views.cameras[index : index + 1].to("cpu"), background, maps)
        wanted = torch.lerp(background.expand_as(maps.color), maps.color, maps.alpha[..., None])
        loss = (shown[..., :3] - wanted).square().sum(-1).mean() + (shown[..., 3] - maps.alpha).square().mean()
        optimizer.learning_rates["texels"] = _RATE * 0.1 ** (number / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert vertices.grad is not None
        gradient = solve(vertices.grad)
        mean = torch.lerp(gradient, mean, _BETAS[0])
        square = _BETAS[1] * square + (1 - _BETAS[1]) * float(gradient.square().max())
        typical = (square / (1 - _BETAS[1] ** (number + 1))) ** 0.5
        length = _STEP * pixel * _LAST_STEP ** (number / steps)
        moved = moved - length / max(typical, 1e-30) * mean / (1 - _BETAS[0] ** (number + 1))
        places = start + solve(moved)
        step(number + 1, float(loss.detach()))
    normals = normals_of(Mesh(places, faces))
    return replace(mesh, vertices=places[copies], normals=normals[copies], texture=colors["texels"].detach().clamp(0, 1))


def _pixel(vertices: Tensor, cameras: Cameras) -> float:
    """Median side of a pixel on the surface [m]."""
    return float((torch.cdist(vertices, cameras.centers) / cameras.Ks[:, 0, 0]).median())


def _smoothing(faces: Int[Tensor, "f 3"], count: int) -> Callable[[Tensor], Tensor]:
    """x of (I + smoothness L) x = y, for y (V, 3)."""
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import splu

    edges = geometry.unique_edges(faces)[0].numpy()
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    adjacency = coo_array((np.full(len(rows), SMOOTHNESS), (rows, columns)), shape=(count, count)).tocsc()
    system: Any = (diags_array(1 + np.asarray(adjacency.sum(1))) - adjacency).tocsc()
    factors = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return lambda values: torch.from_numpy(factors.solve(values.double().numpy())).float()


class _Drawing:
    """Draws the mesh: faces with shared vertices give outlines, those of the uvs give colors."""

    def __init__(self, faces: Tensor, uvs: Tensor, uv_faces: Tensor, neighbors: Tensor, size: int) -> None:
        self.faces, self.uvs, self.uv_faces, self.neighbors, self.size = faces, uvs, uv_faces, neighbors, (size, size)

    def draw(self, vertices: Tensor, texels: Tensor, camera: Cameras, background: Tensor, maps: Maps) -> Float[Tensor, "h w 4"]:
        """Colors over the background and alpha, with gradients to vertices and texels."""
        positions = screen_positions(vertices, camera.viewmats, camera.Ks)
        fragments = rasterize(positions, self.faces, int(camera.width), int(camera.height))
        mask = fragments.face_ids >= 0
        lods = texture_lods(positions.detach(), self.faces, fragments, self.uvs, self.uv_faces, self.size)
        colors = texture(texels, interpolate(self.uvs, self.uv_faces, fragments), lods=lods, masks=mask, wrap="clamp")
        colors = torch.where(is_own(maps, fragments.depths[0].detach())[None, ..., None], colors, colors.detach())
        both = torch.cat([torch.where(mask[..., None], colors, background), mask[..., None].float()], -1)
        return antialias(both, positions, self.faces, fragments, neighbors=self.neighbors)[0]
