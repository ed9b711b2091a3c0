"""Generated images of hands and their truth."""

import dataclasses

import pytest
import torch

from vision3d.core.errors import MissingFileError
from vision3d.geometry import shapes
from vision3d.geometry.gram_schmidt import haar_rotmats
from vision3d.io.images import write_image
from vision3d.render.meshes import rasterize, screen_positions
from vision3d.scene import Mesh
from vision3d.stages.hand.gestures import GESTURES, gesture
from vision3d.stages.hand.synth import props
from vision3d.stages.hand.synth.backgrounds import Backgrounds
from vision3d.stages.hand.synth.cameras import sample_rotations
from vision3d.stages.hand.synth.crowd import crowded
from vision3d.stages.hand.synth.frames import FrameConfig, Frames, Posing, draw, frames
from vision3d.stages.hand.synth.grips import circle_of, gripped
from vision3d.stages.hand.synth.light import open_share, vertex_shadows
from vision3d.stages.hand.synth.poses import bent_together, penetrates, sample_angles, segment_distance
from vision3d.stages.hand.synth.relief import raised
from vision3d.stages.hand.synth.skin_maps import NAMES, SIZE, relief_maps, skin_maps
from vision3d.stages.hand.template import HandTemplate

PLAIN = FrameConfig(size=96, objects=0, sleeves=0)


@pytest.fixture(scope="module")
def made() -> Frames:
    return frames(0, 3, 8, PLAIN)


def test_distance_of_segments_is_the_smallest_of_sampled_points():
    a, b, c, d = torch.randn(4, 40, 3, dtype=torch.float64)
    share = torch.linspace(0, 1, 201, dtype=torch.float64)
    first = torch.lerp(a[:, None], b[:, None], share[:, None])
    second = torch.lerp(c[:, None], d[:, None], share[:, None])
    sampled = torch.cdist(first, second).amin((1, 2))
    got = segment_distance(a, b, c, d)
    assert bool((got <= sampled + 1e-9).all()) and torch.allclose(got, sampled, atol=0.02)
    # parallel, and points
    x = torch.eye(3, dtype=torch.float64)
    assert float(segment_distance(0 * x[0], x[0], x[1], x[1] + 2 * x[0])) == pytest.approx(1)
    assert float(segment_distance(x[0], x[0], x[1], x[1])) == pytest.approx(2**0.5)


def test_fingers_that_pass_through_each_other_are_noticed():
    hand = HandTemplate.load()
    wanted = [name for name in GESTURES if bool(penetrates(hand.pose(gesture(name)).skeleton))]
    assert not wanted
    crossed = hand.pose(gesture("flat")).skeleton.clone()
    crossed[5:9], crossed[9:13] = crossed[5:9] + torch.tensor([-0.02, 0, 0]), crossed[9:13] + torch.tensor([0.004, 0, 0])
    assert bool(penetrates(crossed))
    pressed = hand.pose(gesture("fist")).skeleton.clone()
    pressed[6:9, 2] -= 0.03  # through the palm
    assert bool(penetrates(pressed))


def test_sampled_poses_are_within_the_limits_and_do_not_penetrate():
    hand = HandTemplate.load()
    angles = sample_angles(hand, 200, torch.Generator().manual_seed(0))
    low, high = hand.angle_limits.T
    assert bool((angles >= low - 1e-6).all() and (angles <= high + 1e-6).all())
    assert int(penetrates(hand.pose(angles).skeleton).sum()) == 0
    assert bool((angles.std(0) > 0.1 * (high - low)).all())


def test_fingers_bend_together():
    angles = bent_together(400, torch.Generator().manual_seed(0)).rad2deg()[:, 4:].view(-1, 4, 4)  # finger, joint
    for one, other in ((0, 2), (2, 3)):  # MCP, PIP, DIP of a finger
        assert float(torch.corrcoef(torch.stack([angles[..., one].flatten(), angles[..., other].flatten()]))[0, 1]) > 0.8
    between = torch.corrcoef(angles[..., 2].T)[0, 1:]
    assert bool(((between > 0.1) & (between < 0.95)).all())  # more than independent ones, less than one angle


