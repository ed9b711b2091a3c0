"""Picking against known objects."""

from dataclasses import replace

import pytest
import torch

from tests.support.scenes import ring_cameras, ring_scene
from vision3d.geometry import shapes
from vision3d.geometry.cameras import intrinsics, project
from vision3d.geometry.se3 import transform_points
from vision3d.render import render_views
from vision3d.scene import Cameras, GaussianScene, Mesh, PointCloud
from vision3d.viewer.models import Dots, Splats, Surface
from vision3d.viewer.picking import pick


def lens():
    return Cameras.from_camtoworlds(torch.eye(4)[None], intrinsics(100.0, 100.0, 64.0, 48.0), 128, 96)


def gaussians(points, opacity=0.9, scale=0.05):
    scene = GaussianScene.from_points(torch.tensor(points), sh_degree=0, opacity=opacity)
    return replace(scene, log_scales=torch.full_like(scene.log_scales, scale).log())


def test_the_gaussian_under_the_mouse_with_its_values():
    scene = gaussians([[0.0, 0.0, 2.0], [0.5, 0.0, 2.0], [0.0, 0.5, 2.0]])
    found = pick([("three", Splats.of(scene))], lens(), 64 + 25, 48)
    assert (found.layer, found.kind, found.index) == ("three", "Gaussian", 1)
    assert found.position.tolist() == [0.5, 0.0, 2.0]
    assert found.depth == pytest.approx(2.0)
    assert found.lines(scene) == ["three: Gaussian 1", "position 0.5 0 2 m", "opacity 0.900", "scales 0.05 0.05 0.05 m"]
    assert pick([("three", Splats.of(scene))], lens(), 5, 5) is None


@pytest.mark.parametrize(("opacity", "index"), [(0.9, 0), (0.05, 1)])
def test_a_gaussian_behind_a_transparent_one_can_be_picked(opacity, index):
    scene = gaussians([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]])
    logits = torch.logit(torch.tensor([opacity, 0.9]))
    assert pick([("two", Splats.of(replace(scene, opacity_logits=logits)))], lens(), 64, 48).index == index


@pytest.mark.parametrize("antialiased", [False, True])
def test_the_picked_gaussian_has_the_largest_weight(antialiased):
    """Each Gaussian has its number as its color: the picked one has the largest rendered weight."""
    scene = replace(ring_scene(60), antialiased=antialiased)
    camera = ring_cameras(3, 60, 50)[0]
    one_each = torch.eye(scene.num_gaussians)
    weights = next(render_views(scene, camera, features=one_each)).image
    splats = Splats.of(scene)
    checked = 0
    for row, column in [(10, 20), (25, 30), (30, 12), (40, 40), (45, 25)]:
        best = weights[row, column].sort(descending=True).values
        if best[0] > 0.1 and best[0] > best[1] + 0.01:
            found = pick([("ring", splats)], camera, column + 0.5, row + 0.5)
            assert found.index == int(weights[row, column].argmax())
            checked += 1
    assert checked >= 2


def test_the_vertex_nearest_to_the_mouse():
    vertices = torch.tensor([[-1.0, -1.0, 3.0], [1.0, -1.0, 3.0], [0.0, 1.0, 3.0]])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2]]), vertex_colors=torch.eye(3))
    models = [("triangle", Surface.of(mesh))]
    found = pick(models, lens(), 64 + 28, 48 - 30)
    assert (found.kind, found.index) == ("vertex", 1)
    assert found.lines(mesh)[-1] == "color 0.00 1.00 0.00"
    assert pick(models, lens(), 64, 48 + 28).index == 2
    assert pick(models, lens(), 3, 3) is None


def test_a_point_near_the_mouse_with_its_attributes():
    cloud = PointCloud(
        torch.tensor([[0.0, 0, 2], [0.3, 0, 2]]), intensity=torch.tensor([0.25, 0.5]), attributes={"ring": torch.tensor([7, 9])}
    )
    models = [("scan", Dots.of(cloud))]
    found = pick(models, lens(), 64 + 15 + 2.5, 48 - 2.5)
    assert (found.kind, found.index) == ("point", 1)
    assert found.lines(cloud) == ["scan: point 1", "position 0.3 0 2 m", "intensity 0.5", "ring 9"]
    assert pick(models, lens(), 64 + 40, 48) is None


def test_the_nearest_of_several_layers_is_picked():
    ball = Mesh(0.5 * shapes.icosphere(2)[0] + torch.tensor([0.0, 0.0, 3.0]), shapes.icosphere(2)[1])
    models = [("ball", Surface.of(ball)), ("dust", Splats.of(gaussians([[0.0, 0.0, 2.0]])))]
    assert pick(models, lens(), 64, 48).layer == "dust"
    assert pick(models, lens(), 64 + 12, 48).layer == "ball"
    assert pick([], lens(), 64, 48) is None


def test_every_gaussian_of_a_sparse_scene_can_be_picked():
    generator = torch.Generator().manual_seed(1)
    grid = torch.cartesian_prod(torch.linspace(-0.8, 0.8, 6), torch.linspace(-0.6, 0.6, 5))
    depth = 2 + torch.rand(len(grid), 1, generator=generator)
    points = torch.cat([grid, depth], 1)
    scene = gaussians(points.tolist(), scale=0.02)
    camera = lens()
    pixels = project(transform_points(camera.viewmats[0], points)[None], camera.Ks)[0]
    splats = Splats.of(scene)
    assert [pick([("grid", splats)], camera, *pixel).index for pixel in pixels.tolist()] == list(range(len(points)))
