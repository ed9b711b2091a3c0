"""Images of the viewer against those of the renderer, and points and lines against closed forms."""

import pytest
import torch

from tests.support.scenes import ring_cameras, ring_scene
from vision3d.geometry import se3, shapes
from vision3d.geometry.cameras import intrinsics
from vision3d.optim.metrics import psnr
from vision3d.render import render_views
from vision3d.render.composite import render_scene
from vision3d.scene import Boxes, Cameras, GaussianScene, Mesh, PointCloud
from vision3d.viewer.drawing import Quality, Stale, draw, resized_bytes, scaled_camera, to_bytes
from vision3d.viewer.models import Dots, Lines, Splats, Surface, sampling_order


def lens(size=64, focal=32.0):
    """A camera at the origin, looking along z."""
    return Cameras.from_camtoworlds(torch.eye(4)[None], intrinsics(focal, focal, size / 2, size / 2), size, size)


def ball(center=(0.0, 0.0, 3.0), radius=1.0):
    vertices, faces = shapes.icosphere(3)
    return Mesh(radius * vertices + torch.tensor(center), faces)


def one_dot(place, color=(1.0, 0.0, 0.0), size=1):
    return Dots.of(PointCloud(torch.tensor([place]), torch.tensor([color])), size)


@pytest.mark.parametrize("mode", ["3dgs", "2dgs", "flat"])
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("degree", [0, 2])
def test_gaussians_match_the_renderer(mode, antialiased, degree):
    """Several strips, a size that is not a multiple of a tile, another background."""
    from dataclasses import replace

    scene = replace(ring_scene(400, sh_degree=degree), mode=mode, antialiased=antialiased)
    scene = replace(scene, sh=scene.sh + 0.1 * torch.randn_like(scene.sh))
    camera = ring_cameras(3, 250, 410)[1]
    image = draw([Splats.of(scene)], camera, background=(0.1, 0.2, 0.3))
    want = next(render_views(scene, camera, backgrounds=(0.1, 0.2, 0.3), render_mode="RGB+ED"))
    assert psnr(image.image.clamp(0, 1), want.image.clamp(0, 1)) > 60
    solid = want.alpha > 0.6
    assert (image.depth - want.depth)[solid].abs().max() < 1e-3
    assert bool(torch.isinf(image.depth[want.alpha < 0.4]).all())


def test_a_mesh_among_gaussians_matches_render_scene():
    scene, camera = ring_scene(400), ring_cameras(3, 160, 120)[0]
    mesh = ball((0.0, 0.0, 0.6), 0.9)
    image = draw([Splats.of(scene), Surface.of(mesh)], camera)
    want = next(render_scene([scene, mesh], camera)).image
    assert psnr(image.image.clamp(0, 1), want.clamp(0, 1)) > 45  # outlines are antialiased before the Gaussians, not after


def test_two_meshes_occlude_each_other_in_any_order():
    near, far = Surface.of(ball((0.0, 0.0, 2.5), 0.5)), Surface.of(ball((0.4, 0.0, 3.5), 1.0))
    one, other = draw([near, far], lens()), draw([far, near], lens())
    assert torch.equal(one.depth, other.depth)
    assert float(one.depth[32, 32]) == pytest.approx(2.0, abs=0.02)
    differs = (one.image - other.image).abs().amax(-1) > 1 / 255
    assert int(differs.sum()) <= 8  # where the outlines cross, one is antialiased after the other


def test_moving_vertices_reuse_data_of_the_faces():
    mesh = ball()
    moved = Mesh(mesh.vertices + torch.tensor([0.3, 0.0, 0.0]), mesh.faces)
    before = Surface.of(mesh)
    after = Surface.of(moved, before)
    assert after.neighbors is before.neighbors
    assert torch.equal(draw([after], lens()).image, draw([Surface.of(moved)], lens()).image)