def test_a_circle_around_an_axis_is_recovered():
    generator = torch.Generator().manual_seed(0)
    basis = haar_rotmats(3, 5, generator=generator).float()
    angle = torch.linspace(0, 2, 9)  # less than a half
    flat = torch.stack([0.03 * angle.cos(), 0.03 * angle.sin(), 0.05 * torch.rand(9, generator=generator)], 1)
    points = flat @ basis.mT + torch.tensor([0.1, 0.2, 0.7])
    center, radius = circle_of(points, basis[..., 2])
    assert torch.allclose(radius, torch.full((5,), 0.03), atol=1e-4)
    along = (points - center[:, None]) @ basis
    assert torch.allclose(torch.linalg.vector_norm(along[..., :2], dim=-1), torch.full((5, 9), 0.03), atol=1e-4)
    line = torch.arange(9.0)[:, None] * torch.tensor([0.01, 0, 0])
    assert bool(circle_of(line[None], torch.tensor([[0.0, 0, 1]]))[1].isfinite().all())


def test_objects_are_inside_of_the_curve_of_the_fingers():
    hand, generator = HandTemplate.load(), torch.Generator().manual_seed(0)
    angles = torch.cat([gesture("spread")[:4], gesture("grasp")[4:]])  # the thumb is away: no pinch
    skeleton = hand.pose(angles.expand(6, -1)).skeleton + torch.tensor([0, 0, 0.5])
    long = shapes.cylinder(0.01, 0.3)
    mesh = Mesh(long[0].float(), long[1], vertex_colors=torch.full((len(long[0]), 3), 0.5))
    elsewhere = props.held(mesh, skeleton[:, 0], torch.eye(3).expand(6, 3, 3), generator)
    chosen = torch.tensor([True] * 5 + [False])
    part = gripped(elsewhere, mesh, skeleton, chosen, generator)
    assert torch.equal(part.vertices[5], elsewhere.vertices[5])
    across = torch.nn.functional.normalize(skeleton[:, 17] - skeleton[:, 5], dim=1)
    for vertices, bones, axis in zip(part.vertices[:5], skeleton, across):
        middle = vertices.mean(0)
        direction = torch.linalg.svd(vertices - middle, full_matrices=False)[2][0]
        assert float((direction @ axis).abs()) > 0.8
        away = torch.linalg.vector_norm(torch.linalg.cross(bones[5:] - middle, direction.expand(16, 3)), dim=1)
        flesh = float(away.mean() - vertex_radius(vertices, middle, direction))
        assert 0.005 < flesh < 0.015


def vertex_radius(vertices, middle, direction):
    return torch.linalg.vector_norm(torch.linalg.cross(vertices - middle, direction.expand_as(vertices)), dim=1).amax()


def test_creases_get_less_light_than_what_is_open():
    generator = torch.Generator().manual_seed(0)
    inner, outer = shapes.icosphere(2, 0.05), shapes.icosphere(2, 0.2)
    vertices = torch.cat([inner[0], outer[0]]).float()[None] + torch.tensor([0, 0, 1.0])
    faces = torch.cat([inner[1], outer[1] + len(inner[0])])
    up = torch.tensor([[0.0, -1, 0]])
    share = open_share(vertices, faces, up, generator)[0, :, 0]
    assert bool((share[: len(inner[0])] < 0.3).all())
    front = vertices[0, :, 2] < 0.85
    assert float(share[front].mean()) > 0.6


def test_near_views_show_the_palm_or_the_back():
    rotations = sample_rotations(300, torch.Generator().manual_seed(0), "near")
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3).expand(300, 3, 3), atol=1e-5)
    facing = rotations[:, 2, 2]
    assert bool((facing.abs() >= 0.5 - 1e-5).all()) and 0.3 < float((facing > 0).float().mean()) < 0.7
    every = sample_rotations(2000, torch.Generator().manual_seed(0))
    assert float(every[:, 2, 2].abs().lt(0.5).float().mean()) > 0.2


