"""Methods of all scene types: transform, crop, merge; a transformed value renders as the original, transformed."""

import math
from dataclasses import replace

import pytest
import torch

from tests.support.clouds import drawn_motion
from tests.support.creature import creature
from tests.support.splats import small_scene
from vision3d.core.errors import InputError
from vision3d.geometry import shapes
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.scene import Boxes, FrameSequence, Mesh, MeshGaussians, PointCloud, Region, Scene, Selection
from vision3d.scene.clip import Channel, Clip


def similarity(seed: int = 0, upright: bool = False, scale: float = 1.7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    quat = torch.randn(4, generator=generator)
    if upright:
        quat[1:3] = 0
    matrix = torch.eye(4)
    matrix[:3, :3] = scale * quat_to_rotmat(quat / quat.norm())
    matrix[:3, 3] = torch.randn(3, generator=generator)
    return matrix


def applied(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return points @ matrix[:3, :3].to(points).mT + matrix[:3, 3].to(points)


def ball() -> Mesh:
    vertices, faces = shapes.icosphere(1)
    return Mesh(vertices, faces, normals=vertices, vertex_colors=vertices.abs())


def covariances(scene):
    half = quat_to_rotmat(scene.quats / scene.quats.norm(dim=-1, keepdim=True)) * scene.log_scales.exp()[:, None]
    return half @ half.mT


def same_splats(found, want):
    torch.testing.assert_close(found.means, want.means, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(covariances(found), covariances(want), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.sh, want.sh, atol=1e-4, rtol=1e-4)


def test_a_skinned_mesh_moves_with_all_of_its_clips():
    skin, matrix = creature(), similarity(1)
    moved = skin.transform(matrix).validate()
    torch.testing.assert_close(moved.at_rest().vertices, applied(matrix, skin.at_rest().vertices), atol=1e-4, rtol=0)
    for clip, other in zip(skin.clips, moved.clips):
        for time in (0.0, 0.37, 0.9):
            want = applied(matrix, skin.posed(clip, [time])[0])
            torch.testing.assert_close(moved.posed(other, [time])[0], want, atol=1e-4, rtol=0)


def test_tangents_of_the_root_are_rotated_and_not_translated():
    skin, matrix = creature(), similarity(2)
    generator = torch.Generator().manual_seed(3)
    times, values = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.randn(2, 3, 3, generator=generator)
    clip = Clip("swing", (Channel("translation", 0, times, values, "CUBICSPLINE"),))
    skin = replace(skin, clips=(clip,))
    moved = skin.transform(matrix)
    want = applied(matrix, skin.posed(clip, [0.4])[0])
    torch.testing.assert_close(moved.posed(moved.clips[0], [0.4])[0], want, atol=1e-4, rtol=0)


def test_motion_moves_with_the_world():
    motion, matrix = drawn_motion(poses=7), similarity(4)
    found, want = motion.transform(matrix).validate().positions(), applied(matrix, motion.positions())
    torch.testing.assert_close(found, want, atol=1e-3, rtol=1e-4)


def test_gaussians_on_a_mesh_are_those_of_the_moved_scene():
    bound, matrix = MeshGaussians.from_mesh(ball(), 3), similarity(5)
    generator = torch.Generator().manual_seed(0)
    bound = replace(bound, sh=torch.randn(len(bound), 9, 3, generator=generator))
    same_splats(bound.transform(matrix).to_gaussians(), bound.to_gaussians().transform(matrix))


@pytest.mark.parametrize("kind", ["means", "edges", "turns", "vertices", "points", "bound"])
def test_sequences_move_frame_by_frame(kind):
    generator = torch.Generator().manual_seed(1)
    times, matrix = torch.tensor([0.0, 1.0]), similarity(6)
    splats = small_scene(1, count=30)
    quats = torch.nn.functional.normalize(torch.randn(2, 30, 4, generator=generator), dim=-1)
    means = torch.stack([splats.means, splats.means + 1])
    flat = replace(splats, mode="flat", log_scales=torch.cat([splats.log_scales[:, :2], torch.full((30, 1), -20.0)], 1))
    frames = {
        "means": (splats, {"means": means, "quats": quats, "log_scales": torch.randn(2, 30, 3, generator=generator)}),
        "edges": (flat, {"means": means, "edges": torch.randn(2, 30, 3, 2, generator=generator)}),
        "turns": (splats, {"means": means, "turns": quats}),
        "vertices": (ball(), {"vertices": torch.stack([ball().vertices, 2 * ball().vertices])}),
        "points": (PointCloud(splats.means), {"points": means}),
        "bound": (MeshGaussians.from_mesh(ball(), 1), {"vertices": torch.stack([ball().vertices, 2 * ball().vertices])}),
    }
    moving = FrameSequence(frames[kind][0], times, frames[kind][1])
    moved = moving.transform(matrix)
    for i in range(2):
        found, want = moved.frame(i), moving.frame(i).transform(matrix)
        if hasattr(want, "means"):
            same_splats(found, want)
        else:
            name = "points" if kind == "points" else "vertices"
            torch.testing.assert_close(getattr(found, name), getattr(want, name), atol=1e-4, rtol=1e-4)


def test_boxes_rotate_only_about_z():
    boxes = Boxes(torch.tensor([[1.0, 2, 3, 4, 2, 1, 0.5], [0, 0, 0, 1, 1, 1, -2]]), torch.tensor([0, 1]), classes=("a", "b"))
    matrix = similarity(7, upright=True)
    torch.testing.assert_close(boxes.transform(matrix).corners, applied(matrix, boxes.corners), atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="tilts z, but boxes stand upright"):
        boxes.transform(similarity(7))
    moving = FrameSequence(boxes, torch.tensor([0.0, 1.0]), {"boxes": torch.stack([boxes.boxes, boxes.boxes + 1])})
    want = moving.frame(1).transform(matrix)
    torch.testing.assert_close(moving.transform(matrix).frame(1).boxes, want.boxes)


def test_a_scene_moves_with_all_its_parts():
    matrix = similarity(8)
    scene = Scene().add("splats", small_scene(1, count=20), similarity(9)).add("other", small_scene(1, count=20))
    same_splats(scene.transform(matrix).gaussians(), scene.gaussians().transform(matrix))
    sheared = torch.eye(4)
    sheared[0, 1] = 0.5
    with pytest.raises(InputError, match=r"matrix|shear|similarity"):
        scene.transform(sheared)


def test_crop_takes_selections_boxes_masks_and_rows():
    box = torch.tensor([[-0.5, -9, -9], [9.0, 9, 9]])
    splats = small_scene(0, count=50)
    inside = splats.means[:, 0] >= -0.5
    selection = Selection(
        (Region("box", torch.tensor([4.25, 0.0, 0.0]), torch.tensor([4.75, 9.0, 9.0]), torch.tensor([1.0, 0, 0, 0])),)
    )
    for part, places in ((splats, "means"), (PointCloud(splats.means), "points")):
        for which in (box, inside, inside.nonzero()[:, 0], selection):
            torch.testing.assert_close(getattr(part.crop(which), places), splats.means[inside])
        with pytest.raises(InputError, match=r"mask: got shape \(3,\), want shape \(50,\)"):
            part.crop(torch.ones(3, dtype=torch.bool))
    mesh = ball()
    faces = (mesh.vertices[mesh.faces][..., 0] >= -0.5).all(-1)
    for which in (box, faces, selection):
        assert mesh.crop(which).num_faces == int(faces.sum()) > 0
    bound = MeshGaussians.from_mesh(mesh, 1)
    assert (bound.crop(box).to_gaussians().means[:, 0] >= -0.5).all() and 0 < len(bound.crop(box)) < len(bound)
    boxes = Boxes(torch.tensor([[1.0, 2, 3, 4, 2, 1, 0.5], [-3, 0, 0, 1, 1, 1, -2]]))
    assert len(boxes.crop(box)) == 1


def test_merge_of_points_boxes_bound_gaussians_and_scenes():
    cloud = PointCloud(torch.rand(3, 3), intensity=torch.rand(3), attributes={"a": torch.rand(3), "b": torch.rand(3)})
    both = cloud.merge(PointCloud(torch.rand(2, 3), attributes={"b": torch.rand(2)}))
    assert both.num_points == 5 and both.intensity is None and set(both.attributes) == {"b"}
    one = Boxes(torch.rand(2, 7), torch.tensor([0, 1]), torch.rand(2), ("car", "van"))
    two = Boxes(torch.rand(1, 7), torch.tensor([0]), torch.rand(1), ("van",))
    merged = one.merge(two)
    assert merged.classes == ("car", "van") and merged.labels.tolist() == [0, 1, 1] and len(merged.scores) == 3
    assert one.merge(replace(two, scores=None)).scores is None
    with pytest.raises(InputError, match="some of the boxes have names of classes"):
        one.merge(Boxes(torch.rand(1, 7)))
    bound = MeshGaussians.from_mesh(ball(), 1)
    other = bound.transform(similarity(3, scale=math.e))
    want = bound.to_gaussians().merge(other.to_gaussians())
    same_splats(bound.merge(other).to_gaussians(), want)
    scene = Scene().add("a", ball()).merge(Scene().add("b", ball(), similarity(1)))
    assert list(scene.objects) == ["a", "b"] and set(scene.transforms) == {"b"}
    with pytest.raises(InputError, match="both scenes have an object 'a'"):
        scene.merge(Scene().add("a", ball()))
