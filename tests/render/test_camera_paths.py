import math

import pytest
import torch

from tests.support.scenes import ring_cameras, ring_scene
from vision3d.core.errors import InputError
from vision3d.geometry import paths, shapes
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.geometry.rotation import geodesic_distance
from vision3d.render import path_cameras, refit_cameras, render_scene, render_views
from vision3d.scene import Cameras, GaussianScene, Mesh, Scene

UP = torch.tensor([0.0, 0.0, 1.0])


def walk(count=12):
    """Cameras that move along x and look sideways."""
    eyes = torch.stack([torch.linspace(0, 6, count), torch.zeros(count), torch.ones(count)], -1)
    return Cameras.from_camtoworlds(look_at(eyes, eyes + torch.tensor([0.3, 2.0, 0.0]), UP), intrinsics(40, 40, 24, 18), 48, 36)


def test_orbit_of_a_scene_without_cameras_keeps_it_in_view():
    scene = ring_scene(400)
    cameras = path_cameras(scene, "orbit", num=8, size=(64, 48), fov_deg=40)
    assert len(cameras) == 8 and cameras.distortion is None
    torch.testing.assert_close(cameras.Ks[0, 1, 1].item(), 24 / math.tan(math.radians(20)), rtol=1e-5, atol=0)
    assert (cameras.centers[:, 2] > 0.5).all()
    for view in render_views(scene, cameras):
        covered = (view.alpha > 0.5).float()
        assert covered[:, 20:44].mean() > 0.3  # the ring is in the middle
        assert covered.mean() < 0.95


def test_orbit_follows_the_photos():
    given = ring_cameras(9, 48, 36)
    cameras = path_cameras(ring_scene(), "orbit", given, num=36)
    target = torch.tensor([0.0, 0.0, 0.4])
    distances = (cameras.centers - target).norm(dim=-1)
    torch.testing.assert_close(distances, (given.centers[0] - target).norm().expand(36), rtol=1e-3, atol=0)
    torch.testing.assert_close(cameras.centers[:, 2], torch.full((36,), 2.0), rtol=0, atol=1e-2)
    torch.testing.assert_close(cameras.viewmats[0], given.viewmats[0], rtol=0, atol=1e-2)
    torch.testing.assert_close(cameras.Ks, given.Ks[:1].expand(36, 3, 3))
    assert (cameras.width == 48).all() and (cameras.height == 36).all()