def test_the_same_seed_gives_the_same_images(made):
    again = frames(0, 3, 8, PLAIN)
    assert torch.equal(made.images, again.images) and torch.equal(made.vertices, again.vertices)
    other = frames(0, 4, 8, PLAIN)
    assert not torch.equal(made.images, other.images) and not torch.equal(made.angles, other.angles)


def test_the_truth_agrees_with_itself(made):
    hand = HandTemplate.load()
    posed = hand.pose(made.angles, rotation=made.rotation, translation=made.translation, shape=made.shape)
    assert torch.allclose(posed.vertices, made.vertices, atol=1e-5)
    assert torch.allclose(hand.joints(made.vertices), made.joints, atol=1e-6)
    projected = made.joints @ made.Ks.mT
    assert torch.allclose(projected[..., :2] / projected[..., 2:], made.uvs, atol=1e-3)
    assert bool((made.joints[..., 2] > 0.05).all())


def test_masks_are_those_of_the_hand_alone_where_nothing_is_in_front(made):
    hand = HandTemplate.load()
    positions = screen_positions(made.vertices, torch.eye(4).expand(8, 4, 4), made.Ks)
    alone = rasterize(positions, hand.faces, 96, 96).face_ids >= 0
    assert not bool((made.masks & ~alone).any())
    assert float((made.masks & alone).sum() / alone.sum()) > 0.85  # the rest is behind the forearm, a watch or a ring


def test_visible_joints_are_in_the_image_and_behind_their_own_skin(made):
    inside = ((made.uvs >= 0) & (made.uvs < 96)).all(-1)
    assert not bool((made.visible & ~inside).any())
    assert 0.3 < float(made.visible.float().mean()) < 1
    row, column = made.uvs[..., 1].long().clamp(0, 95), made.uvs[..., 0].long().clamp(0, 95)
    behind = made.joints[..., 2] - made.depths[torch.arange(8)[:, None], row, column]
    assert bool((behind[made.visible] < 0.0221).all())


def test_an_object_in_front_hides_joints():
    plain = frames(1, 0, 8, PLAIN)
    ball = props.random_object(torch.Generator().manual_seed(1))
    holding = frames(1, 0, 8, dataclasses.replace(PLAIN, objects=1.0), objects=(ball,))
    assert int(holding.masks.sum()) < int(plain.masks.sum()) and int(holding.visible.sum()) < int(plain.visible.sum())
    assert torch.equal(holding.angles, plain.angles)


def test_a_plate_shades_what_is_behind_it():
    plate = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    points = torch.tensor([[0.0, 0, 0.5], [0, 0, -0.5], [0.3, -0.2, 0.5], [3, 0, 0.5]])
    vertices = torch.cat([plate, points])[None]
    lit = vertex_shadows(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.tensor([[0.0, 0, -1]]))
    assert lit[0, 4:, 0].tolist() == pytest.approx([0, 1, 0, 1])
    turned = haar_rotmats(3, 1, generator=torch.Generator().manual_seed(0))
    lit = vertex_shadows(vertices @ turned.mT, torch.tensor([[0, 1, 2], [0, 2, 3]]), -turned[:, :, 2])
    assert lit[0, 4:, 0].tolist() == pytest.approx([0, 1, 0, 1], abs=0.05)


