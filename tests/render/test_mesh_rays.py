"""Faces of pixels against ray casting of trimesh and Open3D, on foreign meshes.

The teapot has intersecting surfaces, and suzanne has coplanar faces.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.outside import package
from tests.support.rays import Agreement, Drawn, draw_view
from vision3d import Mesh

MESHES = ["spot", "teapot", "suzanne"]


@pytest.fixture
def load(shared_data: Path):
    pytest.importorskip("trimesh")
    return lambda name: Mesh.load(shared_data / "meshes" / f"{name}.obj")


class AllFaces:
    """Replaces the r-tree that trimesh queries by a search over all boxes."""

    def __init__(self, triangles: np.ndarray) -> None:
        self.low, self.high = triangles.min(1), triangles.max(1)
        self.bounds = np.concatenate([self.low.min(0), self.high.max(0)])

    def intersection(self, box: np.ndarray) -> np.ndarray:
        return np.nonzero(((self.low <= box[3:]) & (self.high >= box[:3])).all(1))[0]


def trimesh_rays(mesh: Mesh, drawn: Drawn) -> tuple[torch.Tensor, torch.Tensor]:
    """Face (-1: none) and depth of every pixel."""
    from trimesh.ray.ray_triangle import ray_triangle_id

    triangles = mesh.vertices.double()[mesh.faces].numpy()
    origins, directions = (value.reshape(-1, 3).numpy() for value in (drawn.origins, drawn.directions))
    faces, rays, places = ray_triangle_id(triangles, origins, directions, tree=AllFaces(triangles), multiple_hits=True)
    depths = ((places - origins[rays]) * directions[rays]).sum(1) / (directions[rays] ** 2).sum(1)
    order = np.lexsort((faces, depths.astype(np.float32), rays))
    nearest = order[np.unique(rays[order], return_index=True)[1]]
    found = np.full(len(origins), -1), np.zeros(len(origins))
    for out, values in zip(found, (faces, depths)):
        out[rays[nearest]] = values[nearest]
    return tuple(torch.from_numpy(out).view(drawn.face_ids.shape) for out in found)


def check(agreement: Agreement) -> None:
    assert agreement.seen > 0.1 * agreement.pixels
    assert agreement.share >= 0.999
    assert agreement.edges + agreement.ties == agreement.differ  # every difference is explained
    assert agreement.depth_error <= 1e-5


@pytest.mark.parametrize("name", MESHES)
def test_trimesh_hits_the_same_faces(load, name):
    mesh, agreement = load(name), Agreement()
    drawn = draw_view(mesh, 3, 32)
    agreement.add(drawn, *trimesh_rays(mesh, drawn))
    check(agreement)


@pytest.mark.viewer
@pytest.mark.parametrize("name", MESHES)
def test_open3d_hits_the_same_faces(load, name):
    open3d = package("open3d")
    mesh, agreement = load(name), Agreement()
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(mesh.vertices.numpy()), open3d.core.Tensor(mesh.faces.numpy().astype(np.uint32)))
    for view in range(6):
        drawn = draw_view(mesh, view, 256)
        rays = torch.cat([drawn.origins, drawn.directions], -1).float().numpy()
        hits = scene.cast_rays(open3d.core.Tensor(rays))
        depths = torch.from_numpy(hits["t_hit"].numpy()).double()
        ids = torch.from_numpy(hits["primitive_ids"].numpy().astype(np.int64))
        agreement.add(drawn, torch.where(depths.isfinite(), ids, -1), depths)
    check(agreement)