def test_a_point_is_at_its_pixel_and_hidden_by_closer_objects():
    dot = one_dot((0.51 / 32, 0.49 / 32, 1.0))  # x = 32.51, y = 32.49
    image = draw([dot], lens())
    assert (image.depth < torch.inf).nonzero().tolist() == [[32, 32]]
    assert image.image[32, 32].tolist() == [1.0, 0.0, 0.0]
    assert float(image.depth[32, 32]) == 1.0
    in_front = draw([dot, Surface.of(ball((0, 0, 3.0)))], lens()).image[32, 32]
    behind = draw([one_dot((0.0, 0.0, 5.0)), Surface.of(ball((0, 0, 3.0)))], lens()).image[32, 32]
    assert in_front.tolist() == [1.0, 0.0, 0.0]
    assert float(behind.std()) < 1e-3  # the gray of the sphere


def test_the_closer_of_two_points_in_one_pixel_is_visible():
    points = torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 1.0], [0.0, 0.0, 3.0]]) + 0.005
    dots = Dots.of(PointCloud(points, torch.eye(3)), 1)
    assert draw([dots], lens()).image[32, 32].tolist() == [0.0, 1.0, 0.0]


def test_points_behind_the_camera_and_outside_the_image_are_not_drawn():
    cloud = PointCloud(torch.tensor([[0.0, 0, -1], [9.0, 0, 1], [0, -9.0, 1], [0.0, 0.0, 0.0]]))
    assert bool(torch.isinf(draw([Dots.of(cloud)], lens()).depth).all())


def test_a_line_covers_the_pixels_between_its_ends_at_their_depths():
    """From depth 1 to depth 4: 1 / z is linear in image space."""
    ends = torch.tensor([[[-0.75, 0.01, 1.0], [3.0, 0.01, 4.0]]])  # x = 8 .. 56
    image = draw([Lines.of(ends, torch.tensor([0.0, 1.0, 0.0]))], lens())
    row, column = (image.depth < torch.inf).nonzero(as_tuple=True)
    assert row.unique().tolist() == [32]
    assert (int(column.min()), int(column.max())) in ((8, 55), (8, 56))
    assert len(column.unique()) == int(column.max() - column.min()) + 1
    share = (column - 8).double() / 48
    want = 1 / (1 + share * (1 / 4 - 1))
    assert ((image.depth[row, column] / want) - 1).abs().max() < 0.05


@pytest.mark.parametrize("far_away", [1e3, 1e6])
def test_a_line_that_starts_behind_the_camera_is_clipped(far_away):
    ends = torch.tensor([[[0.0, 0.02, -1.0], [0.0, 0.02, 2.0]], [[-far_away, 0.02, 1.0], [far_away, 0.02, 1.0]]])
    image = draw([Lines.of(ends, torch.tensor([1.0, 1.0, 0.0]))], lens())
    assert bool((image.depth[32] < torch.inf).all())  # the second crosses the whole image
    assert bool((image.depth[33:, 32] < torch.inf).any())  # the first comes from below
    assert bool((image.depth > 0).all())


def test_boxes_are_at_their_positions():
    boxes = Boxes(torch.tensor([[0.0, 0.0, 4.0, 2.0, 2.0, 2.0, 0.0]]))  # z from 3 to 5
    image = draw([Lines.of_boxes(boxes, torch.eye(4))], lens(128, 96.0))
    row, column = (image.depth < torch.inf).nonzero(as_tuple=True)
    assert (int(row.min()), int(row.max()), int(column.min()), int(column.max())) == (32, 96, 32, 96)  # 64 -+ 96 / 3


def test_a_quarter_of_the_size_is_the_averaged_image():
    splats, camera = Splats.of(ring_scene(8000)), ring_cameras(3, 320, 240)[0]
    coarse = draw([splats], camera, quality=Quality(0.25)).image
    assert coarse.shape == (60, 80, 3)
    whole = draw([splats], camera).image.permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(whole, size=(60, 80), mode="area")[0].permute(1, 2, 0)
    assert psnr(coarse.clamp(0, 1), small.clamp(0, 1)) > 25


