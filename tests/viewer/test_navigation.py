"""The free camera: closed forms of its moves, and fitting a camera's whole image into the window."""

import math

import pytest
import torch

from vision3d.geometry.cameras import intrinsics, look_at, project
from vision3d.scene import Cameras
from vision3d.viewer.navigation import FreeCamera, fitted_focal
from vision3d.viewer.viewpoint import Viewpoint

UP = torch.tensor([0.0, 0.0, 1.0])


@pytest.fixture
def view():
    start = Viewpoint(torch.tensor([0.0, -4.0, 1.0]), torch.tensor([0.0, 0.0, 1.0]), UP)
    return FreeCamera.of(start, UP)


def close(a, b, tolerance=1e-9):
    return torch.allclose(a, torch.as_tensor(b, dtype=a.dtype), atol=tolerance)


def test_it_starts_at_the_viewpoint(view):
    assert close(view.position, [0, -4, 1])
    assert close(view.pivot, [0, 0, 1])
    assert view.distance == pytest.approx(4)
    assert close(view.camtoworld[:3, 1], [0, 0, -1])  # down


def test_an_orbit_by_90_degrees(view):
    turned = view.orbited(math.radians(90), 0.0)
    assert close(turned.position, [4, 0, 1])
    assert close(turned.pivot, view.pivot)


def test_orbiting_upwards_moves_the_camera_down(view):
    turned = view.orbited(0.0, math.radians(30))
    assert close(turned.position, [0, -4 * math.cos(math.radians(30)), 1 - 2.0])
    assert float(turned.camtoworld[2, 2]) == pytest.approx(0.5)


def test_an_orbit_stops_at_the_poles_and_can_return(view):
    high = view
    for _ in range(50):
        high = high.orbited(0.1, -0.2)
    assert math.degrees(math.asin(-float(high.camtoworld[2, 2]))) == pytest.approx(89, abs=1e-6)
    assert float(-high.camtoworld[2, 1]) > 0  # still upright
    back = high.orbited(0.0, math.radians(89))
    assert float(back.camtoworld[2, 2]) == pytest.approx(0, abs=1e-6)


def test_looking_around_keeps_the_position(view):
    turned = view.looked(math.radians(90), 0.0)
    assert close(turned.position, view.position)
    assert close(turned.pivot, [-4, -4, 1])


def test_points_at_the_pivot_follow_the_mouse(view):
    before = project_point(view, view.pivot)
    after = project_point(view.panned(37.0, -21.0, 720), view.pivot)
    assert close(after - before, [37.0, -21.0], 1e-3)


def test_zoom_and_flight(view):
    assert close(view.zoomed(0.5).position, [0, -2, 1])
    assert close(view.zoomed(0.5).pivot, view.pivot)
    assert close(view.flown(1.0, 2.0, 3.0).position, [1, -1, -1])


def test_centering_looks_at_the_point(view):
    centered = view.centered(torch.tensor([1.0, 2.0, 3.0]))
    assert close(centered.position, view.position)
    assert close(centered.pivot, [1, 2, 3])
    assert view.centered(view.position) is view


@pytest.mark.parametrize("axis", [(1.0, 0, 0), (0, -1.0, 0), (0, 0, -1.0)])
def test_another_direction_up(view, axis):
    turned = view.with_up(torch.tensor(axis))
    assert close(turned.pivot, view.pivot)
    assert turned.distance == view.distance
    assert float(-turned.camtoworld[:3, 1] @ torch.tensor(axis, dtype=torch.float64)) > 0.1


def test_the_view_of_a_camera_shows_its_whole_image_at_its_position():
    pose = look_at(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3), UP)
    K = intrinsics(300.0, 320.0, 130.0, 90.0)
    camera = Cameras.from_camtoworlds(pose[None], K, 200, 200)
    view = FreeCamera.of_camera(camera, UP, 2.0, (640, 360))
    shown = view.camera(640, 360)
    assert close(shown.viewmats, camera.viewmats, 1e-5)
    rays = torch.tensor([[(x - 130.0) / 300, (y - 90.0) / 320, 1.0] for x in (0.0, 200.0) for y in (0.0, 200.0)])
    pixels = project(rays[None], shown.Ks)[0]
    assert bool(((pixels >= -1e-3) & (pixels <= torch.tensor([640.0, 360.0]) + 1e-3)).all())
    assert float((pixels - torch.tensor([320.0, 180.0])).abs().amax(0)[1]) == pytest.approx(180, abs=1e-3)  # and no smaller


def test_fitted_focal_of_an_equal_window_is_the_cameras_own():
    camera = Cameras.from_camtoworlds(torch.eye(4)[None], intrinsics(500.0, 500.0, 320.0, 240.0), 640, 480)
    assert fitted_focal(camera, (640, 480)) == pytest.approx(500)
    assert fitted_focal(camera, (1280, 480)) == pytest.approx(500)
    assert fitted_focal(camera, (320, 480)) == pytest.approx(250)


def project_point(view, point):
    camera = view.camera(1280, 720)
    seen = camera.viewmats[0, :3, :3] @ point.float() + camera.viewmats[0, :3, 3]
    return project(seen[None, None], camera.Ks)[0, 0]
