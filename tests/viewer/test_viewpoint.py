"""Bounds, up direction and the first view."""

from pathlib import Path

import pytest
import torch

from tests.support.scenes import ring_cameras, ring_scene
from vision3d.geometry import se3, shapes
from vision3d.geometry.cameras import project
from vision3d.scene import Boxes, GaussianScene, Mesh, PointCloud, Region, Selection
from vision3d.viewer.layers import Layer
from vision3d.viewer.viewpoint import Bounds, Viewpoint, bounds_of, guess_up, start_viewpoint

I = torch.eye(4)


def layer(kind, value, name="a.ply", transform=I):
    return Layer("a", kind, value, transform, True, Path(name))


def test_stray_points_do_not_change_the_bounds():
    ball = torch.nn.functional.normalize(torch.randn(2000, 3), dim=-1)
    strays = torch.cat([ball, torch.full((20, 3), 1e6)])
    for value in (PointCloud(strays), GaussianScene.from_points(strays)):
        bounds = bounds_of([(value, I)])
        assert torch.linalg.vector_norm(bounds.center) < 0.1
        assert bounds.radius == pytest.approx(1, abs=0.1)


def test_bounds_of_a_sphere_follow_its_transform():
    mesh = Mesh(*(shapes.icosphere(3)[:2]))
    turn = se3.exp(torch.tensor([0.0, 0, 0, 0.3, 0.2, 0.1]))[:3, :3]
    bounds = bounds_of([(mesh, se3.similarity(torch.tensor(3.0), turn, torch.tensor([5.0, 6, 7])))])
    assert bounds.center.tolist() == pytest.approx([5, 6, 7], abs=1e-2)
    assert bounds.radius == pytest.approx(3, rel=1e-3)


def test_bounds_contain_all_objects():
    mesh = Mesh(*(shapes.icosphere(3)[:2]))
    shifts = [se3.similarity(torch.tensor(1.0), torch.eye(3), torch.tensor([x, 0, 0])) for x in (-4.0, 4.0)]
    bounds = bounds_of([(mesh, shift) for shift in shifts])
    assert bounds.center.tolist() == pytest.approx([0, 0, 0], abs=1e-2)
    assert bounds.radius == pytest.approx(5, rel=1e-2)


def test_cameras_and_selections_count_only_without_other_objects():
    selection = Selection((Region.sphere(torch.tensor([1.0, 0, 0]), 2.0), Region.plane(torch.zeros(3), torch.ones(3))))
    alone = bounds_of([(selection, I)])
    assert alone.center.tolist() == pytest.approx([1, 0, 0]) and alone.radius == pytest.approx(2)
    cameras = ring_cameras()
    assert bounds_of([(cameras, I)]).radius == pytest.approx(4, rel=0.2)
    with_points = bounds_of([(selection, I), (cameras, I), (PointCloud(0.1 * torch.rand(50, 3)), I)])
    assert with_points.radius < 0.2
    assert bounds_of([]).center.tolist() == [0, 0, 0] and bounds_of([]).radius == 1


def test_up_is_that_of_the_cameras_or_of_the_file():
    scene, mesh = layer("gaussians", ring_scene(20)), layer("mesh", Mesh(*shapes.icosphere(0)), "a.glb")
    cloud, boxes = layer("points", PointCloud(torch.rand(5, 3))), layer("boxes", Boxes(torch.ones(1, 7)))
    cameras = layer("cameras", ring_cameras())
    assert guess_up([scene, mesh, cameras]).tolist() == pytest.approx([0, 0, 1], abs=1e-5)
    assert guess_up([scene]).tolist() == [0, -1, 0]
    assert guess_up([scene, cloud, mesh]).tolist() == [0, 1, 0]
    assert guess_up([scene, cloud]).tolist() == guess_up([mesh, boxes]).tolist() == guess_up([]).tolist() == [0, 0, 1]
    assert guess_up([layer("mesh", mesh.value, "part.stl")]).tolist() == [0, 0, 1]
    turned = se3.exp(torch.tensor([0.0, 0, 0, torch.pi / 2, 0, 0]))
    assert guess_up([layer("mesh", mesh.value, "a.glb", turned)]).tolist() == pytest.approx([0, 0, 1], abs=1e-6)


@pytest.mark.parametrize("up", [(0.0, 0, 1), (0.0, -1, 0), (0.0, 1, 0), (1.0, 0, 0), (1.0, 2, 3)])
def test_the_framed_sphere_is_in_the_image(up):
    bounds = Bounds(torch.tensor([1.0, 2, 3]), 2.0)
    view = start_viewpoint([layer("points", PointCloud(torch.rand(5, 3)))], bounds, torch.tensor(up))
    camera = view.camera(200, 100)
    ball = bounds.center + bounds.radius * torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    pixels = project(se3.transform_points(camera.viewmats[0], ball), camera.Ks[0])
    assert pixels[:, 1].min() > 0 and pixels[:, 1].max() < 100 and pixels[:, 1].max() - pixels[:, 1].min() > 80
    direction = torch.nn.functional.normalize(torch.tensor(up), dim=-1)
    assert float(((view.position - bounds.center) * direction).sum()) > 0  # from above
    above = project(se3.transform_points(camera.viewmats[0], (bounds.center + 0.1 * direction)[None]), camera.Ks[0])
    assert above[0, 1] < 50 and above[0, 0] == pytest.approx(100, abs=1e-3)


def test_the_view_of_a_photo_matches_its_camera():
    cameras = ring_cameras()
    bounds = Bounds(torch.tensor([0.0, 0, 0.4]), 1.0)
    for index in (0, 4):
        seen = Viewpoint.of_camera(cameras, index, bounds).camera(48, 36)
        assert torch.allclose(seen.viewmats[0], cameras.viewmats[index], atol=1e-5)
        assert torch.allclose(seen.Ks[0], cameras.Ks[index], rtol=1e-5)
    target = Viewpoint.of_camera(cameras, 0, bounds).target
    assert torch.allclose(target, bounds.center, atol=1e-5)
    behind = Viewpoint.of_camera(cameras, 0, Bounds(torch.tensor([40.0, 0, 0]), 2.0))
    assert torch.linalg.vector_norm(behind.target - behind.position) == pytest.approx(2, rel=1e-5)


def test_a_scene_with_cameras_starts_at_the_first():
    cameras = ring_cameras()
    layers = [layer("gaussians", ring_scene(20)), layer("cameras", cameras)]
    view = start_viewpoint(layers, Bounds(torch.zeros(3), 1.0), torch.tensor([0.0, 0, 1]))
    assert torch.allclose(view.position, cameras.centers[0], atol=1e-6)
    alone = start_viewpoint(layers[1:], bounds_of([(cameras, I)]), torch.tensor([0.0, 0, 1]))
    pixels = project(se3.transform_points(alone.camera(90, 60).viewmats[0], cameras.centers), alone.camera(90, 60).Ks[0])
    assert bool(((pixels > 0) & (pixels < torch.tensor([90.0, 60]))).all())  # all cameras are in view