def test_maps_of_the_skin_are_where_they_belong():
    maps = skin_maps()
    assert maps.shape == (SIZE, SIZE, len(NAMES)) and bool(torch.isfinite(maps).all())
    hand = HandTemplate.load()
    middle = (hand.uvs.mean(1) * SIZE).long().clamp(0, SIZE - 1)
    of_faces = maps[middle[:, 1], middle[:, 0]]
    centers = hand.vertices[hand.faces].mean(1)
    nails = of_faces[:, 0] > 0.5
    assert 5 <= int(nails.sum()) <= 120
    nearest = torch.cdist(centers[nails], hand.keypoints).argmin(1)
    assert set(nearest.tolist()) <= {3, 4, 7, 8, 11, 12, 15, 16, 19, 20}
    is_palm = of_faces[:, NAMES.index("palm")] > 0.5
    assert float(centers[is_palm, 2].mean()) > float(centers[~is_palm, 2].mean())
    raised_by = relief_maps()[middle[:, 1], middle[:, 0]]
    assert float(raised_by.abs().max()) < 0.004
    is_tendon = raised_by[:, 1] > 0.0008
    assert int(is_tendon.sum()) > 20 and not bool((is_tendon & is_palm).any())


def test_a_raised_surface_has_the_normals_of_its_slope():
    """A plane in front of the camera that rises along a wave: the normal of z = -h(x, y) is (-dh/dx, -dh/dy, -1)."""
    size, focal, depth = 64, 400.0, 0.5
    K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]).double()[None]
    row, column = (index.flatten() for index in torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"))
    x, y = ((index + 0.5 - size / 2) * depth / focal for index in (column.double(), row.double()))
    wave = 2 * torch.pi / 0.03
    heights = 0.001 * (torch.sin(wave * x) + torch.cos(wave * y))
    slopes = 0.001 * wave * torch.stack([torch.cos(wave * x), -torch.sin(wave * y)], 1)
    want = torch.nn.functional.normalize(torch.cat([-slopes, -torch.ones(len(x), 1)], 1), dim=1)
    normals = torch.tensor([0.0, 0, -1]).double().expand(len(x), 3)
    depths = torch.full((1, size, size), depth, dtype=torch.float64)
    everywhere = torch.ones(len(x), dtype=torch.bool)
    pixels = (torch.zeros_like(row), row, column)
    got = raised(normals, heights, everywhere, depths, K, pixels).view(size, size, 3)
    inside = (slice(1, -1), slice(1, -1))
    assert torch.allclose(got[inside], want.view(size, size, 3)[inside], atol=0.01)
    # no change where nothing rises, where the surface ends, and of surfaces that are not skin
    assert torch.equal(raised(normals, 0 * heights + 1, everywhere, depths, K, pixels), normals)
    assert torch.equal(raised(normals, heights, ~everywhere, depths, K, pixels), normals)
    split = torch.where(column < 32, 0.0, 0.01).double()
    far = depths + (column >= 32).view(1, size, size) * 0.1
    assert torch.equal(raised(normals, split, everywhere, far, K, pixels), normals)


def test_other_hands_are_behind_and_off_the_middle():
    drawn = torch.zeros(2, 64, 64, 4)
    drawn[1, 30:34, 30:34] = torch.tensor([1.0, 0, 0, 1])
    images = torch.full((2, 64, 64, 3), 0.5)
    for seed in range(20):
        got = crowded(images, drawn, torch.tensor([True, True]), torch.Generator().manual_seed(seed))
        assert torch.equal(got[1], images[1])  # the hand of the other image is nothing
        assert torch.equal(got[0, 24:40, 24:40], images[0, 24:40, 24:40])
    none = crowded(images, drawn, torch.tensor([False, False]), torch.Generator())
    assert torch.equal(none, images)
    shown = [crowded(images, drawn, torch.tensor([True, True]), torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert sum(bool((image[0, ..., 0] > 0.9).any()) for image in shown) >= 5


def test_images_without_a_hand_show_neither_people_nor_other_hands():
    people = Backgrounds(people=(torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 80, 80),))
    allowed = people.sample(60, 32, torch.Generator().manual_seed(0), torch.ones(60, dtype=torch.bool))
    is_red = ((allowed[..., 0] > 0.3) & (allowed[..., 1:] < 0.02).all(-1)).all((1, 2))
    assert 5 < int(is_red.sum()) < 40
    for with_people in (None, torch.zeros(60, dtype=torch.bool)):
        images = people.sample(60, 32, torch.Generator().manual_seed(0), with_people)
        assert not bool(((images[..., 0] > 0.3) & (images[..., 1:] < 0.02).all(-1)).all((1, 2)).any())
    empty = dataclasses.replace(PLAIN, empty=1.0, crowd=1.0, gestures=1.0)
    generator = torch.Generator().manual_seed(5)
    canvas = torch.full((4, 96, 96, 3), 0.25)
    assert torch.equal(draw(4, empty, generator, canvas=canvas).images, canvas)


def test_backgrounds_come_from_the_folder(tmp_path):
    write_image(tmp_path / "a.png", torch.tensor([0.0, 1, 0]).expand(40, 700, 3))
    write_image(tmp_path / "gray.png", torch.rand(30, 30, 1))
    found = Backgrounds.load(tmp_path)
    assert sorted(tuple(photo.shape) for photo in found.photos) == [(3, 29, 512), (3, 30, 30)]
    images = found.sample(12, 64, torch.Generator().manual_seed(0))
    assert images.shape == (12, 64, 64, 3) and float(images.min()) >= 0 and float(images.max()) <= 1
    is_green = (images[..., 1] > 0.3) & (images[..., 0] < 0.02) & (images[..., 2] < 0.02)
    assert bool(is_green.all((1, 2)).any())
    with pytest.raises(MissingFileError, match="photographs"):
        Backgrounds.load(tmp_path / "none")


def test_parts_can_be_hidden_and_joined():
    vertices = torch.rand(2, 4, 3)
    part = props.Part(vertices, torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.rand(2, 4, 3))
    both = props.joined([part, props.shown(part, torch.tensor([True, False]))])
    assert both.faces.tolist() == [[0, 1, 2], [1, 2, 3], [4, 5, 6], [5, 6, 7]]
    assert bool(both.vertices[1, 4:].isnan().all()) and bool(torch.isfinite(both.vertices[0]).all())


def test_a_tube_is_closed_around_and_has_its_radii():
    start, end = torch.zeros(1, 3), torch.tensor([[0.0, 0, 2]])
    made = props.tube(start, end, torch.tensor([[1.0, 0, 0.5]]), torch.tensor([[[2.0, 1], [4, 2]]]), torch.ones(1, 3))
    mesh = Mesh(made.vertices[0], made.faces)
    assert mesh.num_vertices == 32 and mesh.num_faces == 32
    assert mesh.vertices[:16].abs().amax(0).tolist() == pytest.approx([2, 1, 0], abs=1e-6)
    assert mesh.vertices[16:].abs().amax(0).tolist() == pytest.approx([4, 2, 2], abs=1e-6)


def test_the_subject_and_the_pose_can_be_given():
    """The template as a subject is the default; a given pose changes the hand and nothing behind it."""
    config = FrameConfig(size=64, sleeves=0.0, objects=0.0, crowd=0.0, margins=(2.0, 2.5))

    def drawn(**more):
        return draw(2, config, torch.Generator().manual_seed(5), **more)

    made = drawn()
    assert torch.equal(drawn(hand=HandTemplate.load("right")).images, made.images)
    given = Posing(made.angles, made.rotation, made.translation, made.Ks)
    assert torch.equal(drawn(posing=given).images, made.images)
    moved = drawn(posing=dataclasses.replace(given, translation=made.translation + torch.tensor([0.01, 0.0, 0.0])))
    torch.testing.assert_close(moved.joints - made.joints, torch.tensor([0.01, 0.0, 0.0]).expand(2, 21, 3), rtol=0, atol=1e-6)
    is_behind = (moved.depths == 0) & (made.depths == 0)
    inner = torch.nn.functional.avg_pool2d(is_behind.float()[:, None], 3, 1, 1)[:, 0] == 1  # edges are blended
    assert inner.any() and torch.equal(moved.images[inner], made.images[inner])
    assert not torch.equal(moved.images, made.images)
