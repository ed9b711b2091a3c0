"""Metrics of a mesh reconstructed from a scene: topology, distance from the visible surface, and renders."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vision3d.geometry import mesh as geometry
from vision3d.render import render_views
from vision3d.render.meshes import interpolate, rasterize, screen_positions, texture, texture_lods
from vision3d.scene import Cameras, GaussianScene, Mesh


def drawn(mesh: Mesh, camera: Cameras, samples: int = 3) -> tuple[Tensor, Tensor]:
    """Colors on black (H, W, 3) and alpha (H, W, 1) of a mesh in a camera, `samples` x `samples` per pixel averaged."""
    width, height = int(camera.width) * samples, int(camera.height) * samples
    positions = screen_positions(mesh.vertices, camera.viewmats, camera.resized(width, height).Ks)
    fragments = rasterize(positions, mesh.faces, width, height)
    mask = (fragments.face_ids >= 0)[..., None].float()
    if mesh.texture is not None and mesh.corner_uvs is not None:
        uvs = mesh.corner_uvs.reshape(-1, 2)
        corners = torch.arange(len(uvs)).view(-1, 3)
        size = (mesh.texture.shape[0], mesh.texture.shape[1])
        lods = texture_lods(positions, mesh.faces, fragments, uvs, corners, size)
        colors = texture(mesh.texture[..., :3].contiguous(), interpolate(uvs, corners, fragments), lods=lods)
    else:
        assert mesh.vertex_colors is not None
        colors = interpolate(mesh.vertex_colors[:, :3].contiguous(), mesh.faces, fragments)
    both = torch.cat([colors * mask, mask], -1).permute(0, 3, 1, 2)
    rgb, alpha = torch.nn.functional.avg_pool2d(both, samples)[0].permute(1, 2, 0).split([3, 1], -1)
    return rgb, alpha


def topology(mesh: Mesh) -> dict[str, int]:
    """Counts on the mesh with coinciding vertices merged, as other programs count."""
    _, faces, _ = geometry.weld_vertices(mesh.vertices, mesh.faces)
    return {
        "faces": len(faces),
        "components": geometry.connected_faces(faces)[0],
        "edges_of_more_than_two_faces": len(geometry.crowded_edges(faces)),
        "border_edges": len(geometry.boundary_edges(faces)),
    }


def times_seen(points: Tensor, cameras: Cameras, depth_of: Callable[[int], Tensor], slack: float = 0.01) -> Tensor:
    """Number of cameras in which points (N, 3) are not behind the depth map (H, W), up to a relative tolerance."""
    times = torch.zeros(len(points), dtype=torch.long)
    for index, camera in enumerate(cameras):
        place = points.float() @ camera.viewmats[0, :3, :3].T + camera.viewmats[0, :3, 3]
        depth = place[:, 2]
        pixels = place[:, :2] / depth[:, None].clamp(min=1e-6) @ camera.Ks[0, :2, :2].T + camera.Ks[0, :2, 2]
        width, height = int(camera.width), int(camera.height)
        is_inside = (depth > 1e-6) & (pixels >= 0).all(1) & (pixels[:, 0] < width) & (pixels[:, 1] < height)
        column, row = pixels.nan_to_num(0).long().unbind(1)
        nearest = depth_of(index)[row.clamp(0, height - 1), column.clamp(0, width - 1)]
        times += is_inside & (depth <= nearest * (1 + slack))
    return times


def depths_of(mesh: Mesh, cameras: Cameras) -> Callable[[int], Tensor]:
    """Depth maps of a mesh by the index of the camera; infinity where it is empty."""

    def depth(index: int) -> Tensor:
        camera = cameras[index]
        positions = screen_positions(mesh.vertices.float(), camera.viewmats, camera.Ks)
        fragments = rasterize(positions, mesh.faces, int(camera.width), int(camera.height))
        return torch.where(fragments.face_ids[0] >= 0, fragments.depths[0], torch.inf)

    return depth


def psnr_beside_scene(
    mesh: Mesh, scene: GaussianScene, cameras: Cameras, photos: Sequence[Tensor], background: Tensor
) -> dict[str, float]:
    """Mean PSNR over views of mesh and scene where the scene's alpha is above 0.5; pixels without mesh show the background.

    `degree_0_psnr` is that of the scene without harmonics above degree 0: one color for all directions, like a mesh.
    """
    found, covered = [], []
    plain = dataclasses.replace(scene, sh=scene.sh[:, :1].contiguous())
    for camera, photo in zip(cameras, photos, strict=True):
        view = next(iter(render_views(scene, camera)))
        assert view.image is not None
        inside = view.alpha > 0.5
        rgb, alpha = drawn(mesh, camera)
        own = view.image + (1 - view.alpha[..., None]) * background
        diffuse = next(iter(render_views(plain, camera)))
        assert diffuse.image is not None
        images = (rgb + (1 - alpha) * background, own, diffuse.image + (1 - diffuse.alpha[..., None]) * background)
        errors = [(image.clamp(0, 1) - photo).square().mean(-1)[inside].mean() for image in images]
        found.append([-10 * math.log10(float(error)) for error in errors])
        covered.append(float(alpha[..., 0][inside].mean()))
    of_mesh, of_scene, of_plain = np.mean(found, 0)
    return {
        "psnr": round(float(of_mesh), 2),
        "scene_psnr": round(float(of_scene), 2),
        "degree_0_psnr": round(float(of_plain), 2),
        "below_scene": round(float(of_scene - of_mesh), 2),
        "covered": round(float(np.mean(covered)), 4),
    }