def test_options_of_an_orbit():
    scene, given = ring_scene(), ring_cameras()
    usual = path_cameras(scene, "orbit", given, num=4)
    near = path_cameras(scene, "orbit", given, num=4, zoom=2.0)
    center = paths.focus_point(given.centers, given.camtoworlds[:, :3, 2])
    torch.testing.assert_close(2 * (near.centers - center), usual.centers - center, rtol=0, atol=1e-4)
    level = path_cameras(scene, "orbit", given, num=4, elevation_deg=0)
    torch.testing.assert_close(level.centers[:, 2], center[2].expand(4), rtol=0, atol=1e-4)
    backwards = path_cameras(scene, "orbit", given, num=4, turns=-1)
    torch.testing.assert_close(backwards.centers[1], usual.centers[3], rtol=0, atol=1e-4)
    sideways = path_cameras(scene, "orbit", given, num=4, up=torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(-sideways.camtoworlds[:, 0, 1] > 0.5, torch.ones(4, dtype=torch.bool))


def test_background_and_haze_do_not_move_the_orbit():
    scene = ring_scene()
    generator = torch.Generator().manual_seed(3)
    points = 30 * torch.randn(1000, 3, generator=generator)
    far = GaussianScene.from_points(points, sh_degree=1, opacity=0.5, scale_factor=0.5)
    alone = path_cameras(scene, "orbit", num=6)
    with_background = path_cameras(scene.merge(far), "orbit", num=6)
    assert (with_background.centers - alone.centers).norm(dim=-1).max() < 0.25 * alone.centers[0].norm()


def test_cameras_that_look_outwards_or_in_parallel_orbit_the_scene():
    scene = ring_scene()
    angle = torch.arange(6) * math.pi / 3
    outwards = torch.stack([angle.cos(), angle.sin(), torch.zeros(6)], -1)
    given = Cameras.from_camtoworlds(look_at(0.2 * outwards, 3 * outwards, UP), intrinsics(40, 40, 24, 18), 48, 36)
    for cameras in (given, walk()):
        orbit = path_cameras(scene, "orbit", cameras, num=5)
        focus = paths.focus_point(orbit.centers, orbit.camtoworlds[:, :3, 2])
        assert focus.norm() < 1.5


def test_spiral_stays_near_the_middle_photo_and_loops():
    eyes = torch.tensor([[x, -4.0 + 0.05 * z, z] for x in (-0.6, 0.0, 0.6) for z in (0.6, 1.0, 1.4)])
    given = Cameras.from_camtoworlds(look_at(eyes, torch.tensor([0.0, 0.0, 0.4]), UP), intrinsics(40, 40, 24, 18), 48, 36)
    spiral = path_cameras(ring_scene(), "spiral", given, num=60)
    offsets = spiral.centers - given.centers[4]
    assert 0.2 < offsets.norm(dim=-1).max() < 1.2
    assert offsets.mean(0).norm() < 0.1
    steps = (spiral.centers - spiral.centers.roll(1, 0)).norm(dim=-1)
    assert steps.max() < 4 * steps.median()
    alone = path_cameras(ring_scene(), "spiral", num=10)
    assert (alone.centers - alone.centers.mean(0)).norm(dim=-1).max() < alone.centers.norm(dim=-1).min()


def test_flight_passes_the_photos_of_a_walk_in_order():
    given = walk(20)
    flight = path_cameras(ring_scene(50), "flythrough", given, num=200)
    torch.testing.assert_close(flight.viewmats[[0, -1]], given.viewmats[[0, -1]], rtol=0, atol=1e-4)
    assert (flight.centers[:, 0].diff() > 0).all()


def test_flight_through_unordered_photos_is_short_and_smooth():
    given = ring_cameras(40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    flight = path_cameras(ring_scene(50), "flythrough", given[order], num=240)
    length = (flight.centers[1:] - flight.centers[:-1]).norm(dim=-1)
    assert length.sum() < 2 * math.pi * 4.0 * 1.1  # once around, not back and forth
    turns = geodesic_distance(flight.camtoworlds[1:, :3, :3], flight.camtoworlds[:-1, :3, :3])
    assert turns.max() < 6 * turns.median() and length.max() < 6 * length.median()


def test_lens_of_the_middle_photos():
    narrow, wide = ring_cameras(2), refit_cameras(ring_cameras(3), fov_deg=70)
    cameras = path_cameras(ring_scene(50), "orbit", narrow.merge(wide), num=1)
    assert math.degrees(2 * math.atan(18 / cameras.Ks[0, 1, 1].item())) == pytest.approx(70, abs=1e-3)


def test_refit_keeps_the_field_of_view_over_the_height_and_pixels_square():
    cameras = ring_cameras(2, 48, 36)
    other = refit_cameras(cameras, (200, 72))
    torch.testing.assert_close(other.Ks[0], torch.tensor([[79.2, 0, 100], [0, 79.2, 36], [0, 0, 1]]))
    assert other.names == cameras.names
    assert cameras.Ks[0, 0, 0] == pytest.approx(39.6)  # the input is unchanged
    assert refit_cameras(cameras).Ks.equal(cameras.Ks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 0}, "num: got 0, want 1 or more"),
        ({"zoom": 0.0}, "zoom: got 0.0, want a number > 0"),
        ({"fov_deg": 180.0}, "fov_deg: got 180.0, want between 0 and 180"),
        ({"elevation_deg": 91.0}, "elevation_deg: got 91.0, want between -90 and 90"),
        ({"size": (0, 4)}, r"size: got \(0, 4\), want at least 1 x 1"),
        ({"path": "flythrough"}, "path flythrough: got 0 cameras, want at least 2"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(InputError, match=message):
        path_cameras(ring_scene(20), **options)


def test_empty_scene_and_fisheye():
    with pytest.raises(InputError, match="scene: got 0 Gaussians"):
        path_cameras(ring_scene(20)[:0])
    given = ring_cameras()
    fisheye = Cameras(given.viewmats, given.Ks, given.width, given.height, model="fisheye")
    with pytest.raises(InputError, match=r"fov_deg: got 40\.0 for fisheye cameras; want pinhole cameras"):
        refit_cameras(fisheye, fov_deg=40.0)
    assert path_cameras(ring_scene(20), "orbit", fisheye, num=1).model == "pinhole"


def test_an_orbit_of_a_mesh_shows_all_of_it():
    mesh = Mesh(*shapes.box((1.0, 2.0, 0.5)))
    mesh = mesh.transform(torch.tensor([[1.0, 0, 0, 3], [0, 1, 0, -2], [0, 0, 1, 1], [0, 0, 0, 1]]))
    cameras = path_cameras(mesh, "orbit", num=3, size=(48, 36))
    for view in render_scene(mesh, cameras):
        border = torch.cat([view.alpha[0], view.alpha[-1], view.alpha[:, 0], view.alpha[:, -1]])
        assert not border.any()
        assert 0.05 < float(view.alpha.mean()) < 0.8


def test_an_orbit_of_several_objects_is_around_their_common_box():
    far = torch.eye(4)
    far[0, 3] = 4.0
    ball = Mesh(*shapes.icosphere(2, 1.0))
    both = path_cameras([ball, ball.transform(far)], "orbit", num=8, elevation_deg=0)
    centers = both.camtoworlds[:, :3, 3]
    torch.testing.assert_close(centers.mean(0), torch.tensor([2.0, 0, 0]), atol=1e-4, rtol=0)
    alone = path_cameras(ball, "orbit", num=8, elevation_deg=0)
    ratio = (centers - centers.mean(0)).norm(dim=1) / alone.camtoworlds[:, :3, 3].norm(dim=1)
    torch.testing.assert_close(ratio, torch.full((8,), 3.0), atol=1e-3, rtol=0)
    scene = Scene().add("ball", ball).add("other", ball, far)
    torch.testing.assert_close(path_cameras(scene, num=8, elevation_deg=0).viewmats, both.viewmats)


def test_a_mesh_without_faces_has_no_orbit():
    with pytest.raises(InputError, match="scene: got a mesh of 0 faces, want at least one"):
        path_cameras(Mesh(torch.rand(3, 3), torch.zeros(0, 3, dtype=torch.int64)))