def test_a_quarter_of_the_gaussians_covers_the_same_area():
    """Without enlargement, a wall of small Gaussians would show much of the light behind it."""
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([6 * torch.rand(20_000, 2, generator=generator) - 3, torch.full((20_000, 1), 2.0)], 1)
    scene = GaussianScene.from_points(points, torch.zeros(20_000, 3), sh_degree=0, opacity=0.9)
    light = [draw([Splats.of(scene)], lens(), (1.0, 1.0, 1.0), Quality(1.0, share)).image.mean() for share in (1.0, 0.25)]
    assert float(light[1]) < 0.02
    fewer = draw([Splats.of(scene[Splats.of(scene).rows[:5000]])], lens(), (1.0, 1.0, 1.0)).image.mean()
    assert float(fewer) > 0.1


def test_joined_gaussians_are_blended_in_one_order():
    scene, camera = ring_scene(500), ring_cameras(3, 100, 80)[0]
    parts = [Splats.of(scene[0::2]), Splats.of(scene[1::2])]
    assert psnr(draw([Splats.joined(parts)], camera).image.clamp(0, 1), draw([Splats.of(scene)], camera).image.clamp(0, 1)) > 60


def test_harmonics_of_joined_gaussians_are_padded():
    flat, round_ = ring_scene(200, sh_degree=0), ring_scene(300, sh_degree=2)
    joined = Splats.joined([Splats.of(flat), Splats.of(round_)])
    assert joined.degree == 2
    camera = ring_cameras(3, 60, 50)[0]
    merged = Splats.of(flat.merge(round_))
    assert psnr(draw([joined], camera).image.clamp(0, 1), draw([merged], camera).image.clamp(0, 1)) > 60


def test_every_prefix_of_the_sampling_order_is_spread():
    order = sampling_order(1000)
    assert sorted(order.tolist()) == list(range(1000))
    for count in (63, 125, 250, 500):
        gaps = order[:count].sort().values.diff()
        assert int(gaps.max()) <= 1.1 * 1000 / count + 1
    assert sampling_order(0).tolist() == []
    assert sorted(sampling_order(5).tolist()) == [0, 1, 2, 3, 4]


def test_invisible_gaussians_are_dropped():
    from dataclasses import replace

    scene = ring_scene(100)
    logits = scene.opacity_logits.clone()
    logits[::2] = -9.0
    splats = Splats.of(replace(scene, opacity_logits=logits))
    assert sorted(splats.rows.tolist()) == list(range(1, scene.num_gaussians, 2))


@pytest.mark.parametrize("after", range(4))
def test_a_stale_image_is_aborted(after):
    calls = []

    def is_stale():
        calls.append(1)
        return len(calls) > after

    with pytest.raises(Stale):
        draw([Splats.of(ring_scene(50))], ring_cameras()[0], is_stale=is_stale)
    assert len(calls) == after + 1


def test_an_empty_scene_is_the_background():
    image = draw([], lens(8), background=(0.25, 0.5, 0.75))
    assert image.image.reshape(-1, 3).unique(dim=0).tolist() == [[0.25, 0.5, 0.75]]


def test_bytes_and_sizes():
    image = torch.tensor([[[-1.0, 0.5, 2.0]]])
    assert to_bytes(image).tolist() == [[[0, 128, 255]]]
    pixels = to_bytes(torch.rand(9, 16, 3))
    assert resized_bytes(pixels, 16, 9) is pixels
    assert resized_bytes(pixels, 32, 18).shape == (18, 32, 3)
    small = scaled_camera(lens(64), 0.25)
    assert (int(small.width), float(small.Ks[0, 0, 0])) == (16, 8.0)


def test_layers_may_be_transformed():
    """A similarity of both scene and camera changes only depths."""
    scene, camera = ring_scene(300), ring_cameras(3, 80, 60)[0]
    matrix = se3.similarity(torch.tensor(2.0), torch.eye(3)[[1, 2, 0]], torch.tensor([1.0, -2.0, 0.5]))
    moved = draw([Splats.of(scene.transform(matrix))], camera.transform(matrix))
    assert psnr(moved.image.clamp(0, 1), draw([Splats.of(scene)], camera).image.clamp(0, 1)) > 45
